// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Where the parts of one stored record stand in the run that holds it.
///
/// A stored record is one element of `ReadBatch.records`: tag `0A`, a varint length, and a
/// `SequencedRecord` in canonical form: `08` and the sequence number unless it is 0, `10` and the
/// timestamp unless it is 0, headers (`1A`), body (`22`).
package struct StoredRecord: Equatable {
    /// The whole element, tag included.
    package let element: Range<Int>
    /// Headers and body.
    package let fields: Range<Int>
    package let seqNum: SeqNum
    package let timestamp: TimestampMillis
    package let shape: RecordShape

    package var position: StreamPosition { StreamPosition(seqNum: seqNum, timestamp: timestamp) }
    package var meteredBytes: Int { shape.meteredBytes }
    package var isCommand: Bool { shape.isCommand }
    /// The body; empty for an empty one.
    package var body: Range<Int> { fields.upperBound - shape.bodyBytes..<fields.upperBound }

    /// The headers, in order. `run` holds the record.
    package func headers(in run: Bytes) throws(DecodeError) -> [RecordHeader] {
        var headers: [RecordHeader] = []
        headers.reserveCapacity(shape.headerCount)
        try run.withUnsafeBytes { bytes throws(DecodeError) in
            var walk = WireFields(bytes, in: fields)
            while let field = try walk.next(), field.number == 3 {
                headers.append(try RecordHeader(bytes, field.content, of: run))
            }
        }
        return headers
    }
}

extension RecordHeader {
    /// The header whose message stands in `range` of `run`, which holds `bytes`.
    init(
        _ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, of run: Bytes
    ) throws(DecodeError) {
        self.init(name: Bytes(), value: Bytes())
        var walk = WireFields(bytes, in: range)
        while let field = try walk.next() {
            switch field.number {
            case 1: name = run[try field.bytes("name")]
            case 2: value = run[try field.bytes("value")]
            default: break
            }
        }
    }
}

extension StoredRecord {
    /// The bytes that a record takes once it is stored, at most: where the sequence number and the
    /// timestamp take their longest form.
    @inline(__always)
    package static func elementBytesMax(fieldsBytes: Int) -> Int {
        elementBytes(fieldsBytes: fieldsBytes, seqNum: .max, timestamp: .max)
    }

    /// The bytes that a record takes once it is stored.
    @inline(__always)
    package static func elementBytes(
        fieldsBytes: Int, seqNum: SeqNum, timestamp: TimestampMillis
    ) -> Int {
        let content = contentBytes(fieldsBytes, seqNum, timestamp)
        return 1 + Varint.length(UInt64(truncatingIfNeeded: content)) + content
    }

    @inline(__always)
    private static func contentBytes(
        _ fieldsBytes: Int, _ seqNum: SeqNum, _ timestamp: TimestampMillis
    ) -> Int {
        fieldsBytes + (seqNum == 0 ? 0 : 1 + Varint.length(seqNum))
            + (timestamp == 0 ? 0 : 1 + Varint.length(timestamp))
    }

    /// Writes the stored record at `target`, which has room for `elementBytes`, and returns the
    /// bytes taken.
    @inline(__always)
    @discardableResult
    package static func write(
        fields: UnsafeRawBufferPointer, seqNum: SeqNum, timestamp: TimestampMillis,
        to target: UnsafeMutableRawPointer
    ) -> Int {
        let content = contentBytes(fields.count, seqNum, timestamp)
        target.storeBytes(of: 0x0A, as: UInt8.self)
        var at = 1 + Varint.write(UInt64(truncatingIfNeeded: content), to: target + 1)
        if seqNum != 0 {
            target.storeBytes(of: 0x08, toByteOffset: at, as: UInt8.self)
            at += 1 + Varint.write(seqNum, to: target + at + 1)
        }
        if timestamp != 0 {
            target.storeBytes(of: 0x10, toByteOffset: at, as: UInt8.self)
            at += 1 + Varint.write(timestamp, to: target + at + 1)
        }
        if let source = fields.baseAddress {
            (target + at).copyMemory(from: source, byteCount: fields.count)
        }
        return at + fields.count
    }
}

/// Walks over a run of whole stored records, without copying or allocating.
package struct StoredRecords {
    package let run: Bytes
    /// Where the next record begins.
    package private(set) var offset = 0

    package init(_ run: Bytes) { self.run = run }

    /// The next record, or nil at the run's end. Throws where the bytes are not a stored record.
    @inline(__always)
    package mutating func next() throws(DecodeError) -> StoredRecord? {
        guard let head = try nextHead() else { return nil }
        let base = run.base + head.fields.lowerBound
        guard let shape = RecordShape(base, head.fields.count, .stored) else {
            throw DecodeError(.malformed("a stored record is not canonical"), at: head.offset)
        }
        return StoredRecord(
            element: head.offset..<head.fields.upperBound, fields: head.fields,
            seqNum: head.position.seqNum, timestamp: head.position.timestamp, shape: shape)
    }

    /// What stands in front of a record's fields.
    package struct Head {
        package let offset: Int
        package let fields: Range<Int>
        package let position: StreamPosition
    }

    /// As `next`, without a look at the record's fields: for who only searches.
    @inline(__always)
    package mutating func nextHead() throws(DecodeError) -> Head? {
        // `self` keeps the memory alive while it is being mutated.
        let (base, count) = (run.base, run.count)
        let start = offset
        guard start < count else { return nil }
        guard base.byte(start) == 0x0A else { throw bad("expected a record", start) }
        var at = start + 1
        let length = base.shortestLength(&at, count)
        guard length >= 0 else { throw truncatedOrBad(start) }
        let end = at + length
        var position = StreamPosition.zero
        if at < end, base.byte(at) == 0x08 {
            at += 1
            position.seqNum = try readNumber(&at, end)
        }
        if at < end, base.byte(at) == 0x10 {
            at += 1
            position.timestamp = try readNumber(&at, end)
        }
        offset = end
        return Head(offset: start, fields: at..<end, position: position)
    }

    /// A number in its shortest form, and not 0.
    @inline(__always)
    private func readNumber(_ at: inout Int, _ end: Int) throws(DecodeError) -> UInt64 {
        let start = at
        let bytes = UnsafeRawBufferPointer(start: run.base, count: end)
        guard let value = Varint.read(bytes, &at), value != 0,
            at == start + 1 || run.base.byte(at - 1) != 0
        else { throw bad("invalid number", start) }
        return value
    }

    @inline(never)
    private func bad(_ what: String, _ offset: Int) -> DecodeError {
        DecodeError(.malformed(what), at: offset)
    }

    /// Says what is wrong with the length behind the tag at `offset`.
    @inline(never)
    private func truncatedOrBad(_ offset: Int) -> DecodeError {
        var at = offset + 1
        let whole = run.withUnsafeBytes { Varint.read($0, &at) }
        if let whole, whole > UInt64(run.count - at) { return DecodeError(.truncated, at: offset) }
        if whole == nil, run.count - at < Varint.lengthMax {
            return DecodeError(.truncated, at: offset)
        }
        return bad("invalid length of a record", offset)
    }
}
