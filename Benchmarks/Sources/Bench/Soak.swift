// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// A mixed load for a long while, during which no process may grow.
///
/// The first third of the time is for caches to fill. In the rest, the median of each process'
/// memory and descriptors over the last third must not exceed that of the middle third by more
/// than the bounds below, and no process may have been replaced.
struct Soak {
    let target: Target
    let minutes: Double
    /// Else only what was written and read is judged.
    let mustBeFlat: Bool
    private var samples: [Int: [Sample]] = [:]

    private struct Sample {
        var residentBytes: Int
        var descriptors: Int
    }

    /// Something to be done again and again.
    private struct Turn {
        let interval: Int64
        var due: Int64

        init(every seconds: Double, from start: Int64) {
            interval = Int64(seconds * 1e9)
            due = start + interval
        }

        mutating func isDue(_ now: Int64) -> Bool {
            guard now >= due else { return false }
            // What was missed is made up for, a little.
            due = max(due + interval, now - 2 * interval)
            return true
        }
    }

    private static let sampleSeconds = 10.0
    private static let residentGrowthMax = 0.05
    private static let residentSlackBytes = 8 << 20
    private static let descriptorSlack = 8
    private static let writers = 8
    private static let batchSeconds = 0.05
    private static let probeSeconds = 0.5
    private static let catchUpSeconds = 2.0
    private static let trimSeconds = 5.0

    init(_ target: Target, minutes: Double, mustBeFlat: Bool) {
        self.target = target
        self.minutes = minutes
        self.mustBeFlat = mustBeFlat
    }

    /// Reports also where something is wrong, which is then in the report's notes.
    mutating func run(_ report: inout Report) throws(ClientError) {
        let cell = try target.processes
        var load = try SoakLoad(target, writers: Self.writers)
        let start = monotonicNanoseconds
        report.add("soak minutes", minutes, "min")
        do throws(ClientError) {
            try drive(&load, cell, until: start + Int64(minutes * 60e9))
            try load.finish()
        } catch { report.notes.append("\(error)") }
        load.report(&report)
        if mustBeFlat { report.notes += judge(cell, &report) }
        guard report.notes.isEmpty else {
            throw ClientError(report.notes.joined(separator: "; "))
        }
        if mustBeFlat { say("memory and descriptors stayed flat") }
    }

    private mutating func drive(
        _ load: inout SoakLoad, _ cell: [CellProcess], until end: Int64
    ) throws(ClientError) {
        let start = monotonicNanoseconds
        var batch = Turn(every: Self.batchSeconds, from: start)
        var probe = Turn(every: Self.probeSeconds, from: start)
        var catchUp = Turn(every: Self.catchUpSeconds, from: start)
        var trim = Turn(every: Self.trimSeconds, from: start)
        var sample = Turn(every: Self.sampleSeconds, from: start)
        while monotonicNanoseconds < end {
            let now = monotonicNanoseconds
            if batch.isDue(now) { load.append() }
            if probe.isDue(now) { load.probe() }
            if catchUp.isDue(now) { load.catchUp() }
            if trim.isDue(now) { load.trim() }
            if sample.isDue(now) { try take(cell) }
            target.poller.turn(until: min(batch.due, end))
            try load.check()
        }
    }

    private mutating func take(_ cell: [CellProcess]) throws(ClientError) {
        try target.checkSame(cell)
        var line = ""
        for process in cell {
            let sample = Sample(
                residentBytes: process.residentBytes, descriptors: process.descriptors)
            samples[process.id, default: []].append(sample)
            line += "\(process.name) \(sample.residentBytes >> 20) MiB \(sample.descriptors) fds  "
        }
        print(line)
        fflush(nil)
    }

    private func judge(_ cell: [CellProcess], _ report: inout Report) -> [String] {
        var faults: [String] = []
        for process in cell {
            let all = samples[process.id] ?? []
            guard all.count >= 6 else { return ["the soak was too short to judge"] }
            let third = all.count / 3
            let middle = all[third..<2 * third]
            let last = all[(2 * third)...]
            func median(_ values: [Int]) -> Int { values.sorted()[values.count / 2] }
            let before = median(middle.map(\.residentBytes))
            let after = median(last.map(\.residentBytes))
            let open = median(middle.map(\.descriptors))
            let openLater = median(last.map(\.descriptors))
            let name = "soak \(process.label)"
            report.add("\(name) memory, middle third", Double(before) / 1_048_576, "MiB")
            report.add("\(name) memory, last third", Double(after) / 1_048_576, "MiB")
            report.add("\(name) descriptors, middle third", Double(open), "")
            report.add("\(name) descriptors, last third", Double(openLater), "")
            let slack = max(
                Self.residentSlackBytes, Int(Double(before) * Self.residentGrowthMax))
            if after > before + slack {
                faults.append("\(process.label): memory \(before >> 10) → \(after >> 10) KiB")
            }
            if openLater > open + Self.descriptorSlack {
                faults.append("\(process.label): descriptors \(open) → \(openLater)")
            }
        }
        return faults
    }
}
