// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import RPC

/// Asks channels for tails, once for all who ask for the same streamlet's at a time.
///
/// A tail must be as of a moment behind the arrival of whoever asks. So who comes while a call is
/// on its way does not share that one but the next, which begins when that one ends; or after a
/// short while, for a channel that is slow to answer must not hold up more than it has to.
final class TailCalls {
    struct Answer: Sendable {
        let status: Status
        let payload: Bytes
    }
    private struct Key: Hashable {
        let stream: StreamID
        let owner: Owner
    }
    /// A call, and who waits for its answer.
    private final class Round {
        let answer = Signal<Answer>()
        var deadline: Nanoseconds = 0
    }
    private final class Line {
        /// Begun last, while it is on its way.
        var current: Round?
        /// Not begun.
        var next: Round?
        var timer: Timer?
    }

    private let calls: any CallClient
    private let loop: any Loop
    private var lines: [Key: Line] = [:]
    /// How long the next call waits for the one before.
    static let waitNanoseconds: Nanoseconds = .milliseconds(50)

    init(calls: any CallClient, loop: any Loop) {
        self.calls = calls
        self.loop = loop
    }

    /// The answer of `owner`, as of now or later; within `deadline` and `waitNanoseconds`.
    func ask(_ owner: Owner, _ stream: StreamID, deadline: Nanoseconds) async -> Answer {
        let key = Key(stream: stream, owner: owner)
        let line = lines[key] ?? Line()
        lines[key] = line
        let round = line.next ?? Round()
        round.deadline = max(round.deadline, deadline)
        if line.current == nil {
            begin(round, key, line)
        } else if line.next == nil {
            line.next = round
            line.timer = loop.after(Self.waitNanoseconds) { [self] in begin(round, key, line) }
        }
        return await round.answer.wait()
    }

    private func begin(_ round: Round, _ key: Key, _ line: Line) {
        line.timer?.cancel()
        line.timer = nil
        line.next = nil
        line.current = round
        let request = TailRequest(stream: key.stream, streamlet: key.owner.streamlet)
        let call = calls.call(
            key.owner.address, .tail, request.encoded(), deadline: round.deadline)
        call.onEnd = { [self] status, payload in
            round.answer.set(Answer(status: status, payload: payload))
            guard line.current === round else { return }
            line.current = nil
            if let next = line.next {
                begin(next, key, line)
            } else {
                lines[key] = nil
            }
        }
    }
}
