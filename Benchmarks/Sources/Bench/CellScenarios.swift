// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// How much memory open streamlets take: streams that got one record each. What the processes
/// grow by while the first of them are opened, connections and buffers, is not counted.
enum StreamletScenario {
    private static let inFlightMax = 256

    static func run(
        _ target: Target, seconds: Double, _ report: inout Report
    ) throws(ClientError) {
        let connection = try target.connect()
        defer { target.close(connection) }
        let cell = try target.processes
        var before: [String: Int] = [:]
        var openBefore = 0.0
        let body = Array(#"{"records":[{"body":"opened"}]}"#.utf8)
        var begun = 0
        var failed: String?
        var replies: [Int: Reply] = [:]
        let start = monotonicNanoseconds
        let end = start + Int64(seconds * 1e9)
        let warm = start + Int64(seconds * 1e9 / 3)
        while monotonicNanoseconds < end || !replies.isEmpty {
            if before.isEmpty, monotonicNanoseconds >= warm {
                before = resident(cell)
                openBefore = MetricsPage(cell)["channel_open_streamlets"]
            }
            while monotonicNanoseconds < end, replies.count < inFlightMax {
                let number = begun
                begun += 1
                let reply = Reply(
                    connection, "POST", "/v1/streams/open-\(number)/records", basin: target.basin,
                    body: body)
                replies[number] = reply
                reply.onEnd = {
                    guard let reply = replies.removeValue(forKey: number) else { return }
                    if reply.status != 200 { failed = "\(reply.status) \(reply.text)" }
                }
            }
            target.poller.turn(until: max(end, monotonicNanoseconds + 1_000_000_000))
            if let failure = connection.failure { throw failure }
            guard monotonicNanoseconds < end + 30_000_000_000 else {
                throw ClientError("streams do not open: \(replies.count) wait")
            }
        }
        if let failed { throw ClientError("opening a stream: \(failed)") }
        let after = resident(cell)
        let opened = MetricsPage(cell)["channel_open_streamlets"] - openBefore
        guard opened > 0 else { throw ClientError("no streamlet is open") }
        report.add("streamlets counted", opened, "")
        report.add(
            "streamlets opened/s", opened / (Double(monotonicNanoseconds - warm) / 1e9), "/s")
        for name in before.keys.sorted() where name != "cop" {
            let growth = Double((after[name] ?? 0) - (before[name] ?? 0))
            report.add(
                "streamlets MiB/100000 \(name)", growth / opened * 100_000 / 1_048_576, "MiB")
        }
    }

    private static func resident(_ cell: [CellProcess]) -> [String: Int] {
        var bytes: [String: Int] = [:]
        for process in cell { bytes[process.name, default: 0] += process.residentBytes }
        return bytes
    }
}

/// What a cell writes that nobody uses: nothing.
enum IdleScenario {
    private static let quietSeconds = 5.0

    static func run(
        _ target: Target, settleSeconds: Double, seconds: Double, _ report: inout Report
    ) throws(ClientError) {
        let cell = try target.processes
        let start = monotonicNanoseconds
        func sinceStart() -> Double { Double(monotonicNanoseconds - start) / 1e9 }
        var puts = -1.0
        var changedAt = sinceStart()
        // Appends are flushed after a while, and unused streams closed, which takes the last PUTs.
        while sinceStart() - changedAt < quietSeconds, sinceStart() < settleSeconds {
            let page = MetricsPage(cell)
            if page.objectPuts != puts || page["channel_open_streamlets"] > 0 {
                changedAt = sinceStart()
            }
            puts = page.objectPuts
            Thread.sleep(forTimeInterval: 1)
        }
        report.add("idle settled", sinceStart() - changedAt >= quietSeconds ? 1 : 0, "")
        puts = MetricsPage(cell).objectPuts
        let usage = Usage(cell)
        Thread.sleep(forTimeInterval: seconds)
        let spent = usage.spent()
        let after = MetricsPage(cell).objectPuts
        report.add("idle PUTs/min", (after - puts) / spent.wallSeconds * 60, "/min")
        for process in Set(cell.map(\.name)).sorted() {
            let busy = (spent.cpuSeconds[process] ?? 0) / spent.wallSeconds
            report.add("idle cpu \(process)", busy * 1_000, "millicores")
        }
        for process in cell {
            report.add(
                "resident \(process.name) \(process.admin ?? "")",
                Double(process.residentBytes) / 1_048_576, "MiB")
        }
    }
}

/// Heap allocations per appended record, as counted by a library that is loaded into the cell's
/// processes before all others (`mallocs.c`).
enum AllocationScenario {
    static func run(
        _ target: Target, prefix: String, seconds: Double, _ report: inout Report
    ) throws(ClientError) {
        for (streams, records) in [(1, 100), (64, 100), (64, 1)] {
            let scenario = AppendScenario(
                streams: streams, records: records, window: max(1, 1_024 / records),
                seconds: seconds, name: "allocations b\(records) s\(streams)")
            let cell = try target.processes
            let before = count(cell, prefix)
            let outcome = try scenario.run(target)
            let after = count(cell, prefix)
            // Warm-up and the check at the end are counted on both sides of the division.
            let total = Double(outcome.totalRecords)
            for name in after.keys.sorted() where name == "channel" || name == "frontend" {
                let made = Double((after[name] ?? 0) - (before[name] ?? 0))
                report.add("\(scenario.name) per record \(name)", made / total, "")
            }
        }
    }

    private static func count(_ cell: [CellProcess], _ prefix: String) -> [String: UInt64] {
        var counts: [String: UInt64] = [:]
        for process in cell {
            guard let data = FileManager.default.contents(atPath: "\(prefix).\(process.id)"),
                data.count >= 8
            else { continue }
            let made = data.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
            counts[process.name, default: 0] += made
        }
        return counts
    }
}
