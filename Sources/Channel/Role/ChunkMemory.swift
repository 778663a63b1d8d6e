// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import ObjectStorage
internal import Primitives

/// Memory that chunks are built in as their objects will be: room for a header, then batches, one
/// behind the other as they come.
///
/// It is made of slabs. A chunk holds the slabs that its batches are in; chunks leave memory oldest
/// first, and so do slabs become free, which are then written again: new memory is what the kernel
/// has to clear.
///
/// A store can write a large object straight from here (`DirectPart`) if that begins at a block's
/// boundary in memory, and if every piece but the last is whole blocks. So a chunk that goes on in
/// another slab takes the bytes of its last block along, which are fewer than a block: those of a
/// batch are in both slabs then. A chunk begins at a boundary if the one before it was large. Small
/// ones gain nothing, and would take a block each.
struct ChunkMemory {
    private static let blockBytes = DirectPart.blockBytes
    private static let slabBytesMax = 1 << 20
    private static let slabBytesFirst = 64 << 10
    /// Free slabs that are kept: as many as a chunk of common size is in, and some.
    private static let freeMax = 6
    /// A chunk of so many bytes is large. Sizes vary, so the next one may well be written directly;
    /// if it is not, no more than a block is lost by it.
    private static let largeBytesMin = DirectPart.objectBytesMin / 4

    private struct Slab {
        var storage: ByteStorage
        /// The first boundary in it: what comes before is not used.
        private(set) var origin: Int

        /// Room for `count` bytes from a boundary on.
        init(_ count: Int) {
            storage = ByteStorage.make(capacity: count + ChunkMemory.blockBytes)
            origin = 0
            origin = distanceToBoundary(from: 0)
        }

        var byteCount: Int { storage.byteCapacity - ChunkMemory.blockBytes }
        var end: Int { origin + byteCount }

        func distanceToBoundary(from offset: Int) -> Int {
            let address = Int(bitPattern: storage.base) + offset
            return (ChunkMemory.blockBytes - address % ChunkMemory.blockBytes)
                % ChunkMemory.blockBytes
        }

        func bytes(_ range: Range<Int>) -> Bytes {
            Bytes(
                owner: storage, base: UnsafeRawPointer(storage.base + range.lowerBound),
                count: range.count)
        }
    }

    /// Full slabs, oldest first.
    private var full: Deque<Slab> = []
    private var slab = Slab(slabBytesFirst)
    private var used: Int
    /// The open chunk's bytes in slabs that are full, whole blocks each.
    private var pieces: [(slab: Slab, range: Range<Int>)] = []
    /// Where its bytes begin in the present slab.
    private var begin: Int
    private var isLarge = false

    init() {
        used = slab.origin
        begin = used
    }

    /// The slab that was written to last.
    var current: ByteStorage { slab.storage }

    /// What the open chunk takes so far, header and all.
    private var chunkBytes: Int {
        pieces.reduce(used - begin) { $0 + $1.range.count }
    }

    /// Begins a chunk: its header comes later.
    mutating func beginChunk() {
        pieces.removeAll(keepingCapacity: true)
        if isLarge { used = min(used + slab.distanceToBoundary(from: used), slab.end) }
        begin = used
        _ = reserve(ChunkHeader.byteCount)
    }

    /// Room for `count` bytes, which come next in the open chunk, in `current` at the offset
    /// returned.
    mutating func reserve(_ count: Int) -> Int {
        if slab.end - used < count { turn(count) }
        defer { used += count }
        return used
    }

    /// In how many parts the open chunk lies here.
    var partCount: Int { pieces.count + 1 }

    /// Ends the open chunk: puts its parts into `object`, whose first one so far is the header and
    /// comes to stand in front of all that was reserved.
    mutating func endChunk(of object: inout [Bytes]) {
        precondition(object[0].count == ChunkHeader.byteCount, "there is room for a header")
        let first = pieces.first.map { ($0.slab, $0.range.lowerBound) } ?? (slab, begin)
        object[0].copy(to: first.0.storage.base + first.1)
        object[0] = slab.bytes(begin..<used)
        for piece in pieces.reversed() { object.insert(piece.slab.bytes(piece.range), at: 0) }
        forgetChunk()
    }

    /// Ends the open chunk, whose object is put together elsewhere.
    mutating func forgetChunk() {
        isLarge = chunkBytes >= Self.largeBytesMin
        pieces.removeAll(keepingCapacity: true)
        begin = used
    }

    /// Lets go of what nobody uses any more, but a few slabs.
    mutating func trim() {
        while full.count > Self.freeMax, isKnownUniquelyReferenced(&full[Self.freeMax].storage) {
            full.removeFirst()
        }
    }

    /// Goes on in another slab, with room for `count` bytes.
    private mutating func turn(_ count: Int) {
        let old = slab
        let taken = (used - begin) % Self.blockBytes
        let split = used - taken
        if split > begin { pieces.append((old, begin..<split)) }
        full.append(old)
        slab = next(taken + count)
        begin = slab.origin
        old.bytes(split..<used).copy(to: slab.storage.base + begin)
        used = begin + taken
    }

    private mutating func next(_ count: Int) -> Slab {
        while var free = full.popFirst() {
            guard isKnownUniquelyReferenced(&free.storage) else {
                full.prepend(free)
                break
            }
            // One of another size is dropped.
            guard free.byteCount == Self.slabBytesMax, count <= Self.slabBytesMax else { continue }
            return free
        }
        return Slab(max(min(slab.byteCount * 2, Self.slabBytesMax), count))
    }
}

extension Bytes {
    fileprivate func copy(to target: UnsafeMutableRawPointer) {
        withUnsafeBytes { bytes in
            UnsafeMutableRawBufferPointer(start: target, count: bytes.count)
                .copyMemory(from: bytes)
        }
    }
}
