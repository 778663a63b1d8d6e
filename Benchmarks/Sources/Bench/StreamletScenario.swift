// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// How much memory open streamlets take: streams that got one record each, of which so many are
/// open at once as were asked for. What the processes grow by while the first of them are opened,
/// connections and buffers, is not counted. Memory is measured when the last is open, and again
/// when their records were flushed; the larger of both is told.
enum StreamletScenario {
    private static let inFlightMax = 256
    private static let warmUpStreamsMax = 2_000
    private static let openSecondsMax = 900.0

    static func run(
        _ target: Target, _ options: Options, _ report: inout Report
    ) throws(ClientError) {
        let count = options.streamlets
        let warmUpStreams = min(warmUpStreamsMax, count)
        let connection = try target.connect()
        defer { target.close(connection) }
        let cell = try target.processes
        try open(target, connection, 0..<warmUpStreams)
        let before = resident(cell)
        let openBefore = try MetricsPage.complete(cell)["channel_open_streamlets"]
        let start = monotonicNanoseconds
        try open(target, connection, warmUpStreams..<warmUpStreams + count)
        let seconds = Double(monotonicNanoseconds - start) / 1e9
        let atOnce = resident(cell)
        let openAtOnce = try MetricsPage.complete(cell)["channel_open_streamlets"]
        Thread.sleep(forTimeInterval: options.flushSeconds)
        let flushed = resident(cell)
        let openInTheEnd = try MetricsPage.complete(cell)["channel_open_streamlets"]
        try target.checkSame(cell)
        let opened = min(openAtOnce, openInTheEnd) - openBefore
        guard opened > 0 else { throw ClientError("no streamlet is open") }
        report.add("streamlets open", opened, "")
        report.add("streamlets opened/s", Double(count) / seconds, "/s")
        for (label, after) in [("at once", atOnce), ("flushed", flushed)] {
            var sum = 0.0
            for name in before.keys.sorted() {
                let growth = Double((after[name] ?? 0) - (before[name] ?? 0)) / 1_048_576
                sum += growth
                report.add("streamlets \(label) \(name)", growth, "MiB")
            }
            report.add("streamlets \(label)", sum, "MiB")
            report.add("streamlets MiB/100000 \(label)", sum / opened * 100_000, "MiB")
        }
    }

    /// Appends a record to each of these streams, which makes them.
    private static func open(
        _ target: Target, _ connection: Connection, _ numbers: Range<Int>
    ) throws(ClientError) {
        let body = Array(#"{"records":[{"body":"opened"}]}"#.utf8)
        var next = numbers.lowerBound
        var failed: String?
        var replies: [Int: Reply] = [:]
        let deadline = monotonicNanoseconds + Int64(openSecondsMax * 1e9)
        while next < numbers.upperBound || !replies.isEmpty {
            while next < numbers.upperBound, replies.count < inFlightMax {
                let number = next
                next += 1
                let reply = Reply(
                    connection, "POST", "/v1/streams/open-\(number)/records", basin: target.basin,
                    body: body)
                replies[number] = reply
                reply.onEnd = {
                    guard let reply = replies.removeValue(forKey: number) else { return }
                    if reply.status != 200 { failed = "\(reply.status) \(reply.text)" }
                }
            }
            target.poller.turn(until: monotonicNanoseconds + 1_000_000_000)
            if let failure = connection.failure { throw failure }
            if let failed { throw ClientError("opening a stream: \(failed)") }
            guard monotonicNanoseconds < deadline else {
                throw ClientError("streams do not open: \(replies.count) wait")
            }
        }
    }

    private static func resident(_ cell: [CellProcess]) -> [String: Int] {
        var bytes: [String: Int] = [:]
        for process in cell { bytes[process.name, default: 0] += process.residentBytes }
        return bytes
    }
}
