// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Turns protobuf `AppendInput` into a prepared batch: validates, meters and rewrites it.
///
/// A first walk, over the outermost fields only, counts the records and finds the conditions, so
/// that memory is allocated once and to size. The second copies each record and scans it. A record
/// as every encoder writes it needs no more than two tags changed in the copy (headers 2 to 3, body
/// 3 to 4); `RecordShape` tells such records. Any other goes through `canonicalise`, which reads
/// protobuf in all its freedom and writes the one form in which records are stored.
///
/// Where several records are wrong, one that cannot be read outranks those that break a rule.
package enum AppendInputDecoder {
    package static func decode(_ bytes: Bytes) throws(AppendInputError) -> PreparedBatch {
        try bytes.withUnsafeBytes { input throws(AppendInputError) in
            let outline = try Outline(input)
            let storage = ByteStorage.make(capacity: outline.roomBytes)
            let written = try prepare(input, outline, to: storage.base)
            return PreparedBatch(
                count: outline.count, meteredBytes: written.meteredBytes,
                records: Bytes(
                    owner: storage, base: UnsafeRawPointer(storage.base), count: written.bytes),
                conditions: outline.conditions)
        }
    }

    /// Writes the batch as the message that a frontend sends to a channel: head and records, so
    /// that the records are copied once. On an error nothing is written.
    package static func decode(
        _ bytes: Bytes, into writer: inout ByteWriter
    ) throws(AppendInputError) -> PreparedBatch.Head {
        try bytes.withUnsafeBytes { input throws(AppendInputError) in
            let outline = try Outline(input)
            let headBytes = PreparedBatch.Head.byteCount(outline.conditions)
            let room = writer.reserve(headBytes + outline.roomBytes)
            let written = try prepare(input, outline, to: room + headBytes)
            let head = PreparedBatch.Head(
                count: outline.count, meteredBytes: written.meteredBytes,
                recordsBytes: written.bytes, conditions: outline.conditions)
            writer.write(head)
            writer.advance(written.bytes)
            return head
        }
    }

    /// The outermost fields.
    private struct Outline {
        var count = 0
        var conditions = AppendConditions()
        /// An upper bound of what the prepared records take: no canonical form is longer than what
        /// it was made from.
        var roomBytes = 0

        init(_ input: UnsafeRawBufferPointer) throws(AppendInputError) {
            do throws(DecodeError) {
                try scan(input)
            } catch {
                throw .malformed(error)
            }
            try RecordRules.checkBatch(count: count)
            if let token = conditions.fencingToken {
                try RecordRules.check(fencingToken: token)
            }
        }

        private mutating func scan(_ input: UnsafeRawBufferPointer) throws(DecodeError) {
            var fields = WireFields(input)
            while let field = try fields.next() {
                switch field.number {
                case 1:
                    count += 1
                    roomBytes += PreparedBatch.prefixBytes + (try field.bytes("records")).count
                case 2:
                    conditions.matchSeqNum = try field.varint("match_seq_num")
                case 3:
                    let text = UnsafeRawBufferPointer(
                        rebasing: input[try field.bytes("fencing_token")])
                    guard let token = String(validating: text, as: UTF8.self) else {
                        throw DecodeError(
                            .malformed("fencing_token is not UTF-8"), at: field.offset)
                    }
                    conditions.fencingToken = token
                default: break
                }
            }
        }
    }

    private static func prepare(
        _ input: UnsafeRawBufferPointer, _ outline: Outline, to target: UnsafeMutableRawPointer
    ) throws(AppendInputError) -> (bytes: Int, meteredBytes: Int) {
        var fields = WireFields(input)
        var bytes = 0
        var meteredBytes = 0
        var index = 0
        var broken: String?
        while let field = try next(&fields) {
            guard field.number == 1 else { continue }
            do throws(AppendInputError) {
                let record = try prepareRecord(
                    input, field.content, index: index, to: target + bytes)
                bytes += record.bytes
                meteredBytes += record.meteredBytes
            } catch {
                guard case .invalid(let what) = error else { throw error }
                broken = broken ?? what
            }
            index += 1
        }
        if let broken { throw .invalid(broken) }
        try RecordRules.checkBatch(meteredBytes: meteredBytes)
        return (bytes, meteredBytes)
    }

    @inline(__always)
    private static func next(_ fields: inout WireFields) throws(AppendInputError) -> WireField? {
        do throws(DecodeError) {
            return try fields.next()
        } catch {
            throw .malformed(error)
        }
    }

    @inline(__always)
    private static func prepareRecord(
        _ input: UnsafeRawBufferPointer, _ range: Range<Int>, index: Int,
        to target: UnsafeMutableRawPointer
    ) throws(AppendInputError) -> (bytes: Int, meteredBytes: Int) {
        let fields = target + PreparedBatch.prefixBytes
        var record: Rewritten
        if let canonical = rewriteTags(input, range, to: fields) {
            record = canonical
        } else {
            record = try canonicalise(input, range, to: fields)
        }
        try RecordRules.check(
            record.shape, fields: UnsafeRawBufferPointer(start: fields, count: record.bytes),
            index: index)
        PreparedBatch.writePrefix(
            fieldsBytes: record.bytes, meteredBytes: record.shape.meteredBytes,
            isCommand: record.shape.isCommand, timestamp: record.timestamp, to: target)
        return (PreparedBatch.prefixBytes + record.bytes, record.shape.meteredBytes)
    }

    /// A record's stored fields, and what they are.
    private struct Rewritten {
        var bytes: Int
        var shape: RecordShape
        var timestamp: TimestampMillis?
    }

    /// The fast path: nil where the record is not canonical, and the target is then in no
    /// particular state.
    @inline(__always)
    private static func rewriteTags(
        _ input: UnsafeRawBufferPointer, _ range: Range<Int>, to target: UnsafeMutableRawPointer
    ) -> Rewritten? {
        guard let base = input.baseAddress else { return nil }
        var at = range.lowerBound
        var timestamp: TimestampMillis?
        if at < range.upperBound, base.byte(at) == 0x08 {
            at += 1
            let upToEnd = UnsafeRawBufferPointer(start: base, count: range.upperBound)
            timestamp = Varint.read(upToEnd, &at)
            guard timestamp != nil else { return nil }
        }
        let length = range.upperBound - at
        target.copyMemory(from: base + at, byteCount: length)
        guard let shape = RecordShape(base + at, length, .append, patch: target) else { return nil }
        return Rewritten(bytes: length, shape: shape, timestamp: timestamp)
    }

    /// The slow path: reads the record as protobuf says (the last of a repeated scalar wins, and
    /// unknown fields are dropped) and writes it as records are stored.
    @inline(never)
    private static func canonicalise(
        _ input: UnsafeRawBufferPointer, _ range: Range<Int>, to target: UnsafeMutableRawPointer
    ) throws(AppendInputError) -> Rewritten {
        do throws(DecodeError) {
            var writer = StoredFieldsWriter(target)
            var timestamp: TimestampMillis?
            var body = 0..<0
            var fields = WireFields(input, in: range)
            while let field = try fields.next() {
                switch field.number {
                case 1: timestamp = try field.varint("timestamp")
                case 2:
                    let header = try header(input, try field.bytes("headers"))
                    writer.writeHeader(
                        name: UnsafeRawBufferPointer(rebasing: input[header.name]),
                        value: UnsafeRawBufferPointer(rebasing: input[header.value]))
                case 3: body = try field.bytes("body")
                default: break
                }
            }
            writer.writeBody(UnsafeRawBufferPointer(rebasing: input[body]))
            let written = UnsafeRawBufferPointer(start: target, count: writer.count)
            guard let shape = RecordShape(storedFields: written) else {
                preconditionFailure("what the canonical path writes is canonical")
            }
            return Rewritten(bytes: writer.count, shape: shape, timestamp: timestamp)
        } catch {
            throw .malformed(error)
        }
    }

    private static func header(
        _ input: UnsafeRawBufferPointer, _ range: Range<Int>
    ) throws(DecodeError) -> (name: Range<Int>, value: Range<Int>) {
        var name = 0..<0
        var value = 0..<0
        var fields = WireFields(input, in: range)
        while let field = try fields.next() {
            switch field.number {
            case 1: name = try field.bytes("name")
            case 2: value = try field.bytes("value")
            default: break
            }
        }
        return (name, value)
    }
}
