// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

/// What a segment may carry besides records: the stream as of its end, so that metadata can be
/// rebuilt from objects alone.
package struct SegmentState: ByteCodable {
    package var basin: String
    package var name: String
    package var configVersion: UInt64
    package var state: StreamState
    /// Whether the streamlet ends here.
    package var closes: Bool

    package init(
        basin: String, name: String, configVersion: UInt64, state: StreamState, closes: Bool
    ) {
        self.basin = basin
        self.name = name
        self.configVersion = configVersion
        self.state = state
        self.closes = closes
    }

    package func encode(into writer: inout ByteWriter) {
        writer.writeText(basin)
        writer.writeText(name)
        writer.write(configVersion)
        writer.write(state)
        writer.write(UInt8(closes ? 1 : 0))
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        basin = try reader.readText(lengthMax: Limits.basinNameBytes.upperBound)
        name = try reader.readText(lengthMax: Limits.streamNameBytesMax)
        configVersion = try reader.read()
        state = try reader.readStreamState()
        let flag: UInt8 = try reader.read()
        guard flag <= 1 else { throw reader.malformed("unknown flag \(flag)") }
        closes = flag == 1
    }

    /// The longest encoding, in bytes.
    static let byteCountMax =
        4 + Limits.basinNameBytes.upperBound + 4 + Limits.streamNameBytesMax + 8
        + (16 + 4 + Limits.fencingTokenBytesMax + 16) + 1
}

/// What a segment's sparse index says of one block: a run of whole records of about 64 KiB.
package struct SegmentBlock: Sendable, Hashable {
    /// The first record's position.
    package var start: StreamPosition
    /// Of all records before the block.
    package var meteredBytesBefore: UInt64
    /// Where the block stands in the segment.
    package var offset: UInt32
    package var checksum: UInt32

    package static let byteCount = 32
    /// A block ends with the first record that makes it at least this long.
    package static let bytesTarget = 65_536

    func encode(into writer: inout ByteWriter) {
        writer.write(start)
        writer.write(meteredBytesBefore)
        writer.write(offset)
        writer.write(checksum)
    }

    init(decoding reader: inout ByteReader) throws(DecodeError) {
        start = try reader.readPosition()
        meteredBytesBefore = try reader.read()
        offset = try reader.read()
        checksum = try reader.read()
    }

    init(
        start: StreamPosition, meteredBytesBefore: UInt64, offset: UInt32, checksum: UInt32
    ) {
        self.start = start
        self.meteredBytesBefore = meteredBytesBefore
        self.offset = offset
        self.checksum = checksum
    }
}

/// Which records a segment holds: what its footer, its directory entry and its row agree on.
package struct SegmentSpan: Sendable, Hashable {
    package var stream: StreamID
    /// The tenure of the last record.
    package var streamlet: StreamletNumber
    /// The first record's position; of an empty segment, the stream's tail.
    package var start: StreamPosition
    /// Exclusive.
    package var endSeqNum: SeqNum
    package var lastTimestamp: TimestampMillis
    package var meteredBytes: UInt64

    package var isEmpty: Bool { start.seqNum == endSeqNum }
    package var count: UInt64 { endSeqNum - start.seqNum }

    static let byteCount = 60

    func encode(into writer: inout ByteWriter) {
        writer.write(stream.id)
        writer.write(start.seqNum)
        writer.write(endSeqNum)
        writer.write(start.timestamp)
        writer.write(lastTimestamp)
        writer.write(meteredBytes)
        writer.write(streamlet)
    }

    init(decoding reader: inout ByteReader) throws(DecodeError) {
        let offset = reader.offset
        stream = StreamID(try reader.readID())
        let seqNum: SeqNum = try reader.read()
        endSeqNum = try reader.read()
        start = StreamPosition(seqNum: seqNum, timestamp: try reader.read())
        lastTimestamp = try reader.read()
        meteredBytes = try reader.read()
        streamlet = try reader.read()
        guard start.seqNum <= endSeqNum, start.timestamp <= lastTimestamp,
            !isEmpty || (meteredBytes == 0 && start.timestamp == lastTimestamp)
        else { throw DecodeError(.malformed("a segment's span contradicts itself"), at: offset) }
    }

    init(
        stream: StreamID, streamlet: StreamletNumber, start: StreamPosition, endSeqNum: SeqNum,
        lastTimestamp: TimestampMillis, meteredBytes: UInt64
    ) {
        self.stream = stream
        self.streamlet = streamlet
        self.start = start
        self.endSeqNum = endSeqNum
        self.lastTimestamp = lastTimestamp
        self.meteredBytes = meteredBytes
    }
}

