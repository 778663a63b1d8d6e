// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import Metadata
internal import Observability
internal import Primitives
internal import Records

/// The records of one plan, in order: fetches ahead, a bounded number of ranges and bytes, and
/// hands out whole runs of stored records as they become complete.
///
/// A small segment is fetched whole. Of a large one its sparse index comes first; then just the
/// ranges that hold what is wanted, in steps.
final class ReadCatchUp {
    enum Next {
        case run(Bytes)
        /// The next run is on its way; `onReady` will be called.
        case wait
        /// Everything was handed out.
        case done
        /// An object is gone, or the plan is too old: plan again.
        case planAgain
        case failed(APIError)
    }
    /// The next run may be there now.
    var onReady: (() -> Void)?
    let plan: ReadPlan
    private let path: DataPath
    private let share: ResponseBudget.Share
    private let begin: ReadStart
    /// Whose run was handed out last: counted as fetched until the next one is asked for.
    private var current: Slot?
    private var slots: Deque<Slot> = []
    private var isStale = false
    private var isClosed = false

    /// Grows as the reader takes what was fetched: most reads want little.
    private var window = 2
    private static let windowMax = 32
    private static let bytesAheadMax = 8 << 20
    static let stepBytes = 2 << 20
    /// A segment up to this size is fetched in one piece.
    static let wholeBytesMax = 4 << 20

    /// One fetch, and what came of it.
    private final class Slot {
        let bucket: String
        let object: String
        let range: Range<Int>
        let from: SeqNum
        /// Of a whole segment, or of the end of one, which holds its index.
        let segment: SegmentRow?
        /// Of some blocks of a segment.
        let blocks: (index: SegmentIndex, range: Range<Int>)?
        var isIssued = false
        var isAbandoned = false
        var result: Result<Bytes, ReadFetcher.Failure>?

        init(
            bucket: String, object: String, range: Range<Int>, from: SeqNum,
            segment: SegmentRow? = nil, blocks: (index: SegmentIndex, range: Range<Int>)? = nil
        ) {
            self.bucket = bucket
            self.object = object
            self.range = range
            self.from = from
            self.segment = segment
            self.blocks = blocks
        }

        /// The same fetch, to be made again.
        func again(from: SeqNum) -> Slot {
            Slot(
                bucket: bucket, object: object, range: range, from: max(self.from, from),
                segment: segment, blocks: blocks)
        }
    }

    init(
        _ path: DataPath, _ plan: ReadPlan, begin: ReadStart, share: ResponseBudget.Share
    ) {
        self.path = path
        self.share = share
        self.plan = plan
        self.begin = begin
        for piece in plan.pieces { slots.append(Self.slot(piece)) }
        pump()
    }

    /// No more is wanted.
    func close() {
        guard !isClosed else { return }
        isClosed = true
        onReady = nil
        releaseCurrent()
        releaseSlots()
        slots = []
    }

    /// Lets go of all that was fetched, to fetch it again when it is asked for: from `position`
    /// on, where the last run `isUnread` in part.
    func rewind(to position: SeqNum, isUnread: Bool) {
        guard !isClosed else { return }
        let unread = isUnread ? current?.again(from: position) : nil
        releaseCurrent()
        dropAhead()
        if let unread { slots.prepend(unread) }
    }

    private func dropAhead() {
        releaseSlots()
        for (index, slot) in slots.enumerated() where slot.isIssued {
            slots[index] = slot.again(from: slot.from)
        }
        window = 2
    }

    private func releaseSlots() {
        var bytes = 0
        for slot in slots where slot.isIssued {
            // What is on its way stays counted until it is there.
            if slot.result == nil { slot.isAbandoned = true } else { bytes += slot.range.count }
        }
        if bytes > 0 { share.fetched -= bytes }
    }

    private func releaseCurrent() {
        guard let slot = current else { return }
        current = nil
        share.fetched -= slot.range.count
    }

    private static func slot(_ piece: ReadPlan.Piece) -> Slot {
        switch piece.place {
        case .chunk(let bucket, let object, let range):
            return Slot(bucket: bucket, object: object, range: range, from: piece.from)
        case .segment(let row):
            let end = Int(row.offset + row.length)
            let length = Int(row.length)
            let isWhole = length <= wholeBytesMax
            let fetched = isWhole ? length : SegmentIndex.tailBytesMax(segmentLength: length)
            return Slot(
                bucket: row.bucket, object: row.object, range: end - fetched..<end,
                from: piece.from, segment: row)
        }
    }

