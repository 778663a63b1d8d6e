// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

/// What `MemoryState` holds for background work alone.
struct HousekeepingState {
    struct SegmentName: Hashable {
        var stream: StreamID
        var start: SeqNum
    }
    struct GarbageEntry {
        var since: UInt64
        var isCondemned: Bool
        /// Was found condemned.
        var isSettled = false
        /// No segment ever referred to it.
        var isOrphan = false
        /// Deleted; its name stays refused.
        var isGone = false
    }
    struct EmptyEntry {
        var tail: SeqNum
        var since: UInt64
    }
    struct LogEntry {
        var deletedEnd: ChunkIndex = 0
        var mark: (end: ChunkIndex, since: UInt64)?
        var retiredSince: UInt64?
    }

    var created: [SegmentName: UInt64] = [:]
    var garbage: [StoredObject: GarbageEntry] = [:]
    var empty: [StreamID: EmptyEntry] = [:]
    var logs: [ChannelID: LogEntry] = [:]
}

extension MemoryState {
    // MARK: What a flush has to do with it

    /// Throws if a segment lies in an object that is to be deleted.
    func refuseCondemned(_ segments: [SegmentRow]) throws(MetadataError) {
        for row in segments where housekeeping.garbage[row.storedObject]?.isCondemned == true {
            throw MetadataError(.failed, "a segment lies in an object that is to be deleted")
        }
    }

    mutating func noteCreation(of segments: [SegmentRow], now: UInt64) {
        for row in segments where housekeeping.created[row.name] == nil {
            housekeeping.created[row.name] = now
        }
    }

    // MARK: Streams

