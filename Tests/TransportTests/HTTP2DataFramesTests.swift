// SPDX-License-Identifier: Apache-2.0

import Foundation
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

    private static let headBytesMax = 64 << 10

    /// What is passed on of each read, and how much is held then.
    private func pass(
        _ reads: [[UInt8]], held: (Int) -> Void = { _ in }
    ) -> [[UInt8]] {
        var frames = HTTP2DataFrames(headBytesMax: Self.headBytesMax)
        var joined = ByteBuffer()
        return reads.map { read in
            var input = ByteBuffer(bytes: read)
            let isJoined = frames.join(&input, into: &joined)
            held(frames.heldBytes)
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

    private struct Dice {
        let random: RandomSource
        init(_ seed: UInt64) { random = .seeded(seed) }
        func upTo(_ n: Int) -> Int { Int(random.next() % UInt64(n)) }

        func cut(_ bytes: [UInt8], _ sizes: [Int]) -> [[UInt8]] {
            var reads: [[UInt8]] = []
            var at = 0
            while at < bytes.count {
                let count = min(bytes.count - at, 1 + upTo(sizes[upTo(sizes.count)]))
                reads.append(Array(bytes[at..<at + count]))
                at += count
            }
            return reads
        }
    }

    /// Frames of all kinds and flags; blocks of headers have their ends.
    private func anyFrames(_ dice: Dice) -> [Frame] {
        (0..<60).flatMap { _ -> [Frame] in
            var frame = data(
                dice.upTo(4) == 0 ? dice.upTo(6_000) : dice.upTo(40), UInt32(dice.upTo(3)))
            frame.payload = frame.payload.map { _ in UInt8(dice.upTo(256)) }
            if dice.upTo(6) == 0 { frame.flags = UInt8(dice.upTo(16)) }
            if dice.upTo(6) == 0 { frame.kind = UInt8(dice.upTo(10)) }
            guard frame.kind == 1 || frame.kind == 5, frame.flags & 4 == 0 else { return [frame] }
            return [frame]
                + (0...dice.upTo(4)).map { _ in
                    Frame(kind: 9, stream: frame.stream, payload: [1, 2, 3])
                } + [Frame(kind: 9, flags: 4, stream: frame.stream, payload: [])]
        }
    }

    /// Of any frames, in any reads: nothing but heads is lost, and NIO never gets what it has to
    /// keep.
    @Test(arguments: 0..<200)
    func anythingInAnyPieces(_ seed: UInt64) {
        let dice = Dice(seed)
        let frames = anyFrames(dice)
        let sizes = [[1], [3, 30, 3_000, 100_000], [12], [9, 10, 2_000]][Int(seed % 4)]
        let reads = dice.cut(frames.flatMap(\.bytes), sizes)
        let passed = pass(reads) { #expect($0 <= Self.headBytesMax + 16 * 9) }
        let (got, rest) = parse(passed.flatMap { $0 })
        #expect(rest == 0 && got.count <= frames.count)
        #expect(pieces(got) == pieces(frames))
        let keepsNothing = ends(got)
        var sent = 0
        for passed in passed {
            sent += passed.count
            if !keepsNothing.contains(sent) { Issue.record("NIO keeps bytes at \(sent)") }
        }
    }

    /// Where a decoder has used all up that keeps nothing of plain DATA: the numbers of bytes.
    private func ends(_ frames: [Frame]) -> Set<Int> {
        var ends: Set = [0]
        var end = 0
        var isInBlock = false
        for frame in frames {
            let begin = end + 9
            end = begin + frame.payload.count
            if frame.kind == 1 || frame.kind == 5 { isInBlock = true }
            if isInBlock, frame.flags & 4 != 0 { isInBlock = false }
            if frame.kind == 0, frame.flags & 8 == 0, begin < end {
                ends.formUnion(begin + 1..<end)
            }
            if !isInBlock { ends.insert(end) }
        }
        return ends
    }

    /// What may be held is bounded: what NIO refuses passes as soon as it can be told.
    @Test(
        arguments: [
            // Longer than any frame, or than a block of headers; in sum, too.
            ([(6 as UInt8, 300_000)], 9), ([(1, 70_000)], 9), ([(5, 70_000)], 9),
            ([(1, 40_000), (9, 30_000)], 40_018), ([(1, 5), (6, 8)], 23),
            ([(UInt8, Int)](repeating: (9, 0), count: 1), 9),
            ([(1, 0)] + [(UInt8, Int)](repeating: (9, 0), count: 40), 16 * 9),
        ] as [([(UInt8, Int)], Int)])
    func whatIsRefusedIsNotHeld(_ shapes: [(UInt8, Int)], _ first: Int) {
        let all = shapes.flatMap {
            Frame(kind: $0.0, payload: [UInt8](repeating: 0, count: $0.1)).bytes
        }
        let passed = pass(all.map { [$0] })
        #expect(passed.first { !$0.isEmpty }?.count == first)
        #expect(passed.flatMap { $0 } == all)
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

    /// A client that cuts what it sends where NIO would keep it: its connection takes no more for
    /// that, however much it sends.
    @Test(arguments: [(true, 5, true), (true, 5, false), (true, 9, true), (false, 9 + 5, true)])
    func cutsCostNothing(_ isData: Bool, _ cut: Int, _ acknowledges: Bool) async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            client.acknowledges = acknowledges
            #expect(await eventually(loop) { client.has(4, 0) })
            client.request(1, "POST", "/stall", ends: false)
            #expect(await eventually(loop) { site.held.count == 1 })
            site.held[0].setReading(true)
            let payload = data(250_000)
            let ping = Frame(kind: 6, stream: 0, payload: Array("pingping".utf8))
            let unit = isData ? payload.bytes : ping.bytes + payload.bytes
            var sent = 0
            var grown = 0
            for round in 0..<400 {
                // The rest of what was begun, and the beginning of the next.
                client.raw.send(Bytes(unit[(round == 0 ? 0 : cut)...] + unit[..<cut]))
                sent += 250_000
                try #require(await eventually(loop) { site.bodyBytes == sent })
                if round == 40 { grown = residentBytes() }
            }
            #expect(residentBytes() - grown < 24 << 20)
        }
    }

    private func residentBytes() -> Int {
        let pages = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        return (pages.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4_096
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
