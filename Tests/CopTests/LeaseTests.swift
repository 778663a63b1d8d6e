// SPDX-License-Identifier: Apache-2.0

import CopRole
import Metadata
import Primitives
import TestSupport
import Testing

@Suite struct LeaseTests {
    @Test func aChannelThatRenewsIsLeftAlone() throws {
        let cell = try TestCell()
        let channel = try cell.channel()
        cell.cop().start()
        for _ in 0..<60 {
            cell.loop.run(for: .seconds(1))
            #expect(try channel.renew())
        }
        #expect(try cell.row(channel.id).state == .active)
    }

    @Test func aChannelIsDeclaredDeadOnlyAfterItsLeaseAndTheMargin() throws {
        let cell = try TestCell()
        let channel = try cell.channel()
        cell.cop().start()
        for _ in 0..<5 {
            cell.loop.run(for: .seconds(1))
            _ = try channel.renew()
        }
        // Renewed just now, and counted from before that: 3 s of lease and 1 s of margin.
        cell.loop.run(for: .milliseconds(3_950))
        #expect(try cell.row(channel.id).state == .active)
        cell.loop.run(for: .milliseconds(1_100))
        #expect(try cell.row(channel.id).state != .active)
        #expect(try !channel.renew())
    }

    @Test func afterAnOutageEverybodyGetsAWholeLease() throws {
        let cell = try TestCell()
        let channel = try cell.channel()
        cell.cop().start()
        cell.loop.run(for: .seconds(2))
        cell.fault.isDown = true
        cell.loop.run(for: .seconds(60))
        cell.fault.isDown = false
        cell.loop.run(for: .milliseconds(3_950))
        #expect(try cell.row(channel.id).state == .active)
        cell.loop.run(for: .seconds(2))
        #expect(try cell.row(channel.id).state != .active)
    }

    @Test func theSecondCopTakesOverAfterTheFirstFellSilent() throws {
        let cell = try TestCell()
        let first = cell.cop { $0.frontends = 1 }
        let second = cell.cop()
        first.start()
        cell.loop.run { first.isActive }
        second.start()
        cell.loop.run(for: .seconds(20))
        #expect(first.isActive && !second.isActive)
        // It stops without giving its lease up: as if it had been killed.
        try cell.loop.value { [metadata = cell.metadata] in
            try await metadata.releaseLease("cop", holder: "somebody")
        }
        var isGone = false
        cell.loop.spawn {
            await first.drain()
            isGone = true
        }
        cell.loop.run(for: .seconds(1))
        cell.provisioner.started[0].ended("exited")
        cell.loop.run { isGone }
        cell.loop.run(for: .seconds(2))
        #expect(second.isActive, "a lease that was given up is taken at once")
    }

    @Test func noRenewalUnderWayTakesTheLeaseBack() throws {
        let cell = try TestCell()
        let cop = cell.cop()
        cop.start()
        cell.loop.run { cop.isActive }
        // A renewal that takes long; what follows it does not.
        cell.fault.pause = { [loop = cell.loop] in await loop.sleep(.seconds(2)) }
        cell.loop.run(for: .seconds(1))
        cell.fault.pause = nil
        try cell.loop.value { await cop.drain() }
        cell.loop.run(for: .seconds(3))
        let second = cell.cop()
        second.start()
        cell.loop.run(for: .milliseconds(100))
        #expect(second.isActive, "a lease that was given up is taken at once")
    }

    @Test func whoseProcessesAreEndingTakesTheLeaseAgain() throws {
        let cell = try TestCell()
        let cop = cell.cop {
            $0.channels = 1
            $0.frontends = 1
        }
        cop.start()
        cell.loop.run(for: .seconds(1))
        try cell.loop.value { [metadata = cell.metadata] in
            let lease = try await metadata.holdLease("cop", holder: "other", stale: nil)
            _ = try await metadata.holdLease("cop", holder: "other", stale: lease.renewals)
        }
        cell.loop.run(for: .seconds(1))
        let (channel, frontend) = (cell.provisioner.started[0], cell.provisioner.started[1])
        #expect(!cop.isActive && frontend.drained)
        // The other one ends too, and this one's processes have not ended yet.
        try cell.loop.value { [metadata = cell.metadata] in
            try await metadata.releaseLease("cop", holder: "other")
        }
        cell.loop.run(for: .seconds(2))
        #expect(cop.isActive)
        #expect(cell.provisioner.started.count == 2, "what is ending ends first")
        frontend.ended("exited with 0")
        cell.loop.run(for: .seconds(1))
        #expect(channel.drained && cell.provisioner.started.count == 2)
        channel.ended("exited with 0")
        cell.loop.run(for: .seconds(1))
        #expect(cop.running(.channel) == 1 && cop.running(.frontend) == 1)
        #expect(cell.provisioner.started.count == 4)
    }

    @Test func aLeaseThatNobodyRenewsIsTakenAfterItPassed() throws {
        let cell = try TestCell()
        _ = try cell.loop.value { [metadata = cell.metadata] in
            try await metadata.holdLease("cop", holder: "dead", stale: nil)
        }
        let cop = cell.cop()
        cop.start()
        cell.loop.run(for: .milliseconds(3_900))
        #expect(!cop.isActive)
        cell.loop.run(for: .milliseconds(1_600))
        #expect(cop.isActive)
    }

