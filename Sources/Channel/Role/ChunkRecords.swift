// SPDX-License-Identifier: Apache-2.0

internal import Log
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
/// The batches that were added one right after the other, of one fragment, are a stretch. In the
/// chunk's object either each fragment lies in one piece, or each stretch (`ChunkLayout`): what the
/// object's index calls a fragment may be a part of one here.
///
/// Batches are plain numbers, in arrays that belong to the chunk: adding one allocates nothing and
/// counts no references. The slabs that hold their bytes are held once per chunk.
struct ChunkRecords {
    /// Consecutive records of a streamlet, and where they are in the chunk's object.
    struct Extent {
        let start: StreamPosition
        fileprivate(set) var lastTimestamp: TimestampMillis
        fileprivate(set) var count: UInt32 = 0
        fileprivate(set) var meteredBytes: UInt32 = 0
        fileprivate(set) var length: UInt32 = 0
        /// Known once the chunk is closed.
        fileprivate(set) var offset: UInt32 = 0

        var endSeqNum: SeqNum { start.seqNum + UInt64(count) }
        var tail: StreamPosition {
            StreamPosition(seqNum: endSeqNum, timestamp: lastTimestamp)
        }
    }

    /// A run of one streamlet's records.
    struct Fragment {
        let streamlet: OpenStreamlet
        let previous: FragmentPlace?
        /// All of it; it has an offset only if it lies in one piece.
        fileprivate(set) var whole: Extent
        fileprivate var firstBatch: UInt32
        fileprivate var lastBatch: UInt32

        var start: StreamPosition { whole.start }
        var endSeqNum: SeqNum { whole.endSeqNum }
        var tail: StreamPosition { whole.tail }
    }

    /// Batches of one fragment, from `firstBatch` up to the next stretch's.
    private struct Stretch {
        let slot: UInt32
        let firstBatch: UInt32
        let firstTimestamp: TimestampMillis
        var offset: UInt32 = 0
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
    }

    private static let none = UInt32.max

