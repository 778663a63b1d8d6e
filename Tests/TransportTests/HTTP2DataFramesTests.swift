// SPDX-License-Identifier: Apache-2.0

import HTTP
import NIOCore
import Primitives
import RPC
import Testing

@testable import Transport

/// Short DATA frames that lie side by side become one; everything else passes as it came.
@Suite(.serialized) struct HTTP2DataFramesTests {
    private struct Frame: Equatable {
        var kind: UInt8 = 0
        var flags: UInt8 = 0
        var stream: UInt32 = 1
        var payload: [UInt8]

        var bytes: [UInt8] {
            let length = UInt32(payload.count)
            let head: [UInt8] = [
                UInt8(length >> 16), UInt8(length >> 8 & 0xFF), UInt8(length & 0xFF), kind, flags,
            ]
            return head + withUnsafeBytes(of: stream.bigEndian) { Array($0) } + payload
        }
    }

    private func data(_ count: Int, _ stream: UInt32 = 1, flags: UInt8 = 0) -> Frame {
        Frame(flags: flags, stream: stream, payload: [UInt8](repeating: 7, count: count))
    }

    /// Whole frames, and how many bytes are left over.
    private func parse(_ bytes: [UInt8]) -> (frames: [Frame], rest: Int) {
        var frames: [Frame] = []
        var at = 0
        while at + 9 <= bytes.count {
            let length = Int(bytes[at]) << 16 | Int(bytes[at + 1]) << 8 | Int(bytes[at + 2])
            guard at + 9 + length <= bytes.count else { break }
            let stream = bytes[at + 5..<at + 9].reduce(0) { $0 << 8 | UInt32($1) }
            frames.append(
                Frame(
                    kind: bytes[at + 3], flags: bytes[at + 4], stream: stream,
                    payload: Array(bytes[at + 9..<at + 9 + length])))
            at += 9 + length
        }
        return (frames, bytes.count - at)
    }

    /// What is passed on of each read.
    private func pass(_ reads: [[UInt8]]) -> [[UInt8]] {
        var frames = HTTP2DataFrames()
        var joined = ByteBuffer()
        return reads.map { read in
            let input = ByteBuffer(bytes: read)
            let isJoined = frames.join(input, into: &joined)
            return Array((isJoined ? joined : input).readableBytesView)
        }
    }

    private func pass(_ frames: [Frame]) -> [Frame] {
        parse(pass([frames.flatMap(\.bytes)])[0]).frames
    }

    @Test func sideBySideBecomeOne() {
        #expect(pass([data(10), data(20), data(4_096)]) == [data(4_126)])
        #expect(pass([data(10), data(20, flags: 1)]) == [data(30, flags: 1)])
        let ping = Frame(kind: 6, stream: 0, payload: Array("pingping".utf8))
        let mixed = [ping, data(1), data(2), ping, data(3, 3), data(4, 3), data(5), ping]
        #expect(pass(mixed) == [ping, data(3), ping, data(7, 3), data(5), ping])
    }

    @Test(arguments: [
        // Of two streams, behind the end, empty, padded, with an unknown flag, long, of no stream.
        (1 as UInt32, 0 as UInt8, 3 as UInt32, 0 as UInt8, 5), (1, 1, 1, 0, 5), (1, 0, 1, 0, 0),
        (1, 0, 1, 8, 5), (1, 0, 1, 9, 5), (1, 0, 1, 2, 5), (1, 0, 1, 0, 4_097), (0, 0, 0, 0, 5),
    ])
    func othersPassAsTheyCame(
        _ stream: UInt32, _ flags: UInt8, _ nextStream: UInt32, _ nextFlags: UInt8, _ count: Int
    ) {
        let frames = [data(5, stream, flags: flags), data(count, nextStream, flags: nextFlags)]
        #expect(pass(frames) == frames)
    }

    @Test func noFrameIsLongerThanAClientMaySend() {
        let passed = pass([Frame](repeating: data(4_096), count: 100))
        #expect(passed == [data(256 << 10), data(36 * 4_096)])
        let odd = pass([Frame](repeating: data(1_000), count: 300))
        #expect(odd == [data(262_000), data(38_000)])
    }

