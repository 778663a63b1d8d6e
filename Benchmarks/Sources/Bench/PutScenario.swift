// SPDX-License-Identifier: Apache-2.0

internal import S2SClient

/// How many PUTs a cell takes for what it is given: chunks, the segments that these are flushed
/// into, and what compaction then makes of small ones. All processes count, and all that is put
/// until nothing is to be flushed any more and no object was put for some time.
///
/// The cell is its own, so that nothing else has it put objects.
enum PutScenario {
    static let loads = [1, 64]
    private static let records = 100
    private static let appendSecondsMax = 300.0

    static func name(streams: Int) -> String { "puts b\(records) s\(streams)" }

    static func run(
        _ target: Target, _ options: Options, streams: Int, _ report: inout Report
    ) throws(ClientError) {
        let name = name(streams: streams)
        let cell = try target.processes
        let before = try MetricsPage.complete(cell)
        let appended = try append(target, streams: streams, mebibytes: options.mebibytes)
        let quiet = try Quiet(options).wait(cell) { $0["channel_unflushed_bytes"] > 0 }
        let after = try MetricsPage.complete(cell)
        try target.checkSame(cell)
        let gibibytes = Double(appended) * Double(Content.bodyBytes) / 1_073_741_824
        func made(_ count: (MetricsPage) -> Double) -> Double {
            (count(after) - count(before)) / gibibytes
        }
        let all = made { $0.storeRequests("put") }
        let chunks = made { $0.puts("channel", of: "chunk") }
        let segments = made { $0.puts("channel", of: "segment") }
        let compaction = made { $0.puts("bgtask", of: "segment") }
        report.add("\(name) appended", gibibytes * 1_024, "MiB")
        report.add("\(name) settled", quiet.isReached ? 1 : 0, "")
        report.add("\(name) settled after", quiet.after, "s")
        report.add("\(name) PUTs/GiB", all, "")
        report.add("\(name) PUTs/GiB chunks", chunks, "")
        report.add("\(name) PUTs/GiB segments", segments, "")
        report.add("\(name) PUTs/GiB compaction", compaction, "")
        report.add("\(name) PUTs/GiB others", max(0, all - chunks - segments - compaction), "")
    }

    /// Appends so much with full windows, and tells how many records it became.
    private static func append(
        _ target: Target, streams: Int, mebibytes: Int
    ) throws(ClientError) -> UInt64 {
        let connection = try target.connect()
        defer { target.close(connection) }
        let load = AppendScenario.full(streams: streams, records: records, seconds: 0)
        let wanted = UInt64(mebibytes << 20) / UInt64(Content.bodyBytes)
        var writers: [Writer] = []
        for i in 0..<streams {
            let stream = "puts-\(streams)-\(i)"
            try target.makeStream(stream)
            let writer = Writer(
                target, connection, stream: stream, tag: UInt64(i + 1), records: records,
                window: load.window)
            writer.onAck = { [unowned writer] _, _, _ in
                writer.isStopping = writer.acked >= wanted / UInt64(streams)
            }
            writers.append(writer)
        }
        for writer in writers { writer.pump() }
        try target.poller.wait("appends", seconds: appendSecondsMax) {
            writers.contains { $0.error != nil } || writers.allSatisfy(\.isDone)
        }
        for writer in writers {
            if let error = writer.error { throw error }
            writer.finish()
        }
        return writers.reduce(0) { $0 + $1.acked }
    }
}
