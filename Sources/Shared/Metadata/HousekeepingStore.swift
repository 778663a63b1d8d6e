// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

/// What background work asks of the metadata, besides what everybody asks.
///
/// Every operation is guarded by what it finds, never by a lease: any number of workers may call
/// any of them at once, and again after a lost reply. All times are of the store's own clock.
///
/// An object is deleted in steps. Whatever takes the last row from a segment away leaves the
/// object's name in the garbage (`unlinked`). After the longest read plan, and if no row refers to
/// it, it is `condemned`: from then on no row may enter that refers to it. Once every transaction
/// that was under way then is over it is `settled`: the object is deleted, and its name forgotten.
/// The name of an object that no row ever named stays refused: whoever stored it may have been
/// paused for long before it tells. So no clock, however wrong, lets an object go that a late flush
/// still brings in.
package protocol HousekeepingStore: MetadataStore {
    // MARK: Streams

    /// Looks at up to `limit` streams of `range` behind `after`, and answers those that need
    /// `work` as far as it can tell without their locks.
    func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int
    ) async throws(MetadataError) -> Scan<StreamID, StreamID>
    /// Unlinks up to `limit` segments that lie wholly below the stored trim point, the lowest
    /// first; answers how many.
    func unlinkTrimmed(_ stream: StreamID, limit: Int) async throws(MetadataError) -> Int
    /// Raises the stored trim point over all leading segments that are older than the stream's
    /// retention age by their entry into the metadata, which is later than any record's arrival.
    /// Answers the trim point, or nil if nothing has expired.
    func expire(_ stream: StreamID) async throws(MetadataError) -> SeqNum?
    /// Marks the stream deleted iff its configuration wishes so, it holds no record, no streamlet
    /// of it is open or prepared, and all of that was seen for as long as it wishes, at one tail.
    func deleteIfEmpty(_ stream: StreamID) async throws(MetadataError) -> EmptyStreamResult
    /// Unlinks up to `limit` segments of a stream that is marked deleted and has no streamlet open
    /// or prepared; then forgets its streamlets, up to `limit` at once, and last the stream.
    func purgeStream(
        _ stream: StreamID, limit: Int
    ) async throws(MetadataError) -> StreamPurgeResult
    /// Names of basins that are marked deleted, in byte order.
    func deletingBasins(
        after: String, limit: Int
    ) async throws(MetadataError) -> Page<String>
    /// Marks up to `limit` streams of a basin that is marked deleted; forgets the basin iff it has
    /// no stream left.
    func purgeBasin(_ name: String, limit: Int) async throws(MetadataError) -> BasinPurgeResult

    // MARK: Compaction

    /// Segments of less than `SmallSegments.lengthEnd` bytes that begin at `from` or above, in
    /// order.
    func smallSegments(
        of stream: StreamID, from: SeqNum, limit: Int
    ) async throws(MetadataError) -> [AgedSegment]
    /// Replaces `inputs`, which adjoin, by `output`, which spans just them, iff each of them is
    /// still there and none lies below the trim point. False if not; true also if it was done
    /// before.
    func compact(
        _ inputs: [SegmentRow], into output: SegmentRow
    ) async throws(MetadataError) -> Bool

    // MARK: Objects

    /// Those of `objects` that a segment or the garbage names.
    func knownObjects(
        _ objects: [String], bucket: String
    ) async throws(MetadataError) -> Set<String>
    /// Puts an object that nothing names into the garbage; if its name is still refused, as
    /// `condemned`.
    func unlinkObject(_ object: StoredObject) async throws(MetadataError)
    /// Garbage whose object's key lies in `keys`, by key and bucket. An object is found `condemned`
    /// at least once before it is found `settled`.
    func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int
    ) async throws(MetadataError) -> Scan<Garbage, StoredObject>
    /// `unlinked` becomes `condemned` iff it was so for `age` milliseconds and no segment refers
    /// to the object.
    func condemn(_ object: StoredObject, age: UInt64) async throws(MetadataError) -> Bool
    /// The object of this name, condemned, is deleted: takes the name out of the garbage.
    func forgetObject(_ object: StoredObject) async throws(MetadataError)

    // MARK: Logs

    /// Channels whose number modulo `partitions` is `partition`, by id.
    func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int
    ) async throws(MetadataError) -> Scan<LogGarbage, ChannelID>
    /// Marks the log as garbage below its flushed end, unless a mark is pending; notes when it was
    /// first found retired.
    func markLog(_ channel: ChannelID) async throws(MetadataError)
    /// Chunks below `end` are deleted, `end` being at or below the mark, which goes with it.
    func forgetLog(_ channel: ChannelID, below end: ChunkIndex) async throws(MetadataError)
    /// Takes up to `limit` closed streamlets of a retired channel away: nobody flushes for it any
    /// more. Answers how many.
    func forgetStreamlets(
        of channel: ChannelID, limit: Int
    ) async throws(MetadataError) -> Int
    /// Nothing is left of the log of a retired channel: takes all away that is kept of it. True if
    /// it is gone, now or since an earlier call; false if it is not retired, or has more streamlets
    /// than go at once.
    func forgetChannel(_ channel: ChannelID) async throws(MetadataError) -> Bool

    // MARK: Leases

    /// Leases whose name begins with `prefix`, by name.
    func leases(prefix: String) async throws(MetadataError) -> [NamedLease]
}

