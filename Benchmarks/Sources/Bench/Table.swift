// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// The table in docs/performance.md: all of it from the newest run, and the first beside it where a
/// figure was to become smaller.
struct Table {
    let first: Report
    let newest: Report
    let newestName: String

    private static let begin = "<!-- bench table -->"
    private static let end = "<!-- /bench table -->"
    private static let scenarios = ["b100 s1", "b100 s64"]

    /// Results by their names, which are dates; those of soaks are not runs.
    init(_ paths: [String]) throws {
        let runs = paths.filter { !$0.contains("soak") }.sorted {
            URL(filePath: $0).lastPathComponent < URL(filePath: $1).lastPathComponent
        }
        guard let first = runs.first, let newest = runs.last else {
            throw ClientError("table takes results")
        }
        self.first = try Report.read(first)
        self.newest = try Report.read(newest)
        newestName = URL(filePath: newest).lastPathComponent
    }

    /// Puts the table where the document has its marks.
    func write(into path: String) throws {
        let text = readFile(path)
        guard let begin = text.range(of: Self.begin),
            let end = text.range(of: Self.end), begin.upperBound < end.lowerBound
        else { throw ClientError("\(path) has no \(Self.begin)") }
        let new = text[..<begin.upperBound] + "\n" + markdown + text[end.lowerBound...]
        try String(new).write(toFile: path, atomically: true, encoding: .utf8)
    }

    var markdown: String {
        var text = "| figure | goal | measured |\n|---|---|---|\n"
        for row in speed + allocations + rest {
            text += "| \(row.0) | \(row.1) | \(row.2) |\n"
        }
        return text + "\nAll of it is from `Benchmarks/results/\(newestName)`,"
            + " build \(newest.build); \(newest.machine).\n"
    }

    private typealias Row = (String, String, String)

    private var speed: [Row] {
        let ratios = Self.scenarios.map { "ratio append \($0) to raw write" }
        let ack = "latency one-in-flight ack"
        return [
            (
                "append, batches of 100; 1, 64 streams", "≥ 50 % of raw write, or ≥ 150 MiB/s",
                some(Self.scenarios.map { "append \($0) MiB/s" }) + " MiB/s; "
                    + some(ratios, by: 100) + " %"
            ),
            (
                "append, batches of 10; 1, 64 streams", "",
                some(["append b10 s1 MiB/s", "append b10 s64 MiB/s"]) + " MiB/s; "
                    + some(
                        ["b10 s1", "b10 s64"].map { "ratio append \($0) to raw write" }, by: 100)
                    + " %"
            ),
            (
                "append, batches of 1; 1, 64 streams", "",
                some(["append b1 s1 records/s", "append b1 s64 records/s"], by: 0.001)
                    + " thousand records/s"
            ),
            (
                "ack p50, p99, p999; 1 in flight", "p50 ≤ raw write + 2 ms",
                some(["\(ack) p50", "\(ack) p99", "\(ack) p999"]) + " ms; raw write "
                    + one("raw write 4KiB p50") + " ms"
            ),
            (
                "ack p50, p99; full window, batches of 100", "",
                some(["append b100 s1 ack p50", "append b100 s1 ack p99"]) + " ms (1 stream); "
                    + some(["append b100 s64 ack p50", "append b100 s64 ack p99"]) + " ms (64)"
            ),
            (
                "read through the cachey, cold; warm", "≥ 300 MiB/s warm",
                some(["read cold MiB/s", "read warm MiB/s"], "; ") + " MiB/s"
            ),
            (
                "append to reader p50; 1, 100, 1,000 followers", "", follow("append-to-reader")
            ),
            (
                "ack to reader p50, 0 where the reader was first; 1, 100, 1,000 followers",
                "≤ 2 ms at 1", follow("ack-to-reader")
            ),
        ]
    }

    private func follow(_ span: String) -> String {
        let names = FollowScenario.sizes.map { "follow \($0) \(span)" }
        return some(names.map { "\($0) p50" }) + " ms; p99 " + some(names.map { "\($0) p99" })
            + " ms"
    }

