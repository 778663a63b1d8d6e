// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import Testing
import Transport

/// Sends back what it gets.
final class Echo: CallService {
    private(set) var received = 0
    var isHoarding = false

    func serve(_ call: any Call, method: RPC.Method, payload: Bytes, deadline: Nanoseconds?) {
        guard method == .append else { return call.end(.ok, payload) }
        call.onMessage = { [self, unowned call] bytes in
            received += bytes.count
            guard !isHoarding else { return }
            call.send(bytes)
            call.consumed(bytes.count)
        }
        call.onFinishedSending = { [unowned call] in call.end(.ok, Bytes()) }
    }
}

private let frontend = PeerIdentity(role: .frontend, id: 1)
private let channel = PeerIdentity(role: .channel, id: 2)

private func client(_ loop: NIOLoop, _ network: NIONetwork) -> RPCClient {
    RPCClient(network: network, loop: loop, identity: frontend, random: .system())
}

@Suite(.serialized) struct RPCSocketTests {
    @Test(arguments: Place.allCases) func echo(_ place: Place) async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let server = RPCServer(
                network: network, loop: loop, identity: channel, service: Echo())
            let address = try await server.listen(place.address())
            let client = client(loop, network)
            for size in [0, 1, 1_000, RPCLimits.openBytesMax] {
                let payload = Bytes([UInt8](repeating: UInt8(size % 255), count: size))
                let (status, reply) = await client.unary(
                    address, .tail, payload, deadline: .seconds(20))
                #expect(status == .ok)
                #expect(reply == payload)
            }
            #expect(client.connectionCount == 1)
            client.close()
            #expect(await eventually(loop) { server.connectionCount == 0 })
            await server.drain(within: .seconds(1))
        }
    }

    @Test(arguments: Place.allCases)
    func manyMegabytesStreamBothWays(_ place: Place) async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let server = RPCServer(
                network: network, loop: loop, identity: channel, service: Echo())
            let address = try await server.listen(place.address())
            let client = client(loop, network)
            let call = client.call(address, .append, Bytes(), deadline: nil)
            let chunk = Bytes([UInt8](repeating: 5, count: 100_000))
            let done = Signal<Status>()
            var sent = 0
            var returned = 0
            var most = 0
            func fill() {
                while sent < 1_000, call.unsentBytes == 0 {
                    sent += 1
                    call.send(chunk)
                }
                most = max(most, call.unsentBytes)
                if sent == 1_000 { call.finishSending() }
            }
            call.onSendable = { fill() }
            call.onMessage = { bytes in
                returned += bytes.count
                call.consumed(bytes.count)
            }
            call.onEnd = { status, _ in done.set(status) }
            fill()
            #expect(await loop.withDeadline(.seconds(120)) { await done.wait() } == .ok)
            #expect(returned == 100_000_000)
            #expect(most <= 100_000)
            client.close()
            await server.drain(within: .seconds(1))
        }
    }

    @Test func refusedConnectionIsNotConnected() async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let client = client(loop, network)
            let (status, _) = await client.unary(
                "127.0.0.1:1", .tail, Bytes(), deadline: .seconds(5))
            #expect(status == .notConnected)
            let long = "unix:/" + String(repeating: "a", count: 200)
            for address in ["nonsense", "unix:nonsense", "unix:/no/such/socket", long] {
                let (bad, _) = await client.unary(address, .tail, Bytes(), deadline: .seconds(5))
                #expect(bad == .notConnected)
            }
        }
    }

    @Test(arguments: Place.allCases)
    func garbageOnTheSocketIsCutOff(_ place: Place) async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let server = RPCServer(
                network: network, loop: loop, identity: channel, service: Echo())
            let address = try await server.listen(place.address())
            let link = try await network.connect(address, timeout: .seconds(60))
            let log = LinkLog()
            link.handler = log
            link.write([Bytes(utf8: "GET / HTTP/1.1\r\nhost: x\r\n\r\n")])
            link.flush()
            #expect(await eventually(loop) { log.isClosed })
            await server.drain(within: .seconds(1))
        }
    }

    @Test(arguments: Place.allCases)
    func mutualTLSAcceptsItsOwnAndRejectsStrangers(_ place: Place) async throws {
        let mine = try Certificates()
        let theirs = try Certificates()
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop, tls: mine.mutual)
            let server = RPCServer(
                network: network, loop: loop, identity: channel, service: Echo())
            let address = try await server.listen(place.address())
            let friend = client(loop, network)
            let payload = Bytes([UInt8](repeating: 1, count: RPCLimits.openBytesMax))
            let (status, reply) = await friend.unary(
                address, .tail, payload, deadline: .seconds(10))
            #expect(status == .ok)
            #expect(reply == payload)

            let stranger = client(loop, try NIONetwork(loop: loop, tls: theirs.mutual))
            let (refused, _) = await stranger.unary(
                address, .tail, payload, deadline: .seconds(10))
            #expect(refused == .notConnected)
            // Trusts the server, but shows a certificate of other authorities.
            var half = theirs.mutual
            half.roots = mine.mutual.roots
            let impostor = client(loop, try NIONetwork(loop: loop, tls: half))
            let (denied, _) = await impostor.unary(
                address, .tail, payload, deadline: .seconds(10))
            #expect(denied == .notConnected)
            let plain = client(loop, try NIONetwork(loop: loop))
            let (dropped, _) = await plain.unary(address, .tail, payload, deadline: .seconds(10))
            #expect(dropped == .notConnected)
            friend.close()
            await server.drain(within: .seconds(1))
        }
    }
}

final class LinkLog: LinkHandler {
    private(set) var received = 0
    private(set) var isClosed = false
    func linkReceived(_ bytes: Bytes) { received += bytes.count }
    func linkBurstEnded() {}
    func linkClosed(_ reason: String) { isClosed = true }
}
