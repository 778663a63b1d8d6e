// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import TestSupport
import Testing

/// The API's worked examples.
private let helloFrame: Bytes = [0, 0, 0x0A, 0, 0x0A, 7, 0x1A, 5, 0x68, 0x65, 0x6C, 0x6C, 0x6F]
private let heartbeatFrame: Bytes = [0, 0, 8, 0, 0x12, 5, 8, 5, 0x10, 0xE8, 7]
private let zstdFrame: Bytes = [
    0, 0, 0x13, 0x20, 0x28, 0xB5, 0x2F, 0xFD, 0x20, 9, 0x49, 0, 0, 0x0A, 7, 0x1A, 5, 0x68, 0x65,
    0x6C, 0x6C, 0x6F,
]
private let gzipHead: Bytes = [0, 0, 3, 0x40, 0x1F, 0x8B]
private let mismatchFrame = Bytes(
    [0, 0, 0x19, 0x80, 1, 0x9C] + Array(#"{"seq_num_mismatch":2}"#.utf8))

@Suite struct SessionFrameTests {
    private func decode(_ pieces: [Bytes]) throws(SessionFrameError) -> [SessionFrame] {
        var decoder = SessionFrameDecoder()
        var frames: [SessionFrame] = []
        for piece in pieces {
            decoder.append(piece)
            while let frame = try decoder.next() { frames.append(frame) }
        }
        try decoder.finish()
        return frames
    }

    @Test func decodesPublishedExamples() throws {
        let frames = try decode([helloFrame, heartbeatFrame, zstdFrame, gzipHead, mismatchFrame])
        #expect(
            frames == [
                SessionFrame(payload: helloFrame.dropFirst(4)),
                SessionFrame(payload: heartbeatFrame.dropFirst(4)),
                SessionFrame(payload: zstdFrame.dropFirst(4), compression: .zstd),
                SessionFrame(payload: [0x1F, 0x8B], compression: .gzip),
                SessionFrame(payload: mismatchFrame.dropFirst(4), isTerminal: true),
            ])
    }

    @Test func encodesPublishedExamples() {
        let payload = helloFrame.dropFirst(4)
        let parts = [SessionFrame.header(payloadBytes: payload.count), payload]
        #expect(parts.joined() == helloFrame)
        let packed = zstdFrame.dropFirst(4)
        #expect(
            [SessionFrame.header(payloadBytes: packed.count, compression: .zstd), packed].joined()
                == zstdFrame)
        let mismatch = SessionFrame.terminal(
            status: 412, body: Bytes(utf8: #"{"seq_num_mismatch":2}"#))
        #expect(mismatch == mismatchFrame)
        let bad = SessionFrame.terminal(
            status: 400, body: Bytes(utf8: #"{"code":"bad_frame","message":"x"}"#))
        #expect(bad.prefix(6) == [0, 0, 0x25, 0x80, 1, 0x90])
        #expect(SessionFrame.header(payloadBytes: 2, advisesReconnect: true) == [0, 0, 3, 0x10])
    }

    @Test func splitsAtEveryByte() throws {
        let all = [helloFrame, heartbeatFrame, zstdFrame, mismatchFrame].joined()
        let expected = try decode([all])
        #expect(expected.count == 4)
        for cut in 1..<all.count {
            #expect(try decode([all.prefix(cut), all.dropFirst(cut)]) == expected)
            for second in stride(from: cut + 1, to: all.count, by: 3) {
                let pieces = [all[0..<cut], all[cut..<second], all.dropFirst(second)]
                #expect(try decode(pieces) == expected)
            }
        }
        #expect(try decode((0..<all.count).map { all[$0..<$0 + 1] }) == expected)
    }

    @Test func sharesMemoryOfWholeFrames() throws {
        let both = [helloFrame, heartbeatFrame].joined()
        let frames = try decode([both])
        #expect(frames[0].payload.base == both.base + 4)
        #expect(frames[1].payload.base == both.base + helloFrame.count + 4)
    }

    /// Reads of a socket leave small pieces in large buffers: those are let go.
    @Test func aFrameInPiecesHoldsNothingButItself() throws {
        let payload = Bytes((0..<5_000).map { UInt8(truncatingIfNeeded: $0) })
        let frame = [SessionFrame.header(payloadBytes: payload.count), payload].joined()
        var decoder = SessionFrameDecoder()
        var last: WeakStorage?
        for i in 0..<frame.count {
            let storage = ByteStorage.make(capacity: 65_536)
            storage.base.storeBytes(of: frame[i], as: UInt8.self)
            decoder.append(
                Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: 1))
            #expect(last?.storage == nil)
            last = WeakStorage(storage: storage)
            #expect(decoder.bufferedBytes == i + 1)
            if i < frame.count - 1 { #expect(try decoder.next() == nil) }
        }
        let decoded = try #require(try decoder.next())
        #expect(decoded.payload == payload)
        #expect((decoded.payload.owner as? ByteStorage)?.byteCapacity ?? .max <= 4 * 5_000)
        #expect(last?.storage == nil && decoder.bufferedBytes == 0)
        try decoder.finish()
    }

    /// So are they where frames are left for later.
    @Test func whatIsDetachedHoldsNoReadBuffer() throws {
        var decoder = SessionFrameDecoder()
        let frames = [helloFrame, heartbeatFrame, helloFrame].joined()
        let expected = try decode([frames, frames])
        var got: [SessionFrame] = []
        var read: [WeakStorage] = []
        func append() {
            var buffer = ByteWriter(capacity: 65_536)
            buffer.write(frames)
            let bytes = buffer.finish()
            read.append(WeakStorage(storage: bytes.owner as? ByteStorage))
            decoder.append(bytes)
        }
        for _ in 0..<2 {
            append()
            #expect(read.last?.storage != nil)
            if read.count == 1 {
                got.append(try #require(try decoder.next()))
                got[0].payload = got[0].payload.detached()
            }
            decoder.detach()
            #expect(read.allSatisfy { $0.storage == nil })
        }
        while let frame = try decoder.next() { got.append(frame) }
        #expect(got == expected)
        try decoder.finish()
    }

    private struct WeakStorage {
        weak var storage: ByteStorage?
    }

    @Test func refusesLengthsAtOnce() throws {
        #expect(throws: SessionFrameError.emptyFrame) { try decode([[0, 0, 0]]) }
        #expect(throws: SessionFrameError.tooLong(2_097_153)) { try decode([[0x20, 0, 1]]) }
        #expect(throws: SessionFrameError.tooLong(16_777_215)) { try decode([[255, 255, 255]]) }
        #expect(throws: SessionFrameError.unknownCompression) { try decode([[0, 0, 5, 0x60]]) }
        var decoder = SessionFrameDecoder()
        decoder.append([0x20, 0, 0, 0])
        #expect(try decoder.next() == nil)
        decoder.append(Bytes(repeatElement(1, count: 2_097_150)))
        #expect(try decoder.next() == nil)
        decoder.append([2])
        #expect(try decoder.next()?.payload.count == SessionFrame.payloadBytesMax)
        #expect(decoder.bufferedBytes == 0)
    }

    @Test func noticesCutFrames() throws {
        for count in 1..<helloFrame.count {
            #expect(throws: SessionFrameError.cutOff) { try decode([helloFrame.prefix(count)]) }
        }
        #expect(try decode([]).isEmpty)
    }

    @Test func ignoresReservedBits() throws {
        let frame = try #require(try decode([[0, 0, 1, 0x1F]]).first)
        #expect(frame == SessionFrame(payload: Bytes(), advisesReconnect: true))
    }

    /// Any bytes, cut anyhow: the frames that come out are those of a plain reading.
    @Test func fuzzAnyBytesCutAnyhow() throws {
        var random = SplitMix64(seed: 21)
        for _ in 0..<max(500, fuzzIterations / 10) {
            var stream: [UInt8] = []
            var payloads: [[UInt8]] = []
            for _ in 0..<random.next() % 8 {
                let payload = (0..<random.next() % 400).map { _ in UInt8(random.next() & 255) }
                payloads.append(payload)
                stream += SessionFrame.header(payloadBytes: payload.count).array + payload
            }
            let bytes = Bytes(stream)
            var pieces: [Bytes] = []
            var at = 0
            while at < bytes.count {
                let end = min(bytes.count, at + Int(random.next() % 90))
                pieces.append(bytes[at..<end])
                at = end
            }
            #expect(try decode(pieces).map(\.payload.array) == payloads)
        }
        for _ in 0..<max(2_000, fuzzIterations) {
            var decoder = SessionFrameDecoder()
            decoder.append(Bytes((0..<40).map { _ in UInt8(random.next() % 6) }))
            var count = 0
            while let frame = try? decoder.next() { count += 1 + frame.payload.count }
            #expect(count <= 40)
        }
    }
}
