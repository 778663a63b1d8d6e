// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

extension StreamPosition {
    fileprivate func write(to target: UnsafeMutableRawPointer) {
        target.storeBytes(of: seqNum.littleEndian, as: UInt64.self)
        target.storeBytes(of: timestamp.littleEndian, toByteOffset: 8, as: UInt64.self)
    }
}

extension ByteReader {
    /// Refuses more records than have sequence numbers: nobody needs to add with care behind this.
    fileprivate func expectRoom(for count: UInt32, from first: SeqNum) throws(DecodeError) {
        guard UInt64(count) <= SeqNum.max - first else {
            throw malformed("\(count) records from \(first) on")
        }
    }
}

/// Opens a session of appends to one incarnation of a stream, on one streamlet.
package struct AppendOpen: ByteCodable {
    package var stream: StreamID
    package var streamlet: StreamletNumber
    /// Whether its batches may wait for as long as it takes. One that may not is refused, with
    /// nothing done, when it comes too fast or would wait for too long.
    package var isPatient: Bool

    package init(stream: StreamID, streamlet: StreamletNumber, isPatient: Bool = true) {
        self.stream = stream
        self.streamlet = streamlet
        self.isPatient = isPatient
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(stream.id)
        writer.write(streamlet)
        writer.write(UInt8(isPatient ? 1 : 0))
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        stream = StreamID(try reader.readID())
        streamlet = try reader.read()
        switch try reader.read(UInt8.self) {
        case 0: isPatient = false
        case 1: isPatient = true
        case let other: throw reader.malformed("patience \(other)")
        }
    }
}

/// One batch of a session: its head, then its prepared records. It tells its own length, so that
/// a message can be a run of them.
extension PreparedBatch: ByteCodable {
    package func encode(into writer: inout ByteWriter) {
        writer.write(head)
        writer.write(records)
    }

    /// As the general one; of this type alone, for it is made once per batch.
    package init(_ bytes: Bytes) throws(DecodeError) {
        var reader = ByteReader(bytes)
        try self.init(decoding: &reader)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        self = try Self.next(of: &reader)
    }

    /// As `init(decoding:)`, which would copy what it makes.
    package static func next(of reader: inout ByteReader) throws(DecodeError) -> PreparedBatch {
        // Once per batch: the numbers that are always there in one step.
        let base = reader.bytes.base + reader.offset
        try reader.skip(13)
        let flags = base.load(as: UInt8.self)
        guard flags < 4 else { throw reader.malformed("unknown batch flags \(flags)") }
        func number(at offset: Int) -> Int {
            Int(UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        }
        let (count, metered, recordsBytes) = (number(at: 1), number(at: 5), number(at: 9))
        guard (1...Limits.batchRecordsMax).contains(count), metered <= Limits.batchMeteredBytesMax
        else { throw reader.malformed("batch of \(count) records, \(metered) metered bytes") }
        var conditions = AppendConditions()
        if flags & 1 != 0 { conditions.matchSeqNum = try reader.read() }
        if flags & 2 != 0 {
            conditions.fencingToken = try reader.readText(lengthMax: Limits.fencingTokenBytesMax)
        }
        let start = reader.offset
        try reader.skip(recordsBytes)
        return PreparedBatch(
            count: count, meteredBytes: metered, records: reader.bytes[start..<reader.offset],
            conditions: conditions)
    }
}

/// What a durable batch became.
package struct AppendReply: ByteCodable {
    package var start: StreamPosition
    /// The sequence number is exclusive; the timestamp is the last record's.
    package var end: StreamPosition
    /// The stable tail when the reply left.
    package var tail: StreamPosition

    /// On the wire.
    package static let byteCount = 48

    package init(start: StreamPosition, end: StreamPosition, tail: StreamPosition) {
        self.start = start
        self.end = end
        self.tail = tail
    }

    /// Writes it where there is room for `byteCount` bytes.
    package func write(to target: UnsafeMutableRawPointer) {
        start.write(to: target)
        end.write(to: target + 16)
        tail.write(to: target + 32)
    }

    package func encode(into writer: inout ByteWriter) {
        write(to: writer.reserve(Self.byteCount))
        writer.advance(Self.byteCount)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        start = try reader.readPosition()
        end = try reader.readPosition()
        tail = try reader.readPosition()
    }
}

/// Why a batch was refused: what its condition was compared with.
package enum AppendRejection: ByteCodable {
    case seqNumMismatch(next: SeqNum)
    case fencingTokenMismatch(current: String)

    package func encode(into writer: inout ByteWriter) {
        switch self {
        case .seqNumMismatch(let next):
            writer.write(UInt8(0))
            writer.write(next)
        case .fencingTokenMismatch(let current):
            writer.write(UInt8(1))
            writer.writeText(current)
        }
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        switch try reader.read(UInt8.self) {
        case 0: self = .seqNumMismatch(next: try reader.read())
        case 1:
            self = .fencingTokenMismatch(
                current: try reader.readText(lengthMax: Limits.fencingTokenBytesMax))
        default: throw reader.malformed("unknown rejection")
        }
    }
}

/// Asks for the stable tail of a streamlet.
package struct TailRequest: ByteCodable {
    package var stream: StreamID
    package var streamlet: StreamletNumber

    package init(stream: StreamID, streamlet: StreamletNumber) {
        self.stream = stream
        self.streamlet = streamlet
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(stream.id)
        writer.write(streamlet)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        stream = StreamID(try reader.readID())
        streamlet = try reader.read()
    }
}

package struct TailReply: ByteCodable {
    package var tail: StreamPosition

    package init(tail: StreamPosition) { self.tail = tail }

    package func encode(into writer: inout ByteWriter) { writer.write(tail) }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        tail = try reader.readPosition()
    }
}

