// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives
internal import RPC
internal import Records

/// One frontend's session of appends to one stream.
///
/// Replies leave in the order of the batches, those of one chunk in one message. The
/// first batch that fails poisons the session: what was sequenced before it is still answered, then
/// the call ends, and every later batch is dropped unapplied, however good it is.
final class AppendSession {
    private enum State {
        /// Batches wait for the streamlet to be found, or for room in the log.
        case held
        case flowing
        /// The end is decided and waits for its turn.
        case poisoned
        case over
    }

    let call: any Call
    /// Whether its batches may wait for as long as it takes.
    let isPatient: Bool
    /// Of its batches.
    var pace = Pace()
    let streamlet: OpenStreamlet
    private let sequencer: Sequencer
    @exclusivity(unchecked) private var state = State.flowing
    /// Batches that came while held, in order; bounded by the call's window.
    private var waiting: Deque<Bytes> = []
    @exclusivity(unchecked) private var finishedSending = false
    @exclusivity(unchecked) private var repliesOutstanding = 0
    /// The chunk of the last batch that this session had sequenced, and its run of replies there.
    @exclusivity(unchecked) private var lastChunk: ChunkIndex?
    @exclusivity(unchecked) private var lastRun: UInt32 = 0

    init(
        _ call: any Call, _ streamlet: OpenStreamlet, _ sequencer: Sequencer, isPatient: Bool
    ) {
        self.call = call
        self.isPatient = isPatient
        self.streamlet = streamlet
        self.sequencer = sequencer
        // The call keeps its session alive until it is over.
        call.onMessage = { self.receive($0) }
        call.onFinishedSending = {
            self.finishedSending = true
            self.endIfDone()
        }
        call.onEnd = { _, _ in self.leave() }
    }

    private func receive(_ message: Bytes) {
        switch state {
        case .poisoned: call.consumed(message.count)
        case .over: return
        case .held: waiting.append(message)
        case .flowing: sequence(message)
        }
    }

    /// Goes on with what waited.
    func resume() {
        guard state == .held else { return }
        state = .flowing
        while state == .flowing, let message = waiting.popFirst() { sequence(message) }
        endIfDone()
    }

    /// Waits with `message`, and all that comes behind it, until `resume`.
    private func hold(_ message: Bytes) {
        state = .held
        waiting.prepend(message)
    }

    /// One or more batches, back to back.
    private func sequence(_ message: Bytes) {
        var reader = ByteReader(message)
        repeat {
            let start = reader.offset
            switch sequencer.append(from: &reader, to: streamlet, for: self) {
            case .sequenced: repliesOutstanding += 1
            case .blocked:
                hold(message.dropFirst(start))
                return
            case .refused(let status, let payload, let seenIn):
                poison(status, payload, seenIn: seenIn)
                call.consumed(message.count - start)
                return
            }
            // Sequencing may have found the log broken, which ends every session.
        } while state == .flowing && !reader.isAtEnd
        if !reader.isAtEnd { receive(message.dropFirst(reader.offset)) }
    }

    /// Its batches wait.
    var isHeld: Bool { state == .held }

    /// Its batches were not taken, and will not be.
    func refuse(_ status: Status) {
        if isHeld { poison(status, Bytes(), seenIn: nil) }
    }

    /// Ends the session once everything before is answered and `seenIn`, which the verdict depends
    /// on, is stable.
    private func poison(_ status: Status, _ payload: Bytes, seenIn: ChunkIndex?) {
        state = .poisoned
        drop()
        let last = [seenIn, lastChunk].compactMap { $0 }.max()
        sequencer.end(self, status, payload, until: last)
    }

    // MARK: Replies

    /// The run that replies to its batches in chunk `index` join; nil if they have none yet.
    func run(in index: ChunkIndex) -> UInt32? { lastChunk == index ? lastRun : nil }

    /// The next reply joins `run`, in chunk `index`.
    func enter(_ run: UInt32, in index: ChunkIndex) {
        lastChunk = index
        lastRun = run
    }

    /// The batches of one chunk are stable: tells the caller.
    func reply(_ run: ChunkReplies.Run, of replies: ChunkReplies) {
        guard state != .over else { return }
        repliesOutstanding -= Int(run.count)
        let bytes = AppendReply.byteCount
        replies.forEachMessage(
            of: run, countMax: RPCLimits.writtenBytesMax / bytes, tail: streamlet.stable.tail
        ) { count, write in call.send(count * bytes, body: Bytes(), write) }
        call.consumed(run.messageBytes)
        endIfDone()
    }

    func end(_ status: Status, _ payload: Bytes) {
        guard state != .over else { return }
        leave()
        call.end(status, payload)
    }

    private func endIfDone() {
        guard finishedSending, state == .flowing, waiting.isEmpty, repliesOutstanding == 0 else {
            return
        }
        end(.ok, Bytes())
    }

    /// The call is over. What was sequenced stays so; what waits was never applied.
    private func leave() {
        if state == .held { sequencer.forget(self) }
        state = .over
        waiting = []
        call.onMessage = nil
        call.onFinishedSending = nil
        call.onEnd = nil
    }

    private func drop() {
        for message in waiting { call.consumed(message.count) }
        waiting = []
    }
}