    @Test func whoLosesTheLeaseEndsItsProcesses() throws {
        let cell = try TestCell()
        let cop = cell.cop { $0.channels = 1 }
        cop.start()
        cell.loop.run(for: .seconds(1))
        #expect(cop.running(.channel) == 1)
        try cell.loop.value { [metadata = cell.metadata] in
            let lease = try await metadata.holdLease("cop", holder: "other", stale: nil)
            let taken = try await metadata.holdLease(
                "cop", holder: "other", stale: lease.renewals)
            #expect(taken.holder == "other")
        }
        cell.loop.run(for: .seconds(1))
        #expect(!cop.isActive)
        #expect(cell.provisioner.started[0].drained)
    }
}

@Suite struct SupervisorTests {
    @Test func processesAreStartedAgainWithGrowingWaits() throws {
        let cell = try TestCell()
        let cop = cell.cop {
            $0.channels = 1
            $0.restartBackoff = Backoff(
                first: .seconds(1), delayMax: .seconds(8), triesMax: .max, budget: .max)
        }
        cop.start()
        cell.loop.run(for: .seconds(1))
        var waits: [Nanoseconds] = []
        for _ in 0..<6 {
            let count = cell.provisioner.started.count
            let end = cell.loop.now
            cell.provisioner.started[count - 1].ended("exited with 1")
            #expect(cop.running(.channel) == 0)
            cell.loop.run { cell.provisioner.started.count > count }
            waits.append(cell.loop.now - end)
        }
        #expect(waits[0] <= .seconds(1) && waits[0] >= .milliseconds(500))
        #expect(waits[5] >= .seconds(4) && waits[5] <= .seconds(8))
        // A steady run is forgiven.
        cell.loop.run(for: .seconds(31))
        let end = cell.loop.now
        let count = cell.provisioner.started.count
        cell.provisioner.started[count - 1].ended("exited with 1")
        cell.loop.run { cell.provisioner.started.count > count }
        #expect(cell.loop.now - end <= .seconds(1))
    }

    @Test func aProgramThatCannotBeStartedIsTriedAgain() throws {
        let cell = try TestCell()
        cell.provisioner.fails = true
        let cop = cell.cop { $0.frontends = 1 }
        cop.start()
        cell.loop.run(for: .seconds(5))
        #expect(cop.running(.frontend) == 0)
        cell.provisioner.fails = false
        cell.loop.run(for: .seconds(20))
        #expect(cop.running(.frontend) == 1)
    }

    @Test func aDrainWaitsForTheOneUnderWay() throws {
        let cell = try TestCell()
        let cop = cell.cop { $0.channels = 1 }
        cop.start()
        cell.loop.run(for: .seconds(1))
        let channel = cell.provisioner.started[0]
        // Another cop takes over, so this one's processes are ended.
        try cell.loop.value { [metadata = cell.metadata] in
            let lease = try await metadata.holdLease("cop", holder: "x", stale: nil)
            _ = try await metadata.holdLease("cop", holder: "x", stale: lease.renewals)
        }
        cell.loop.run(for: .seconds(1))
        #expect(!cop.isActive && channel.drained)
        var isDrained = false
        cell.loop.spawn {
            await cop.drain()
            isDrained = true
        }
        cell.loop.run(for: .seconds(1))
        #expect(!isDrained, "the channel is still there")
        channel.ended("exited with 0")
        cell.loop.run(for: .seconds(1))
        #expect(isDrained)
    }

    /// The host ends the process after `drainAllNanoseconds`, with the lease unreleased.
    @Test func aDrainOfTheStubbornEndsInTime() async throws {
        let cell = try TestCell()
        var limits = CopLimits()
        let cop = cell.cop {
            $0.channels = 1
            $0.cacheys = 1
            $0.bgtasks = 1
            $0.frontends = 1
            limits = $0
        }
        cop.start()
        cell.loop.run(for: .seconds(1))
        let begin = cell.loop.now
        var took: Nanoseconds?
        cell.loop.spawn {
            await cop.drain()
            took = cell.loop.now - begin
        }
        for _ in 0..<200 {
            cell.loop.run(for: .seconds(1))
            for process in cell.provisioner.started where process.killed && !process.hasEnded {
                process.hasEnded = true
                process.ended("killed by signal 9")
            }
        }
        let all = try #require(took)
        #expect(all >= 4 * limits.drainNanoseconds && all <= limits.drainAllNanoseconds)
    }

    @Test func frontendsDrainBeforeChannelsAndTheStubbornAreKilled() throws {
        let cell = try TestCell()
        let cop = cell.cop {
            $0.channels = 1
            $0.frontends = 1
        }
        cop.start()
        cell.loop.run(for: .seconds(1))
        let channel = cell.provisioner.started[0]
        let frontend = cell.provisioner.started[1]
        var isDrained = false
        cell.loop.spawn {
            await cop.drain()
            isDrained = true
        }
        cell.loop.run(for: .seconds(1))
        #expect(frontend.drained && !channel.drained)
        frontend.ended("exited with 0")
        cell.loop.run(for: .seconds(1))
        #expect(channel.drained && !channel.killed && !isDrained)
        cell.loop.run(for: .seconds(20))
        #expect(channel.killed && !isDrained)
        channel.ended("killed by signal 9")
        cell.loop.run(for: .seconds(1))
        #expect(isDrained)
        #expect(cell.provisioner.started.count == 2)
    }
}