    private(set) var fragments = ContiguousArray<Fragment>()
    private var batches = ContiguousArray<Batch>()
    private var slabs: [ByteStorage] = []
    /// In the order in which they were added; none in a closed chunk where every fragment lies in
    /// one piece.
    private var stretches = ContiguousArray<Stretch>()
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
            let last = fragments[Int(slot)].extend(batch, added)
            batches[Int(last)].next = added
        } else {
            slot = UInt32(fragments.count)
            isNew = true
            fragments.append(Fragment(of: streamlet, batch, added, previous: newest))
        }
        if stretches.last?.slot != slot {
            stretches.append(
                Stretch(slot: slot, firstBatch: added, firstTimestamp: batch.start.timestamp))
        }
        streamlet.advance(to: batch.end, at: FragmentPlace(chunk: chunk, slot: slot))
        return isNew
    }

    /// The streamlet's last batch here held commands, which were applied to its assigned state.
    mutating func noteCommands(of streamlet: OpenStreamlet) {
        guard let newest = streamlet.newest else { return }
        states[newest.slot] = streamlet.assigned
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

    /// Calls `body` with each piece in which a fragment lies in the object of its chunk, which is
    /// closed, in order, as long as it returns true.
    func forEachExtent(of slot: Int, while body: (Extent) -> Bool) {
        if stretches.isEmpty {
            _ = body(fragments[slot].whole)
            return
        }
        var at = fragments[slot].firstBatch
        while at != Self.none {
            let index = stretch(from: at)
            guard body(extent(index)) else { return }
            at = batches[batches(ofStretch: index).upperBound - 1].next
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

    // MARK: In the object

    /// How many pieces the records lie in, in that layout.
    func extentCount(_ layout: ChunkLayout) -> Int {
        layout == .asAdded ? stretches.count : fragments.count
    }

    /// How many runs of bytes they are made of, at most.
    var sliceCount: Int { stretches.count + slabs.count }

    /// Adds all records to their chunk, which is closed with that: from now on it is known where
    /// they are. They must fit. As they were added, they are only counted: they are to be stored
    /// between the header and what else the chunk holds.
    mutating func place(_ layout: ChunkLayout, in builder: inout ChunkBuilder) {
        switch layout {
        case .byFragment:
            for slot in fragments.indices {
                let fragment = fragments[slot]
                builder.begin(FragmentEntry(records: fragment.whole, of: fragment.streamlet))
                forEachRun(of: slot) { builder.append($0) }
                fragments[slot].whole.offset = builder.endFitting().offset
            }
            stretches.removeAll(keepingCapacity: true)
        case .asAdded:
            for index in stretches.indices {
                let streamlet = fragments[Int(stretches[index].slot)].streamlet
                builder.begin(FragmentEntry(records: extent(index), of: streamlet))
                forEachRun(ofStretch: index) { builder.count($0) }
                stretches[index].offset = builder.endFitting().offset
            }
            guard stretches.count == fragments.count else { return }
            for stretch in stretches { fragments[Int(stretch.slot)].whole.offset = stretch.offset }
            stretches.removeAll(keepingCapacity: true)
        }
    }

    /// The stretch that begins with that batch.
    private func stretch(from batch: UInt32) -> Int {
        var (low, high) = (0, stretches.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if stretches[middle].firstBatch < batch { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func batches(ofStretch index: Int) -> Range<Int> {
        let next = index + 1 < stretches.count ? Int(stretches[index + 1].firstBatch) : nil
        return Int(stretches[index].firstBatch)..<(next ?? batches.count)
    }

    private func extent(_ index: Int) -> Extent {
        let stretch = stretches[index]
        let first = batches[Int(stretch.firstBatch)]
        var extent = Extent(
            start: StreamPosition(seqNum: first.firstSeqNum, timestamp: stretch.firstTimestamp),
            lastTimestamp: first.lastTimestamp, offset: stretch.offset)
        for batch in batches[batches(ofStretch: index)] {
            extent.lastTimestamp = batch.lastTimestamp
            extent.count += batch.count
            extent.meteredBytes += batch.meteredBytes
            extent.length += batch.length
        }
        return extent
    }

    /// As `forEachRun(of:)`.
    private func forEachRun(ofStretch index: Int, _ body: (Bytes) -> Void) {
        var run: Batch?
        var length: UInt32 = 0
        for batch in batches[batches(ofStretch: index)] {
            if let run, run.slab == batch.slab, run.offset + length == batch.offset {
                length += batch.length
                continue
            }
            if let run { body(bytes(run.slab, run.offset, length)) }
            (run, length) = (batch, batch.length)
        }
        if let run { body(bytes(run.slab, run.offset, length)) }
    }

    // MARK: Memory

    /// Moves what was gathered to `taken`, which is empty. This is empty then, and keeps its room.
    mutating func move(to taken: inout ChunkRecords) {
        // A copy of the elements: as wide as they are, not as the room for them.
        taken.fragments.reserveCapacity(fragments.count)
        taken.fragments.append(contentsOf: fragments)
        taken.batches.reserveCapacity(batches.count)
        taken.batches.append(contentsOf: batches)
        taken.slabs.append(contentsOf: slabs)
        taken.stretches.append(contentsOf: stretches)
        taken.states = states
        reset()
    }

    /// Whether its arrays hold what `other` has, and waste little.
    func isAsWide(as other: ChunkRecords) -> Bool {
        func fits(_ room: Int, _ count: Int) -> Bool { room >= count && room <= 2 * count + 16 }
        return fits(fragments.capacity, other.fragments.count)
            && fits(batches.capacity, other.batches.count)
    }

    /// What its arrays take in memory.
    var capacityBytes: Int {
        fragments.capacity * MemoryLayout<Fragment>.stride
            + batches.capacity * MemoryLayout<Batch>.stride
            + slabs.capacity * MemoryLayout<ByteStorage>.stride
            + stretches.capacity * MemoryLayout<Stretch>.stride
    }

    /// Forgets everything, and keeps its room.
    mutating func reset() {
        fragments.removeAll(keepingCapacity: true)
        batches.removeAll(keepingCapacity: true)
        slabs.removeAll(keepingCapacity: true)
        stretches.removeAll(keepingCapacity: true)
        states = [:]
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
            streamlet: streamlet, previous: previous,
            whole: ChunkRecords.Extent(start: batch.start, lastTimestamp: 0),
            firstBatch: index, lastBatch: index)
        _ = extend(batch, index)
    }

    /// Batch `index` joins; returns the one that was last before.
    @inline(__always)
    fileprivate mutating func extend(_ batch: SequencedBatch, _ index: UInt32) -> UInt32 {
        defer { lastBatch = index }
        whole.count += UInt32(batch.count)
        whole.lastTimestamp = batch.end.timestamp
        whole.meteredBytes += UInt32(batch.meteredBytes)
        whole.length += UInt32(batch.storedBytes)
        return lastBatch
    }
}