    private func pump() {
        guard !isClosed, !isStale else { return }
        if path.world.loop.now - plan.askedAt > path.terms.planNanosecondsMax {
            isStale = true
            return
        }
        var bytes = 0
        for slot in slots.prefix(window) {
            bytes += slot.range.count
            guard bytes <= Self.bytesAheadMax || slot === slots.first else { return }
            if slot.isIssued { continue }
            // What is needed next is fetched whatever its size, in its turn.
            let isNext = slot === slots.first && current == nil
            guard share.fetch(slot.range.count, isNext: isNext) else {
                // Who waits for its turn holds nothing that others wait for.
                if isNext { dropAhead() }
                return
            }
            issue(slot)
        }
    }

    private func issue(_ slot: Slot) {
        slot.isIssued = true
        path.fetcher.fetch(bucket: slot.bucket, object: slot.object, range: slot.range) {
            [weak self, share] result in
            guard !slot.isAbandoned, let self, !self.isClosed else {
                share.fetched -= slot.range.count
                return
            }
            slot.result = result
            if self.slots.first === slot { self.onReady?() }
        }
    }

    /// The next run of records, none of them below what is wanted.
    func next() -> Next {
        releaseCurrent()
        while true {
            guard let slot = slots.first else { return .done }
            guard let result = slot.result else {
                if !slot.isIssued { pump() }
                return isStale && slots.first?.isIssued == false ? .planAgain : .wait
            }
            switch result {
            case .failure(.gone): return .planAgain
            case .failure(.failed(let error)): return .failed(error)
            case .success(let bytes):
                do throws(DecodeError) {
                    slots.removeFirst()
                    current = slot
                    window = min(window * 2, Self.windowMax)
                    let run = try open(slot, bytes)
                    if let run, !run.isEmpty {
                        pump()
                        return .run(run)
                    }
                    releaseCurrent()
                } catch {
                    path.world.log.error(
                        "bad_object", [("object", slot.object), ("error", "\(error)")])
                    return .failed(APIError(.storage, "stored records cannot be read"))
                }
            }
        }
    }

    // MARK: What was fetched

    /// The wanted records of a fetched range; nil where it only told what to fetch next.
    private func open(_ slot: Slot, _ bytes: Bytes) throws(DecodeError) -> Bytes? {
        if let (index, range) = slot.blocks {
            let base = Int(index.blocks[range.lowerBound].offset)
            for block in range {
                let place = index.range(ofBlock: block)
                try index.verify(
                    block: block, bytes[place.lowerBound - base..<place.upperBound - base])
            }
            return try wanted(bytes, from: slot.from)
        }
        guard let row = slot.segment else { return try wanted(bytes, from: slot.from) }
        if bytes.count == Int(row.length) {
            return try wanted(
                Segment(bytes, checksum: row.checksum).records, from: slot.from)
        }
        let index = try SegmentIndex(
            tail: bytes, segmentLength: Int(row.length), checksum: row.checksum)
        insertSteps(of: index, row, from: slot.from)
        return nil
    }

    /// Puts the ranges that hold what is wanted of a large segment in front.
    private func insertSteps(of index: SegmentIndex, _ row: SegmentRow, from: SeqNum) {
        guard var block = index.block(seqNum: from) else { return }
        if case .timestamp(let timestamp) = begin {
            guard let first = index.block(timestamp: timestamp) else { return }
            block = max(block, first)
        }
        var steps: [Slot] = []
        while block < index.blocks.count {
            let start = Int(index.blocks[block].offset)
            var end = block + 1
            while end < index.blocks.count,
                index.range(ofBlock: end).upperBound - start <= Self.stepBytes
            { end += 1 }
            let base = Int(row.offset)
            let bytes = base + start..<base + index.range(ofBlock: end - 1).upperBound
            steps.append(
                Slot(
                    bucket: row.bucket, object: row.object, range: bytes, from: from,
                    blocks: (index, block..<end)))
            block = end
        }
        for step in steps.reversed() { slots.prepend(step) }
    }

    /// `run` without the records below what is wanted.
    private func wanted(_ run: Bytes, from: SeqNum) throws(DecodeError) -> Bytes {
        let rest = run.dropFirst(try StoredRecords.offset(in: run, seqNum: from))
        guard case .timestamp(let timestamp) = begin else { return rest }
        return rest.dropFirst(try StoredRecords.offset(in: rest, timestamp: timestamp))
    }
}
