// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives
internal import Records

/// Where a fragment is: in which chunk, and which one of those in it.
struct FragmentPlace {
    let chunk: ChunkIndex
    let slot: UInt32
}

/// The records of one chunk in memory: which runs there are (fragments), of what batches each
/// consists, and where their bytes are.
///
/// Invariants. A streamlet has one fragment per chunk at most, and its fragments, in order of their
/// chunks, hold consecutive records: each begins where the one before ends. The batches of a
/// fragment form a chain in the order of their sequencing, from `firstBatch` to `lastBatch`,
/// through `next`. A fragment leads back to its streamlet's one before (`previous`), whose chunk
/// may have left memory since: chunks leave it oldest first, so a chain that can be followed from
/// the newest fragment to some chunk is whole up to there.
///
/// Batches are plain numbers, in arrays that belong to the chunk: adding one allocates nothing and
/// counts no references. The slabs that hold their bytes are held once per chunk.
struct ChunkRecords {
    /// A run of one streamlet's records.
    struct Fragment {
        let streamlet: OpenStreamlet
        let start: StreamPosition
        let previous: FragmentPlace?
        var lastTimestamp: TimestampMillis
        var count: UInt32 = 0
        var meteredBytes: UInt32 = 0
        var length: UInt32 = 0
        /// In the chunk's object; known once the chunk is closed.
        var offset: UInt32 = 0
        fileprivate var firstBatch: UInt32
        fileprivate var lastBatch: UInt32

        var endSeqNum: SeqNum { start.seqNum + UInt64(count) }
        var tail: StreamPosition {
            StreamPosition(seqNum: endSeqNum, timestamp: lastTimestamp)
        }
    }

    /// An append batch: where it is, and what is to be known of it.
    fileprivate struct Batch {
        let slab: UInt32
        let offset: UInt32
        let length: UInt32
        let meteredBytes: UInt32
        let firstSeqNum: SeqNum
        let lastTimestamp: TimestampMillis
        let count: UInt32
        var next: UInt32

        var endSeqNum: SeqNum { firstSeqNum + UInt64(count) }

        /// Whether it lies right behind `other`.
        func continues(_ other: Batch) -> Bool {
            slab == other.slab && offset == other.offset + other.length
        }
    }

    private static let none = UInt32.max

    private(set) var fragments = ContiguousArray<Fragment>()
    private var batches = ContiguousArray<Batch>()
    private var slabs: [ByteStorage] = []
    /// Of all fragments.
    private(set) var runCount = 0
    /// The states behind the fragments that hold commands.
    private var states: [UInt32: SequencerState] = [:]

    var isEmpty: Bool { fragments.isEmpty }

    /// Adds a batch that begins at the streamlet's assigned tail, and moves that behind it. `slab`
    /// holds its bytes at `offset`. True if the fragment is new.
    mutating func add(
        _ batch: SequencedBatch, in slab: ByteStorage, at offset: Int, to streamlet: OpenStreamlet,
        chunk: ChunkIndex
    ) -> Bool {
        precondition(
            batch.start.seqNum == streamlet.assigned.tail.seqNum, "batches are contiguous")
        if slabs.last !== slab { slabs.append(slab) }
        let added = UInt32(batches.count)
        batches.append(
            Batch(
                slab: UInt32(slabs.count - 1), offset: UInt32(offset),
                length: UInt32(batch.storedBytes), meteredBytes: UInt32(batch.meteredBytes),
                firstSeqNum: batch.start.seqNum, lastTimestamp: batch.end.timestamp,
                count: UInt32(batch.count), next: Self.none))
        let newest = streamlet.newest
        let slot: UInt32
        let isNew: Bool
        if let newest, newest.chunk == chunk {
            slot = newest.slot
            isNew = false
            let last = Int(fragments[Int(slot)].extend(batch, added))
            batches[last].next = added
            if !batches[Int(added)].continues(batches[last]) { runCount += 1 }
        } else {
            slot = UInt32(fragments.count)
            isNew = true
            runCount += 1
            fragments.append(Fragment(of: streamlet, batch, added, previous: newest))
        }
        streamlet.advance(to: batch.end, at: FragmentPlace(chunk: chunk, slot: slot))
        return isNew
    }

    /// The streamlet's last batch here held commands, which were applied to its assigned state.
    mutating func noteCommands(of streamlet: OpenStreamlet) {
        guard let newest = streamlet.newest else { return }
        states[newest.slot] = streamlet.assigned
    }

    mutating func setOffset(_ offset: UInt32, ofFragment slot: Int) {
        fragments[slot].offset = offset
    }

    /// Calls `body` with each run of bytes of a fragment, in order, but leaves out the batches that
    /// end at or below `trimPoint`. Batches that lie side by side are one run.
    func forEachRun(of slot: Int, above trimPoint: SeqNum = 0, _ body: (Bytes) -> Void) {
        var at = fragments[slot].firstBatch
        while at != Self.none, batches[Int(at)].endSeqNum <= trimPoint {
            at = batches[Int(at)].next
        }
        while at != Self.none {
            let first = batches[Int(at)]
            var length = first.length
            at = first.next
            while at != Self.none {
                let next = batches[Int(at)]
                guard next.slab == first.slab, next.offset == first.offset + length else { break }
                length += next.length
                at = next.next
            }
            body(bytes(first.slab, first.offset, length))
        }
    }

