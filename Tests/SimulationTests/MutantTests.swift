// SPDX-License-Identifier: Apache-2.0

import ChannelRole
import Testing

@testable import Simulation

/// The simulator must be able to see what it is for: each known bug breaks a promise within a
/// stated range of seeds, which the same seeds keep without it.
@Suite(.serialized) struct MutantTests {
    struct Case: CustomTestStringConvertible {
        let mutant: Mutant
        let faults: String
        let seeds: ClosedRange<UInt64>
        var testDescription: String { "\(mutant), seeds \(seeds), \(faults)" }
    }

    static let cases = [
        Case(mutant: .channel(.ackBeforeStable), faults: "swarm", seeds: 1...5),
        Case(mutant: .channel(.rejectionUngated), faults: "swarm", seeds: 1...5),
        Case(mutant: .channel(.gapReadAsTrimmed), faults: "swarm", seeds: 1...5),
        Case(mutant: .channel(.unflushedChunkFlushed), faults: "splits", seeds: 1...20),
        Case(mutant: .channel(.outOfOrderAck), faults: "splits", seeds: 5...30),
        Case(mutant: .sealSkipped, faults: "splits", seeds: 1...20),
        Case(mutant: .channel(.resumeAfterUnknownClose), faults: "closes", seeds: 4...40),
        Case(mutant: .channel(.refreshIgnoresClaim), faults: "swarm", seeds: 20...60),
        Case(mutant: .channel(.zombieTail), faults: "grey", seeds: 11...70),
        Case(mutant: .channel(.probeAtNextUnassigned), faults: "grey", seeds: 11...90),
        Case(mutant: .channel(.tailAfterUnstablePut), faults: "grey", seeds: 21...140),
    ]

    @Test(arguments: cases) func aMutantIsKilled(_ one: Case) throws {
        var killer: UInt64?
        for seed in one.seeds where killer == nil {
            var run = Run(seed: seed)
            run.duration = 20_000_000_000
            run.faults = try #require(Faults.named(one.faults, seed: seed))
            run.mutant = one.mutant
            if !onItsOwnThread(run).violations.isEmpty { killer = seed }
        }
        let seed = try #require(killer, "the mutant survived")
        var run = Run(seed: seed)
        run.duration = 20_000_000_000
        run.faults = try #require(Faults.named(one.faults, seed: seed))
        #expect(onItsOwnThread(run).violations == [], "seed \(seed) fails without the mutant too")
    }
}