/// All of a segment but its records: `sparse index | state | footer`, verified.
///
/// A segment is `records | sparse index | state | footer`, and can be read from its byte range
/// alone: the end tells where everything is, and each block of records has its own checksum.
package struct SegmentIndex: Sendable {
    package let span: SegmentSpan
    package let blocks: [SegmentBlock]
    package let state: SegmentState?
    /// Bytes of the records, which stand at the segment's beginning.
    package let recordsLength: Int
    /// Covers index, state and footer, and through the blocks' checksums the records: what a
    /// `SegmentRow` keeps.
    package let checksum: UInt32

    static let footerBytes = 80
    private static let magic: UInt32 = 0x4647_534D  // "MSGF"

    /// How many of the last bytes of a segment of so many bytes surely hold its index.
    package static func tailBytesMax(segmentLength: Int) -> Int {
        let blocks = segmentLength / SegmentBlock.bytesTarget + 1
        return min(
            segmentLength,
            blocks * SegmentBlock.byteCount + SegmentState.byteCountMax + footerBytes)
    }

    /// From the end of a segment's byte range, `tailBytesMax` bytes of it or more. With `checksum`,
    /// the row's, it must be that very segment.
    package init(
        tail: Bytes, segmentLength: Int, checksum expected: UInt32? = nil
    ) throws(DecodeError) {
        guard tail.count >= Self.footerBytes else {
            throw DecodeError(.truncated, at: tail.count)
        }
        guard tail.count <= segmentLength else {
            throw DecodeError(.malformed("longer than the segment"), at: segmentLength)
        }
        let footerStart = tail.count - Self.footerBytes
        var footer = ByteReader(tail.dropFirst(footerStart))
        _ = try footer.read(SegmentSpan.byteCount)
        let recordsLength = Int(try footer.read(UInt32.self))
        let blockCount = Int(try footer.read(UInt32.self))
        let stateLength = Int(try footer.read(UInt32.self))
        checksum = try footer.read()
        guard try footer.read(UInt32.self) == Self.magic else {
            throw DecodeError(.malformed("not the end of a segment"), at: tail.count - 4)
        }
        let indexLength = blockCount * SegmentBlock.byteCount + stateLength
        guard recordsLength + indexLength + Self.footerBytes == segmentLength else {
            throw DecodeError(.malformed("a segment of another length"), at: footerStart)
        }
        guard indexLength <= footerStart else { throw DecodeError(.truncated, at: 0) }
        let indexStart = footerStart - indexLength
        guard CRC32C.of(tail[indexStart..<tail.count - 8]) == checksum,
            expected == nil || expected == checksum
        else { throw DecodeError(.checksum, at: indexStart) }
        var reader = ByteReader(tail.dropFirst(indexStart))
        blocks = try Self.readBlocks(&reader, blockCount)
        let stateBytes = try reader.read(stateLength)
        state = stateLength == 0 ? nil : try SegmentState(stateBytes)
        span = try SegmentSpan(decoding: &reader)
        self.recordsLength = recordsLength
        try check(at: indexStart)
    }

    private static func readBlocks(
        _ reader: inout ByteReader, _ count: Int
    ) throws(DecodeError) -> [SegmentBlock] {
        var blocks: [SegmentBlock] = []
        blocks.reserveCapacity(count)
        for _ in 0..<count { blocks.append(try SegmentBlock(decoding: &reader)) }
        return blocks
    }

    private func check(at offset: Int) throws(DecodeError) {
        var isSound = span.isEmpty == blocks.isEmpty && blocks.isEmpty == (recordsLength == 0)
        if let first = blocks.first, let last = blocks.last {
            isSound =
                isSound && first.start == span.start && first.offset == 0
                && first.meteredBytesBefore == 0 && last.start.seqNum < span.endSeqNum
                && last.start.timestamp <= span.lastTimestamp
                && Int(last.offset) < recordsLength && last.meteredBytesBefore < span.meteredBytes
        }
        for (a, b) in zip(blocks, blocks.dropFirst()) {
            isSound =
                isSound && a.start.seqNum < b.start.seqNum && a.offset < b.offset
                && a.start.timestamp <= b.start.timestamp
                && a.meteredBytesBefore < b.meteredBytesBefore
        }
        guard isSound else {
            throw DecodeError(.malformed("a sparse index contradicts itself"), at: offset)
        }
    }

    /// Writes what stands behind a segment's records, and returns its checksum.
    static func encodeEnd(
        _ span: SegmentSpan, blocks: [SegmentBlock], state: SegmentState?, recordsLength: Int,
        into writer: inout ByteWriter
    ) -> UInt32 {
        let start = writer.count
        for block in blocks { block.encode(into: &writer) }
        let stateStart = writer.count
        state?.encode(into: &writer)
        let stateLength = writer.count - stateStart
        span.encode(into: &writer)
        writer.write(UInt32(recordsLength))
        writer.write(UInt32(blocks.count))
        writer.write(UInt32(stateLength))
        let checksum = writer.checksum(from: start)
        writer.write(checksum)
        writer.write(magic)
        return checksum
    }
}

