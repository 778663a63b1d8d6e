// SPDX-License-Identifier: Apache-2.0

internal import S2SClient

/// Reads what was appended before, from its start, and compares every byte.
enum ReadScenario {
    struct Outcome {
        var records: UInt64 = 0
        var seconds = 0.0

        var mebibytesPerSecond: Double {
            Double(records) * Double(Content.bodyBytes) / 1_048_576 / seconds
        }
    }

    /// What a cachey's memory holds with ease.
    private static let recordsMax = UInt64(512 << 20) / UInt64(Content.bodyBytes)

    /// Reads up to the end of the range or of the time.
    static func read(
        _ target: Target, _ connection: Connection, stream: String, tag: UInt64,
        range: Range<UInt64>, seconds: Double
    ) throws(ClientError) -> Outcome {
        var next = range.lowerBound
        var damage: UInt64?
        let start = monotonicNanoseconds
        let session = ReadSession(
            connection, basin: target.basin, stream: stream,
            query: "seq_num=\(range.lowerBound)&count=\(range.count)")
        session.onRecord = { record in
            if record.seqNum != next || !Content.matches(record, tag: tag), damage == nil {
                damage = next
            }
            next += 1
        }
        let end = start + Int64(seconds * 1e9)
        while !session.isOver, monotonicNanoseconds < end { target.poller.turn(until: end) }
        let outcome = Outcome(
            records: next - range.lowerBound,
            seconds: Double(monotonicNanoseconds - start) / 1e9)
        if let error = session.failure { throw error }
        if let damage { throw ClientError("\(stream): record \(damage) is not what was appended") }
        if !session.isOver { session.cancel() }
        return outcome
    }

    /// Twice: cold, what the cell has not read before and so comes from the buckets, and warm,
    /// what its cachey then has. The cachey's own counts show that it was so.
    static func run(
        _ target: Target, _ written: AppendScenario.Outcome, seconds: Double,
        _ report: inout Report
    ) throws(ClientError) {
        for label in ["cold", "warm"] {
            let connection = try target.connect()
            defer { target.close(connection) }
            let cell = try target.processes
            let before = MetricsPage(cell)
            let usage = Usage(cell)
            let outcome = try read(
                target, connection, stream: written.stream, tag: written.tag,
                range: 0..<min(written.streamRecords, recordsMax), seconds: seconds)
            let spent = usage.spent()
            report.add("read \(label) MiB/s", outcome.mebibytesPerSecond, "MiB/s")
            reportSources(label, before, MetricsPage(cell), &report)
            for (process, seconds) in spent.cpuSeconds.sorted(by: { $0.key < $1.key }) {
                report.add("read \(label) cpu \(process)", seconds / spent.wallSeconds, "cores")
                guard process != "other" else { continue }
                let gibibytes = outcome.mebibytesPerSecond * outcome.seconds / 1_024
                report.add("read \(label) cpu-s/GiB \(process)", seconds / gibibytes, "s")
            }
        }
    }

    /// Where the ranges of a read came from, as the frontend counts, and the pages of its cachey.
    private static func reportSources(
        _ label: String, _ before: MetricsPage, _ after: MetricsPage, _ report: inout Report
    ) {
        func grown(_ name: String, _ source: String) -> Double {
            let label = "source=\"\(source)\""
            return after[name, label] - before[name, label]
        }
        let fromCachey = grown("frontend_fetches_total", "cachey")
        let fetches = fromCachey + grown("frontend_fetches_total", "bucket")
        if fetches > 0 { report.add("read \(label) from cachey", fromCachey / fetches, "") }
        let hits = grown("cachey_pages_total", "memory") + grown("cachey_pages_total", "disk")
        let misses =
            grown("cachey_pages_total", "bucket") + grown("cachey_pages_total", "coalesced")
        let pages = hits + misses
        report.add("read \(label) cachey pages", pages, "")
        if pages > 0 { report.add("read \(label) cachey hits", hits / pages, "") }
    }
}

/// Reads the same records again and again, for whoever watches the cell meanwhile: all of them from
/// the cachey's memory, or from the buckets, as the cachey has more memory than they take or less.
enum ReadLoad {
    private static let stream = "reads"
    private static let tag: UInt64 = 1

