// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What bounds a whole read, as its client asked; nil is no bound.
package struct ReadLimits: Sendable, Hashable {
    /// Records still to be delivered.
    package var count: UInt64?
    /// Metered bytes still to be delivered.
    package var meteredBytes: UInt64?
    /// Exclusive: the read ends before the first record that is not older.
    package var until: TimestampMillis?

    package init(
        count: UInt64? = nil, meteredBytes: UInt64? = nil, until: TimestampMillis? = nil
    ) {
        self.count = count
        self.meteredBytes = meteredBytes
        self.until = until
    }

    /// Whether nothing more can be delivered.
    package var isExhausted: Bool { count == 0 || meteredBytes == 0 }

    /// Counts what was delivered.
    package mutating func subtract(_ cut: RecordCut) {
        if let count { self.count = count - min(count, UInt64(cut.count)) }
        if let meteredBytes {
            self.meteredBytes = meteredBytes - min(meteredBytes, UInt64(cut.meteredBytes))
        }
    }
}

/// What bounds one batch of a read, so that it fits a frame and stays as small as appends are.
package struct ReadBatchBounds: Sendable, Hashable {
    package var recordsMax: Int
    package var meteredBytesMax: Int
    /// Of the stored records, without a tail.
    package var storedBytesMax: Int

    package static let standard = ReadBatchBounds(
        recordsMax: Limits.batchRecordsMax, meteredBytesMax: Limits.batchMeteredBytesMax,
        storedBytesMax: Limits.storedRecordBytesMax)

    package init(recordsMax: Int, meteredBytesMax: Int, storedBytesMax: Int) {
        self.recordsMax = recordsMax
        self.meteredBytesMax = meteredBytesMax
        self.storedBytesMax = storedBytesMax
    }
}

/// A prefix of a run of stored records.
package struct RecordCut: Sendable, Equatable {
    package enum Stop: Sendable, Equatable {
        /// The run ended.
        case runEnded
        /// The batch is full; the rest belongs into the next one.
        case batchFull
        /// The read's own limits are spent, or keep out the next record: the read is over.
        case limitReached
    }
    package var records: Bytes
    package var count: Int
    package var meteredBytes: Int
    /// The last record's position; nil if there is none.
    package var last: StreamPosition?
    package var stop: Stop

    package var limitHit: Bool { stop == .limitReached }
}

extension ReadLimits {
    /// The most of `run` that the limits and the bounds of one batch allow. The first record is
    /// never kept out by the bounds of a batch, only by the read's limits.
    package func cut(
        _ run: Bytes, within bounds: ReadBatchBounds = .standard
    ) throws(DecodeError) -> RecordCut {
        var cut = RecordCut(
            records: Bytes(), count: 0, meteredBytes: 0, last: nil, stop: .runEnded)
        let countMax = count ?? .max
        let meteredMax = meteredBytes ?? .max
        let until = until ?? .max
        var last = StreamPosition.zero
        var end = 0
        var walk = StoredRecords(run)
        if isExhausted {
            cut.stop = .limitReached
        } else {
            while let record = try walk.next() {
                let metered = cut.meteredBytes + record.meteredBytes
                guard UInt64(metered) <= meteredMax, self.until == nil || record.timestamp < until
                else {
                    cut.stop = .limitReached
                    break
                }
                if cut.count > 0,
                    cut.count >= bounds.recordsMax || metered > bounds.meteredBytesMax
                        || record.element.upperBound > bounds.storedBytesMax
                {
                    cut.stop = .batchFull
                    break
                }
                cut.count += 1
                cut.meteredBytes = metered
                last = record.position
                end = record.element.upperBound
                if UInt64(cut.count) == countMax || UInt64(metered) == meteredMax {
                    cut.stop = .limitReached
                    break
                }
            }
        }
        cut.records = run[0..<end]
        cut.last = cut.count > 0 ? last : nil
        return cut
    }
}

extension StoredRecords {
    /// Where the first record with at least this sequence number begins in `run`; its end if none.
    package static func offset(
        in run: Bytes, seqNum: SeqNum
    ) throws(DecodeError) -> Int {
        var walk = StoredRecords(run)
        while let head = try walk.nextHead() {
            if head.position.seqNum >= seqNum { return head.offset }
        }
        return run.count
    }

    /// Where the first record with at least this timestamp begins in `run`; its end if none.
    package static func offset(
        in run: Bytes, timestamp: TimestampMillis
    ) throws(DecodeError) -> Int {
        var walk = StoredRecords(run)
        while let head = try walk.nextHead() {
            if head.position.timestamp >= timestamp { return head.offset }
        }
        return run.count
    }
}
