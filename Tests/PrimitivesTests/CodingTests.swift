// SPDX-License-Identifier: Apache-2.0

import Primitives
import Testing

@Suite struct CodingTests {
    @Test func roundTrip() throws {
        var writer = ByteWriter(capacity: 1)
        writer.write(UInt8(1))
        writer.write(UInt16(0x0203))
        writer.write(UInt32.max)
        writer.write(UInt64(5))
        writer.write(Int64(-5))
        writer.writeBigEndian(UInt16(0x0102))
        writer.writeText("Fluß")
        writer.writeBlob([9, 8])
        writer.writeVarint(300)
        let id = ID128(high: 1, low: .max)
        writer.write(id)
        writer.write([7, 7] as [UInt8])
        let count = writer.count
        let bytes = writer.finish()
        #expect(bytes.count == count)
        #expect(bytes[0..<3] == [1, 3, 2])
        var reader = ByteReader(bytes)
        #expect(try reader.read(UInt8.self) == 1)
        #expect(try reader.read(UInt16.self) == 0x0203)
        #expect(try reader.read(UInt32.self) == .max)
        #expect(try reader.read(UInt64.self) == 5)
        #expect(try reader.read(Int64.self) == -5)
        #expect(try reader.readBigEndian(UInt16.self) == 0x0102)
        #expect(try reader.readText() == "Fluß")
        #expect(try reader.readBlob() == [9, 8])
        #expect(try reader.readVarint() == 300)
        #expect(try reader.readID() == id)
        #expect(throws: DecodeError(.malformed("2 bytes too many"), at: count - 2)) {
            try reader.finish()
        }
        #expect(try reader.read(2) == [7, 7])
        try reader.finish()
    }

    @Test func refusals() {
        var reader = ByteReader([1, 2])
        #expect(throws: DecodeError(.truncated, at: 0)) { try reader.read(UInt32.self) }
        #expect(throws: DecodeError(.truncated, at: 0)) { try reader.read(3) }
        #expect(throws: DecodeError(.truncated, at: 0)) { try reader.read(-1) }
        var text = ByteReader([1, 0, 0, 0, 0xFF])
        #expect(throws: DecodeError(.malformed("text is not UTF-8"), at: 0)) {
            try text.readText()
        }
        var long = ByteReader([5, 0, 0, 0, 1, 2, 3, 4, 5])
        #expect(throws: DecodeError(.malformed("length 5 beyond 4"), at: 0)) {
            try long.readBlob(lengthMax: 4)
        }
        var cut = ByteReader([9, 0, 0, 0, 1])
        #expect(throws: DecodeError(.truncated, at: 4)) { try cut.readBlob() }
    }

    @Test func patchesAndChecksums() {
        var writer = ByteWriter()
        writer.write(UInt32(0))
        writer.write(utf8: "123456789")
        writer.patch(UInt32(7), at: 0)
        #expect(writer.checksum(from: 4) == 0xE306_9283)
        #expect(writer.finish().load(UInt32.self, at: 0) == 7)
    }

    @Test func varintsOfEveryLength() throws {
        for bits in 0...64 {
            let top: UInt64 = bits == 64 ? .max : (1 << UInt64(bits)) - 1
            for value in [top, top &+ 1] {
                let length = max(1, (64 - value.leadingZeroBitCount + 6) / 7)
                #expect(Varint.length(value) == length)
                var writer = ByteWriter()
                writer.writeVarint(value)
                let bytes = writer.finish()
                #expect(bytes.count == length)
                var reader = ByteReader(bytes)
                #expect(try reader.readVarint() == value)
                #expect(reader.isAtEnd)
                for cut in 0..<length {
                    var reader = ByteReader(bytes.prefix(cut))
                    #expect(throws: DecodeError(.truncated, at: 0)) { try reader.readVarint() }
                    #expect(reader.offset == 0)
                }
            }
        }
        let nines = [UInt8](repeating: 0xFF, count: 9)
        var reader = ByteReader(Bytes(nines + [1]))
        #expect(try reader.readVarint() == .max)
        for tail in [[2], [0x81, 0], [0xFF, 1]] as [[UInt8]] {
            var reader = ByteReader(Bytes(nines + tail))
            #expect(throws: DecodeError(.malformed("varint beyond 64 bits"), at: 0)) {
                try reader.readVarint()
            }
        }
        var padded = ByteReader([0x85, 0x80, 0x00])
        #expect(try padded.readVarint() == 5)
    }
}

@Suite struct IdentifierTests {
    @Test func hexadecimal() {
        let id = ID128(high: 0x0123_4567_89AB_CDEF, low: 5)
        #expect(id.description == "0123456789abcdef0000000000000005")
        #expect(ID128(hex: id.description) == id)
        #expect(ID128(hex: id.description.uppercased()) == id)
        #expect(ID128(hex: String(id.description.dropLast())) == nil)
        #expect(ID128(hex: "+123456789abcdef0000000000000005") == nil)
        #expect(ID128(hex: "0123456789abcdef000000000000000g") == nil)
        #expect(StreamID(hex: id.description) == StreamID(id))
    }

    @Test func order() {
        let ids = [
            ID128(high: 0, low: 2), ID128(high: 1, low: 0), ID128(high: 1, low: 1),
            ID128(high: 2, low: 0),
        ]
        #expect(ids.reversed().sorted() == ids)
        #expect(ids.map(\.description).sorted() == ids.map(\.description))
    }

    @Test func randomness() {
        #expect(
            ID128(random: .seeded(1)) == ID128(random: .seeded(1)))
        #expect(ID128(random: .seeded(1)) != ID128(random: .seeded(2)))
        #expect(ID128(random: .system()) != ID128(random: .system()))
        let random = RandomSource.seeded(3)
        var seen: Set<UInt64> = []
        for _ in 0..<1_000 {
            let value = random.below(5)
            #expect(value < 5)
            seen.insert(value)
            #expect((-3...4).contains(random.within(-3...4)))
        }
        #expect(seen.count == 5)
        // The reference values of SplitMix64 for the seed 1234567.
        var generator = SplitMix64(seed: 1_234_567)
        #expect(generator.next() == 6_457_827_717_110_365_317)
        #expect(generator.next() == 3_203_168_211_198_807_973)
    }
}

@Suite struct BackoffTests {
    @Test func bounds() {
        let backoff = Backoff(
            first: .milliseconds(20), delayMax: .seconds(1), triesMax: 8, budget: .seconds(5))
        for tries in 1..<8 {
            let ceiling = min(.seconds(1), Nanoseconds.milliseconds(20) << Int64(tries - 1))
            for random in [0, .max / 2, .max] as [UInt64] {
                let delay = backoff.delay(afterTries: tries, elapsed: 0, random: random)
                #expect((ceiling / 2...ceiling).contains(delay ?? -1))
            }
            #expect(backoff.delay(afterTries: tries, elapsed: 0, random: .max) == ceiling)
        }
        #expect(backoff.delay(afterTries: 8, elapsed: 0, random: 0) == nil)
        #expect(backoff.delay(afterTries: 1, elapsed: .seconds(5), random: 0) == nil)
        #expect(
            backoff.delay(afterTries: 7, elapsed: .seconds(5) - 3, random: .max) == 3,
            "a wait never outlasts the budget")
    }

    @Test func manyTriesDoNotOverflow() {
        let backoff = Backoff(
            first: .seconds(1), delayMax: .seconds(3_600), triesMax: .max, budget: .max)
        #expect(
            backoff.delay(afterTries: 1_000_000, elapsed: 0, random: .max) == .seconds(3_600))
    }
}