    static func run(_ target: Target, mebibytes: Int, seconds: Double) throws(ClientError) {
        let connection = try target.connect()
        try target.makeStream(stream)
        let writer = Writer(
            target, connection, stream: stream, tag: tag, records: 100, window: 40)
        let wanted = UInt64(mebibytes << 20) / UInt64(Content.bodyBytes)
        writer.onAck = { _, _, _ in writer.isStopping = writer.acked >= wanted }
        writer.pump()
        try target.poller.wait("appends", seconds: 300) {
            writer.error != nil || (writer.isStopping && writer.isDone)
        }
        if let error = writer.error { throw error }
        writer.onAck = nil
        // The last of them are flushed.
        let flushed = monotonicNanoseconds + 35_000_000_000
        while monotonicNanoseconds < flushed { target.poller.turn(until: flushed) }
        // Once for the cachey to have seen all.
        _ = try ReadScenario.read(
            target, connection, stream: stream, tag: writer.tag, range: 0..<writer.acked,
            seconds: 120)
        say("reading")
        let end = monotonicNanoseconds + Int64(seconds * 1e9)
        var read = 0.0
        let before = MetricsPage(try target.processes)
        while monotonicNanoseconds < end {
            let outcome = try ReadScenario.read(
                target, connection, stream: stream, tag: writer.tag, range: 0..<writer.acked,
                seconds: Double(end - monotonicNanoseconds) / 1e9)
            read += Double(outcome.records) * Double(Content.bodyBytes) / 1_048_576
        }
        let after = MetricsPage(try target.processes)
        for source in ["memory", "disk", "bucket", "coalesced"] {
            let label = "source=\"\(source)\""
            let pages = after["cachey_pages_total", label] - before["cachey_pages_total", label]
            print("pages from \(source): \(Int(pages))")
        }
        print("\(Int(read / seconds)) MiB/s")
    }
}

/// One writer at a steady pace, and readers that follow: how long after it was sent, and how long
/// after its ack, does a record reach them? The load generator takes acks and deliveries in the
/// order in which its sockets had them; what comes before its ack has 0 from there.
struct FollowScenario {
    let followers: Int
    let seconds: Double

    static let sizes = [1, 100, 1_000]

    var name: String { "follow \(followers)" }

    private static let sessionsPerConnection = 500
    /// Deliveries that a load generator on the same machine should cause at most.
    private static let deliveriesPerSecond = 20_000

    func run(_ target: Target, _ report: inout Report) throws(ClientError) {
        let stream = "follow-\(followers)"
        try target.makeStream(stream)
        var lag = Histogram()
        var sinceSent = Histogram()
        var sentAt: [Int64] = []
        var ackedAt: [Int64] = []
        var connections: [Connection] = []
        defer { for connection in connections { target.close(connection) } }
        let own = try target.connect()
        connections.append(own)
        var sessions: [ReadSession] = []
        var counts = [UInt64](repeating: 0, count: followers)
        var isBroken = false
        var last: Connection = own
        for i in 0..<followers {
            if i % Self.sessionsPerConnection == 0 {
                last = try target.connect()
                connections.append(last)
            }
            let session = ReadSession(
                last, basin: target.basin, stream: stream, query: "seq_num=0")
            session.onRecord = { record in
                let now = monotonicNanoseconds
                let number = Int(record.seqNum)
                if record.seqNum != counts[i] { isBroken = true }
                counts[i] += 1
                if number < sentAt.count { sinceSent.record(now - sentAt[number]) }
                lag.record(number < ackedAt.count ? now - ackedAt[number] : 0)
            }
            sessions.append(session)
        }
        try target.poller.wait("followers") {
            sessions.allSatisfy { $0.tail != nil || $0.isOver }
        }
        for session in sessions { if let error = session.failure { throw error } }
        let writer = Writer(
            target, own, stream: stream, tag: 1, records: 1, window: 0)
        writer.onAck = { _, now, _ in ackedAt.append(now) }
        let pace = Int64(1e9) / Int64(min(200, Self.deliveriesPerSecond / followers))
        let start = monotonicNanoseconds
        let end = start + Int64(seconds * 1e9)
        var due = start
        while monotonicNanoseconds < end {
            if monotonicNanoseconds >= due {
                sentAt.append(monotonicNanoseconds)
                writer.sendOne()
                due += pace
            }
            target.poller.turn(until: min(due, end))
            if let error = writer.error { throw error }
        }
        let expected = UInt64(sentAt.count)
        try target.poller.wait("the last deliveries") {
            counts.allSatisfy { $0 == expected } && writer.isDone
        }
        if isBroken { throw ClientError("a follower saw a gap or a duplicate") }
        for session in sessions {
            if let error = session.failure { throw error }
            session.cancel()
        }
        writer.finish()
        // The goodbyes leave.
        target.poller.turn(until: monotonicNanoseconds)
        for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
            report.add("\(name) ack-to-reader \(label)", lag.milliseconds(share), "ms")
            report.add("\(name) append-to-reader \(label)", sinceSent.milliseconds(share), "ms")
        }
    }
}