    func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int,
        now: UInt64
    ) -> Scan<StreamID, StreamID> {
        let ids = streams.values.filter { entry in
            let id = entry.stream.id
            let isMarked = entry.stream.deletedMilliseconds != nil
            return range.contains(id) && (after.map { id > $0 } ?? true)
                && isMarked == (work == .purge)
        }.map(\.stream.id).sorted().prefix(limit)
        let due = ids.filter { id in streams[id].map { needs(work, $0, now: now) } ?? false }
        return Scan(Array(due), next: ids.count == limit ? ids.last : nil)
    }

    private func needs(_ work: StreamWork, _ entry: StreamEntry, now: UInt64) -> Bool {
        let trimPoint = entry.stream.state.trimPoint
        switch work {
        case .trim: return entry.segments.first.map { $0.endSeqNum <= trimPoint } ?? false
        case .expiry:
            let first = entry.segments.first { $0.endSeqNum > trimPoint }
            return first.map { isExpired($0, entry, now: now) } ?? false
        case .emptiness:
            return entry.stream.config.deleteOnEmptyMinAgeSeconds > 0 && entry.isEmpty
                && !entry.isHeld
        case .purge: return true
        case .compaction:
            let small = entry.segments.count { $0.length < SmallSegments.lengthEnd }
            return small >= SmallSegments.countMin
        }
    }

    private func isExpired(_ row: SegmentRow, _ entry: StreamEntry, now: UInt64) -> Bool {
        guard case .age(let seconds) = entry.stream.config.retention,
            let created = housekeeping.created[row.name]
        else { return false }
        return hasPassed(seconds: seconds, since: created, now: now)
    }

    mutating func unlinkTrimmed(_ id: StreamID, limit: Int, now: UInt64) -> Int {
        guard let entry = streams[id] else { return 0 }
        let trimPoint = entry.stream.state.trimPoint
        let gone = entry.segments.prefix { $0.endSeqNum <= trimPoint }.prefix(limit)
        unlink(Array(gone), now: now)
        return gone.count
    }

    /// Rows of one stream.
    private mutating func unlink(_ rows: [SegmentRow], now: UInt64) {
        guard let stream = rows.first?.stream else { return }
        let starts = Set(rows.map(\.start.seqNum))
        streams[stream]?.segments.removeAll { starts.contains($0.start.seqNum) }
        for row in rows {
            housekeeping.created[row.name] = nil
            housekeeping.garbage[row.storedObject, default: .init(since: now, isCondemned: false)]
                .since = now
        }
    }

    mutating func expire(_ id: StreamID, now: UInt64) -> SeqNum? {
        guard let entry = streams[id], entry.stream.deletedMilliseconds == nil else { return nil }
        let trimPoint = entry.stream.state.trimPoint
        let kept = entry.segments.drop { $0.endSeqNum <= trimPoint }
        let expired = kept.prefix { isExpired($0, entry, now: now) }
        guard let boundary = expired.last?.endSeqNum else { return nil }
        streams[id]?.stream.state.trimPoint = boundary
        return boundary
    }

    mutating func deleteIfEmpty(_ id: StreamID, now: UInt64) -> EmptyStreamResult {
        guard let entry = streams[id], entry.stream.deletedMilliseconds == nil,
            entry.stream.config.deleteOnEmptyMinAgeSeconds > 0, entry.isEmpty, !entry.isHeld
        else {
            housekeeping.empty[id] = nil
            return .no
        }
        let tail = entry.stream.state.tail.seqNum
        guard let seen = housekeeping.empty[id], seen.tail == tail else {
            housekeeping.empty[id] = .init(tail: tail, since: now)
            return .waiting
        }
        let seconds = entry.stream.config.deleteOnEmptyMinAgeSeconds
        guard hasPassed(seconds: seconds, since: seen.since, now: now) else { return .waiting }
        streams[id]?.stream.deletedMilliseconds = now
        housekeeping.empty[id] = nil
        return .deleted
    }

    mutating func purgeStream(_ id: StreamID, limit: Int, now: UInt64) -> StreamPurgeResult {
        guard let entry = streams[id] else { return .purged }
        guard entry.stream.deletedMilliseconds != nil else { return .alive }
        guard !entry.isHeld else { return .open }
        let gone = entry.segments.prefix(limit)
        unlink(Array(gone), now: now)
        if gone.count == limit { return .unlinked(gone.count) }
        if entry.tenures.count > limit {
            streams[id]?.tenures.removeLast(limit)
            return .unlinked(gone.count)
        }
        streams[id] = nil
        streamIDs[StreamName(basin: entry.stream.basin, name: entry.stream.name)] = nil
        housekeeping.empty[id] = nil
        return .purged
    }

    func deletingBasins(after: String, limit: Int) -> Page<String> {
        let names = basins.filter {
            $0.value.basin.deletedMilliseconds != nil && $0.key > Name(after)
        }.sorted { $0.key < $1.key }.map(\.value.basin.name)
        return Page(Array(names.prefix(limit)), hasMore: names.count > limit)
    }

    mutating func purgeBasin(_ name: String, limit: Int, now: UInt64) -> BasinPurgeResult {
        guard let entry = basins[Name(name)] else { return .purged }
        guard entry.basin.deletedMilliseconds != nil else { return .alive }
        let home = Name(name)
        let members = streamIDs.filter { $0.key.basin == home }.map(\.value).sorted()
        guard !members.isEmpty else {
            basins[home] = nil
            return .purged
        }
        let unmarked = members.filter { streams[$0]?.stream.deletedMilliseconds == nil }
        for id in unmarked.prefix(limit) { streams[id]?.stream.deletedMilliseconds = now }
        return .waiting(marked: min(unmarked.count, limit))
    }

    // MARK: Compaction

    func smallSegments(of id: StreamID, from: SeqNum, limit: Int) -> [AgedSegment] {
        let small = (streams[id]?.segments ?? []).filter {
            $0.start.seqNum >= from && $0.length < SmallSegments.lengthEnd
        }
        return small.prefix(limit).map {
            AgedSegment(row: $0, createdMilliseconds: housekeeping.created[$0.name] ?? 0)
        }
    }

    mutating func compact(
        _ inputs: [SegmentRow], into output: SegmentRow, now: UInt64
    ) throws(MetadataError) -> Bool {
        guard output.replaces(inputs) else {
            throw MetadataError(.failed, "the compacted segment does not span its inputs")
        }
        guard let entry = streams[output.stream], entry.stream.deletedMilliseconds == nil else {
            return false
        }
        if entry.segments.contains(output) { return true }
        guard inputs[0].endSeqNum > entry.stream.state.trimPoint,
            inputs.allSatisfy(entry.segments.contains)
        else { return false }
        try refuseCondemned([output])
        let created = inputs.compactMap { housekeeping.created[$0.name] }.max()
        unlink(inputs, now: now)
        streams[output.stream]?.segments.append(output)
        streams[output.stream]?.segments.sort { $0.start.seqNum < $1.start.seqNum }
        housekeeping.created[output.name] = created
        return true
    }
}

extension SegmentRow {
    var storedObject: StoredObject { StoredObject(bucket: bucket, key: object) }

    var name: HousekeepingState.SegmentName {
        HousekeepingState.SegmentName(stream: stream, start: start.seqNum)
    }
}

extension MemoryState.StreamEntry {
    fileprivate var isHeld: Bool {
        tenures.contains { $0.streamlet.state == .open || $0.streamlet.state == .prepared }
    }

    fileprivate var isEmpty: Bool { stream.state.trimPoint >= stream.state.tail.seqNum }
}

private func hasPassed(seconds: UInt64, since: UInt64, now: UInt64) -> Bool {
    let (milliseconds, overflow) = seconds.multipliedReportingOverflow(by: 1_000)
    return !overflow && now >= since && now - since >= milliseconds
}
