// SPDX-License-Identifier: Apache-2.0

internal import S2SClient

/// Appends from a number of sessions, each to a stream of its own, over one connection.
struct AppendScenario {
    let streams: Int
    let records: Int
    /// Batches in flight per session.
    let window: Int
    let seconds: Double
    let name: String
    /// Called when the measurement begins, and when it is over.
    var onMeasure: ((_ isOver: Bool) throws(ClientError) -> Void)?

    static func full(streams: Int, records: Int, seconds: Double) -> AppendScenario {
        let bytes = records * Content.bodyBytes
        let share = streams == 1 ? 4 << 20 : 1 << 20
        return AppendScenario(
            streams: streams, records: records, window: max(1, share / bytes), seconds: seconds,
            name: "append b\(records) s\(streams)")
    }

    static func oneInFlight(seconds: Double) -> AppendScenario {
        AppendScenario(
            streams: 1, records: 1, window: 1, seconds: seconds, name: "latency one-in-flight")
    }

    struct Outcome {
        var records: UInt64 = 0
        var latency = Histogram()
        var spent = Usage.Spent(wallSeconds: 0, cpuSeconds: [:])
        var puts = 0.0
        var putBytes = 0.0
        /// The first stream, how many records it has, and the tag of its records.
        var stream = ""
        var streamRecords: UInt64 = 0
        /// Records of all streams, those before and after the measurement as well.
        var totalRecords: UInt64 = 0
        var tag: UInt64 = 0

        var bytes: Double { Double(records) * Double(Content.bodyBytes) }
        var mebibytesPerSecond: Double { bytes / 1_048_576 / spent.wallSeconds }
    }

    func run(_ target: Target) throws(ClientError) -> Outcome {
        let connection = try target.connect()
        defer { target.close(connection) }
        let prefix = name.split(separator: " ").joined(separator: "-")
        var writers: [Writer] = []
        for i in 0..<streams {
            let stream = "\(prefix)-\(i)"
            try target.makeStream(stream)
            writers.append(
                Writer(
                    target, connection, stream: stream, tag: UInt64(i + 1), records: records,
                    window: window))
        }
        let outcome = try measure(target, writers)
        try verify(target, connection, outcome)
        return outcome
    }

    private func measure(
        _ target: Target, _ writers: [Writer]
    ) throws(ClientError) -> Outcome {
        var outcome = Outcome()
        var isMeasuring = false
        for writer in writers {
            writer.onAck = { sentAt, ackedAt, records in
                guard isMeasuring else { return }
                outcome.records += UInt64(records)
                outcome.latency.record(ackedAt - sentAt)
            }
            writer.pump()
        }
        func load(_ seconds: Double) throws(ClientError) {
            let end = monotonicNanoseconds + Int64(seconds * 1e9)
            while monotonicNanoseconds < end {
                target.poller.turn(until: end)
                for writer in writers { if let error = writer.error { throw error } }
            }
        }
        // Streams are opened, buffers grow, averages settle.
        try load(min(1, seconds / 4))
        let cell = try target.processes
        let before = MetricsPage(cell)
        try onMeasure?(false)
        let usage = Usage(cell)
        isMeasuring = true
        try load(seconds)
        // Where others keep the machine busy, a moment may be too short for even one.
        try target.poller.wait("an ack") {
            outcome.records > 0 || writers.contains { $0.error != nil }
        }
        isMeasuring = false
        outcome.spent = usage.spent()
        try onMeasure?(true)
        let after = MetricsPage(cell)
        outcome.puts = after["channel_chunk_puts_total"] - before["channel_chunk_puts_total"]
        outcome.putBytes =
            after["channel_chunk_put_bytes_total"] - before["channel_chunk_put_bytes_total"]
        for writer in writers { writer.isStopping = true }
        try target.poller.wait("the last acks") { writers.allSatisfy(\.isDone) }
        for writer in writers {
            if let error = writer.error { throw error }
            writer.finish()
        }
        outcome.stream = writers[0].stream
        outcome.streamRecords = writers[0].acked
        outcome.tag = writers[0].tag
        outcome.totalRecords = writers.reduce(0) { $0 + $1.acked }
        return outcome
    }

    /// Reads the end of the first stream back.
    private func verify(
        _ target: Target, _ connection: Connection, _ outcome: Outcome
    ) throws(ClientError) {
        let first = outcome.streamRecords - min(outcome.streamRecords, 10_000)
        let read = try ReadScenario.read(
            target, connection, stream: outcome.stream, tag: outcome.tag,
            range: first..<outcome.streamRecords, seconds: 10)
        guard read.records == outcome.streamRecords - first else {
            throw ClientError("\(outcome.stream): read \(read.records) of the last 10,000")
        }
    }

    func report(_ outcome: Outcome, _ report: inout Report) {
        let records = Double(outcome.records)
        report.add("\(name) MiB/s", outcome.mebibytesPerSecond, "MiB/s")
        report.add("\(name) records/s", records / outcome.spent.wallSeconds, "/s")
        for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            report.add("\(name) ack \(label)", outcome.latency.milliseconds(share), "ms")
        }
        if outcome.puts > 0 {
            report.add("\(name) chunk", outcome.putBytes / outcome.puts / 1_024, "KiB")
            report.add("\(name) chunk PUTs/GiB", outcome.puts / (outcome.bytes / 1_073_741_824), "")
        }
        for (process, seconds) in outcome.spent.cpuSeconds.sorted(by: { $0.key < $1.key }) {
            report.add("\(name) cpu \(process)", seconds / outcome.spent.wallSeconds, "cores")
            guard process != "other", records > 0 else { continue }
            report.add(
                "\(name) cpu-s/GiB \(process)", seconds / (outcome.bytes / 1_073_741_824), "s")
            report.add("\(name) cpu/record \(process)", seconds / records * 1e6, "µs")
        }
    }
}
