// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Testing

@testable import ChannelRole

@Suite struct ExposureGateTests {
    @Test func nothingLeavesBeforeItsChunkIsStable() {
        var gate = ExposureGate<Int>()
        for index in 0..<4 {
            let leaves = gate.hold(index, until: ChunkIndex(index), dependency: nil)
            #expect(!leaves)
        }
        var released: [Int] = []
        gate.advance(to: 2) { released.append($0) }
        #expect(released == [0, 1])
        gate.advance(to: 4) { released.append($0) }
        #expect(released == [0, 1, 2, 3] && gate.count == 0)
    }

    @Test func whatRevealsOnlyStableStateLeavesAtOnce() {
        var gate = ExposureGate<Int>()
        let got1 = gate.hold(1, until: nil, dependency: nil)
        #expect(got1)
        gate.advance(to: 3) { _ in }
        let got2 = gate.hold(2, until: 2, dependency: nil)
        #expect(got2)
        let got3 = gate.hold(3, until: 3, dependency: nil)
        #expect(!got3)
    }

    @Test func anExposureForAnEarlierChunkLeavesWithIt() {
        var gate = ExposureGate<String>()
        _ = gate.hold("ack 5", until: 5, dependency: nil)
        _ = gate.hold("rejected by 3", until: 3, dependency: nil)
        var released: [String] = []
        gate.advance(to: 4) { released.append($0) }
        #expect(released == ["rejected by 3"])
        gate.advance(to: 6) { released.append($0) }
        #expect(released == ["rejected by 3", "ack 5"])
    }

    @Test func aDependencyHoldsWhatIsStable() {
        let handoff = Dependency(channel: ChannelID(9), index: 7)
        var gate = ExposureGate<String>()
        _ = gate.hold("speculative", until: 0, dependency: handoff)
        _ = gate.hold("plain", until: 0, dependency: nil)
        var released: [String] = []
        gate.advance(to: 1) { released.append($0) }
        #expect(released == ["plain"])
        gate.commit(Dependency(channel: ChannelID(9), index: 8)) { released.append($0) }
        #expect(released == ["plain"])
        gate.commit(handoff) { released.append($0) }
        #expect(released == ["plain", "speculative"])
        let got4 = gate.hold("later", until: 0, dependency: handoff)
        #expect(got4)
    }

    @Test func aFailedLogHandsEverythingBack() {
        var gate = ExposureGate<Int>()
        _ = gate.hold(1, until: 0, dependency: Dependency(channel: ChannelID(2), index: 0))
        gate.advance(to: 1) { _ in Issue.record("the dependency is open") }
        _ = gate.hold(2, until: 1, dependency: nil)
        var failed: [Int] = []
        gate.fail { failed.append($0) }
        #expect(failed == [1, 2] && gate.count == 0)
    }
}

@Suite struct LogWindowTests {
    @Test func stableInIndexOrderWhateverTheOrderOfCompletion() {
        var window = LogWindow(widthMax: 4)
        for expected in 0..<4 {
            let got5 = window.begin(at: 0)
            #expect(got5 == ChunkIndex(expected))
        }
        #expect(window.isFull && window.nextIndex == 4)
        let got6 = window.complete(2, at: 5).stableEnd
        #expect(got6 == 0)
        let got7 = window.complete(1, at: 5).stableEnd
        #expect(got7 == 0)
        let got8 = window.complete(0, at: 9)
        #expect(got8 == (3, 9))
        #expect(window.count == 1 && !window.isFull)
        let got9 = window.complete(3, at: 9).stableEnd
        #expect(got9 == 4)
        #expect(window.isEmpty && window.nextIndex == 4)
    }
}

@Suite struct LingerTests {
    @Test func nothingInFlightMeansNoWait() {
        var linger = Linger(bounds: 0...(.milliseconds(50)), width: 4)
        for _ in 0..<100 { linger.observe(put: .milliseconds(8)) }
        #expect(linger.delay(inFlight: 0) == 0)
        #expect(linger.delay(inFlight: 1) == .milliseconds(2))
    }

    @Test func theClassBoundsTheWait() {
        var linger = Linger(bounds: .milliseconds(5)...(.milliseconds(50)), width: 4)
        #expect(linger.delay(inFlight: 0) == .milliseconds(5))
        for _ in 0..<1_000 { linger.observe(put: .seconds(2)) }
        #expect(linger.delay(inFlight: 3) == .milliseconds(50))
    }
}

@Suite struct LeaseGuardTests {
    private func makeGuard() -> LeaseGuard<Int> {
        LeaseGuard(waitNanosecondsMax: 100, countMax: 3)
    }

    @Test func aLeaseCountsFromBeforeItsRenewalWasSent() {
        var lease = makeGuard()
        lease.renewed(sentAt: 10, duration: 30, at: 25) { _ in }
        let got10 = lease.ask(1, at: 39, nextIndex: 0)
        #expect(got10 == .now)
        let got11 = lease.ask(2, at: 40, nextIndex: 0)
        #expect(got11 == .later)
    }

    @Test func aLateRenewalProvesNothing() {
        var lease = makeGuard()
        _ = lease.ask(1, at: 5, nextIndex: 0)
        lease.renewed(sentAt: 10, duration: 30, at: 50) { _ in
            Issue.record("the lease has passed")
        }
        #expect(lease.count == 1)
    }

    @Test func onlyAChunkThatBeganLaterProves() {
        var lease = makeGuard()
        _ = lease.ask(1, at: 0, nextIndex: 4)
        lease.stable(4) { _ in Issue.record("chunk 3 began before the question") }
        var sent: [Int] = []
        lease.stable(5) { sent.append($0) }
        #expect(sent == [1])
    }

    @Test func aProbeProvesOnlyWhatWasAskedBeforeItBegan() {
        var lease = makeGuard()
        _ = lease.ask(1, at: 0, nextIndex: 0)
        let got12 = lease.beginProbe()
        #expect(got12)
        let got13 = lease.beginProbe()
        #expect(!got13)
        _ = lease.ask(2, at: 1, nextIndex: 0)
        var sent: [Int] = []
        lease.endProbe(absent: true) { sent.append($0) }
        #expect(sent == [1])
        let got14 = lease.beginProbe()
        #expect(got14)
        lease.endProbe(absent: false) { sent.append($0) }
        #expect(sent == [1] && lease.count == 1)
    }

    @Test func waitsEndAndAreBounded() {
        var lease = makeGuard()
        for reply in 0..<3 {
            let verdict = lease.ask(reply, at: 0, nextIndex: 0)
            #expect(verdict == .later)
        }
        let got15 = lease.ask(3, at: 0, nextIndex: 0)
        #expect(got15 == .refused)
        var refused: [Int] = []
        lease.expire(at: 99) { refused.append($0) }
        #expect(refused.isEmpty)
        lease.expire(at: 100) { refused.append($0) }
        #expect(refused == [0, 1, 2])
    }
}