/// Where one run of a streamlet's stable records stands in a chunk. It ends on a batch's end.
package struct ChunkPointer: ByteCodable {
    package var object: String
    package var bucket: String
    package var start: StreamPosition
    package var count: UInt32
    package var lastTimestamp: TimestampMillis
    package var offset: UInt32
    package var length: UInt32

    package init(
        object: String, bucket: String, start: StreamPosition, count: UInt32,
        lastTimestamp: TimestampMillis, offset: UInt32, length: UInt32
    ) {
        self.object = object
        self.bucket = bucket
        self.start = start
        self.count = count
        self.lastTimestamp = lastTimestamp
        self.offset = offset
        self.length = length
    }

    package var endSeqNum: SeqNum { start.seqNum + UInt64(count) }

    package func encode(into writer: inout ByteWriter) {
        writer.writeText(object)
        writer.writeText(bucket)
        writer.write(start)
        writer.write(count)
        writer.write(lastTimestamp)
        writer.write(offset)
        writer.write(length)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        object = try reader.readText(lengthMax: 1_024)
        bucket = try reader.readText(lengthMax: 256)
        start = try reader.readPosition()
        count = try reader.read()
        try reader.expectRoom(for: count, from: start.seqNum)
        lastTimestamp = try reader.read()
        offset = try reader.read()
        length = try reader.read()
    }
}

/// Asks for pointers to a streamlet's stable, unflushed records, from `start` on.
package struct PlanRequest: ByteCodable {
    package enum Start: Sendable, Hashable {
        case seqNum(SeqNum)
        case timestamp(TimestampMillis)
    }
    package var stream: StreamID
    package var streamlet: StreamletNumber
    package var start: Start
    /// 1 to `pointersMax`.
    package var limit: UInt32

    package static let pointersMax: UInt32 = 1_024

    package init(stream: StreamID, streamlet: StreamletNumber, start: Start, limit: UInt32) {
        self.stream = stream
        self.streamlet = streamlet
        self.start = start
        self.limit = limit
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(stream.id)
        writer.write(streamlet)
        switch start {
        case .seqNum(let value):
            writer.write(UInt8(0))
            writer.write(value)
        case .timestamp(let value):
            writer.write(UInt8(1))
            writer.write(value)
        }
        writer.write(limit)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        stream = StreamID(try reader.readID())
        streamlet = try reader.read()
        switch try reader.read(UInt8.self) {
        case 0: start = .seqNum(try reader.read())
        case 1: start = .timestamp(try reader.read())
        default: throw reader.malformed("unknown kind of start")
        }
        limit = try reader.read()
        guard (1...Self.pointersMax).contains(limit) else {
            throw reader.malformed("limit \(limit)")
        }
    }
}

package struct PlanReply: ByteCodable {
    /// The stable tail that the plan was made against.
    package var tail: StreamPosition
    /// Records below this are in segments.
    package var flushedEnd: SeqNum
    /// The effective trim point: nothing below it need be read.
    package var trimPoint: SeqNum
    /// In order and contiguous; the first holds the start, or follows it. Fewer than asked for only
    /// if they reach the tail.
    package var pointers: [ChunkPointer]

    package init(
        tail: StreamPosition, flushedEnd: SeqNum, trimPoint: SeqNum, pointers: [ChunkPointer]
    ) {
        self.tail = tail
        self.flushedEnd = flushedEnd
        self.trimPoint = trimPoint
        self.pointers = pointers
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(tail)
        writer.write(flushedEnd)
        writer.write(trimPoint)
        writer.write(UInt32(pointers.count))
        for pointer in pointers { pointer.encode(into: &writer) }
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        tail = try reader.readPosition()
        flushedEnd = try reader.read()
        trimPoint = try reader.read()
        let count = try reader.read(UInt32.self)
        guard count <= PlanRequest.pointersMax else { throw reader.malformed("\(count) pointers") }
        pointers = []
        pointers.reserveCapacity(Int(count))
        for _ in 0..<count { pointers.append(try ChunkPointer(decoding: &reader)) }
    }
}

