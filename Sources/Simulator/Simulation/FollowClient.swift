// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// A client that follows a stream in S2S sessions: it gets every record, in order, each once,
/// however often its sessions end.
final class FollowClient {
    private static let headers = [
        (name: "s2-basin", value: SimRequests.basin), (name: "content-type", value: "s2s/proto"),
    ]

    private let cell: SimCell
    private let loop: SimLoop
    private let random: RandomSource
    let subject: Subject
    /// The next record that it wants.
    private(set) var next: SeqNum = 0
    var stops = false

    init(_ name: String, cell: SimCell, subject: Subject) {
        self.cell = cell
        self.subject = subject
        loop = cell.scheduler.makeLoop(name)
        random = .seeded(cell.scheduler.random.next())
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                while !stops {
                    if !subject.sleeps(at: loop.now) { await session() }
                    await loop.sleep(random.within(.milliseconds(1)...(.milliseconds(200))))
                }
            }
        }
    }

    private func session() async {
        guard
            let stream = cell.open(
                from: loop, "GET", subject.path, query: "seq_num=\(next)&clamp=true",
                headers: Self.headers)
        else { return }
        stream.finishSending()
        var decoder = SessionFrameDecoder()
        var isOver = false
        stream.onBody = { [self] bytes in
            guard stream.status == 200 else { return }
            decoder.append(bytes)
            receive(&decoder)
        }
        stream.onEnd = { _ in isOver = true }
        // It leaves now and then, and while the stream sleeps.
        let stay = random.oneIn(3) ? random.within(0...(.seconds(5))) : .seconds(99)
        let leavesAt = loop.now + stay
        while !isOver, !stops, loop.now < leavesAt, !subject.sleeps(at: loop.now) {
            await loop.sleep(.milliseconds(50))
        }
        if !isOver { stream.abort() }
    }

    private func receive(_ decoder: inout SessionFrameDecoder) {
        do {
            while let frame = try decoder.next() {
                if frame.isTerminal { continue }
                guard let records = SimRequests.records(frame.payload) else {
                    return subject.history.violate("a frame of a follow does not decode")
                }
                subject.history.read(records, from: next)
                next = records.last.map { $0.seqNum + 1 } ?? next
                if let tail = try ReadBatch(frame.payload).tail, tail.seqNum < next {
                    subject.history.violate("a follow shows tail \(tail.seqNum) below \(next)")
                }
            }
        } catch {
            preconditionFailure("a frame of a read does not decode: \(error)")
        }
    }
}
