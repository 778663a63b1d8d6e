// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import Simulation

@Suite(.serialized) struct SimulationTests {
    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func aCellUnderFaultsKeepsItsPromises(seed: UInt64) {
        var run = Run(seed: seed)
        run.duration = 10_000_000_000
        let outcome = onItsOwnThread(run)
        #expect(outcome.violations == [], "replay: simulator --seed \(seed) --seconds 10 --trace")
        #expect(outcome.linearizable >= 2, "histories are small enough to be judged")
    }

    /// Days with their evenings and nights: every background task finds something to do, nothing
    /// that is needed goes, and in the end nothing else is left.
    @Test func behindEveryDayTheCellIsCleanedUp() {
        var work: [String: [String: Int]] = [:]
        var (damagedPages, hedges) = (0, 0)
        for seed in 1...2 as ClosedRange<UInt64> {
            var run = Run(seed: seed)
            run.duration = 4_000_000_000
            run.evening = 10 * 60_000_000_000
            let outcome = onItsOwnThread(run)
            #expect(
                outcome.violations == [],
                "replay: simulator --seed \(seed) --seconds 4 --evening 10 --trace")
            #expect(outcome.fetches.fromCacheys > 100, "cacheys were hardly asked")
            #expect(outcome.fetches.pagesOnDisk > 0, "no page came from a disk")
            damagedPages += outcome.fetches.damagedPages
            hedges += outcome.fetches.hedges
            for (task, actions) in outcome.work {
                for (action, count) in actions {
                    work[task, default: [:]][action, default: 0] += count
                }
            }
        }
        for (task, action) in [
            ("wal-gc", "deleted_chunk"), ("wal-gc", "deleted_seal"),
            ("segment-gc", "deleted_object"), ("trim", "unlinked_segment"),
            ("retention", "raised_trim_point"), ("stream-deletion", "purged_stream"),
            ("basin-deletion", "purged_basin"), ("delete-on-empty", "deleted_stream"),
            ("compaction", "compacted_segment"), ("orphan-sweep", "unlinked_orphan"),
        ] {
            #expect(work[task]?[action] ?? 0 > 0, "\(task) did not do: \(action)")
        }
        #expect(damagedPages > 0, "no disk damaged a page")
        #expect(hedges > 0, "no cachey asked a slow store again")
    }

    @Test func withoutFaultsMuchIsAcknowledged() {
        var run = Run(seed: 1)
        run.duration = 10_000_000_000
        run.faults = .none
        let outcome = onItsOwnThread(run)
        #expect(outcome.violations == [])
        #expect(outcome.acknowledged > 500, "too few records were acknowledged")
    }

    @Test func theSameSeedGivesTheSameTraceToTheByte() {
        var run = Run(seed: 7)
        run.duration = 3_000_000_000
        run.evening = 60_000_000_000
        run.keepsTrace = true
        let first = onItsOwnThread(run)
        let second = onItsOwnThread(run)
        #expect(first.trace == second.trace)
        #expect(first.traceHash == second.traceHash)
        #expect(first.steps == second.steps)
        #expect(first.histories.map(\.lines) == second.histories.map(\.lines))
        run.seed = 8
        #expect(onItsOwnThread(run).traceHash != first.traceHash)
    }
}

/// Runs a simulation on a thread of its own, so that it keeps no thread of the pool busy.
func onItsOwnThread(_ run: Run) -> Run.Outcome {
    final class Box {
        let run: Run
        var outcome: Run.Outcome?
        init(_ run: Run) { self.run = run }
    }
    let box = Box(run)
    var thread = pthread_t()
    let started = pthread_create(
        &thread, nil,
        { raw in
            let box = Unmanaged<Box>.fromOpaque(raw!).takeUnretainedValue()
            box.outcome = box.run()
            return nil
        }, Unmanaged.passUnretained(box).toOpaque())
    precondition(started == 0, "a thread can be made")
    pthread_join(thread, nil)
    return box.outcome!
}
