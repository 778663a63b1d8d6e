// SPDX-License-Identifier: Apache-2.0

import Glibc
import Log
import ObjectStorage
import Primitives
import Testing

@testable import ChannelRole

@Suite struct ChunkMemoryTests {
    private static let block = DirectPart.blockBytes

    /// What a test put into the memory: chunks of batches, with the objects that they became.
    private struct Filled {
        var memory = ChunkMemory()
        private let random: RandomSource
        private let pool: Bytes

        init(seed: UInt64) {
            let random = RandomSource.seeded(seed)
            self.random = random
            let words = (0..<(1 << 18)).map { _ in random.next() }
            pool = words.withUnsafeBytes { Bytes(copying: $0) }
        }

        func number(_ range: ClosedRange<Int>) -> Int {
            range.lowerBound + Int(random.below(UInt64(range.count)))
        }

        private func bytes(_ count: Int) -> Bytes {
            let start = number(0...pool.count - count)
            return pool[start..<start + count]
        }

        mutating func append(_ batch: Bytes) -> Bytes {
            let offset = memory.reserve(batch.count)
            let slab = memory.current
            (slab.base + offset).copyMemory(from: batch.base, byteCount: batch.count)
            return Bytes(
                owner: slab, base: UnsafeRawPointer(slab.base + offset), count: batch.count)
        }

        /// A chunk of batches of these lengths.
        mutating func chunk(_ lengths: [Int]) -> Built {
            memory.beginChunk()
            let copies = lengths.map { bytes($0) }
            let batches = copies.map { append($0) }
            let header = bytes(ChunkHeader.byteCount)
            var object = [header]
            memory.endChunk(of: &object)
            return Built(
                batches: batches, copies: copies, object: object,
                expected: ([header] + copies).joined())
        }
    }

    private struct Built {
        /// Where they lie.
        let batches: [Bytes]
        /// What they should be.
        let copies: [Bytes]
        let object: [Bytes]
        let expected: Bytes
    }

    @Test(arguments: 1...8) func objectsAreWhatWasPutIn(seed: UInt64) {
        var filled = Filled(seed: seed)
        let longest = [300, 5_000, 200_000, 1_300_000][Int(seed % 4)]
        // The last chunks stay in use, as those do that are not flushed.
        var held: [Built] = []
        for _ in 0..<30 {
            let count = filled.number(1...12)
            let lengths = (0..<count).map { _ in filled.number(1...longest) }
            held.append(filled.chunk(lengths))
            if held.count > 4 { held.removeFirst() }
            filled.memory.trim()
            for chunk in held {
                #expect(isSame(chunk.object, [chunk.expected]))
                #expect(isSame(chunk.batches, chunk.copies))
            }
        }
    }

    /// So that a disk can take it from there: whole blocks, from boundaries on.
    @Test(arguments: 1...4) func aLargeChunkBehindALargeOneLiesInBlocks(seed: UInt64) {
        var filled = Filled(seed: seed)
        for number in 0..<12 {
            let lengths = (0..<filled.number(20...60)).map { _ in filled.number(10_000...130_000) }
            let object = filled.chunk(lengths).object
            for part in object.dropLast() { #expect(part.count % Self.block == 0) }
            for part in object.dropFirst() { #expect(Self.isAtBoundary(part)) }
            if number > 0 { #expect(Self.isAtBoundary(object[0])) }
        }
    }

    @Test func smallChunksTakeNoMoreThanTheyHave() {
        var filled = Filled(seed: 1)
        let first = filled.chunk([100]).object
        let second = filled.chunk([100]).object
        #expect(first.count == 1 && second.count == 1)
        #expect(second[0].base == first[0].base + first[0].count)
        // A large one may begin anywhere as well, if none was before it.
        let large = filled.chunk([30_000, 140_000, 140_000]).object
        #expect(!Self.isAtBoundary(large[0]) && large.count == 3)
        #expect(Self.isAtBoundary(filled.chunk([1]).object[0]))
    }

    /// One whose object is put together elsewhere takes its place all the same.
    @Test func aChunkMayBeForgotten() {
        var filled = Filled(seed: 1)
        filled.memory.beginChunk()
        let batch = filled.append(Bytes(utf8: "abc"))
        filled.memory.forgetChunk()
        let chunk = filled.chunk([3_000])
        #expect(batch == Bytes(utf8: "abc"))
        #expect(chunk.object.joined() == chunk.expected)
        #expect(chunk.object[0].base >= batch.base + batch.count)
    }

    @Test func slabsAreWrittenAgainOnceTheyAreFree() {
        var memory = ChunkMemory()
        var held: [ByteStorage] = []
        var seen: Set<ObjectIdentifier> = []
        // Chunks hold the slabs of the last 8 MiB.
        for _ in 0..<200 {
            memory.beginChunk()
            _ = memory.reserve(500_000)
            held.append(memory.current)
            memory.forgetChunk()
            if held.count > 16 { held.removeFirst() }
            seen.insert(ObjectIdentifier(memory.current))
            for slab in held.dropLast() where slab === memory.current {
                #expect(held.suffix(2).allSatisfy { $0 === slab }, "a slab in use is not reused")
            }
        }
        #expect(seen.count < 20, "\(seen.count) slabs for 100 MB")
        held = []
        memory.trim()
        let before = memory.current
        memory.beginChunk()
        _ = memory.reserve(3 << 20)
        #expect(memory.current !== before && memory.current.byteCapacity >= 3 << 20)
    }

    private func isSame(_ some: [Bytes], _ others: [Bytes]) -> Bool {
        let (a, b) = (some.joined(), others.joined())
        return withExtendedLifetime((a, b)) {
            a.count == b.count && memcmp(a.base, b.base, a.count) == 0
        }
    }

    private static func isAtBoundary(_ bytes: Bytes) -> Bool {
        Int(bitPattern: bytes.base) % block == 0
    }
}