    /// Of any frames, in any reads: nothing is held back, and nothing but heads is lost.
    @Test(arguments: 0..<200)
    func anythingInAnyPieces(_ seed: UInt64) {
        let random = RandomSource.seeded(seed)
        func upTo(_ n: Int) -> Int { Int(random.next() % UInt64(n)) }
        let frames = (0..<60).map { _ in
            var frame = data(upTo(4) == 0 ? upTo(6_000) : upTo(40), UInt32(upTo(3)))
            frame.payload = frame.payload.map { _ in UInt8(upTo(256)) }
            if upTo(6) == 0 { frame.flags = UInt8(upTo(16)) }
            if upTo(6) == 0 { frame.kind = UInt8(upTo(10)) }
            return frame
        }
        let all = frames.flatMap(\.bytes)
        var reads: [[UInt8]] = []
        var at = 0
        while at < all.count {
            let count = min(all.count - at, 1 + upTo([3, 30, 3_000, 100_000][upTo(4)]))
            reads.append(Array(all[at..<at + count]))
            at += count
        }
        let passed = pass(reads)
        for (read, passed) in zip(reads, passed) {
            #expect(passed.count <= read.count && (read.count - passed.count) % 9 == 0)
        }
        let (got, rest) = parse(passed.flatMap { $0 })
        #expect(rest == 0 && got.count <= frames.count)
        #expect(pieces(got) == pieces(frames))
    }

    /// The frames with each byte of a joinable frame on its own.
    private func pieces(_ frames: [Frame]) -> [Frame] {
        frames.flatMap { frame -> [Frame] in
            guard frame.kind == 0, frame.flags & ~1 == 0, frame.stream > 0 else { return [frame] }
            guard let last = frame.payload.indices.last else { return [frame] }
            return frame.payload.indices.map { at in
                Frame(
                    flags: at == last ? frame.flags : 0, stream: frame.stream,
                    payload: [frame.payload[at]])
            }
        }
    }

    // MARK: Over a socket

    /// A client's frames in as few writes as it takes.
    private func bytes(_ frames: [Frame]) -> Bytes { Bytes(frames.flatMap(\.bytes)) }

    @Test func aServiceGetsThemTogether() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            #expect(await eventually(loop) { client.has(4, 0) })
            client.request(1, "POST", "/stall", ends: false)
            #expect(await eventually(loop) { site.held.count == 1 })
            site.held[0].setReading(true)
            let body = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
            let frames = stride(from: 0, to: body.count, by: 100).map {
                Frame(payload: Array(body[$0..<$0 + 100]))
            }
            client.raw.send(bytes(frames))
            #expect(await eventually(loop) { site.bodyBytes == body.count })
            #expect(site.bodyPieces < 20)
            client.request(3, "POST", "/echo", ends: false)
            client.raw.send(bytes(frames.map { Frame(stream: 3, payload: $0.payload) }))
            client.send(0, 1, 3)
            #expect(await eventually(loop) { client.hasEnded(3) })
            let echoed = client.frames.filter { $0.kind == 0 && $0.stream == 3 }.map(\.payload)
            #expect(echoed.joined() == Bytes(body))
        }
    }

    /// They count against the stream's window as they would alone.
    @Test func theWindowHoldsForThemTogether() async throws {
        var settings = HTTPSettings()
        settings.streamWindowBytes = 100_000
        try await withSite(settings) { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            #expect(await eventually(loop) { client.has(4, 0) })
            for stream: UInt32 in [1, 3] { client.request(stream, "POST", "/stall", ends: false) }
            #expect(await eventually(loop) { site.held.count == 2 })
            client.raw.send(bytes([Frame](repeating: data(1_000, 3), count: 100)))
            client.raw.send(bytes([Frame](repeating: data(1_000), count: 101)))
            #expect(await eventually(loop) { client.has(3, 1) })
            let reset = client.frames.first { $0.kind == 3 && $0.stream == 1 }
            #expect(reset?.payload == Bytes([0, 0, 0, 3]), "FLOW_CONTROL_ERROR")
            #expect(!client.has(3, 3) && !client.has(7, 0))
            site.held[1].setReading(true)
            #expect(await eventually(loop) { site.bodyBytes == 100_000 })
        }
    }
}
