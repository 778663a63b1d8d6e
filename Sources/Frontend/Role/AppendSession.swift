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
/// remaining acks and a clean end. Nothing is taken while a budget is spent, nor while the client
/// does not take its acks: what had come by then, of which few bytes may expand to many, waits as
/// it came.
final class AppendSession {
    private let path: DataPath
    private let exchange: any HTTPExchange
    private let pipe: AppendPipe
    private var decoder = SessionFrameDecoder()
    /// The input that has come in part.
    private let begun: BegunFrames.Frame
    private var hasPassedOn = false
    private var session: UInt64 = 0
    private var isInputOver = false
    /// The client is not read, and what came of it may wait in the decoder.
    private var isPaused = false
    private var isWaitingForRoom = false
    private var isResuming = false
    private var isDraining = false
    /// An input of the client that cannot be passed on; told once all before it are acknowledged.
    private var inputFailure: APIError?
    private var isOver = false

    /// What is passed on before other work on the loop gets its turn; one frame may overshoot it.
    private static let turnBytesMax = 1 << 20
    /// What a frame costs besides its bytes.
    private static let frameBytes = 256

    init(
        _ path: DataPath, _ exchange: any HTTPExchange, _ named: NamedStream,
        lookup: StreamLookup, early: EarlyBody
    ) {
        self.path = path
        self.exchange = exchange
        pipe = AppendPipe(path, named, lookup: lookup, waitsOut: true)
        begun = BegunFrames.Frame(path.begun)
        begun.onRoom = { [weak self] in self?.resumeSoon() }
        begun.onLate = { [weak self] in
            self?.drop(APIError(.requestTimeout, "an input did not arrive in time"))
        }
        pipe.onAcks = { [self] in acknowledge($0) }
        pipe.onFailure = { [self] in end(with: $0) }
        exchange.onBody = { [self] in received($0) }
        exchange.onBodyEnd = { [self] in inputEnded() }
        exchange.onAbort = { [self] in abandoned() }
        exchange.onWritable = { [self] in resume() }
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
        if isPaused { return decoder.append(bytes.detached()) }
        decoder.append(bytes)
        takeInput()
        // What waits may do so for long: not in a read buffer, of which it may be little.
        decoder.detach()
    }

    private enum Halt { case full, turnOver }

    /// Passes on what came, as far as there is room for it and the turn lasts.
    private func takeInput() {
        if isClientSlow { return pause() }
        // Nothing that is called here comes back here: the decoder can be had for the time.
        var decoder = self.decoder
        self.decoder = SessionFrameDecoder()
        var halt: Halt?
        do throws(APIError) {
            halt = try passOn(&decoder)
        } catch {
            inputFailure = error
        }
        self.decoder = decoder
        pipe.account()
        // Behind whole inputs it counts as they do.
        begun.came(halt == nil && acceptsInput ? decoder.bufferedBytes : 0, isNew: hasPassedOn)
        hasPassedOn = false
        if halt == .full || acceptsInput && pipe.isFull { return pause() }
        if halt == .turnOver {
            pause()
            return resumeSoon()
        }
        if isInputOver, acceptsInput { finishInput() }
        settle()
        if begun.isTooMuch { drop(APIError(.hotServer, "too many inputs are on their way")) }
        if !isOver, !begun.mayGoOn { return pause() }
        if isPaused, !isOver {
            isPaused = false
            exchange.setReading(true)
        }
    }

    /// Why it left frames in the decoder; nil if it left none.
    private func passOn(_ decoder: inout SessionFrameDecoder) throws(APIError) -> Halt? {
        var bytes = 0
        while acceptsInput {
            if pipe.isFull { return .full }
            if bytes >= Self.turnBytesMax { return .turnOver }
            guard let frame = try Self.next(&decoder) else { return nil }
            bytes += try accept(frame, following: decoder.bufferedBytes) + Self.frameBytes
        }
        return nil
    }

    private var acceptsInput: Bool { !isOver && !isDraining && inputFailure == nil }

    private static func next(
        _ decoder: inout SessionFrameDecoder
    ) throws(APIError) -> SessionFrame? {
        do throws(SessionFrameError) {
            return try decoder.next()
        } catch {
            throw APIError(.badFrame, "not a frame: \(error)")
        }
    }

    /// Returns how many bytes the frame expanded to.
    private func accept(_ frame: SessionFrame, following: Int) throws(APIError) -> Int {
        guard !frame.isTerminal else {
            throw APIError(.badFrame, "a client sends no terminal frame")
        }
        hasPassedOn = true
        let input = try path.expand(frame)
        do throws(AppendInputError) {
            try pipe.submit(input, following: following)
            return input.count
        } catch {
            switch error {
            case .malformed: throw APIError(.badFrame, error.description)
            case .invalid: throw APIError(.invalid, error.description)
            }
        }
    }

    /// What came of an input is let go of, and nothing more is taken.
    private func drop(_ reason: APIError) {
        decoder = SessionFrameDecoder()
        begun.came(0, isNew: false)
        guard acceptsInput else { return }
        inputFailure = reason
        settle()
        resumeSoon()
    }

    private func finishInput() {
        do throws(SessionFrameError) {
            try decoder.finish()
        } catch {
            inputFailure = APIError(.badFrame, "the input ends inside a frame")
        }
    }

    private func inputEnded() {
        guard !isOver else { return }
        isInputOver = true
        if isPaused { settle() } else { takeInput() }
    }

    // MARK: Back-pressure

    private func pause() {
        if !isPaused {
            isPaused = true
            exchange.setReading(false)
        }
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
            self?.resumeSoon()
        }
    }

    /// Goes on in a turn of its own: whoever makes room, or took a turn, is not done with it yet.
    private func resumeSoon() {
        guard !isResuming else { return }
        isResuming = true
        path.world.loop.soon { [self] in
            isResuming = false
            resume()
        }
    }

    private func resume() {
        if isPaused, !isResuming, !isOver { takeInput() }
    }

    // MARK: Output

    private func acknowledge(_ replies: [AppendReply]) {
        if isOver { return }
        var frames = ByteWriter(
            capacity: replies.count * (SessionFrame.headerBytes + AppendAck.bytesMax))
        for reply in replies { frames.writeFrame(AppendAck(reply), advisesReconnect: isDraining) }
        exchange.write(frames.finish())
        resume()
        settle()
    }

    /// Ends the session if nothing is left to acknowledge and nothing more will come.
    private func settle() {
        guard !isOver, pipe.isIdle else { return }
        if let inputFailure {
            end(with: inputFailure)
        } else if isInputOver, decoder.bufferedBytes == 0 {
            end(with: nil)
        } else if isDraining {
            end(with: APIError(.serverDraining, "this server is about to stop"))
        }
    }

    private func end(with error: APIError?) {
        guard !isOver else { return }
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
        begun.came(0, isNew: false)
        pipe.close()
    }

    /// Takes nothing more, acknowledges what was taken, and sends the client elsewhere.
    private func drain() {
        guard !isOver, !isDraining else { return }
        isDraining = true
        settle()
    }
}
