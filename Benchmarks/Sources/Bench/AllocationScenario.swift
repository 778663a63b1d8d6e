// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// Heap allocations per appended record, as counted by a library that is loaded into the cell's
/// processes before all others (`mallocs.c`). The call stacks that it sampled during each load are
/// kept in files of their own, from which `mallocs.py` tells whose the allocations are.
enum AllocationScenario {
    /// Where the library keeps the number of its samples.
    private static let samplesOffset: UInt64 = 24

    static let roles = ["channel", "frontend"]
    static let loads = [(1, 100), (64, 100), (64, 10), (64, 1)].map { streams, records in
        (streams: streams, records: records, name: "b\(records) s\(streams)")
    }

    static func run(
        _ target: Target, prefix: String, seconds: Double, _ report: inout Report
    ) throws(ClientError) {
        for load in loads {
            var scenario = AppendScenario(
                streams: load.streams, records: load.records,
                window: max(1, 1_024 / load.records), seconds: seconds,
                name: "allocations \(load.name)")
            let cell = try target.processes
            var before: [String: UInt64] = [:]
            var after: [String: UInt64] = [:]
            scenario.onMeasure = { isOver throws(ClientError) in
                if isOver {
                    after = try count(cell, prefix)
                    try keepSamples(cell, prefix, load.name.replacing(" ", with: "-"))
                } else {
                    try forgetSamples(cell, prefix)
                    before = try count(cell, prefix)
                }
            }
            let records = Double(try scenario.run(target).records)
            guard records > 0 else { throw ClientError("\(scenario.name): no record") }
            for name in roles {
                let made = Double((after[name] ?? 0) - (before[name] ?? 0))
                report.add("\(scenario.name) per record \(name)", made / records, "")
            }
        }
    }

    private static func count(
        _ cell: [CellProcess], _ prefix: String
    ) throws(ClientError) -> [String: UInt64] {
        var counts: [String: UInt64] = [:]
        for process in cell where roles.contains(process.name) {
            let path = "\(prefix).\(process.id)"
            guard let file = FileHandle(forReadingAtPath: path),
                let data = try? file.read(upToCount: 8), data.count == 8
            else { throw ClientError("\(path): nothing is counted") }
            let made = data.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
            counts[process.name, default: 0] += made
        }
        return counts
    }

    private static func forgetSamples(
        _ cell: [CellProcess], _ prefix: String
    ) throws(ClientError) {
        for process in cell where roles.contains(process.name) {
            let path = "\(prefix).\(process.id)"
            do {
                let file = try FileHandle(forWritingTo: URL(filePath: path))
                try file.seek(toOffset: samplesOffset)
                try file.write(contentsOf: Data(count: 8))
                try file.close()
            } catch { throw ClientError("\(path): \(error)") }
        }
    }

    private static func keepSamples(
        _ cell: [CellProcess], _ prefix: String, _ label: String
    ) throws(ClientError) {
        for process in cell where roles.contains(process.name) {
            let path = "\(prefix).\(process.id)"
            do {
                try FileManager.default.copyItem(atPath: path, toPath: "\(path).\(label)")
            } catch { throw ClientError("\(path): \(error)") }
        }
    }
}

extension Report {
    /// Allocations per record, of channel and frontend together, and those of our own code by the
    /// share of samples that is ours.
    mutating func addAllocations() {
        for load in AllocationScenario.loads {
            var total = 0.0
            var ours = 0.0
            var isComplete = true
            var isSampled = true
            for role in AllocationScenario.roles {
                let name = "allocations \(load.name)"
                guard let made = self["\(name) per record \(role)"] else {
                    isComplete = false
                    continue
                }
                total += made
                guard let share = self["\(name) share ours \(role)"] else {
                    isSampled = false
                    continue
                }
                add("\(name) per record, ours \(role)", made * share, "")
                ours += made * share
            }
            guard isComplete else { continue }
            add("ratio allocations/record \(load.name)", total, "")
            if isSampled { add("ratio allocations/record, ours \(load.name)", ours, "") }
        }
    }
}
