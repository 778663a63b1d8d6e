// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport
import Testing

@Suite struct ClientTests {
    let loop: ManualLoop
    let network: PipeNetwork
    let desk = Desk()
    let client: RPCClient
    let server: RPCServer
    let address = "10.0.0.1:7400"

    init() {
        let loop = ManualLoop()
        self.loop = loop
        network = PipeNetwork(loop)
        client = RPCClient(
            network: network, loop: loop, identity: PeerIdentity(role: .frontend, id: 1),
            random: .seeded(1))
        server = RPCServer(
            network: network, loop: loop, identity: PeerIdentity(role: .channel, id: 2),
            service: desk)
        desk.onServe = { call, _, payload in
            if payload != text("hold") { call.end(.ok, payload) }
        }
    }

    private func serve() {
        let server = self.server
        let address = self.address
        loop.spawn { _ = try? await server.listen(address) }
        loop.settle()
    }

    private func call(_ payload: String, deadline: Nanoseconds? = nil) -> CallLog {
        CallLog(client.call(address, .tail, text(payload), deadline: deadline))
    }

    @Test func callsWaitForTheConnectionAndShareIt() {
        serve()
        network.delay = .milliseconds(5)
        let logs = (0..<5).map { call("\($0)") }
        loop.settle()
        #expect(logs.allSatisfy { $0.status == nil })
        loop.advance(.milliseconds(6))
        #expect(logs.map(\.payload.lossyText) == ["0", "1", "2", "3", "4"])
        #expect(network.attempts == 1)
        let more = call("more")
        loop.settle()
        #expect(more.status == .ok)
        #expect(network.attempts == 1)
        #expect(client.connectionCount == 1 && server.connectionCount == 1)
    }

    @Test func callsAreCountedByOutcomeWithTheirTime() {
        let early = call("nobody listens")
        loop.advance(.seconds(2))
        #expect(early.status == .notConnected)
        serve()
        desk.onServe = { call, method, payload in
            switch method {
            case .tail: call.end(payload == text("no") ? .notOwner : .ok, Bytes())
            default: break
            }
        }
        _ = [call("yes"), call("yes"), call("no")]
        let plan = client.call(address, .plan, text("x"), deadline: nil)
        let late = CallLog(client.call(address, .plan, text("x"), deadline: .milliseconds(300)))
        loop.settle()
        #expect(client.meter.inFlight == 2 && server.callCount == 2)
        loop.advance(.milliseconds(400))
        #expect(late.status == .deadlineExceeded)
        plan.cancel()
        loop.settle()
        let meter = client.meter
        #expect(meter.inFlight == 0 && server.callCount == 0)
        #expect(CallMeter.Outcome.allCases.map { meter.count(.tail, $0) } == [2, 1, 1, 0])
        #expect(CallMeter.Outcome.allCases.map { meter.count(.plan, $0) } == [0, 0, 1, 1])
        #expect(meter.durations(.plan).count == 2)
        #expect(meter.durations(.plan).sum == .milliseconds(700))
        #expect(meter.durations(.fetch).count == 0)
    }

    @Test func unaryIsAwaited() {
        serve()
        let client = self.client
        let address = self.address
        var reply: (Status, Bytes)?
        loop.spawn {
            reply = await client.unary(address, .plan, text("x"), deadline: .seconds(1))
        }
        loop.settle()
        #expect(reply?.0 == .ok)
        #expect(reply?.1 == text("x"))
    }

    @Test func deadAddressFailsFastAndIsTriedAgain() {
        let first = call("a")
        #expect(first.status == nil)
        loop.settle()
        #expect(first.status == .notConnected)
        for _ in 0..<50 {
            let log = call("b")
            #expect(log.status == nil, "never re-entrantly")
            loop.settle()
            #expect(log.status == .notConnected)
        }
        #expect(network.attempts == 1)
        serve()
        loop.advance(.seconds(1))
        let log = call("c")
        loop.settle()
        #expect(log.status == .ok)
        #expect(network.attempts == 2)
    }

    @Test func slowConnectEndsWithTheTimeoutOrTheDeadline() {
        network.delay = .seconds(60)
        let patient = call("a")
        let hasty = call("b", deadline: .milliseconds(50))
        let given = client.call(address, .tail, Bytes(), deadline: nil)
        let givenLog = CallLog(given)
        loop.settle()
        given.cancel()
        loop.advance(.milliseconds(60))
        #expect(hasty.status == .deadlineExceeded)
        #expect(patient.status == nil)
        loop.advance(.seconds(3))
        #expect(patient.status == .notConnected)
        #expect(givenLog.status == nil)
    }

    @Test func waitingCallsAreBounded() {
        network.delay = .seconds(60)
        let logs = (0..<4_200).map { call("\($0)") }
        loop.settle()
        #expect(logs.filter { $0.status == .overloaded }.count == 4_200 - 4_096)
    }

    @Test func messagesSentWhileConnectingFollowTheOpen() {
        serve()
        network.delay = .milliseconds(1)
        let call = client.call(address, .append, text("hold"), deadline: nil)
        let log = CallLog(call)
        for i in 0..<3 { call.send(text("\(i)")) }
        call.finishSending()
        loop.advance(.milliseconds(2))
        #expect(desk.last.log.messages.map(\.lossyText) == ["0", "1", "2"])
        #expect(desk.last.log.isFinished)
        desk.last.call.end(.ok, Bytes())
        loop.settle()
        #expect(log.status == .ok)
    }

    @Test func idleConnectionIsClosedAndMadeAnew() {
        serve()
        _ = call("a")
        loop.settle()
        #expect(client.connectionCount == 1)
        loop.advance(.seconds(70))
        #expect(client.connectionCount == 0 && server.connectionCount == 0)
        let log = call("b")
        loop.settle()
        #expect(log.status == .ok)
    }

    @Test func serverDrains() {
        serve()
        let held = CallLog(client.call(address, .append, text("hold"), deadline: nil))
        loop.settle()
        let server = self.server
        var isDrained = false
        loop.spawn {
            await server.drain(within: .seconds(10))
            isDrained = true
        }
        loop.settle()
        let late = call("late")
        loop.settle()
        #expect(late.status == .notConnected, "the listener is gone, nothing was sent")
        #expect(!isDrained && held.status == nil)
        desk.served[0].call.end(.ok, text("all done"))
        loop.advance(.milliseconds(10))
        #expect(held.payload == text("all done"))
        loop.advance(.seconds(2))
        #expect(isDrained)
        #expect(client.connectionCount == 0 && server.connectionCount == 0)
    }

    @Test func drainEndsAtItsLimit() {
        serve()
        let held = CallLog(client.call(address, .append, text("hold"), deadline: nil))
        loop.settle()
        let server = self.server
        loop.spawn { await server.drain(within: .seconds(10)) }
        loop.advance(.seconds(9))
        #expect(held.status == nil)
        loop.advance(.seconds(2))
        #expect(held.status == .connectionLost)
    }

    @Test func closedClientEndsEverything() {
        serve()
        let held = CallLog(client.call(address, .append, text("hold"), deadline: nil))
        loop.settle()
        client.close()
        loop.settle()
        #expect(held.status == .connectionLost)
        #expect(server.connectionCount == 0)
        let late = call("late")
        loop.settle()
        #expect(late.status == .notConnected)
    }
}
