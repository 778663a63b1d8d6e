// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Prepares a batch from records in memory: what JSON appends go through.
///
/// It holds records to the same rules, in the same words, as `AppendInputDecoder`.
package struct PreparedBatchBuilder {
    private var writer: ByteWriter
    package private(set) var count = 0
    package private(set) var meteredBytes = 0

    /// `capacity`: a guess of the bytes to come.
    package init(capacity: Int = 1_024) { writer = ByteWriter(capacity: capacity) }

    package mutating func add(
        timestamp: TimestampMillis?, headers: [RecordHeader], body: Bytes
    ) throws(AppendInputError) {
        try RecordRules.checkBatch(count: count + 1)
        let room = headers.reduce(body.count + Varint.lengthMax + 1) {
            $0 + $1.name.count + $1.value.count + 3 * (Varint.lengthMax + 1)
        }
        let target = writer.reserve(PreparedBatch.prefixBytes + room)
        var fieldsWriter = StoredFieldsWriter(target + PreparedBatch.prefixBytes)
        for header in headers {
            header.name.withUnsafeBytes { name in
                header.value.withUnsafeBytes { fieldsWriter.writeHeader(name: name, value: $0) }
            }
        }
        body.withUnsafeBytes { fieldsWriter.writeBody($0) }
        let fields = UnsafeRawBufferPointer(
            start: target + PreparedBatch.prefixBytes, count: fieldsWriter.count)
        guard let shape = RecordShape(storedFields: fields) else {
            preconditionFailure("what a builder writes is canonical")
        }
        try RecordRules.check(shape, fields: fields, index: count)
        try RecordRules.checkBatch(meteredBytes: meteredBytes + shape.meteredBytes)
        PreparedBatch.writePrefix(
            fieldsBytes: fields.count, meteredBytes: shape.meteredBytes,
            isCommand: shape.isCommand, timestamp: timestamp, to: target)
        writer.advance(PreparedBatch.prefixBytes + fields.count)
        count += 1
        meteredBytes += shape.meteredBytes
    }

    package consuming func finish(
        _ conditions: AppendConditions = .none
    ) throws(AppendInputError) -> PreparedBatch {
        try RecordRules.checkBatch(count: count)
        if let token = conditions.fencingToken { try RecordRules.check(fencingToken: token) }
        let (count, meteredBytes) = (count, meteredBytes)
        return PreparedBatch(
            count: count, meteredBytes: meteredBytes, records: writer.finish(),
            conditions: conditions)
    }
}

/// One header of a record, in memory.
package struct RecordHeader: Sendable, Hashable {
    package var name: Bytes
    package var value: Bytes

    package init(name: Bytes, value: Bytes) {
        self.name = name
        self.value = value
    }
}

/// Writes a record's fields in the one form in which they are stored, where there is room for them.
struct StoredFieldsWriter {
    private let target: UnsafeMutableRawPointer
    private(set) var count = 0

    init(_ target: UnsafeMutableRawPointer) { self.target = target }

    mutating func writeHeader(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        writeTag(0x1A, length: Self.fieldBytes(name.count) + Self.fieldBytes(value.count))
        writeBytes(0x0A, name)
        writeBytes(0x12, value)
    }

    mutating func writeBody(_ body: UnsafeRawBufferPointer) { writeBytes(0x22, body) }

    private static func fieldBytes(_ count: Int) -> Int {
        count == 0 ? 0 : 1 + Varint.length(UInt64(count)) + count
    }

    private mutating func writeTag(_ tag: UInt8, length: Int) {
        target.storeBytes(of: tag, toByteOffset: count, as: UInt8.self)
        count += 1 + Varint.write(UInt64(length), to: target + count + 1)
    }

    private mutating func writeBytes(_ tag: UInt8, _ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        writeTag(tag, length: bytes.count)
        (target + count).copyMemory(from: source, byteCount: bytes.count)
        count += bytes.count
    }
}
