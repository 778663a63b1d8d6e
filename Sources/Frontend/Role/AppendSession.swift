// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Metadata
internal import Primitives
internal import RPC
internal import Records

/// One S2S append session: frames of inputs in, one ack for each, in order, out.
///
/// Inputs are passed on as soon as they are whole, however many are on the way. The first failure,
/// the session's own or the channel's, is told behind the acks of everything before it, in a
/// terminal frame; whatever comes later is read and dropped. A client that ends its input gets its
/// remaining acks and a clean end. Nothing is read while a budget is spent, nor while the client
/// does not take its acks.
final class AppendSession {
    private let path: DataPath
    private let exchange: any HTTPExchange
    private let pipe: AppendPipe
    private var decoder = SessionFrameDecoder()
    private var session: UInt64 = 0
    private var isInputOver = false
    private var isPaused = false
    private var isWaitingForRoom = false
    private var isDraining = false
    /// An input of the client that cannot be passed on; told once all before it are acknowledged.
    private var inputFailure: APIError?
    private var isOver = false
    /// Acks of this turn of the loop, to be written together.
    private var acks: ByteWriter?

    init(
        _ path: DataPath, _ exchange: any HTTPExchange, lookup: StreamLookup,
        early: EarlyBody
    ) {
        self.path = path
        self.exchange = exchange
        pipe = AppendPipe(path, lookup: lookup, waitsOut: true)
        pipe.onAck = { [self] in acknowledge($0) }
        pipe.onFailure = { [self] in end(with: $0) }
        exchange.onBody = { [self] in received($0) }
        exchange.onBodyEnd = { [self] in inputEnded() }
        exchange.onAbort = { [self] in abandoned() }
        exchange.onWritable = { [self] in resumeIfFree() }
        path.metrics.appendSessions += 1
        session = path.opened { [self] in drain() }
        exchange.respond(200, SessionHeaders.all)
        for part in early.parts { received(part) }
        if early.isComplete { inputEnded() }
        if !isPaused, !isOver { exchange.setReading(true) }
    }

    // MARK: Input

    private func received(_ bytes: Bytes) {
        guard acceptsInput else { return }
        decoder.append(bytes)
        do throws(APIError) {
            while let frame = try nextFrame() { try accept(frame) }
        } catch {
            reject(error)
        }
        pauseIfFull()
    }

    private var acceptsInput: Bool { !isOver && !isDraining && inputFailure == nil }

    private func nextFrame() throws(APIError) -> SessionFrame? {
        do throws(SessionFrameError) {
            return try decoder.next()
        } catch {
            throw APIError(.badFrame, "not a frame: \(error)")
        }
    }

    private func accept(_ frame: SessionFrame) throws(APIError) {
        guard !frame.isTerminal else {
            throw APIError(.badFrame, "a client sends no terminal frame")
        }
        let input = try path.expand(frame)
        // The prefixes of the records take more room than the input's own framing, by little.
        var writer = ByteWriter(capacity: input.count + input.count / 4 + 64)
        do throws(AppendInputError) {
            let head = try AppendInputDecoder.decode(input, into: &writer)
            pipe.submit(writer.finish(), count: head.count, meteredBytes: head.meteredBytes)
        } catch {
            switch error {
            case .malformed: throw APIError(.badFrame, error.description)
            case .invalid: throw APIError(.invalid, error.description)
            }
        }
    }

    private func reject(_ error: APIError) {
        inputFailure = error
        settle()
    }

    private func inputEnded() {
        guard !isOver else { return }
        isInputOver = true
        if acceptsInput {
            do throws(SessionFrameError) {
                try decoder.finish()
            } catch {
                inputFailure = APIError(.badFrame, "the input ends inside a frame")
            }
        }
        settle()
    }

    // MARK: Back-pressure

    private func pauseIfFull() {
        guard !isPaused, acceptsInput, pipe.isFull || isClientSlow else { return }
        isPaused = true
        exchange.setReading(false)
        if pipe.isFull, !pipe.isHeldBySession { waitForRoom() }
    }

    /// Once this is true the exchange has passed its own high mark, so `onWritable` will follow.
    private var isClientSlow: Bool {
        exchange.unsentBytes >= path.limits.responseBufferBytesMax
    }

    private func waitForRoom() {
        guard !isWaitingForRoom else { return }
        isWaitingForRoom = true
        pipe.whenFree { [weak self] in
            self?.isWaitingForRoom = false
            self?.resumeIfFree()
        }
    }

    private func resumeIfFree() {
        guard isPaused, !isOver, !isClientSlow else { return }
        guard !pipe.isFull else {
            if !pipe.isHeldBySession { waitForRoom() }
            return
        }
        isPaused = false
        exchange.setReading(true)
    }

    // MARK: Output

    private func acknowledge(_ reply: AppendReply) {
        if isOver { return }
        if acks == nil {
            acks = ByteWriter(capacity: 512)
            path.world.loop.soon { [self] in flush() }
        }
        acks?.writeFrame(AppendAck(reply), advisesReconnect: isDraining)
        if isPaused { resumeIfFree() }
        settle()
    }

    private func flush() {
        guard let acks else { return }
        self.acks = nil
        if !isOver { exchange.write([acks.finish()]) }
    }

    /// Ends the session if nothing is left to acknowledge and nothing more will come.
    private func settle() {
        guard !isOver, pipe.isIdle else { return }
        if let inputFailure {
            end(with: inputFailure)
        } else if isInputOver {
            end(with: nil)
        } else if isDraining {
            end(with: APIError(.serverDraining, "this server is about to stop"))
        }
    }

    private func end(with error: APIError?) {
        guard !isOver else { return }
        flush()
        leave()
        if let error { exchange.write([error.terminalFrame]) }
        exchange.finish()
    }

    /// The client is gone. What it sent is on its way; it holds its budget until it is answered.
    private func abandoned() {
        guard !isOver else { return }
        leave()
    }

    private func leave() {
        isOver = true
        path.metrics.appendSessions -= 1
        path.closed(session)
        exchange.onBody = nil
        exchange.onBodyEnd = nil
        exchange.onAbort = nil
        exchange.onWritable = nil
        pipe.onFailure = nil
        pipe.close()
    }

    /// Takes nothing more, acknowledges what was taken, and sends the client elsewhere.
    private func drain() {
        guard !isOver, !isDraining else { return }
        isDraining = true
        settle()
    }
}