    /// Calls `body` with each of a fragment's batches, in order.
    func forEachBatch<E: Error>(
        of slot: Int, _ body: (OpenStreamlet.Batch) throws(E) -> Void
    ) throws(E) {
        var at = fragments[slot].firstBatch
        while at != Self.none {
            let batch = batches[Int(at)]
            try body(
                OpenStreamlet.Batch(
                    bytes: bytes(batch.slab, batch.offset, batch.length),
                    firstSeqNum: batch.firstSeqNum, count: batch.count,
                    meteredBytes: batch.meteredBytes,
                    tail: StreamPosition(
                        seqNum: batch.endSeqNum, timestamp: batch.lastTimestamp)))
            at = batch.next
        }
    }

    /// Anybody may know of a fragment's records now.
    func show(_ slot: Int) {
        let fragment = fragments[slot]
        fragment.streamlet.becameStable(
            from: fragment.start.seqNum, to: fragment.tail,
            state: states.isEmpty ? nil : states[UInt32(slot)])
    }

    /// What was gathered, in arrays of about that size: those of `spare`, which is empty, if they
    /// are. This is empty again, and keeps its room.
    mutating func take(reusing spare: consuming ChunkRecords? = nil) -> ChunkRecords {
        var taken = ChunkRecords()
        if let spare, spare.isAsWide(as: self) { taken = spare }
        // A copy of the elements: as wide as they are, not as the room for them.
        taken.fragments.reserveCapacity(fragments.count)
        taken.fragments.append(contentsOf: fragments)
        taken.batches.reserveCapacity(batches.count)
        taken.batches.append(contentsOf: batches)
        taken.slabs.append(contentsOf: slabs)
        taken.states = states
        taken.runCount = runCount
        reset()
        return taken
    }

    /// Whether its arrays hold what `other` has, and waste little.
    private func isAsWide(as other: ChunkRecords) -> Bool {
        func fits(_ room: Int, _ count: Int) -> Bool { room >= count && room <= 2 * count + 16 }
        return fits(fragments.capacity, other.fragments.count)
            && fits(batches.capacity, other.batches.count)
    }

    /// What its arrays take in memory.
    var capacityBytes: Int {
        fragments.capacity * MemoryLayout<Fragment>.stride
            + batches.capacity * MemoryLayout<Batch>.stride
            + slabs.capacity * MemoryLayout<ByteStorage>.stride
    }

    /// Forgets everything, and keeps its room.
    mutating func reset() {
        fragments.removeAll(keepingCapacity: true)
        batches.removeAll(keepingCapacity: true)
        slabs.removeAll(keepingCapacity: true)
        states = [:]
        runCount = 0
    }

    private func bytes(_ slab: UInt32, _ offset: UInt32, _ length: UInt32) -> Bytes {
        let storage = slabs[Int(slab)]
        return Bytes(
            owner: storage, base: UnsafeRawPointer(storage.base + Int(offset)), count: Int(length))
    }
}

extension ChunkRecords.Fragment {
    fileprivate init(
        of streamlet: OpenStreamlet, _ batch: SequencedBatch, _ index: UInt32,
        previous: FragmentPlace?
    ) {
        self.init(
            streamlet: streamlet, start: batch.start, previous: previous, lastTimestamp: 0,
            firstBatch: index, lastBatch: index)
        _ = extend(batch, index)
    }

    /// Batch `index` joins; returns the one that was last before.
    @inline(__always)
    fileprivate mutating func extend(_ batch: SequencedBatch, _ index: UInt32) -> UInt32 {
        defer { lastBatch = index }
        count += UInt32(batch.count)
        lastTimestamp = batch.end.timestamp
        meteredBytes += UInt32(batch.meteredBytes)
        length += UInt32(batch.storedBytes)
        return lastBatch
    }
}

/// Memory that batches are written into, one behind the other.
///
/// A chunk holds the slabs that its batches are in; chunks leave memory oldest first, and so do
/// slabs become free, which are then written again: new memory is what the kernel has to clear.
struct SlabRing {
    private static let bytesMax = 1 << 20
    private static let bytesFirst = 64 << 10
    /// Free slabs that are kept: as many as a chunk of common size is in, and some.
    private static let freeMax = 6
    /// Full slabs, oldest first.
    private var full: Deque<ByteStorage> = []
    private(set) var current = ByteStorage.make(capacity: bytesFirst)
    private var used = 0

    /// Room for `count` bytes in `current`, at the offset returned.
    mutating func reserve(_ count: Int) -> Int {
        if current.byteCapacity - used < count { turn(count) }
        defer { used += count }
        return used
    }

    private mutating func turn(_ count: Int) {
        full.append(current)
        used = 0
        while var free = full.popFirst() {
            guard isKnownUniquelyReferenced(&free) else {
                full.prepend(free)
                break
            }
            // One of another size is dropped.
            guard free.byteCapacity == Self.bytesMax, count <= Self.bytesMax else { continue }
            current = free
            return
        }
        let next = min(current.byteCapacity * 2, Self.bytesMax)
        current = ByteStorage.make(capacity: max(next, count))
    }

    /// Lets go of what nobody uses any more, but a few slabs.
    mutating func trim() {
        while full.count > Self.freeMax, isKnownUniquelyReferenced(&full[Self.freeMax]) {
            full.removeFirst()
        }
    }
}
