// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import CacheyRole
import ChannelRole
import CopRole
import Synchronization
import Testing

@testable import Simulation

/// The simulator must be able to see what it is for: each known bug breaks a promise within a
/// stated range of seeds, which the same seeds keep without it.
@Suite(.serialized) struct MutantTests {
    struct Case: CustomTestStringConvertible {
        let mutant: Mutant
        var faults = "swarm"
        let seeds: ClosedRange<UInt64>
        /// With an evening of so many minutes, behind a short day.
        var minutes: Int64 = 0
        /// Of the ledger's rules, those that it breaks; where there are any, it must break one.
        var rules: Set<String> = []
        var testDescription: String { "\(mutant), seeds \(seeds), \(faults)" }

        /// Whether these violations are what the bug brings.
        func isKilled(by violations: [String]) -> Bool {
            guard !rules.isEmpty else { return !violations.isEmpty }
            return violations.contains { violation in
                rules.contains { withoutTime(violation).hasPrefix("\($0): ") }
            }
        }

        func run(_ seed: UInt64) throws -> Run {
            var run = Run(seed: seed)
            run.faults = try #require(Faults.named(faults, seed: seed))
            run.duration = minutes > 0 ? 3_000_000_000 : 20_000_000_000
            run.evening = minutes * 60_000_000_000
            if faults == "stuck" {
                run.eveningFaults = run.faults
                (run.size.frontends, run.size.channels, run.size.workers) = (1, 2, 1)
                run.clients = 2
            }
            run.stopsAtViolation = true
            return run
        }
    }

    static let cases = [
        Case(mutant: .channel(.ackBeforeStable), seeds: 1...5),
        Case(mutant: .channel(.rejectionUngated), seeds: 1...5),
        Case(mutant: .channel(.gapReadAsTrimmed), seeds: 1...5),
        Case(
            mutant: .channel(.unflushedChunkFlushed), faults: "splits", seeds: 1...20,
            rules: ["G2"]),
        Case(mutant: .channel(.outOfOrderAck), faults: "splits", seeds: 1...30),
        Case(mutant: .cop(.sealSkipped), faults: "splits", seeds: 2...20),
        Case(mutant: .cop(.sealForced), seeds: 1...5, rules: ["G6"]),
        Case(mutant: .cop(.sealMislabelled), seeds: 1...5, rules: ["G7"]),
        Case(
            mutant: .channel(.resumeAfterUnknownClose), faults: "lateCloses", seeds: 1...20),
        Case(mutant: .channel(.refreshIgnoresClaim), seeds: 26...60),
        Case(mutant: .channel(.zombieTail), faults: "grey", seeds: 3...70),
        Case(mutant: .channel(.probeAtNextUnassigned), faults: "grey", seeds: 24...90),
        Case(mutant: .channel(.tailAfterUnstablePut), faults: "grey", seeds: 6...140),
        Case(mutant: .channel(.tailWhileClosing), faults: "lateCloses", seeds: 2...20),
        Case(mutant: .cachey(.pageUnverified), seeds: 1...5, minutes: 9),
        Case(mutant: .cachey(.objectIgnored), seeds: 1...5),
        Case(mutant: .bgtask(.unflushedChunkDeleted), seeds: 1...5, minutes: 9, rules: ["G2"]),
        Case(mutant: .bgtask(.planWaitSkipped), seeds: 1...3, minutes: 9, rules: ["G2", "G4"]),
        Case(mutant: .bgtask(.logDeletedBackwards), seeds: 1...3, minutes: 9, rules: ["G2"]),
        Case(mutant: .bgtask(.orphanAgeIgnored), seeds: 1...3, minutes: 9, rules: ["G3"]),
        Case(mutant: .bgtask(.condemnationSkipped), seeds: 1...3, minutes: 9, rules: ["G4"]),
        Case(mutant: .bgtask(.outputUnstored), seeds: 1...5, minutes: 9, rules: ["G1"]),
        Case(mutant: .bgtask(.sealDeletedEarly), seeds: 1...3, minutes: 9, rules: ["G5"]),
    ]

    /// Seeds that were found to keep all promises without a mutant.
    private static let sound = Mutex<Set<String>>([])

    @Test(arguments: cases) func aMutantIsKilled(_ one: Case) throws {
        var killer: UInt64?
        for seed in one.seeds where killer == nil {
            var run = try one.run(seed)
            run.mutant = one.mutant
            if one.isKilled(by: onItsOwnThread(run).violations) { killer = seed }
        }
        let seed = try #require(killer, "the mutant survived")
        let name = "\(one.faults) \(one.minutes) \(seed)"
        if Self.sound.withLock({ $0.contains(name) }) { return }
        let violations = onItsOwnThread(try one.run(seed)).violations
        #expect(violations == [], "seed \(seed) fails without the mutant too")
        Self.sound.withLock { _ = $0.insert(name) }
    }
}