extension SegmentIndex {
    /// Where block `index` stands in the segment.
    package func range(ofBlock index: Int) -> Range<Int> {
        let end = index + 1 < blocks.count ? Int(blocks[index + 1].offset) : recordsLength
        return Int(blocks[index].offset)..<end
    }

    /// The block that holds the first record with at least this sequence number; nil if none does.
    package func block(seqNum: SeqNum) -> Int? {
        guard seqNum < span.endSeqNum, !blocks.isEmpty else { return nil }
        return max(firstBlock { $0.start.seqNum > seqNum } - 1, 0)
    }

    /// The block to search for the first record with at least this timestamp; nil if no record is
    /// as young. If this block holds none, the next one begins with it.
    package func block(timestamp: TimestampMillis) -> Int? {
        guard timestamp <= span.lastTimestamp, !blocks.isEmpty else { return nil }
        return max(firstBlock { $0.start.timestamp >= timestamp } - 1, 0)
    }

    /// Records before block `index`.
    package func count(beforeBlock index: Int) -> UInt64 {
        blocks[index].start.seqNum - span.start.seqNum
    }

    /// Throws unless `bytes` are those of block `index`.
    package func verify(block index: Int, _ bytes: Bytes) throws(DecodeError) {
        guard bytes.count == range(ofBlock: index).count else {
            throw DecodeError(.truncated, at: bytes.count)
        }
        guard CRC32C.of(bytes) == blocks[index].checksum else {
            throw DecodeError(.checksum, at: Int(blocks[index].offset))
        }
    }

    /// The first block for which `condition` holds, which must hold from then on; else their count.
    private func firstBlock(where condition: (SegmentBlock) -> Bool) -> Int {
        var (low, high) = (0, blocks.count)
        while low < high {
            let middle = (low + high) / 2
            if condition(blocks[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

/// A whole segment, verified.
package struct Segment: Sendable {
    package let index: SegmentIndex
    /// All its records.
    package let records: Bytes

    /// From the segment's byte range; `checksum` as for `SegmentIndex`.
    package init(_ bytes: Bytes, checksum: UInt32? = nil) throws(DecodeError) {
        index = try SegmentIndex(tail: bytes, segmentLength: bytes.count, checksum: checksum)
        records = bytes[0..<index.recordsLength]
        for block in index.blocks.indices {
            try index.verify(block: block, bytes[index.range(ofBlock: block)])
        }
    }

    /// Throws unless the records are those that the index promises.
    package func checkRecords() throws(DecodeError) {
        var walk = SegmentWalk()
        try walk.add(records)
        walk.finish()
        guard let found = walk.span(stream: index.span.stream, streamlet: index.span.streamlet)
        else {
            guard index.span.isEmpty else { throw contradicted }
            return
        }
        guard found == index.span, walk.blocks == index.blocks else { throw contradicted }
    }

    private var contradicted: DecodeError {
        DecodeError(.malformed("the records contradict the segment's index"), at: 0)
    }
}
