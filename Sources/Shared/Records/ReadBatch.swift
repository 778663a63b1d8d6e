// SPDX-License-Identifier: Apache-2.0

package import Primitives

extension ByteWriter {
    /// A `StreamPosition` as field `number` (1 to 15) of a message; present even if it is `{0, 0}`.
    @inline(__always)
    package mutating func writePositionField(_ number: UInt8, _ position: StreamPosition) {
        precondition((1...15).contains(number), "the tag takes one byte")
        let target = reserve(StreamPosition.fieldBytesMax)
        var end = 2
        if position.seqNum != 0 {
            target.storeBytes(of: 0x08, toByteOffset: end, as: UInt8.self)
            end += 1 + Varint.write(position.seqNum, to: target + end + 1)
        }
        if position.timestamp != 0 {
            target.storeBytes(of: 0x10, toByteOffset: end, as: UInt8.self)
            end += 1 + Varint.write(position.timestamp, to: target + end + 1)
        }
        target.storeBytes(of: number << 3 | 2, as: UInt8.self)
        target.storeBytes(of: UInt8(end - 2), toByteOffset: 1, as: UInt8.self)
        advance(end)
    }

    /// `ReadBatch.tail`, behind the records of a batch.
    package mutating func writeReadBatchTail(_ tail: StreamPosition) {
        writePositionField(2, tail)
    }
}

extension StreamPosition {
    /// Of a field that holds one: tag, length, and two tagged varints.
    static let fieldBytesMax = 2 + 2 * (1 + Varint.lengthMax)

    /// The `StreamPosition` message in `range` of `bytes`.
    init(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) throws(DecodeError) {
        self = .zero
        var fields = WireFields(bytes, in: range)
        while let field = try fields.next() {
            switch field.number {
            case 1: seqNum = try field.varint("seq_num")
            case 2: timestamp = try field.varint("timestamp")
            default: break
            }
        }
    }
}

/// What a durable append became, as its client sees it.
package struct AppendAck: Sendable, Hashable {
    /// The first record's position.
    package var start: StreamPosition
    /// The sequence number is exclusive; the timestamp is the last record's.
    package var end: StreamPosition
    /// The stable tail when the ack was made.
    package var tail: StreamPosition

    package init(start: StreamPosition, end: StreamPosition, tail: StreamPosition) {
        self.start = start
        self.end = end
        self.tail = tail
    }

    /// From protobuf.
    package init(_ bytes: Bytes) throws(DecodeError) {
        self.init(start: .zero, end: .zero, tail: .zero)
        try bytes.withUnsafeBytes { input throws(DecodeError) in
            var fields = WireFields(input)
            while let field = try fields.next() {
                switch field.number {
                case 1: start = try StreamPosition(input, try field.bytes("start"))
                case 2: end = try StreamPosition(input, try field.bytes("end"))
                case 3: tail = try StreamPosition(input, try field.bytes("tail"))
                default: break
                }
            }
        }
    }

    /// Of the message.
    package static let bytesMax = 3 * StreamPosition.fieldBytesMax

    /// As protobuf, with all three parts.
    package func encode(into writer: inout ByteWriter) {
        writer.writePositionField(1, start)
        writer.writePositionField(2, end)
        writer.writePositionField(3, tail)
    }

    package func encoded() -> Bytes {
        var writer = ByteWriter(capacity: Self.bytesMax)
        encode(into: &writer)
        return writer.finish()
    }
}

/// A record with its place in a stream, in memory: for clients, and for transcoding.
package struct SequencedRecord: Sendable, Hashable {
    package var seqNum: SeqNum
    package var timestamp: TimestampMillis
    package var headers: [RecordHeader]
    package var body: Bytes

    package init(
        seqNum: SeqNum, timestamp: TimestampMillis, headers: [RecordHeader] = [],
        body: Bytes = Bytes()
    ) {
        self.seqNum = seqNum
        self.timestamp = timestamp
        self.headers = headers
        self.body = body
    }

    /// The stored record at `record` of `run`.
    package init(_ record: StoredRecord, in run: Bytes) throws(DecodeError) {
        self.init(
            seqNum: record.seqNum, timestamp: record.timestamp,
            headers: try record.headers(in: run), body: run[record.body])
    }

    /// From protobuf of any form.
    fileprivate init(
        _ input: UnsafeRawBufferPointer, _ range: Range<Int>, of bytes: Bytes
    ) throws(DecodeError) {
        self.init(seqNum: 0, timestamp: 0)
        var fields = WireFields(input, in: range)
        while let field = try fields.next() {
            switch field.number {
            case 1: seqNum = try field.varint("seq_num")
            case 2: timestamp = try field.varint("timestamp")
            case 3:
                headers.append(
                    try RecordHeader(input, try field.bytes("headers"), of: bytes))
            case 4: body = bytes[try field.bytes("body")]
            default: break
            }
        }
    }
}

/// What a read delivers, in memory. The server never builds one from stored records: their bytes
/// are the message already.
package struct ReadBatch: Sendable, Hashable {
    package var records: [SequencedRecord]
    package var tail: StreamPosition?

    package init(records: [SequencedRecord], tail: StreamPosition?) {
        self.records = records
        self.tail = tail
    }

    /// From protobuf.
    package init(_ bytes: Bytes) throws(DecodeError) {
        self.init(records: [], tail: nil)
        try bytes.withUnsafeBytes { input throws(DecodeError) in
            var fields = WireFields(input)
            while let field = try fields.next() {
                switch field.number {
                case 1:
                    records.append(
                        try SequencedRecord(input, try field.bytes("records"), of: bytes))
                case 2: tail = try StreamPosition(input, try field.bytes("tail"))
                default: break
                }
            }
        }
    }
}
