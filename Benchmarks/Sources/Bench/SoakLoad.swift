// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// What a soak does to a cell: writers with one follower each; a reader that catches up from the
/// start of the first stream, again and again; trims of some of the others; and now and then a
/// stream that is made, used, read and deleted.
struct SoakLoad {
    private let target: Target
    private let connection: Connection
    private let readingConnection: Connection
    private let writers: [Writer]
    private let followers: [ReadSession]
    private let ledger = Ledger()
    private var catchingUp: ReadSession?
    private var probes = 0
    private var trims = 0

    /// What callbacks count.
    private final class Ledger {
        var delivered: [UInt64] = []
        var replies: [String: Reply] = [:]
        var failure: String?
        var scratch = 0
        var batches = 0
        var trimsSeen = 0
        var rounds = 0
        var caughtUp: UInt64 = 0
        var position: UInt64 = 0

        func fail(_ why: String) { if failure == nil { failure = why } }
    }

    private static let records = 10
    private static let inFlightMax = 100
    /// The last of the streams; the first ones keep all they got.
    private static let trimmedStreams = 4
    private static let trimKeeps: UInt64 = 2_000

    init(_ target: Target, writers count: Int) throws(ClientError) {
        self.target = target
        connection = try target.connect()
        readingConnection = try target.connect()
        var writers: [Writer] = []
        var followers: [ReadSession] = []
        ledger.delivered = [UInt64](repeating: 0, count: count)
        for i in 0..<count {
            let stream = "soak-\(i)"
            try target.makeStream(stream)
            let writer = Writer(
                target, connection, stream: stream, tag: UInt64(i + 1), records: Self.records,
                window: 0)
            let reader = ReadSession(
                connection, basin: target.basin, stream: stream, query: "seq_num=0")
            reader.onRecord = { [ledger] record in
                if record.seqNum != ledger.delivered[i] || !writer.wrote(record) {
                    ledger.fail("a follower of \(stream) got \(record.seqNum) damaged or misplaced")
                }
                ledger.delivered[i] += 1
            }
            writers.append(writer)
            followers.append(reader)
        }
        self.writers = writers
        self.followers = followers
    }

    /// One batch to each stream, unless the cell is behind.
    mutating func append() {
        for writer in writers where writer.inFlight < Self.inFlightMax {
            writer.sendOne()
            ledger.batches += 1
        }
    }

    /// Reads all that the first stream has by now, from its start, unless that is under way.
    mutating func catchUp() {
        if let session = catchingUp, !session.isOver { return }
        let writer = writers[0]
        let count = writer.acked
        guard count > 0 else { return }
        ledger.position = 0
        let session = ReadSession(
            readingConnection, basin: target.basin, stream: writer.stream,
            query: "seq_num=0&count=\(count)")
        session.onRecord = { [ledger] record in
            if record.seqNum != ledger.position || !writer.wrote(record) {
                ledger.fail("reading from the start: \(record.seqNum) damaged or misplaced")
            }
            ledger.position += 1
            ledger.caughtUp += 1
            if ledger.position == count { ledger.rounds += 1 }
        }
        catchingUp = session
    }

    /// Sees that the last trim of a stream was carried out, and trims it again, the streams in
    /// turns.
    mutating func trim() {
        let writer = writers[writers.count - 1 - trims % Self.trimmedStreams]
        trims += 1
        if let point = writer.trimPoint {
            let path = "/v1/streams/\(writer.stream)/records?seq_num=0&count=1"
            send("trim of \(writer.stream)", "GET", path, nil) { [ledger] text in
                let first = text.split(separator: "\"seq_num\":").dropFirst().first?
                    .prefix { $0.isNumber }
                guard let first, let position = UInt64(first), position >= point else {
                    return ledger.fail("\(path): not from \(point): \(text.prefix(80))")
                }
                ledger.trimsSeen += 1
            }
        }
        writer.trim(to: writer.acked - min(writer.acked, Self.trimKeeps))
    }

    /// A short life of a stream: append, read, delete, each a request of its own.
    mutating func probe() {
        let path = "/v1/streams/scratch-\(probes)"
        guard ledger.replies["probe"] == nil else { return }
        probes += 1
        let body = Array(#"{"records":[{"body":"a"},{"body":"b"}]}"#.utf8)
        send("probe", "POST", path + "/records", body) { [self] _ in
            send("probe", "GET", path + "/records?seq_num=0", nil) { [self] text in
                if !text.contains(#""body":"b""#) { ledger.fail("\(path): \(text)") }
                send("probe", "DELETE", path, nil) { [ledger] _ in ledger.scratch += 1 }
            }
        }
    }

    private func send(
        _ name: String, _ method: String, _ path: String, _ body: [UInt8]?,
        then: @escaping (String) -> Void
    ) {
        let reply = Reply(connection, method, path, basin: target.basin, body: body)
        ledger.replies[name] = reply
        reply.onEnd = { [ledger] in
            guard let reply = ledger.replies.removeValue(forKey: name) else { return }
            guard (200..<300).contains(reply.status) else {
                return ledger.fail("\(method) \(path): \(reply.status) \(reply.text)")
            }
            then(reply.text)
        }
    }

    func check() throws(ClientError) {
        for connection in [connection, readingConnection] {
            if let failure = connection.failure { throw failure }
        }
        if let failure = ledger.failure { throw ClientError(failure) }
        for writer in writers { if let error = writer.error { throw error } }
        for follower in followers { if let error = follower.failure { throw error } }
        if let error = catchingUp?.failure { throw error }
    }

    /// Waits until followers have everything.
    func finish() throws(ClientError) {
        try target.poller.wait("the last deliveries") {
            writers.allSatisfy { $0.inFlight == 0 }
                && zip(writers, ledger.delivered).allSatisfy { $0.acked == $1 }
        }
        try check()
    }

    func report(_ report: inout Report) {
        report.add("soak batches", Double(ledger.batches), "")
        report.add("soak records followed", Double(ledger.delivered.reduce(0, +)), "")
        report.add("soak records read from the start", Double(ledger.caughtUp), "")
        report.add("soak rounds from the start", Double(ledger.rounds), "")
        report.add("soak trims", Double(trims), "")
        report.add("soak trims seen", Double(ledger.trimsSeen), "")
        report.add("soak streams made and deleted", Double(ledger.scratch), "")
    }
}
