// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

/// A chunk of another channel's log on whose durability a fragment depends: it counts only if that
/// chunk does.
package struct Dependency: Sendable, Hashable {
    package var channel: ChannelID
    package var index: ChunkIndex

    package init(channel: ChannelID, index: ChunkIndex) {
        self.channel = channel
        self.index = index
    }
}

/// What a chunk's index says of one fragment.
package struct FragmentEntry: Sendable, Hashable {
    package enum Kind: UInt8, Sendable, CaseIterable {
        /// Whole stored records with consecutive sequence numbers.
        case records = 1
        /// A streamlet begins: an `OpenPayload`.
        case open = 2
        /// The stream goes on in another channel: a `HandoffPayload`.
        case handoff = 3
        /// A streamlet ends: a `ClosePayload`.
        case close = 4
    }
    package var stream: StreamID
    package var streamlet: StreamletNumber
    package var kind: Kind
    /// The first record's sequence number; of other kinds, the next one at that point.
    package var firstSeqNum: SeqNum
    /// Records; 0 for other kinds.
    package var count: UInt32
    package var firstTimestamp: TimestampMillis
    package var lastTimestamp: TimestampMillis
    package var meteredBytes: UInt32
    package var dependency: Dependency?
    /// Where the fragment stands in the object.
    package fileprivate(set) var offset: UInt32 = 0
    package fileprivate(set) var length: UInt32 = 0
    package fileprivate(set) var checksum: UInt32 = 0

    package static let byteCount = 88

    /// Without a place: that is the builder's to assign.
    package init(
        stream: StreamID, streamlet: StreamletNumber, kind: Kind, firstSeqNum: SeqNum,
        count: UInt32, firstTimestamp: TimestampMillis, lastTimestamp: TimestampMillis,
        meteredBytes: UInt32, dependency: Dependency? = nil
    ) {
        self.stream = stream
        self.streamlet = streamlet
        self.kind = kind
        self.firstSeqNum = firstSeqNum
        self.count = count
        self.firstTimestamp = firstTimestamp
        self.lastTimestamp = lastTimestamp
        self.meteredBytes = meteredBytes
        self.dependency = dependency
    }

    /// Of a fragment that is no run of records, at `position`.
    package init(
        stream: StreamID, streamlet: StreamletNumber, kind: Kind, at position: StreamPosition,
        dependency: Dependency? = nil
    ) {
        precondition(kind != .records, "records have a count")
        self.init(
            stream: stream, streamlet: streamlet, kind: kind, firstSeqNum: position.seqNum,
            count: 0, firstTimestamp: position.timestamp, lastTimestamp: position.timestamp,
            meteredBytes: 0, dependency: dependency)
    }

    package var endSeqNum: SeqNum { firstSeqNum + UInt64(count) }
    /// Where the fragment stands in the object.
    package var range: Range<Int> { Int(offset)..<Int(offset) + Int(length) }

    mutating func place(offset: Int, length: Int, checksum: UInt32) {
        self.offset = UInt32(offset)
        self.length = UInt32(length)
        self.checksum = checksum
    }

    /// Throws unless `bytes` are the fragment's.
    package func verify(_ bytes: Bytes) throws(DecodeError) {
        guard bytes.count == Int(length) else { throw DecodeError(.truncated, at: bytes.count) }
        guard CRC32C.of(bytes) == checksum else { throw DecodeError(.checksum, at: 0) }
    }

    /// Throws unless the records in `bytes` are those that the entry promises.
    package func checkRecords(_ bytes: Bytes) throws(DecodeError) {
        guard kind == .records else { return }
        var walk = StoredRecords(bytes)
        var next = firstSeqNum
        var previous: TimestampMillis?
        var metered = 0
        while let record = try walk.next() {
            guard record.seqNum == next, next < endSeqNum,
                record.timestamp >= previous ?? firstTimestamp,
                previous != nil || record.timestamp == firstTimestamp
            else { throw contradicted(record.element.lowerBound) }
            next += 1
            previous = record.timestamp
            metered += record.meteredBytes
        }
        guard next == endSeqNum, previous == lastTimestamp, metered == Int(meteredBytes) else {
            throw contradicted(bytes.count)
        }
    }

    private func contradicted(_ offset: Int) -> DecodeError {
        DecodeError(.malformed("the records contradict the chunk's index"), at: offset)
    }
}

extension FragmentEntry {
    /// In one piece: chunks of small batches have an entry every few records.
    func encode(into writer: inout ByteWriter) {
        let base = writer.reserve(Self.byteCount)
        func put<Integer: FixedWidthInteger>(_ value: Integer, _ offset: Int) {
            base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Integer.self)
        }
        put(stream.id.high, 0)
        put(stream.id.low, 8)
        put(firstSeqNum, 16)
        put(firstTimestamp, 24)
        put(lastTimestamp, 32)
        put(dependency?.channel.number ?? 0, 40)
        put(dependency?.index ?? 0, 48)
        put(streamlet, 56)
        put(count, 60)
        put(offset, 64)
        put(length, 68)
        put(meteredBytes, 72)
        put(checksum, 76)
        // One byte, and seven that are 0.
        put(UInt64(kind.rawValue), 80)
        writer.advance(Self.byteCount)
    }

    init(decoding reader: inout ByteReader) throws(DecodeError) {
        let start = reader.offset
        stream = StreamID(try reader.readID())
        firstSeqNum = try reader.read()
        firstTimestamp = try reader.read()
        lastTimestamp = try reader.read()
        let channel: UInt64 = try reader.read()
        let index: ChunkIndex = try reader.read()
        streamlet = try reader.read()
        count = try reader.read()
        offset = try reader.read()
        length = try reader.read()
        meteredBytes = try reader.read()
        checksum = try reader.read()
        let code: UInt8 = try reader.read()
        guard let kind = Kind(rawValue: code) else {
            throw DecodeError(.malformed("unknown kind of fragment \(code)"), at: start + 80)
        }
        self.kind = kind
        try reader.expectZeros(7)
        guard channel != 0 || index == 0 else {
            throw DecodeError(.malformed("dependency on channel 0"), at: start + 40)
        }
        dependency = channel == 0 ? nil : Dependency(channel: ChannelID(channel), index: index)
        let isRun = count > 0 && !firstSeqNum.addingReportingOverflow(UInt64(count)).overflow
        let isMark = count == 0 && meteredBytes == 0 && firstTimestamp == lastTimestamp
        guard kind == .records ? isRun : isMark, firstTimestamp <= lastTimestamp, length > 0 else {
            throw DecodeError(.malformed("a fragment's entry contradicts itself"), at: start)
        }
    }
}
