// SPDX-License-Identifier: Apache-2.0

package import Primitives

extension PreparedBatch {
    /// All of a batch but its records, as it stands in front of them in a message:
    /// u8 flags (1 match, 2 token), u32 count, u32 metered bytes, u32 bytes of the records,
    /// [u64 match], [token text].
    package struct Head: Sendable, Equatable {
        package var count: Int
        package var meteredBytes: Int
        package var recordsBytes: Int
        package var conditions: AppendConditions

        package init(
            count: Int, meteredBytes: Int, recordsBytes: Int, conditions: AppendConditions
        ) {
            self.count = count
            self.meteredBytes = meteredBytes
            self.recordsBytes = recordsBytes
            self.conditions = conditions
        }

        package static func byteCount(_ conditions: AppendConditions) -> Int {
            13 + (conditions.matchSeqNum == nil ? 0 : 8)
                + (conditions.fencingToken.map { 4 + $0.utf8.count } ?? 0)
        }
    }

    package var head: Head {
        Head(
            count: count, meteredBytes: meteredBytes, recordsBytes: records.count,
            conditions: conditions)
    }

    /// Writes what stands in front of a record's fields.
    @inline(__always)
    static func writePrefix(
        fieldsBytes: Int, meteredBytes: Int, isCommand: Bool, timestamp: TimestampMillis?,
        to target: UnsafeMutableRawPointer
    ) {
        var word = UInt32(truncatingIfNeeded: meteredBytes)
        if isCommand { word |= commandFlag }
        if timestamp != nil { word |= timestampFlag }
        let length = UInt32(truncatingIfNeeded: fieldsBytes)
        target.storeBytes(of: length.littleEndian, as: UInt32.self)
        target.storeBytes(of: word.littleEndian, toByteOffset: 4, as: UInt32.self)
        target.storeBytes(of: (timestamp ?? 0).littleEndian, toByteOffset: 8, as: UInt64.self)
    }
}

extension ByteWriter {
    package mutating func write(_ head: PreparedBatch.Head) {
        let conditions = head.conditions
        let flags: UInt8 =
            (conditions.matchSeqNum == nil ? 0 : 1) | (conditions.fencingToken == nil ? 0 : 2)
        write(flags)
        write(UInt32(head.count))
        write(UInt32(head.meteredBytes))
        write(UInt32(head.recordsBytes))
        if let match = conditions.matchSeqNum { write(match) }
        if let token = conditions.fencingToken { writeText(token) }
    }
}

/// One record of a prepared batch.
package struct PreparedRecord: Equatable {
    /// Where its stored fields stand in the batch's `records`.
    package let fields: Range<Int>
    package let meteredBytes: Int
    /// The client's timestamp.
    package let timestamp: TimestampMillis?
    package let isCommand: Bool
}

/// The records of a batch that came over the network, checked: nothing that cannot be read back
/// enters a log, whoever sent it.
package struct PreparedRecords: Sequence {
    package let batch: PreparedBatch
    /// Bytes of all records' fields.
    package let fieldsBytes: Int
    package let hasCommands: Bool

    /// Throws unless the layout is right, the counts are true, and every record satisfies the rules
    /// of an append.
    package init(_ batch: PreparedBatch) throws(DecodeError) {
        hasCommands = try Self.check(batch) { _ in }
        self.batch = batch
        fieldsBytes = batch.records.count - batch.count * PreparedBatch.prefixBytes
    }

    /// Checks the batch, and calls `body` with each of its records. Whether some are commands.
    @inline(__always)
    static func check(
        _ batch: PreparedBatch, _ body: (PreparedRecord) -> Void
    ) throws(DecodeError) -> Bool {
        let records = batch.records
        var at = 0
        var count = 0
        var meteredBytes = 0
        var hasCommands = false
        while at < records.count {
            guard records.count - at >= PreparedBatch.prefixBytes else {
                throw DecodeError(.truncated, at: at)
            }
            let record = PreparedRecord(prefixAt: records.base + at, offset: at)
            guard record.fields.upperBound <= records.count else {
                throw DecodeError(.truncated, at: at)
            }
            try Self.check(record, records, at)
            hasCommands = hasCommands || record.isCommand
            meteredBytes += record.meteredBytes
            count += 1
            at = record.fields.upperBound
            body(record)
        }
        guard count == batch.count, (1...Limits.batchRecordsMax).contains(count) else {
            throw Self.malformed("\(count) prepared records instead of \(batch.count)", at)
        }
        guard meteredBytes == batch.meteredBytes, meteredBytes <= Limits.batchMeteredBytesMax else {
            throw Self.malformed(
                "\(meteredBytes) metered bytes instead of \(batch.meteredBytes)", at)
        }
        return hasCommands
    }

    package var count: Int { batch.count }

    /// The stored fields of one of the records, sharing memory.
    package func fields(of record: PreparedRecord) -> Bytes { batch.records[record.fields] }

    package func makeIterator() -> Iterator { Iterator(records: batch.records) }

    package struct Iterator: IteratorProtocol {
        fileprivate let records: Bytes
        private var at = 0

        fileprivate init(records: Bytes) { self.records = records }

        @inline(__always)
        package mutating func next() -> PreparedRecord? {
            guard at < records.count else { return nil }
            let record = PreparedRecord(prefixAt: records.base + at, offset: at)
            at = record.fields.upperBound
            return record
        }
    }

    @inline(__always)
    private static func check(
        _ record: PreparedRecord, _ records: Bytes, _ at: Int
    ) throws(DecodeError) {
        let base = records.base + record.fields.lowerBound
        guard let shape = RecordShape(base, record.fields.count, .stored) else {
            throw malformed("a prepared record is not canonical", at)
        }
        guard shape.meteredBytes == record.meteredBytes, shape.isCommand == record.isCommand,
            record.timestamp != nil
                || (records.base + at).loadUnaligned(
                    fromByteOffset: 8, as: UInt64.self) == 0
        else { throw malformed("a prepared record's prefix contradicts its fields", at) }
        do throws(AppendInputError) {
            let fields = UnsafeRawBufferPointer(start: base, count: record.fields.count)
            try RecordRules.check(shape, fields: fields, index: 0)
        } catch {
            throw malformed("\(error)", at)
        }
    }

    @inline(never)
    private static func malformed(_ what: String, _ at: Int) -> DecodeError {
        DecodeError(.malformed(what), at: at)
    }
}

extension PreparedRecord {
    /// Reads the prefix at `base`, which stands at `offset` of the batch's records.
    @inline(__always)
    init(prefixAt base: UnsafeRawPointer, offset: Int) {
        let length = UInt32(littleEndian: base.loadUnaligned(as: UInt32.self))
        let word = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        let time = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        let start = offset + PreparedBatch.prefixBytes
        fields = start..<start + Int(length)
        meteredBytes = Int(word & PreparedBatch.meteredMask)
        timestamp = word & PreparedBatch.timestampFlag != 0 ? time : nil
        isCommand = word & PreparedBatch.commandFlag != 0
    }
}
