// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// What a cell does that nobody uses, once it has done with what was appended: no PUT at all.
///
/// The cell is its own, and keeps its default settings, but that its tasks take turns so often that
/// each of them comes while it is watched; that they do is counted. It gets some megabytes, which
/// are flushed and compacted; it has settled when no object was put for longer than such a turn.
enum IdleScenario {
    /// One record in flight for each stream.
    private static let streams = 8

    static func run(
        _ target: Target, _ options: Options, _ report: inout Report
    ) throws(ClientError) {
        let load = AppendScenario(
            streams: streams, records: 1, window: 1, seconds: min(3, options.seconds),
            name: "idle load")
        let appended = Double(try load.run(target).totalRecords) * Double(Content.bodyBytes)
        report.add("idle appended before", appended / 1_048_576, "MiB")
        let cell = try target.processes
        let quiet = try Quiet(options).wait(cell) { $0["channel_open_streamlets"] > 0 }
        report.add("idle settled", quiet.isReached ? 1 : 0, "")
        report.add("idle settled after", quiet.after, "s")
        let before = try MetricsPage.complete(cell)
        let postgres = try CellProcess.postgres(options.postgres)
        let usage = Usage(cell + postgres)
        Thread.sleep(forTimeInterval: options.idleSeconds)
        let spent = usage.spent()
        let after = try MetricsPage.complete(cell)
        try target.checkSame(cell)
        report.add("idle window", spent.wallSeconds, "s")
        let perHour = 3_600 / spent.wallSeconds
        for (operation, label) in [("put", "PUTs"), ("get", "GETs"), ("list", "LISTs")] {
            let made = after.storeRequests(operation) - before.storeRequests(operation)
            report.add("idle \(label)/h", made * perHour, "/h")
        }
        reportPasses(before, after, &report)
        var total = 0.0
        for process in Set((cell + postgres).map(\.name)).sorted() {
            let busy = (spent.cpuSeconds[process] ?? 0) / spent.wallSeconds * 1_000
            report.add("idle cpu \(process)", busy, "millicores")
            if process != CellProcess.postgresName { total += busy }
        }
        report.add("idle cpu of the cell", total, "millicores")
        for process in cell {
            report.add(
                "idle resident \(process.label)", Double(process.residentBytes) / 1_048_576, "MiB")
        }
    }

    /// How often each of the background tasks went through a part of its keys.
    private static func reportPasses(
        _ before: MetricsPage, _ after: MetricsPage, _ report: inout Report
    ) {
        let started = before.series("bgtask_passes_total")
        var fewest: Double?
        for (labels, count) in after.series("bgtask_passes_total").sorted(by: { $0.key < $1.key }) {
            let passes = count - (started[labels] ?? 0)
            let task = labels.replacing("task=", with: "").replacing("\"", with: "")
            report.add("idle passes \(task)", passes, "")
            fewest = min(passes, fewest ?? passes)
        }
        report.add("idle passes, fewest of a task", fewest ?? 0, "")
    }
}

/// How much memory the processes have in the end, after whatever came before.
enum ResidentScenario {
    static func run(_ target: Target, _ report: inout Report) throws(ClientError) {
        for process in try target.processes {
            report.add(
                "resident \(process.label)", Double(process.residentBytes) / 1_048_576, "MiB")
        }
    }
}
