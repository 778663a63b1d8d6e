// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

@main
enum Main {
    nonisolated static func main() {
        do {
            let options = try Options(Array(CommandLine.arguments.dropFirst()))
            switch options.command {
            case "run": try run(options)
            case "load":
                let scenario = AppendScenario(
                    streams: options.streams, records: options.records, window: options.window,
                    seconds: options.seconds,
                    name: "load b\(options.records) s\(options.streams)")
                var report = Report()
                scenario.report(try scenario.run(try Target(options)), &report)
                print(report.table)
            case "reads":
                try ReadLoad.run(
                    try Target(options), mebibytes: options.mebibytes, seconds: options.seconds)
            case "soak":
                try soak(options)
            case "compare": try compare(options)
            case "table": try table(options)
            default: throw ClientError(Options.usage)
            }
        } catch {
            say("bench: \(error)")
            exit(1)
        }
    }

    /// Everything that was asked for, each scenario on its own: one that fails is a note, and makes
    /// the whole run fail in the end.
    nonisolated private static func run(_ options: Options) throws {
        var report = Report()
        report.build = options.build
        let needsCell = options.only.isEmpty || !options.only.isSubset(of: ["machine", "peers"])
        let target = needsCell ? try Target(options) : nil
        var plan = Plan()
        if options.wants("machine") {
            plan.add("machine") { report throws(ClientError) in
                try Machine.run(options, &report)
            }
        }
        if let target { plan.addScenarios(options, target) }
        if options.wants("peers"), options.redis != nil || options.nats != nil {
            plan.add("peers") { report throws(ClientError) in try Peer.run(options, &report) }
        }
        var progress = Progress(total: plan.runs.count)
        var failed = 0
        for (name, body) in plan.runs {
            progress.begin(name)
            do throws(ClientError) {
                try body(&report)
            } catch {
                failed += 1
                report.notes.append("\(name): \(error)")
                say("\n\(name): \(error)")
            }
        }
        progress.finish()
        if let json = options.json { try report.write(to: json) }
        print(report.table)
        if failed > 0 { throw ClientError("\(failed) scenarios failed") }
    }

    nonisolated private static func soak(_ options: Options) throws {
        var report = Report()
        report.build = options.build
        var soak = Soak(
            try Target(options), minutes: options.minutes, mustBeFlat: options.mustBeFlat)
        var failure: ClientError?
        do throws(ClientError) { try soak.run(&report) } catch { failure = error }
        if let json = options.json { try report.write(to: json) }
        print(report.table)
        if let failure { throw failure }
    }

    nonisolated private static func compare(_ options: Options) throws {
        guard options.files.count >= 2, let last = options.files.last else {
            throw ClientError("compare takes results and thresholds")
        }
        var report = try Report.read(options.files[0])
        for other in options.files.dropFirst().dropLast() { report.merge(try Report.read(other)) }
        report.addRatios()
        if let json = options.json { try report.write(to: json) }
        print("\(report.machine); \(report.build)\n\n\(report.table)")
        for note in report.notes { print("note: \(note)") }
        let (text, holds) = try Thresholds.read(last).compare(report, asked: options.wants)
        print(text)
        if !holds { throw ClientError("a threshold is broken") }
    }

    nonisolated private static func table(_ options: Options) throws {
        let table = try Table(options.files)
        if let document = options.into {
            try table.write(into: document)
        } else {
            print(table.markdown)
        }
    }
}

/// What a run consists of, in order.
private struct Plan {
    private(set) var runs: [(name: String, body: (inout Report) throws(ClientError) -> Void)] = []

    mutating func add(
        _ name: String, _ body: @escaping (inout Report) throws(ClientError) -> Void
    ) {
        runs.append((name, body))
    }