/// Asks for every record from `start` on, as it becomes stable. Granted iff `start` is the stable
/// tail or lies in the recent window; ended with `.notInWindow` else.
package struct FollowRequest: ByteCodable {
    package var stream: StreamID
    package var streamlet: StreamletNumber
    package var start: SeqNum

    package init(stream: StreamID, streamlet: StreamletNumber, start: SeqNum) {
        self.stream = stream
        self.streamlet = streamlet
        self.start = start
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(stream.id)
        writer.write(streamlet)
        writer.write(start)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        stream = StreamID(try reader.readID())
        streamlet = try reader.read()
        start = try reader.read()
    }
}

/// What a follower gets: one whole append batch, or, with `count` 0, a heartbeat.
/// The first push says that the follow is granted.
package struct FollowPush: ByteCodable {
    package var firstSeqNum: SeqNum
    package var count: UInt32
    package var meteredBytes: UInt32
    /// The position right behind the batch; of a heartbeat, the stable tail.
    package var tail: StreamPosition
    /// Whole stored records.
    package var records: Bytes

    package static let headBytes = 32

    package init(
        firstSeqNum: SeqNum, count: UInt32, meteredBytes: UInt32, tail: StreamPosition,
        records: Bytes
    ) {
        self.firstSeqNum = firstSeqNum
        self.count = count
        self.meteredBytes = meteredBytes
        self.tail = tail
        self.records = records
    }

    package func encode(into writer: inout ByteWriter) {
        writeHead(to: writer.reserve(Self.headBytes))
        writer.advance(Self.headBytes)
        writer.write(records)
    }

    /// Writes all that stands in front of the records at `target`, which has room for `headBytes`.
    package func writeHead(to target: UnsafeMutableRawPointer) {
        target.storeBytes(of: firstSeqNum.littleEndian, as: UInt64.self)
        target.storeBytes(of: count.littleEndian, toByteOffset: 8, as: UInt32.self)
        target.storeBytes(of: meteredBytes.littleEndian, toByteOffset: 12, as: UInt32.self)
        tail.write(to: target + 16)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        firstSeqNum = try reader.read()
        count = try reader.read()
        try reader.expectRoom(for: count, from: firstSeqNum)
        meteredBytes = try reader.read()
        tail = try reader.readPosition()
        records = try reader.read(reader.remaining)
        guard count > 0 || records.isEmpty else {
            throw reader.malformed("records without a count")
        }
    }
}

/// Asks a channel to open the stream's next streamlet.
package struct ActivateRequest: ByteCodable {
    package var stream: StreamID

    package init(stream: StreamID) { self.stream = stream }

    package func encode(into writer: inout ByteWriter) { writer.write(stream.id) }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        stream = StreamID(try reader.readID())
    }
}

/// Whose the stream is now: the asked channel's, or that of whoever was faster.
package struct ActivateReply: ByteCodable {
    package var streamlet: StreamletNumber
    package var channel: ChannelID
    package var address: String

    package init(streamlet: StreamletNumber, channel: ChannelID, address: String) {
        self.streamlet = streamlet
        self.channel = channel
        self.address = address
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(streamlet)
        writer.write(channel.number)
        writer.writeText(address)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        streamlet = try reader.read()
        channel = ChannelID(try reader.read())
        address = try reader.readText(lengthMax: 512)
    }
}

/// The stream's row changed to `version` (or, with `deleted`, was marked deleted): apply it, then
/// answer. Ended with `.ok` once applied, with `.notOwner` where the stream is not open here.
package struct RefreshRequest: ByteCodable {
    package var stream: StreamID
    package var version: UInt64
    package var deleted: Bool

    package init(stream: StreamID, version: UInt64, deleted: Bool) {
        self.stream = stream
        self.version = version
        self.deleted = deleted
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(stream.id)
        writer.write(version)
        writer.write(UInt8(deleted ? 1 : 0))
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        stream = StreamID(try reader.readID())
        version = try reader.read()
        let flag = try reader.read(UInt8.self)
        guard flag <= 1 else { throw reader.malformed("unknown flag \(flag)") }
        deleted = flag == 1
    }
}
