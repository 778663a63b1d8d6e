// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import Simulation

@Suite(.serialized) struct SimulationTests {
    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func aCellUnderFaultsKeepsItsPromises(seed: UInt64) {
        var run = Run(seed: seed)
        run.duration = 10_000_000_000
        let outcome = onItsOwnThread(run)
        #expect(outcome.violations == [], "replay: simulator --seed \(seed) --seconds 10 --trace")
        #expect(outcome.linearizable >= 2, "histories are small enough to be judged")
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
        run.duration = 5_000_000_000
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