    mutating func addScenarios(_ options: Options, _ target: Target) {
        let seconds = options.seconds
        if options.wants("streamlets") {
            add("streamlets") { report throws(ClientError) in
                try StreamletScenario.run(target, options, &report)
            }
        }
        if options.wants("allocations"), let prefix = options.mallocs {
            add("allocations") { report throws(ClientError) in
                try AllocationScenario.run(target, prefix: prefix, seconds: seconds, &report)
            }
        }
        if options.wants("latency") {
            let scenario = AppendScenario.oneInFlight(seconds: seconds)
            add(scenario.name) { report throws(ClientError) in
                scenario.report(try scenario.run(target), &report)
            }
        }
        if options.wants("append") { addAppends(options, target) }
        if options.wants("follow") {
            for followers in FollowScenario.sizes {
                let scenario = FollowScenario(followers: followers, seconds: seconds)
                add(scenario.name) { report throws(ClientError) in
                    try scenario.run(target, &report)
                }
            }
        }
        if options.wants("puts") {
            for streams in PutScenario.loads {
                add(PutScenario.name(streams: streams)) { report throws(ClientError) in
                    try PutScenario.run(target, options, streams: streams, &report)
                }
            }
        }
        if options.wants("resident") {
            add("resident") { report throws(ClientError) in
                try ResidentScenario.run(target, &report)
            }
        }
        if options.wants("idle") {
            add("idle") { report throws(ClientError) in
                try IdleScenario.run(target, options, &report)
            }
        }
    }

    /// The grid of appends. The machine's limit is taken at the size of their chunks and right
    /// after them; what the largest batches of one stream left is then read.
    private mutating func addAppends(_ options: Options, _ target: Target) {
        for streams in [1, 64] {
            for records in [1, 10, 100] {
                let scenario = AppendScenario.full(
                    streams: streams, records: records, seconds: options.seconds)
                add(scenario.name) { report throws(ClientError) in
                    let outcome = try scenario.run(target)
                    scenario.report(outcome, &report)
                    if options.wants("machine"), let chunk = report["\(scenario.name) chunk"] {
                        try Machine.durableWrites(
                            options, "chunk-b\(records)-s\(streams)", bytes: Int(chunk * 1_024),
                            &report)
                    }
                    guard streams == 1, records == 100, options.wants("read") else { return }
                    try ReadScenario.run(target, outcome, seconds: options.seconds, &report)
                }
            }
        }
    }
}

extension Report {
    /// What is compared between machines.
    mutating func addRatios() {
        for streams in [1, 64] {
            for records in [1, 10, 100] {
                let name = "append b\(records) s\(streams)"
                addRatio(
                    "ratio \(name) to raw write", "\(name) MiB/s",
                    "raw write chunk-b\(records)-s\(streams) MiB/s")
            }
            // Either will do: a share of what the machine writes, or a speed.
            let name = "append b100 s\(streams)"
            if let share = self["ratio \(name) to raw write"], let speed = self["\(name) MiB/s"] {
                add("ratio \(name) to its goal", max(share / 0.5, speed / 150), "×")
            }
        }
        if let ack = self["latency one-in-flight ack p50"], let raw = self["raw write 4KiB p50"] {
            add("ratio one-in-flight ack less raw write", ack - raw, "ms")
        }
        addRatio(
            "ratio one-in-flight ack to redis", "latency one-in-flight ack p50",
            "peer redis one-in-flight ack p50")
        addRatio(
            "ratio records/s b1 s64 to redis", "append b1 s64 records/s",
            "peer redis window records/s")
        addRatio(
            "ratio records/s b1 s1 to nats", "append b1 s1 records/s", "peer nats window records/s")
        addRatio("ratio read to loopback", "read warm MiB/s", "raw loopback MiB/s")
        addAllocations()
        if let atOnce = self["streamlets MiB/100000 at once"],
            let flushed = self["streamlets MiB/100000 flushed"]
        {
            add("ratio MiB/100000 streamlets", max(atOnce, flushed), "MiB")
        }
    }
}
