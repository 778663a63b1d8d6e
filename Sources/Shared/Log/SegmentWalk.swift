// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

/// Goes over a segment's records, slice by slice, and notes its blocks.
struct SegmentWalk {
    /// The blocks that are whole; all of them, once `finish` was called.
    private(set) var blocks: [SegmentBlock] = []
    private var start: StreamPosition?
    private(set) var last = StreamPosition.zero
    private(set) var meteredBytes = 0
    private(set) var length = 0
    /// The open block: its first record, what came before it, and the checksum of what was closed
    /// off by a slice's end.
    private var block: SegmentBlock?
    private var blockBytes = 0

    /// Takes the next slice, which consists of whole records that continue the ones before.
    mutating func add(_ slice: Bytes) throws(DecodeError) {
        var walk = StoredRecords(slice)
        var blockStart = 0
        while let record = try walk.next() {
            guard record.seqNum < .max else {
                throw DecodeError(
                    .malformed("the sequence numbers overflow"), at: record.element.lowerBound)
            }
            if start == nil {
                start = record.position
            } else if record.seqNum != last.seqNum + 1 || record.timestamp < last.timestamp {
                throw DecodeError(
                    .malformed("record \(record.seqNum) does not follow \(last.seqNum)"),
                    at: record.element.lowerBound)
            }
            if block == nil {
                block = SegmentBlock(
                    start: record.position, meteredBytesBefore: UInt64(meteredBytes),
                    offset: UInt32(length + record.element.lowerBound), checksum: 0)
            }
            last = record.position
            meteredBytes += record.meteredBytes
            let end = record.element.upperBound
            if blockBytes + (end - blockStart) >= SegmentBlock.bytesTarget {
                close(slice[blockStart..<end])
                blockStart = end
            }
        }
        take(slice[blockStart..<slice.count])
        length += slice.count
    }

    /// All was added: `blocks` are those of it.
    mutating func finish() {
        if let block { blocks.append(block) }
        block = nil
    }

    /// Begins anew, and keeps the room for blocks.
    mutating func reset() {
        var blocks = blocks
        self = SegmentWalk()
        blocks.removeAll(keepingCapacity: true)
        self.blocks = blocks
    }

    /// What was walked over; nil if nothing was.
    func span(stream: StreamID, streamlet: StreamletNumber) -> SegmentSpan? {
        guard let start else { return nil }
        return SegmentSpan(
            stream: stream, streamlet: streamlet, start: start, endSeqNum: last.seqNum + 1,
            lastTimestamp: last.timestamp, meteredBytes: UInt64(meteredBytes))
    }

    private mutating func take(_ bytes: Bytes) {
        guard let checksum = block?.checksum, !bytes.isEmpty else { return }
        block?.checksum = CRC32C.of(bytes, seed: checksum)
        blockBytes += bytes.count
    }

    private mutating func close(_ bytes: Bytes) {
        take(bytes)
        if let block { blocks.append(block) }
        block = nil
        blockBytes = 0
    }
}