/// One step of a scan: what was found, and where to go on; nil at the end.
package struct Scan<Item: Sendable & Equatable, Cursor: Sendable & Equatable>: Sendable, Equatable {
    package var items: [Item]
    package var next: Cursor?

    package init(_ items: [Item], next: Cursor?) {
        self.items = items
        self.next = next
    }
}

/// What may have to be done about a stream.
package enum StreamWork: String, Sendable, CaseIterable {
    /// Segments lie below the trim point.
    case trim
    /// The first segment has expired.
    case expiry
    /// It is empty, and is to be deleted when empty.
    case emptiness
    /// It is marked deleted.
    case purge
    /// It has at least `SmallSegments.countMin` small segments.
    case compaction
}

package enum SmallSegments {
    package static let lengthEnd: UInt64 = 8 << 20
    package static let countMin = 8
}

package struct AgedSegment: Sendable, Equatable {
    package var row: SegmentRow
    /// When it entered the metadata; of a compacted one, when the youngest of its inputs did.
    package var createdMilliseconds: UInt64

    package init(row: SegmentRow, createdMilliseconds: UInt64) {
        self.row = row
        self.createdMilliseconds = createdMilliseconds
    }
}

package enum EmptyStreamResult: String, Sendable {
    /// It is not to be deleted, or is not empty, or is open.
    case no
    /// Empty, and not for long enough yet.
    case waiting
    /// Marked deleted now.
    case deleted
}

package enum StreamPurgeResult: Sendable, Equatable {
    /// It is not marked deleted.
    case alive
    /// A streamlet is open or prepared.
    case open
    /// So many segments were unlinked, and there is more to do.
    case unlinked(Int)
    /// It is gone, now or since an earlier call.
    case purged
}

package enum BasinPurgeResult: Sendable, Equatable {
    case alive
    /// So many streams were marked now; some are left.
    case waiting(marked: Int)
    case purged
}

package struct StoredObject: Sendable, Hashable {
    package var bucket: String
    package var key: String

    package init(bucket: String, key: String) {
        self.bucket = bucket
        self.key = key
    }
}

package struct Garbage: Sendable, Equatable {
    package enum Phase: String, Sendable {
        case unlinked, condemned, settled
    }
    package var object: StoredObject
    package var phase: Phase
    /// Milliseconds since it was unlinked, or else condemned.
    package var age: UInt64
    /// Whether some segment still refers to the object.
    package var isReferenced: Bool

    package init(object: StoredObject, phase: Phase, age: UInt64, isReferenced: Bool) {
        self.object = object
        self.phase = phase
        self.age = age
        self.isReferenced = isReferenced
    }
}

/// What is deleted of a channel's log, and what may be.
package struct LogGarbage: Sendable, Equatable {
    package struct Mark: Sendable, Equatable {
        package var end: ChunkIndex
        /// Milliseconds since it was set.
        package var age: UInt64

        package init(end: ChunkIndex, age: UInt64) {
            self.end = end
            self.age = age
        }
    }
    package var channel: ChannelRow
    /// Chunks below it are deleted.
    package var deletedEnd: ChunkIndex
    /// Chunks below it may be deleted once it is old enough.
    package var mark: Mark?
    /// Milliseconds since the channel was first found retired.
    package var retiredAge: UInt64?
    /// For how long the channel trusted its log without its lease.
    package var unsureMilliseconds: UInt64

    package init(
        channel: ChannelRow, deletedEnd: ChunkIndex, mark: Mark?, retiredAge: UInt64?,
        unsureMilliseconds: UInt64 = ChannelRegistration.unsureMillisecondsDefault
    ) {
        self.channel = channel
        self.deletedEnd = deletedEnd
        self.mark = mark
        self.retiredAge = retiredAge
        self.unsureMilliseconds = unsureMilliseconds
    }
}

package struct NamedLease: Sendable, Equatable {
    package var name: String
    package var holder: String?
    package var renewals: UInt64

    package init(name: String, holder: String?, renewals: UInt64) {
        self.name = name
        self.holder = holder
        self.renewals = renewals
    }
}

extension SegmentRow {
    /// Whether this row spans just what `inputs` span, which adjoin in order.
    package func replaces(_ inputs: [SegmentRow]) -> Bool {
        guard let first = inputs.first, let last = inputs.last, inputs.count > 1 else {
            return false
        }
        let adjoin = zip(inputs, inputs.dropFirst()).allSatisfy {
            $0.endSeqNum == $1.start.seqNum && $0.stream == $1.stream
        }
        return adjoin && stream == first.stream && start == first.start
            && endSeqNum == last.endSeqNum && lastTimestamp == last.lastTimestamp
            && meteredBytes == inputs.reduce(0) { $0 + $1.meteredBytes }
            && !inputs.contains { $0.object == object && $0.bucket == bucket }
    }
}
