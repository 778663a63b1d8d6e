// SPDX-License-Identifier: Apache-2.0

import Compression
import Primitives
import TestSupport
import Testing

private let hello: Bytes = [0x0A, 0x07, 0x1A, 0x05, 0x68, 0x65, 0x6C, 0x6C, 0x6F]

private func noise(_ count: Int, seed: UInt64) -> Bytes {
    var random = SplitMix64(seed: seed)
    return Bytes((0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) })
}

@Suite struct CodecTests {
    @Test(arguments: Coding.allCases)
    func roundTrips(_ coding: Coding) throws {
        let codec = Codec()
        for count in [0, 1, 9, 1_023, 65_535, 65_536, 65_537, 300_000] {
            for original in [
                noise(count, seed: UInt64(count)), Bytes(repeatElement(7, count: count)),
            ] {
                let packed = codec.compress(original, coding)
                #expect(try codec.decompress(packed, coding, limit: count) == original)
            }
        }
    }

    /// The frames of the API's worked examples.
    @Test func decodesPublishedExamples() throws {
        let codec = Codec()
        let gzip: Bytes = [
            0x1F, 0x8B, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xE3, 0x62, 0x97, 0x62,
            0xCD, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x81, 0x94, 0xB3, 0x1A, 0x09, 0x00, 0x00,
            0x00,
        ]
        let zstd: Bytes = [
            0x28, 0xB5, 0x2F, 0xFD, 0x20, 0x09, 0x49, 0x00, 0x00, 0x0A, 0x07, 0x1A, 0x05, 0x68,
            0x65, 0x6C, 0x6C, 0x6F,
        ]
        #expect(try codec.decompress(gzip, .gzip, limit: 100) == hello)
        #expect(try codec.decompress(zstd, .zstd, limit: 100) == hello)
    }

    @Test(arguments: Coding.allCases)
    func refusesOneByteTooMany(_ coding: Coding) throws {
        let codec = Codec()
        for count in [1, 100, 65_536, 200_000] {
            let packed = codec.compress(noise(count, seed: 3), coding)
            #expect(throws: DecompressionError.tooLarge(limit: count - 1)) {
                try codec.decompress(packed, coding, limit: count - 1)
            }
        }
    }

    /// A bomb of 512 MiB: refused by its first bytes, and the context works on.
    @Test(arguments: Coding.allCases)
    func stopsBombs(_ coding: Coding) throws {
        let codec = Codec()
        let piece = codec.compress(Bytes(repeatElement(0, count: 8 << 20)), coding)
        let bomb = [Bytes](repeating: piece, count: 64).joined()
        #expect(throws: DecompressionError.tooLarge(limit: 2_097_151)) {
            try codec.decompress(bomb, coding, limit: 2_097_151)
        }
        let small = codec.compress(hello, coding)
        #expect(try codec.decompress(small, coding, limit: 9) == hello)
    }

    @Test(arguments: Coding.allCases)
    func joinsFrames(_ coding: Coding) throws {
        let codec = Codec()
        let twice = [codec.compress(hello, coding), codec.compress(hello, coding)].joined()
        #expect(try codec.decompress(twice, coding, limit: 18) == [hello, hello].joined())
    }

    @Test(arguments: Coding.allCases)
    func refusesEveryCut(_ coding: Coding) throws {
        let codec = Codec()
        let packed = codec.compress(noise(300, seed: 5), coding)
        for count in 1..<packed.count {
            #expect(throws: DecompressionError.malformed) {
                try codec.decompress(packed.prefix(count), coding, limit: 1_000)
            }
        }
        #expect(throws: DecompressionError.malformed) {
            try codec.decompress([packed, [0x11]].joined(), coding, limit: 1_000)
        }
    }

    /// Damaged input ends in an error or in bytes within the limit, never otherwise.
    @Test(arguments: Coding.allCases)
    func fuzzDamagedInput(_ coding: Coding) throws {
        let codec = Codec()
        let packed = codec.compress(Bytes(utf8: String(repeating: "millrace ", count: 500)), coding)
        var random = SplitMix64(seed: 11)
        for _ in 0..<max(2_000, fuzzIterations) {
            var damaged = packed.array
            for _ in 0...Int(random.next() % 4) {
                let at = Int(random.next() % UInt64(damaged.count))
                damaged[at] ^= 1 << UInt8(random.next() % 8)
            }
            do throws(DecompressionError) {
                let bytes = try codec.decompress(Bytes(damaged), coding, limit: 10_000)
                #expect(bytes.count <= 10_000)
            } catch {
                #expect(error == .malformed || error == .tooLarge(limit: 10_000))
            }
        }
        #expect(try codec.decompress(packed, coding, limit: 10_000).count == 4_500)
    }

    /// A frame that asks for a window of 1 GiB is refused, not allocated.
    @Test func refusesHugeWindows() {
        let codec = Codec()
        let frame: Bytes = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA0, 0x01, 0x00, 0x00]
        #expect(throws: DecompressionError.malformed) {
            try codec.decompress(frame, .zstd, limit: 1_000)
        }
    }
}
