// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// One simulated life of a cell under load and faults, from a seed.
///
/// By day, clients and faults do what they can, for seconds; then the world heals, everything is
/// read back and judged. In the evening little is done over many minutes, and background tasks
/// clean up behind it, with the waits of real cells. At night nobody else is left, and in the end
/// the store holds what the metadata refers to, and nothing else.
package struct Run {
    package var seed: UInt64
    package var size = CellSize()
    package var clients = 5
    /// How long clients and faults go on, in virtual time; then the world heals and is checked.
    package var duration: Nanoseconds = .seconds(30)
    /// How long the evening is; without one there is no night either.
    package var evening: Nanoseconds = 0
    package var faults: Faults
    package var eveningFaults: Faults
    package var keepsTrace = false
    package var mutant: Mutant?
    /// Ends as soon as some promise is broken.
    package var stopsAtViolation = false

    /// The seed decides what goes wrong, and how often.
    package init(seed: UInt64) {
        self.seed = seed
        faults = .swarm(seed: seed)
        eveningFaults = .evening(seed: seed)
    }

    package struct Outcome {
        package var seed: UInt64
        package var traceHash: UInt64
        package var trace: [String]
        package var violations: [String]
        package var acknowledged: Int
        package var crashes: Int
        package var steps: Int
        /// Streams whose history was found linearizable.
        package var linearizable: Int
        /// Of each stream, in the public format.
        package var histories: [(stream: String, lines: [String])]
        /// What background tasks did, by task and action.
        package var work: [String: [String: Int]]
        /// Objects stored, deleted, and there.
        package var balance: String
        package var fetches: Fetches
    }

    /// Where what readers read came from.
    package struct Fetches: Sendable {
        /// Ranges that frontends got of cacheys, or of the bucket itself.
        package var fromCacheys: Int
        package var fromBucket: Int
        /// Pages that cacheys found in memory, or on disk.
        package var pagesInMemory: Int
        package var pagesOnDisk: Int
        /// Pages on disk that were found damaged.
        package var damagedPages: Int
        /// Requests that cacheys sent to the store because one was slow.
        package var hedges: Int

        init(_ cell: SimCell) {
            let fetches = "millrace_frontend_fetches_total"
            let pages = "millrace_cachey_pages_total"
            fromCacheys = cell.total("\(fetches){source=\"cachey\"}")
            fromBucket = cell.total("\(fetches){source=\"bucket\"}")
            pagesInMemory = cell.total("\(pages){source=\"memory\"}")
            pagesOnDisk = cell.total("\(pages){source=\"disk\"}")
            damagedPages = cell.total("millrace_cachey_disk_corruptions_total")
            hedges = cell.total("millrace_cachey_hedges_total")
        }
    }

    /// Runs it. Everything must also get well again: streams that cannot be read once the world
    /// healed are violations.
    package func callAsFunction() -> Outcome {
        let trace = Trace(keepsLines: keepsTrace)
        let scheduler = Scheduler(seed: seed, trace: trace)
        let cell = SimCell(scheduler: scheduler, size: size, faults: faults, mutant: mutant)
        let subjects = StreamKind.allCases.enumerated().map { Subject("stream-\($0.0)", $0.1) }
        let driver = Driver(cell, subjects, run: self)
        cell.start()
        driver.start()
        let night: Nanoseconds = evening > 0 ? .seconds(31 * 86_400) : 0
        let deadline = duration + .seconds(400) + evening + .seconds(400) + night
        var isBroken = false
        let finished = scheduler.run(until: deadline, steps: 60_000_000) {
            isBroken =
                stopsAtViolation
                && !(cell.ledger.violations.isEmpty
                    && subjects.allSatisfy(\.history.violations.isEmpty))
            return driver.isDone || isBroken
        }
        var violations = driver.violations + subjects.flatMap(\.history.violations)
        violations += cell.ledger.violations
        if !finished { violations.append("the cell did not get well again: \(driver.phase)") }
        return Outcome(
            seed: seed, traceHash: trace.hash, trace: trace.lines, violations: violations,
            acknowledged: subjects.reduce(0) { $0 + $1.history.acknowledged },
            crashes: cell.crashes, steps: scheduler.stepCount,
            linearizable: subjects.count { $0.history.verdict == "linearizable" },
            histories: subjects.map { ($0.name, $0.history.log.lines) }, work: cell.work,
            balance: cell.ledger.balance, fetches: Fetches(cell))
    }
}
