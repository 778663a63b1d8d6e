// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport
import Testing

@Suite struct ConnectionTests {
    @Test func strangeVersionIsRefusedClearly() {
        let duel = Duel(greets: false)
        duel.raw.hello(version: 7)
        duel.loop.settle()
        #expect(
            duel.log.reason == "the peer speaks version 7 of the protocol, this process version "
                + "\(Hello.currentVersion)")
        #expect(duel.link.isClosed)
    }

    @Test func silentPeerIsGivenUpBeforeHello() {
        let duel = Duel(greets: false)
        duel.loop.advance(.seconds(6))
        #expect(duel.log.reason == "the peer did not say hello")
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}a client hello",
        "0000000000000000000000000000000000000000",
    ])
    func garbageIsCutOff(garbage: String) {
        let duel = Duel(greets: false)
        duel.raw.send(text(garbage))
        duel.loop.settle()
        #expect(duel.connection.isClosed)
    }

    @Test func fuzzedBytesDoNoHarm() {
        for seed in 0..<max(400, fuzzIterations / 20) {
            let random = RandomSource.seeded(UInt64(seed))
            let duel = Duel(isInitiator: seed % 2 == 0, greets: seed % 3 != 0)
            duel.desk.onServe = { call, _, payload in call.send(payload) }
            let log = seed % 2 == 0 ? CallLog(duel.connection.open(.tail, bytes(9))) : nil
            for _ in 0..<40 where !duel.connection.isClosed {
                let count = Int(random.below(40))
                var junk = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                // Mostly frames that are nearly right.
                if count >= 16, !random.oneIn(4) {
                    let length = random.oneIn(5) ? random.below(64) : UInt64(count - 4)
                    junk.replaceSubrange(0..<4, with: [UInt8(length), 0, 0, 0])
                    junk[4] = UInt8(random.below(12))
                    if random.oneIn(2) {
                        let call = [UInt8(random.below(6)), 0, 0, 0, 0, 0, 0, 0]
                        junk.replaceSubrange(8..<16, with: call)
                    }
                }
                duel.raw.send(Bytes(junk))
                duel.loop.settle()
            }
            duel.connection.close("over")
            duel.loop.settle()
            #expect(log == nil || log?.ends == 1)
            #expect(duel.connection.callCount == 0)
        }
    }

    @Test func wrongFramesAreCutOff() {
        let wrong: [(RawPeer) -> Void] = [
            { $0.hello() },
            { $0.open(2, text("not the peer's number")) },
            { raw in for _ in 0..<2 { raw.open(1, text("a")) } },
            { $0.send(Frame(.open, call: 1, payload: bytes(3))) },
            { $0.send(Frame(.message, call: 5)) },
            { $0.send(Frame(.end, call: 2)) },
            { raw in
                raw.open(1, text("a"))
                raw.send(Frame(.end, call: 1))
            },
            { $0.send(Frame(.cancel, call: 0)) },
            { $0.send(Frame(.credit, payload: bytes(11))) },
        ]
        for (i, act) in wrong.enumerated() {
            let duel = Duel()
            act(duel.raw)
            duel.loop.settle()
            #expect(duel.connection.isClosed, "case \(i)")
        }
    }

    @Test func whoPassesAWindowIsCutOff() {
        let duel = Duel()
        duel.desk.consumes = false
        duel.raw.open(1, text("append"))
        for _ in 0..<8 { duel.raw.send(Frame(.message, call: 1, payload: bytes(1 << 20))) }
        duel.loop.settle()
        #expect(!duel.connection.isClosed)
        duel.raw.send(Frame(.message, call: 1, payload: bytes(1)))
        duel.loop.settle()
        #expect(duel.log.reason == "the peer passed the window of call 1")
    }

    @Test func unknownMethodIsToldSo() {
        let duel = Duel()
        duel.raw.open(1, text("?"), method: 200)
        duel.loop.settle()
        #expect(duel.raw.taken(.end).map(\.status) == [Status.unknownMethod.rawValue])
        #expect(!duel.connection.isClosed)
    }

    @Test func pingsAreAnsweredAndDoNotPileUp() {
        let duel = Duel()
        _ = duel.raw.taken()
        for id in 1...100 { duel.raw.send(Frame(.ping, call: UInt64(id))) }
        duel.loop.settle()
        #expect(duel.raw.taken().map(\.call) == [100])
    }

    @Test func quietPeerIsPingedAndADeadOneNoticed() {
        let duel = Duel()
        _ = duel.raw.taken()
        duel.loop.advance(.seconds(6))
        #expect(duel.raw.taken(.ping).count >= 1)
        duel.raw.send(Frame(.pong))
        duel.loop.advance(.seconds(6))
        #expect(!duel.connection.isClosed)
        duel.loop.advance(.seconds(6))
        #expect(duel.log.reason == "the peer is silent")
    }

    @Test func aliveButIdlePeersStay() {
        var settings = RPCSettings()
        settings.idleTimeout = .seconds(1_000)
        let cell = Cell(settings: settings)
        cell.loop.advance(.seconds(900))
        #expect(!cell.near.isClosed && !cell.far.isClosed)
        cell.loop.advance(.seconds(200))
        #expect(cell.near.isClosed && cell.far.isClosed)
    }

    @Test func lostConnectionEndsItsCalls() {
        let cell = Cell()
        let sent = cell.near.open(.append, Bytes())
        let log = CallLog(sent)
        cell.loop.settle()
        cell.nearLink.close()
        cell.loop.settle()
        #expect(log.status == .connectionLost)
        #expect(cell.desk.last.log.status == .connectionLost)
        let late = CallLog(cell.near.open(.append, Bytes()))
        #expect(late.status == nil)
        cell.loop.settle()
        #expect(late.status == .notConnected)
    }

    @Test func drainedConnectionClosesWhenItsCallsAreOver() {
        let cell = Cell()
        let log = CallLog(cell.near.open(.append, Bytes()))
        cell.loop.settle()
        let crossing = CallLog(cell.near.open(.tail, Bytes()))
        cell.far.drain()
        cell.loop.settle()
        #expect(cell.near.isDraining)
        // The open that crossed the drain on its way came too late, or in time: never lost.
        #expect(crossing.status == .draining || cell.desk.served.count == 2)
        let refused = CallLog(cell.near.open(.tail, Bytes()))
        cell.loop.settle()
        #expect(refused.status == .notConnected)
        cell.loop.advance(.seconds(2))
        #expect(!cell.near.isClosed)
        cell.desk.served[0].call.end(.ok, text("done"))
        for served in cell.desk.served.dropFirst() { served.call.end(.ok, Bytes()) }
        cell.loop.advance(.milliseconds(1))
        #expect(log.status == .ok)
        #expect(cell.near.isClosed && cell.far.isClosed)
    }

    @Test func serverRefusesOpensAfterItsDrain() {
        let duel = Duel()
        duel.raw.open(1, text("stays"))
        duel.loop.settle()
        duel.connection.drain()
        duel.loop.settle()
        #expect(duel.raw.taken(.drain).count == 1)
        duel.raw.open(3, text("late"))
        duel.loop.settle()
        #expect(duel.raw.taken(.end) == [Frame(.end, status: Status.draining.rawValue, call: 3)])
        duel.desk.served[0].call.end(.ok, Bytes())
        duel.loop.advance(.milliseconds(500))
        #expect(!duel.connection.isClosed)
        duel.loop.advance(.seconds(1))
        #expect(duel.log.reason == "drained")
    }
}
