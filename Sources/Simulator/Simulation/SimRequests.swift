// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// The requests of one simulated client, each given up after a while.
struct SimRequests {
    let cell: SimCell
    let loop: SimLoop
    var basin = Self.basin

    static let basin = "simulated"

    /// Nil if the connection broke, none could be made, or no answer came in time: what was asked
    /// for may have happened, or may happen yet.
    func send(
        _ method: String, _ path: String, query: String = "", type: String = "application/protobuf",
        body: Bytes = Bytes()
    ) async -> SimResponse? {
        let headers = [
            (name: "s2-basin", value: basin), (name: "content-type", value: type),
            (name: "accept", value: type),
        ]
        // Mostly it gives up early, so that one process that hangs does not take every client.
        let random = cell.scheduler.random
        let patience =
            random.oneIn(4)
            ? random.within(.seconds(2)...(.seconds(12)))
            : random.within(.milliseconds(300)...(.seconds(2)))
        let answer = await loop.withDeadline(patience) { [cell, loop] in
            await cell.request(
                from: loop, method, path, query: query, headers: headers, body: body)
        }
        return answer ?? nil
    }

    func json(_ method: String, _ path: String, _ body: String = "") async -> SimResponse? {
        await send(method, path, type: "application/json", body: Bytes(utf8: body))
    }

    struct Page {
        var records: [(seqNum: SeqNum, body: String)]
        /// Known where there was nothing to read.
        var tail: SeqNum?
        var reachesTail: Bool
    }

    /// One unary read; nil if it failed.
    func page(_ subject: Subject, from start: SeqNum) async -> Page? {
        let response = await send("GET", subject.path, query: "seq_num=\(start)")
        guard let response else { return nil }
        if response.status == 416, let tail = response.number(behind: "seq_num") {
            return Page(records: [], tail: tail, reachesTail: true)
        }
        guard response.status == 200 else { return nil }
        guard let records = Self.records(response.body) else {
            subject.history.violate("a read batch does not decode")
            return nil
        }
        return Page(records: records, tail: nil, reachesTail: records.count < 1_000)
    }

    /// The whole stream, up to a tail that it had at some moment meanwhile; nil if a read failed.
    func everything(_ subject: Subject) async -> [(seqNum: SeqNum, body: String)]? {
        var records: [(seqNum: SeqNum, body: String)] = []
        while true {
            let next = records.last.map { $0.seqNum + 1 } ?? 0
            guard let page = await page(subject, from: next) else { return nil }
            records += page.records
            if page.reachesTail { return records }
        }
    }

    /// Nil if it does not decode.
    static func records(_ body: Bytes) -> [(seqNum: SeqNum, body: String)]? {
        do throws(DecodeError) {
            return try ReadBatch(body).records.map { ($0.seqNum, text(of: $0)) }
        } catch {
            return nil
        }
    }

    /// Appends these bodies, and notes what came of it: true if they were applied, false if they
    /// certainly were not.
    func append(_ bodies: [String], to subject: Subject) async -> Bool? {
        var input = ByteWriter()
        input.writeAppendInput(bodies.map { AppendRecord(body: Bytes(utf8: $0)) })
        let response = await send("POST", subject.path, body: input.finish())
        switch response.map(AppendAnswer.init) {
        case .applied(let ack):
            subject.history.appended(
                bodies, start: ack.start.seqNum, end: ack.end.seqNum, tail: ack.tail.seqNum)
            return true
        case .refused:
            subject.history.refused(bodies)
            return false
        case .unknown, nil: return nil
        }
    }

    /// Trims all below `point`; true if that is certain.
    func trim(_ subject: Subject, below point: SeqNum) async -> Bool {
        subject.history.willTrim(below: point)
        var input = ByteWriter()
        input.writeAppendInput([AppendRecord.trim(below: point)])
        let response = await send("POST", subject.path, body: input.finish())
        guard case .applied(let ack) = response.map(AppendAnswer.init) else { return false }
        subject.history.appended(
            ["\(History.trimPrefix)\(point)"], start: ack.start.seqNum, end: ack.end.seqNum,
            tail: ack.tail.seqNum)
        return true
    }

    private static func text(of record: SequencedRecord) -> String {
        guard let header = record.headers.first, header.name.isEmpty,
            header.value.lossyText == "trim"
        else { return record.body.lossyText }
        do throws(DecodeError) {
            var reader = ByteReader(record.body)
            return "\(History.trimPrefix)\(try reader.readBigEndian(UInt64.self))"
        } catch {
            preconditionFailure("a trim command has a position: \(error)")
        }
    }
}

extension AppendRecord {
    /// The command that trims all below `point`.
    static func trim(below point: SeqNum) -> AppendRecord {
        var body = ByteWriter(capacity: 8)
        body.writeBigEndian(point)
        return AppendRecord(
            headers: [RecordHeader(name: Bytes(), value: Bytes(utf8: "trim"))], body: body.finish())
    }
}

/// What a client may conclude from the answer to an append.
enum AppendAnswer {
    case applied(AppendAck)
    /// It certainly has no effect. With the next sequence number, if that was the reason.
    case refused(next: SeqNum?)
    case unknown

    init(_ response: SimResponse) {
        guard response.status == 200 else {
            self = Self.failure(response)
            return
        }
        do throws(DecodeError) {
            self = .applied(try AppendAck(response.body))
        } catch {
            preconditionFailure("an ack does not decode: \(error)")
        }
    }

    static func failure(_ response: SimResponse) -> AppendAnswer {
        if response.status == 412 {
            return .refused(next: response.number(behind: "seq_num_mismatch"))
        }
        let unsure = [
            "client_hangup", "other", "request_timeout", "storage", "unavailable",
            "upstream_timeout",
        ]
        let text = response.body.lossyText
        return unsure.contains { text.rest(behind: "\"code\":\"\($0)\"") != nil }
            ? .unknown : .refused(next: nil)
    }
}

extension SimResponse {
    /// The first number behind `key` in a small JSON text.
    func number(behind key: String) -> UInt64? {
        guard let digits = body.lossyText.rest(behind: "\"\(key)\":") else { return nil }
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
