// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// A client that appends in S2S sessions, several batches ahead of their acks.
final class SessionClient {
    private struct Sent {
        let bodies: [String]
        let operation: Int
        let known: SeqNum
    }

    private static let headers = [
        (name: "s2-basin", value: SimRequests.basin), (name: "content-type", value: "s2s/proto"),
    ]
    private static let inFlightMax = 6

    private let cell: SimCell
    private let loop: SimLoop
    private let name: String
    private let random: RandomSource
    private let subject: Subject
    private var count = 0
    private(set) var isDone = false
    var stops = false

    // Of the present session.
    private var stream: SimStream?
    private var decoder = SessionFrameDecoder()
    private var inFlight: [Sent] = []
    private var batches: [[String]] = []
    private var left = 0
    /// The sequence number that the next batch must get, in a chain.
    private var expected: SeqNum?
    private var failure: SimResponse?
    private var isFinishing = false

    init(_ name: String, cell: SimCell, subject: Subject) {
        self.name = name
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
                    await loop.sleep(random.within(0...(.milliseconds(200))))
                }
                isDone = true
            }
        }
    }

    private func session() async {
        guard
            let stream = cell.open(from: loop, "POST", subject.path, headers: Self.headers)
        else { return }
        self.stream = stream
        decoder = SessionFrameDecoder()
        inFlight = []
        batches = []
        failure = nil
        isFinishing = false
        left = 1 + Int(random.below(40))
        expected = random.oneIn(2) ? subject.history.knownTail : nil
        stream.onBody = { [self] in receive($0) }
        let isComplete: Bool? = await loop.withDeadline(.seconds(25)) { [self] in
            await withUnsafeContinuation { (waiter: UnsafeContinuation<Bool, Never>) in
                stream.onEnd = { waiter.resume(returning: $0) }
                fill()
            }
        }
        if isComplete == nil { stream.abort() }
        conclude(isComplete: isComplete ?? false, status: stream.status)
        self.stream = nil
    }

    /// Sends until enough is on the way.
    private func fill() {
        while inFlight.count < Self.inFlightMax, left > 0, failure == nil { sendBatch() }
        guard left == 0, !isFinishing else { return }
        isFinishing = true
        stream?.finishSending()
    }

    private func sendBatch() {
        left -= 1
        count += 1
        let bodies = (0...random.below(2)).map { "\(name)/\(count)/\($0)" }
        var input = ByteWriter()
        var conditions = AppendConditions.none
        conditions.matchSeqNum = expected
        input.writeAppendInput(bodies.map { AppendRecord(body: Bytes(utf8: $0)) }, conditions)
        let operation = subject.history.log.begin(
            .append(
                OperationLog.Append(
                    hashes: bodies.map(History.hash), setsToken: nil, token: nil, match: expected)))
        if let next = expected { expected = next + SeqNum(bodies.count) }
        inFlight.append(
            Sent(bodies: bodies, operation: operation, known: subject.history.knownTail))
        batches.append(bodies)
        let payload = input.finish()
        stream?.send([SessionFrame.header(payloadBytes: payload.count), payload].joined())
    }

    private func receive(_ bytes: Bytes) {
        // A refused request answers in one piece, without frames.
        guard stream?.status == 200 else {
            failure = SimResponse(status: stream?.status ?? 0, body: bytes)
            return
        }
        decoder.append(bytes)
        do {
            while let frame = try decoder.next() {
                if frame.isTerminal {
                    var reader = ByteReader(frame.payload)
                    let status = Int(try reader.readBigEndian(UInt16.self))
                    failure = SimResponse(status: status, body: frame.payload.dropFirst(2))
                } else {
                    acknowledged(try AppendAck(frame.payload))
                }
            }
        } catch {
            preconditionFailure("a frame of a session does not decode: \(error)")
        }
        fill()
    }

    private func acknowledged(_ ack: AppendAck) {
        let history = subject.history
        guard failure == nil, !inFlight.isEmpty else {
            return history.violate("an ack of \(ack.start.seqNum) that no batch waits for")
        }
        let sent = inFlight.removeFirst()
        history.appended(
            sent.bodies, start: ack.start.seqNum, end: ack.end.seqNum, tail: ack.tail.seqNum)
        history.log.end(sent.operation, .appended(tail: ack.end.seqNum))
    }

    private func conclude(isComplete: Bool, status: Int) {
        let history = subject.history
        history.sent(inOneSession: batches)
        if isComplete && failure == nil && !inFlight.isEmpty {
            history.violate("a session ends well with \(inFlight.count) batches unanswered")
        }
        for (index, sent) in inFlight.enumerated() {
            switch isComplete ? failure.map(AppendAnswer.failure) : nil {
            case .refused(let next):
                // What comes behind the first failure is dropped.
                history.refused(sent.bodies)
                if let next, index == 0 {
                    history.sawTail(next, known: sent.known, by: "a session's rejection")
                }
                history.log.end(sent.operation, .failed)
            default: history.log.end(sent.operation, .unknown)
            }
        }
        inFlight = []
    }
}