    private var allocations: [Row] {
        AllocationScenario.loads.map { load in
            let streams = load.streams == 1 ? "1 stream" : "\(load.streams) streams"
            let name = "allocations \(load.name) per record"
            let isBounded = load.records == 100
            return (
                "heap allocations per record, batches of \(load.records), \(streams)",
                isBounded ? "≤ 0.3; ours ≤ 0.05" : "",
                one("ratio allocations/record \(load.name)") + "; ours "
                    + thousandths("ratio allocations/record, ours \(load.name)") + ": channel "
                    + thousandths("\(name), ours channel") + ", frontend "
                    + thousandths("\(name), ours frontend")
            )
        }
    }

    private var rest: [Row] {
        let cpu = ["frontend", "channel"].map { "append b1 s64 cpu/record \($0)" }
        let putScenarios = PutScenario.loads.map { PutScenario.name(streams: $0) }
        let large = ["frontend", "channel"].map { "append b100 s64 cpu/record \($0)" }
        return [
            (
                "memory per 100,000 open streamlets, all processes", "≤ 100 MiB",
                one("ratio MiB/100000 streamlets") + " MiB, with " + one("streamlets open")
                    + " open"
            ),
            (
                "PUTs while idle", "none",
                measured(
                    one("idle PUTs/h") + " per hour, by a window of " + one("idle window") + " s; "
                        + one("idle cpu of the cell") + " millicores, Postgres "
                        + one("idle cpu postgres"),
                    if: "idle PUTs/h")
            ),
            (
                "PUTs per GiB, batches of 100; 1, 64 streams; flushed and compacted", "",
                measured(
                    some(putScenarios.map { "\($0) PUTs/GiB" }) + ": "
                        + ["chunks", "segments", "compaction"].map { kind in
                            "\(kind) " + some(putScenarios.map { "\($0) PUTs/GiB \(kind)" })
                        }.joined(separator: "; "),
                    if: "\(putScenarios[0]) PUTs/GiB")
            ),
            (
                "processor per record, batches of 1, 64 streams: frontend, channel",
                "half, twice over",
                "first run " + some(cpu, of: first) + " µs; now " + some(cpu) + " µs"
            ),
            (
                "the same, batches of 100", "",
                "first run " + some(large, of: first) + " µs; now " + some(large) + " µs"
            ),
            (
                "processor seconds per GiB appended, batches of 100; 1, 64 streams", "",
                processes(Self.scenarios.map { "append \($0) cpu-s/GiB" })
            ),
            (
                "processor seconds per GiB read; cold, warm", "",
                processes(["cold", "warm"].map { "read \($0) cpu-s/GiB" })
            ),
        ]
    }

    /// The figures of each process of a cell, in the order of their names.
    private func processes(_ names: [String]) -> String {
        measured(
            ["bgtask", "cachey", "channel", "cop", "frontend"].map { process in
                "\(process) " + some(names.map { "\($0) \(process)" })
            }.joined(separator: "; "), if: "\(names[0]) frontend")
    }

    /// The text, if the run has this figure.
    private func measured(_ text: String, if name: String) -> String {
        newest[name] == nil ? "not measured" : text
    }

    private func some(
        _ names: [String], _ separator: String = ", ", by factor: Double = 1,
        of report: Report? = nil
    ) -> String {
        names.map { one($0, by: factor, of: report) }.joined(separator: separator)
    }

    /// With three decimals, where two would hide what is near its bound.
    private func thousandths(_ name: String) -> String {
        newest[name].map { String(format: "%.3f", $0) } ?? "–"
    }

    private func one(_ name: String, by factor: Double = 1, of report: Report? = nil) -> String {
        guard let value = (report ?? newest)[name].map({ $0 * factor }) else { return "–" }
        switch abs(value) {
        case 0: return "0"
        case ..<0.0095: return String(format: "%.3f", value)
        case ..<1: return String(format: "%.2f", value)
        case ..<10: return String(format: "%.1f", value)
        default: return Int(value.rounded()).formatted(.number.locale(Locale(identifier: "en_US")))
        }
    }
}
