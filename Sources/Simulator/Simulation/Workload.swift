// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// A client that appends, reads and asks for tails through whatever frontend runs, and notes what
/// it is told.
final class WorkloadClient {
    private let cell: SimCell
    private let loop: SimLoop
    private let name: String
    private let random: RandomSource
    private let histories: [String: History]
    private let streams: [String]
    private var operations = 0
    private(set) var isDone = false
    /// Set to end after the present operation.
    var stops = false

    static let basin = "simulated"
    private static let headers = [
        (name: "s2-basin", value: basin), (name: "content-type", value: "application/protobuf"),
        (name: "accept", value: "application/protobuf"),
    ]

    init(_ name: String, cell: SimCell, histories: [String: History]) {
        self.name = name
        self.cell = cell
        self.histories = histories
        streams = histories.keys.sorted()
        loop = cell.scheduler.makeLoop(name)
        random = .seeded(cell.scheduler.random.next())
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                while !stops {
                    await step()
                    await loop.sleep(random.within(0...(.milliseconds(40))))
                }
                isDone = true
            }
        }
    }

    private func step() async {
        operations += 1
        let stream = streams[Int(random.below(UInt64(streams.count)))]
        guard let history = histories[stream] else { return }
        switch random.below(10) {
        case 0..<6: await append(stream, history)
        case 6..<8: await checkTail(stream, history)
        default: await read(stream, history)
        }
    }

    private func path(_ stream: String) -> String { "/v1/streams/\(stream)/records" }

    private func append(_ stream: String, _ history: History) async {
        let bodies = (0...random.below(3)).map { "\(name)/\(operations)/\($0)" }
        var input = ByteWriter()
        let match = random.oneIn(3) ? history.knownTail : nil
        input.writeAppendInput(
            bodies.map { AppendRecord(timestamp: nil, headers: [], body: Bytes(utf8: $0)) },
            AppendConditions(matchSeqNum: match))
        let known = history.knownTail
        let response = await cell.request(
            from: loop, "POST", path(stream), headers: Self.headers, body: input.finish())
        guard let response else { return }
        switch response.status {
        case 200:
            do throws(DecodeError) {
                let ack = try AppendAck(response.body)
                history.appended(
                    bodies, start: ack.start.seqNum, end: ack.end.seqNum, tail: ack.tail.seqNum)
            } catch {
                preconditionFailure("an ack does not decode: \(error)")
            }
        case 412:
            history.refused(bodies)
            if let next = Self.number(behind: "seq_num_mismatch", in: response.body) {
                history.sawTail(next, known: known, by: "a rejection")
            }
        case 400..<500: history.refused(bodies)
        default: break
        }
    }

    private func checkTail(_ stream: String, _ history: History) async {
        let known = history.knownTail
        let response = await cell.request(
            from: loop, "GET", path(stream) + "/tail", headers: Self.headers, body: Bytes())
        guard let response, response.status == 200,
            let tail = Self.number(behind: "seq_num", in: response.body)
        else { return }
        history.sawTail(tail, known: known, by: "a tail")
    }

    private func read(_ stream: String, _ history: History) async {
        let known = history.knownTail
        let start = random.below(known + 1)
        let response = await cell.request(
            from: loop, "GET", path(stream), query: "seq_num=\(start)", headers: Self.headers,
            body: Bytes())
        guard let response else { return }
        if response.status == 416, let tail = Self.number(behind: "seq_num", in: response.body) {
            history.sawTail(tail, known: known, by: "a 416")
        }
        guard response.status == 200 else { return }
        let records = Self.records(response.body)
        history.read(records, from: start)
        if records.count < 1_000 {
            history.sawTail(start + UInt64(records.count), known: known, by: "a read")
        }
    }

    static func records(_ body: Bytes) -> [(seqNum: SeqNum, body: String)] {
        do throws(DecodeError) {
            return try ReadBatch(body).records.map { ($0.seqNum, $0.body.lossyText) }
        } catch {
            preconditionFailure("a read batch does not decode: \(error)")
        }
    }

    /// The first number behind `key` in a small JSON text.
    private static func number(behind key: String, in body: Bytes) -> UInt64? {
        let text = body.lossyText
        guard let digits = text.rest(behind: "\"\(key)\":") else { return nil }
        return UInt64(digits.prefix { $0.isNumber })
    }
}

extension String {
    /// What follows the first `needle`; nil if there is none.
    fileprivate func rest(behind needle: String) -> Substring? {
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(needle) { return self[at...].dropFirst(needle.count) }
            at = index(after: at)
        }
        return nil
    }
}
