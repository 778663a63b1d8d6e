// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// The requests of one simulated client, each given up after a while.
struct SimRequests {
    let cell: SimCell
    let loop: SimLoop

    static let basin = "simulated"

    /// Nil if the connection broke, none could be made, or no answer came in time: what was asked
    /// for may have happened, or may happen yet.
    func send(
        _ method: String, _ path: String, query: String = "", type: String = "application/protobuf",
        body: Bytes = Bytes()
    ) async -> SimResponse? {
        let headers = [
            (name: "s2-basin", value: Self.basin), (name: "content-type", value: type),
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
        let records = Self.records(response.body)
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

    static func records(_ body: Bytes) -> [(seqNum: SeqNum, body: String)] {
        do throws(DecodeError) {
            return try ReadBatch(body).records.map { ($0.seqNum, text(of: $0)) }
        } catch {
            preconditionFailure("a read batch does not decode: \(error)")
        }
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
