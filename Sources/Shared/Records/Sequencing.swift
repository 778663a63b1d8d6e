// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Assigns the timestamps of a stream's records: the client's wish, unless the stream's mode says
/// otherwise, never in the future unless allowed, and never going back.
package struct TimestampAssigner: Sendable, Equatable {
    package let mode: TimestampingMode
    package let isUncapped: Bool
    /// The wall clock at sequencing.
    package let now: TimestampMillis
    /// The timestamp of the record before; 0 if there is none.
    package private(set) var previous: TimestampMillis

    package init(
        mode: TimestampingMode, isUncapped: Bool, now: TimestampMillis, previous: TimestampMillis
    ) {
        self.mode = mode
        self.isUncapped = isUncapped
        self.now = now
        self.previous = previous
    }

    package init(config: StreamConfig, now: TimestampMillis, previous: TimestampMillis) {
        self.init(
            mode: config.timestampingMode, isUncapped: config.timestampingUncapped, now: now,
            previous: previous)
    }

    /// The next record's timestamp; nil if the stream requires one of the client and there is none.
    @inline(__always)
    package mutating func next(_ client: TimestampMillis?) -> TimestampMillis? {
        var timestamp: TimestampMillis
        switch mode {
        case .arrival: timestamp = now
        case .clientPrefer: timestamp = client ?? now
        case .clientRequire:
            guard let client else { return nil }
            timestamp = client
        }
        if !isUncapped { timestamp = min(timestamp, now) }
        previous = max(timestamp, previous)
        return previous
    }
}

/// A batch with its place in a stream: how many bytes it takes is known before any is written, so
/// that a channel reserves room once and copies once.
package struct SequencedBatch {
    package let start: StreamPosition
    /// Exclusive; the timestamp is the last record's.
    package let end: StreamPosition
    /// Bytes of all the stored records.
    package let storedBytes: Int
    package let count: Int
    package let meteredBytes: Int
    package let hasCommands: Bool
    /// False if some record lacks a timestamp that the stream requires: then it has no place, and
    /// cannot be written.
    package let isComplete: Bool
    private let records: Bytes
    private let timestamps: TimestampAssigner

    /// Checks `batch` as `PreparedRecords` does, and places its records from `seqNum` on, in one
    /// pass.
    package init(
        _ batch: borrowing PreparedBatch, from seqNum: SeqNum, timestamps: TimestampAssigner
    ) throws(DecodeError) {
        var assigner = timestamps
        var next = seqNum
        var storedBytes = 0
        var first: TimestampMillis = 0
        var isComplete = true
        hasCommands = try PreparedRecords.check(batch) { record in
            guard let timestamp = assigner.next(record.timestamp) else {
                isComplete = false
                return
            }
            if next == seqNum { first = timestamp }
            storedBytes += StoredRecord.elementBytes(
                fieldsBytes: record.fields.count, seqNum: next, timestamp: timestamp)
            next += 1
        }
        start = StreamPosition(seqNum: seqNum, timestamp: first)
        end = StreamPosition(seqNum: next, timestamp: assigner.previous)
        self.storedBytes = storedBytes
        count = batch.count
        meteredBytes = batch.meteredBytes
        self.isComplete = isComplete
        records = batch.records
        self.timestamps = timestamps
    }

    /// Writes the stored records at `target`, which has room for `storedBytes`.
    package func write(to target: UnsafeMutableRawPointer) {
        precondition(isComplete, "what has no place is not written")
        let (source, length) = (records.base, records.count)
        defer { withExtendedLifetime(records) {} }
        var assigner = timestamps
        var seqNum = start.seqNum
        var at = 0
        var written = 0
        while at < length {
            let record = PreparedRecord(prefixAt: source + at, offset: at)
            guard let timestamp = assigner.next(record.timestamp) else {
                preconditionFailure("the timestamps were assigned before")
            }
            written += StoredRecord.write(
                fields: UnsafeRawBufferPointer(
                    start: source + record.fields.lowerBound, count: record.fields.count),
                seqNum: seqNum, timestamp: timestamp, to: target + written)
            seqNum += 1
            at = record.fields.upperBound
        }
        precondition(written == storedBytes, "the records take the bytes that were reserved")
    }

    /// The stored records, in memory of their own.
    package func stored() -> Bytes {
        let storage = ByteStorage.make(capacity: storedBytes)
        write(to: storage.base)
        return Bytes(
            owner: storage, base: UnsafeRawPointer(storage.base), count: storedBytes)
    }
}
