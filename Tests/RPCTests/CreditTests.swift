// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport
import Testing

@Suite struct CreditTests {
    private func small() -> RPCSettings {
        var settings = RPCSettings()
        settings.callWindowBytes = 1_000
        settings.connectionWindowBytes = 4_000
        settings.frameBytesMax = 2_048
        return settings
    }

    @Test func senderWaitsAndRecovers() {
        let cell = Cell(settings: small())
        cell.desk.consumes = false
        let call = cell.near.open(.append, Bytes())
        let log = CallLog(call)
        for _ in 0..<10 { call.send(bytes(300)) }
        cell.loop.settle()
        let served = cell.desk.last
        // 300, 600, 900, and the one that overshoots.
        #expect(served.log.messages.count == 4)
        #expect(call.unsentBytes == 6 * 300)
        #expect(log.sendables == 0)
        served.call.consumed(1_200)
        cell.loop.settle()
        #expect(served.log.messages.count == 8)
        served.call.consumed(1_200)
        cell.loop.settle()
        #expect(served.log.messages.count == 10)
        #expect(call.unsentBytes == 0)
        #expect(log.sendables == 1)
    }

    @Test func oneMessageMayOvershoot() {
        let cell = Cell(settings: small())
        cell.desk.consumes = false
        let call = cell.near.open(.append, Bytes())
        _ = CallLog(call)
        call.send(bytes(1_900))
        call.send(bytes(1))
        call.finishSending()
        cell.loop.settle()
        let served = cell.desk.last
        #expect(served.log.messages.map(\.count) == [1_900])
        #expect(!served.log.isFinished)
        served.call.consumed(901)
        cell.loop.settle()
        #expect(served.log.messages.map(\.count) == [1_900, 1])
        #expect(served.log.isFinished)
    }

    @Test func endWaitsBehindHeldMessages() {
        let cell = Cell(settings: small())
        let call = cell.near.open(.follow, Bytes())
        let log = CallLog(call, consumes: false)
        cell.loop.settle()
        let served = cell.desk.last.call
        for i in 0..<3 { served.send(bytes(1_000, UInt8(i))) }
        served.end(.streamDeleted, text("end"))
        cell.loop.settle()
        #expect(log.messages.count == 1)
        #expect(log.status == nil)
        call.consumed(1_000)
        cell.loop.settle()
        call.consumed(1_000)
        cell.loop.settle()
        #expect(log.messages.count == 3)
        #expect(log.status == .streamDeleted)
        #expect(cell.far.callCount == 0)
        #expect(cell.far.heldBytes == 0)
    }

    @Test func connectionWindowIsShared() {
        let cell = Cell(settings: small())
        cell.desk.consumes = false
        let calls = (0..<8).map { _ in cell.near.open(.append, Bytes()) }
        let logs = calls.map { CallLog($0) }
        for _ in 0..<2 { for call in calls { call.send(bytes(600)) } }
        cell.loop.settle()
        let arrived = cell.desk.served.map(\.log.messageBytes).reduce(0, +)
        #expect(arrived >= 4_000 && arrived < 4_600)
        // A call that ends gives back what it never consumed; a consumer of its own helps all.
        for _ in 0..<20 {
            for served in cell.desk.served {
                served.call.consumed(served.log.messageBytes)
            }
            cell.loop.settle()
        }
        #expect(cell.desk.served.allSatisfy { $0.log.messageBytes == 1_200 })
        #expect(logs.allSatisfy { $0.status == nil })
        #expect(cell.near.heldBytes == 0)
    }

    @Test func endedCallsReturnTheirCredit() {
        let cell = Cell(settings: small())
        cell.desk.consumes = false
        for _ in 0..<100 {
            let call = cell.near.open(.append, bytes(500))
            let log = CallLog(call)
            call.send(bytes(900))
            cell.loop.settle()
            #expect(cell.desk.last.log.messages.count == 1)
            cell.desk.last.call.end(.ok, bytes(700))
            cell.loop.settle()
            #expect(log.status == .ok)
        }
        for _ in 0..<100 {
            let call = cell.near.open(.append, bytes(500))
            _ = CallLog(call)
            call.send(bytes(900))
            cell.loop.settle()
            call.cancel()
            cell.loop.settle()
        }
        #expect(cell.desk.served.count == 200)
        #expect(!cell.near.isClosed)
    }

