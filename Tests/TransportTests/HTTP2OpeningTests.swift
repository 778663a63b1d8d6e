// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import RPC
import Testing
import Transport

/// What a client may do before it has heard, or acknowledged, what the server wants.
@Suite(.serialized) struct HTTP2OpeningTests {
    private static let refused = Bytes([0, 0, 0, 7])

    private func settings(of client: H2Client) -> [UInt16: UInt32] {
        guard let frame = client.frames.first, frame.kind == 4 else { return [:] }
        var found: [UInt16: UInt32] = [:]
        for at in stride(from: 0, to: frame.payload.count, by: 6) {
            let number = frame.payload.loadBigEndian(UInt16.self, at: at)
            found[number] = frame.payload.loadBigEndian(UInt32.self, at: at + 2)
        }
        return found
    }

    @Test func theClientIsToldOfTheLimits() async throws {
        var limits = HTTPSettings()
        limits.streamsMax = 321
        try await withSite(limits) { loop, _, address, _ in
            let client = try await H2Client(loop, address)
            #expect(await eventually(loop) { client.frames.count >= 2 })
            #expect(
                settings(of: client) == [3: 321, 4: 4 << 20, 5: 256 << 10, 6: 64 << 10])
            #expect(client.frames.filter { $0.kind == 4 && $0.flags == 0 }.count == 1)
        }
    }

    /// As many as it will be told, all in its first packet.
    @Test(arguments: [true, false])
    func manyStreamsBeforeTheAcknowledgement(_ acknowledges: Bool) async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            client.acknowledges = acknowledges
            let streams = (0..<500).map { UInt32($0 * 2 + 1) }
            for stream in streams { client.request(stream, "POST", "/echo", ends: false) }
            #expect(await eventually(loop) { streams.allSatisfy { client.has(1, $0) } })
            for stream in streams { client.send(0, 1, stream, Bytes(utf8: "abc")) }
            #expect(await eventually(loop) { streams.allSatisfy { client.hasEnded($0) } })
            #expect(site.requests.count == 500)
            #expect(!client.frames.contains { $0.kind == 3 || $0.kind == 7 })
        }
    }

    @Test(arguments: [true, false])
    func aStreamTooManyIsRefusedAlone(_ knows: Bool) async throws {
        var limits = HTTPSettings()
        limits.streamsMax = 10
        try await withSite(limits) { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            if knows { #expect(await eventually(loop) { client.has(4, 0) }) }
            let streams = (0..<15).map { UInt32($0 * 2 + 1) }
            for stream in streams {
                client.request(stream, "POST", "/echo", ends: false)
                client.send(0, 0, stream, Bytes(utf8: "abc"))
            }
            #expect(
                await eventually(loop) {
                    streams.prefix(10).allSatisfy { client.data($0) == 3 }
                        && streams.suffix(5).allSatisfy { client.has(3, $0) }
                })
            for stream in streams.suffix(5) {
                let reset = client.frames.first { $0.kind == 3 && $0.stream == stream }
                #expect(reset?.payload == Self.refused)
            }
            #expect(site.requests.count == 10)
            #expect(!client.has(7, 0), "no GOAWAY")
            for stream in streams.prefix(10) { client.send(0, 1, stream) }
            #expect(
                await eventually(loop) { streams.prefix(10).allSatisfy { client.hasEnded($0) } })
            // There is room again.
            for n in UInt32(15)..<25 { client.request(n * 2 + 1, "GET", "/hello", ends: true) }
            #expect(await eventually(loop) { client.hasEnded(49) && client.data(49) == 5 })
            #expect(client.frames.filter { $0.kind == 3 }.count == 5)
        }
    }

    /// Whatever the pieces in which it comes.
    @Test func anOpeningInSingleBytes() async throws {
        try await withSite { loop, _, address, _ in
            let raw = try await RawClient(loop, address)
            var frames: [UInt8] = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
            frames += [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 255, 255]
            frames += [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 255, 255]
            frames += [0, 0, 0, 4, 1, 0, 0, 0, 0]
            frames += [0, 0, 8, 6, 0, 0, 0, 0, 0] + Array("pingping".utf8)
            for byte in frames {
                raw.send(Bytes([byte]))
                await loop.sleep(.milliseconds(1))
            }
            #expect(await eventually(loop) { raw.text.contains("pingping") })
            // A second acknowledgement is one too many.
            raw.send(Bytes([0, 0, 0, 4, 1, 0, 0, 0, 0]))
            #expect(await eventually(loop) { raw.isClosed })
        }
    }

    /// What comes on streams that are reset already uses up the connection's window all the same.
    @Test func deadStreamsDoNotUseUpTheConnection() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await H2Client(loop, address)
            let piece = Bytes([UInt8](repeating: 1, count: 16_384))
            for n in UInt32(0)..<48 {
                let stream = n * 2 + 1
                client.request(stream, "POST", "/abort", ends: false)
                for _ in 0..<64 { client.send(0, 0, stream, piece) }
                try #require(await eventually(loop) { client.has(3, stream) })
            }
            client.request(101, "POST", "/count", ends: false)
            client.send(0, 1, 101, piece)
            #expect(await eventually(loop) { client.hasEnded(101) })
            #expect(!client.has(7, 0), "no GOAWAY")
        }
    }

    /// A client that is cut off hears why, even while it goes on sending.
    @Test func theReasonReachesAClientThatGoesOn() async throws {
        try await withSite { loop, site, address, server in
            let client = try await H2Client(loop, address)
            client.request(1, "GET", "/hang", ends: true)
            #expect(await eventually(loop) { site.held.count == 1 })
            // The block of headers never ends.
            client.send(1, 0, 3, Bytes([0x82]))
            let more = Bytes([UInt8](repeating: 0, count: 16_000))
            for _ in 0..<200 { client.send(9, 0, 3, more) }
            #expect(await eventually(loop) { client.raw.isClosed && site.aborts == 1 })
            let goAway = client.frames.last
            #expect(goAway?.kind == 7)
            #expect(goAway.map { $0.payload.loadBigEndian(UInt32.self, at: 4) != 0 } == true)
            #expect(await eventually(loop) { server.connectionCount == 0 })
        }
    }
}