    @Test func manyBytesFlow() {
        let cell = Cell(settings: small(), pieceBytes: 333)
        let call = cell.near.open(.append, Bytes())
        let log = CallLog(call)
        var sent = 0
        cell.desk.onServe = { call, _, _ in
            call.onFinishedSending = { call.end(.ok, Bytes()) }
        }
        call.onSendable = {
            while call.unsentBytes == 0, sent < 2_000 {
                sent += 1
                call.send(bytes(97, UInt8(sent % 251)))
            }
            if sent == 2_000 { call.finishSending() }
        }
        call.send(bytes(1_500))
        call.send(bytes(1_500))
        cell.loop.settle()
        #expect(cell.desk.last.log.messageBytes == 3_000 + 2_000 * 97)
        #expect(log.status == .ok)
    }

    @Test func neverReadingPeerLeavesTheSenderBounded() {
        var settings = RPCSettings()
        let heldBytesMax = 8 << 20
        settings.heldBytesMax = heldBytesMax
        settings.pingInterval = .seconds(5)
        let duel = Duel(settings: settings)
        duel.raw.open(1, text("follow"))
        duel.loop.settle()
        let served = duel.desk.last
        duel.link.isStalled = true
        for _ in 0..<1_000 {
            for _ in 0..<16 { served.call.send(bytes(64 << 10)) }
            duel.loop.settle()
            let kept = duel.link.unsentBytes + duel.connection.heldBytes
            // The call's window and one message on the link; the rest held, up to the bound.
            #expect(kept <= (4 << 20) + (64 << 10) + heldBytesMax + 4_096)
        }
        // Whoever insists is ended; whoever is stuck is cut off.
        #expect(served.log.status == .indefinite)
        duel.loop.advance(.seconds(11))
        let reason = duel.log.reason
        #expect(reason == "the peer takes nothing" || reason == "the peer is silent")
    }

    @Test func peerThatNeverGrantsLeavesTheSenderBounded() {
        let duel = Duel(isInitiator: true)
        var statuses: [Status] = []
        for _ in 0..<1_000 {
            let call = duel.connection.open(.append, Bytes())
            call.onEnd = { status, _ in statuses.append(status) }
            call.send(bytes(1 << 20))
            duel.loop.settle()
            #expect(duel.link.unsentBytes + duel.connection.heldBytes <= (64 << 20) + (34 << 20))
        }
        #expect(duel.link.bytesSent <= (33 << 20) + 100_000)
        #expect(statuses.count > 800)
        // They were opened, and so may have done something.
        #expect(statuses.allSatisfy { $0 == .indefinite })
    }

    @Test func emptyMessagesAreNotFree() {
        var settings = small()
        settings.heldBytesMax = 64 * 100
        let cell = Cell(settings: settings)
        cell.desk.consumes = false
        let call = cell.near.open(.append, Bytes())
        let log = CallLog(call)
        call.send(bytes(1_000))
        call.send(bytes(1))
        for _ in 0..<200 { call.send(Bytes()) }
        #expect(log.status == nil)
        cell.loop.settle()
        // Some of it was sent: what that did is not known.
        #expect(log.status == .indefinite)
        #expect(cell.near.heldBytes == 0)
        #expect(cell.desk.last.log.status == .cancelled)
    }

    @Test func whoHoldsTheMostIsEnded() {
        let heldBytesMax = 10_000
        var settings = small()
        settings.heldBytesMax = heldBytesMax
        let cell = Cell(settings: settings)
        cell.desk.consumes = false
        let modest = cell.near.open(.append, Bytes())
        let greedy = cell.near.open(.append, Bytes())
        let logs = (CallLog(modest), CallLog(greedy))
        for _ in 0..<4 { modest.send(bytes(1_000)) }
        for _ in 0..<12 { greedy.send(bytes(1_000)) }
        cell.loop.settle()
        for _ in 0..<4 { modest.send(bytes(1_000)) }
        cell.loop.settle()
        #expect(logs.0.status == nil && logs.1.status == .indefinite)
        #expect(cell.near.heldBytes <= heldBytesMax)
    }

    @Test func openingNeedsNoCredit() {
        var settings = small()
        settings.callWindowBytes = 8_000
        settings.frameBytesMax = 32_768
        let cell = Cell(settings: settings)
        cell.desk.consumes = false
        let append = cell.near.open(.append, Bytes())
        for _ in 0..<8 { append.send(bytes(1_000)) }
        cell.loop.settle()
        #expect(cell.desk.served.count == 1 && append.unsentBytes > 0)
        cell.desk.onServe = { call, _, _ in call.end(.ok, Bytes()) }
        for _ in 0..<100 {
            let log = CallLog(cell.near.open(.tail, bytes(RPCLimits.openBytesMax)))
            cell.loop.settle()
            #expect(log.status == .ok)
        }
        // What they were worth was not counted: the rest flows as it is taken.
        cell.desk.served[0].call.consumed(4_000)
        cell.loop.settle()
        #expect(append.unsentBytes == 0 && cell.desk.served[0].log.messages.count == 8)
    }
}
