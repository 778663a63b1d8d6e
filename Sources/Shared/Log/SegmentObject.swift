// SPDX-License-Identifier: Apache-2.0

package import Primitives
internal import Records

/// How a segment object begins.
package struct SegmentObjectHeader: Sendable, Hashable {
    /// Random or minted in order; names the object, and tells its PUT from any other.
    package var id: ID128
    /// Whose log the records come from; nil where several were merged.
    package var channel: ChannelID?
    package var createdMilliseconds: UInt64

    package static let byteCount = 48
    /// Of a segment object, by its id.
    package static let identity = ObjectIdentity(prefixBytes: byteCount, putID: 8..<24)

    private static let magic: UInt32 = 0x4745_534D  // "MSEG"

    package init(id: ID128, channel: ChannelID?, createdMilliseconds: UInt64) {
        self.id = id
        self.channel = channel
        self.createdMilliseconds = createdMilliseconds
    }

    package init(_ bytes: Bytes) throws(DecodeError) {
        guard bytes.count >= Self.byteCount else { throw DecodeError(.truncated, at: bytes.count) }
        var reader = ByteReader(bytes[0..<Self.byteCount])
        try reader.expectMagic(Self.magic, "a segment object")
        try reader.expectZeros(2)
        id = try reader.readID()
        let number: UInt64 = try reader.read()
        channel = number == 0 ? nil : ChannelID(number)
        createdMilliseconds = try reader.read()
        try reader.expectZeros(4)
        try reader.expectChecksum(ofBytesFrom: 0)
    }

    package func encode(into writer: inout ByteWriter) {
        let start = writer.count
        writer.write(Self.magic)
        writer.write(LogFormat.version)
        writer.write(UInt16(0))
        writer.write(id)
        writer.write(channel?.number ?? 0)
        writer.write(createdMilliseconds)
        writer.write(UInt32(0))
        writer.write(writer.checksum(from: start))
    }
}

/// Where a segment stands in its object: what a metadata row needs.
package struct SegmentPlacement: Sendable, Hashable {
    package var span: SegmentSpan
    /// Of the whole segment: records, sparse index, state and footer.
    package var offset: Int
    package var length: Int
    /// The one of its `SegmentIndex`.
    package var checksum: UInt32
    package var hasState: Bool
    /// Whether the streamlet ends with this segment.
    package var closes: Bool

    package var range: Range<Int> { offset..<offset + length }

    static let byteCount = 80

    func encode(into writer: inout ByteWriter) {
        span.encode(into: &writer)
        writer.write(UInt32(offset))
        writer.write(UInt32(length))
        writer.write(checksum)
        writer.write(UInt8((hasState ? 1 : 0) | (closes ? 2 : 0)))
        writer.write(UInt32(0))
        writer.write(UInt16(0))
        writer.write(UInt8(0))
    }

    init(decoding reader: inout ByteReader) throws(DecodeError) {
        span = try SegmentSpan(decoding: &reader)
        offset = Int(try reader.read(UInt32.self))
        length = Int(try reader.read(UInt32.self))
        checksum = try reader.read()
        let flags: UInt8 = try reader.read()
        guard flags <= 3, flags != 2 else { throw reader.malformed("unknown flags \(flags)") }
        hasState = flags & 1 != 0
        closes = flags & 2 != 0
        try reader.expectZeros(7)
    }

    init(
        span: SegmentSpan, offset: Int, length: Int, checksum: UInt32, hasState: Bool, closes: Bool
    ) {
        self.span = span
        self.offset = offset
        self.length = length
        self.checksum = checksum
        self.hasState = hasState
        self.closes = closes
    }
}

/// A whole segment object, verified: `header | segments | directory | trailer`.
package struct SegmentObject: Sendable {
    package let header: SegmentObjectHeader
    package let placements: [SegmentPlacement]
    package let segments: [Segment]

    package static let byteCountMax = 32 << 20
    package static let segmentsMax = 65_536

    package init(_ bytes: Bytes) throws(DecodeError) {
        header = try SegmentObjectHeader(bytes)
        let directory = try SegmentDirectory(tail: bytes, objectSize: bytes.count)
        let checksum = bytes.load(UInt32.self, at: SegmentObjectHeader.byteCount - 4)
        guard directory.headerChecksum == checksum else {
            throw DecodeError(.malformed("header and directory are not of one object"), at: 0)
        }
        placements = directory.placements
        var segments: [Segment] = []
        for placement in placements {
            let segment: Segment
            do throws(DecodeError) {
                segment = try Segment(bytes[placement.range], checksum: placement.checksum)
            } catch {
                throw DecodeError(error.reason, at: placement.offset + error.offset)
            }
            guard segment.index.span == placement.span,
                (segment.index.state != nil) == placement.hasState,
                segment.index.state?.closes ?? false == placement.closes
            else {
                throw DecodeError(
                    .malformed("a segment contradicts the directory"), at: placement.offset)
            }
            segments.append(segment)
        }
        self.segments = segments
    }
}

/// A segment object's directory, read without the rest of it.
package struct SegmentDirectory: Sendable {
    package let placements: [SegmentPlacement]
    /// Ties the directory to its header.
    package let headerChecksum: UInt32

    package static let trailerBytes = ObjectTrailer.byteCount

    /// How many of the object's last bytes hold its directory. `tail` is some end of it, at least
    /// `trailerBytes` long.
    package static func tailBytes(_ tail: Bytes, objectSize: Int) throws(DecodeError) -> Int {
        try ObjectTrailer.tailBytes(
            tail, objectSize: objectSize, magic: ObjectTrailer.segmentMagic)
    }

    /// From an end of the object that holds at least the directory.
    package init(tail: Bytes, objectSize: Int) throws(DecodeError) {
        let (trailer, table) = try ObjectTrailer.decode(
            tail, objectSize: objectSize, entryBytes: SegmentPlacement.byteCount,
            magic: ObjectTrailer.segmentMagic)
        let start = tail.count - ObjectTrailer.byteCount - table.count
        guard objectSize <= SegmentObject.byteCountMax,
            (1...SegmentObject.segmentsMax).contains(Int(trailer.entryCount))
        else {
            throw DecodeError(
                .malformed("\(trailer.entryCount) segments in \(objectSize) bytes"), at: start)
        }
        var reader = ByteReader(table)
        var placements: [SegmentPlacement] = []
        placements.reserveCapacity(Int(trailer.entryCount))
        var end = SegmentObjectHeader.byteCount
        while !reader.isAtEnd {
            let at = start + reader.offset
            let placement = try SegmentPlacement(decoding: &reader)
            guard placement.offset == end else {
                throw DecodeError(.malformed("segments do not adjoin"), at: at)
            }
            end = placement.range.upperBound
            placements.append(placement)
        }
        guard end == Int(trailer.tableOffset) else {
            throw DecodeError(.malformed("segments do not adjoin the directory"), at: start)
        }
        self.placements = placements
        headerChecksum = trailer.headerChecksum
    }
}

/// Gathers segments into an object. The records it is given are not copied.
package struct SegmentObjectBuilder {
    package let header: SegmentObjectHeader
    /// What the object would take as it stands.
    package private(set) var byteCount = SegmentObjectHeader.byteCount + ObjectTrailer.byteCount
    private var placements: [SegmentPlacement] = []
    private var parts: [Bytes] = []
    private var offset = SegmentObjectHeader.byteCount
    /// All that is not records: the header, then what stands behind each segment's records, then
    /// the directory. Which of `parts` each piece becomes is in `pieces`, and filled in at the end.
    private var own = ByteWriter(capacity: 4_096)
    private var pieces: [(part: Int, end: Int)] = []
    private var walk = SegmentWalk()

    package init(_ header: SegmentObjectHeader) {
        self.header = header
        header.encode(into: &own)
        endPiece()
    }

    /// What was written since the piece before is the next part.
    private mutating func endPiece() {
        pieces.append((part: parts.count, end: own.count))
        parts.append(Bytes())
    }

    package var isEmpty: Bool { placements.isEmpty }

    /// Whether a segment with so many bytes of records surely fits.
    package func hasRoom(forRecords bytes: Int) -> Bool {
        let blocks = bytes / SegmentBlock.bytesTarget + 1
        let overhead =
            blocks * SegmentBlock.byteCount + SegmentState.byteCountMax
            + SegmentIndex.footerBytes + SegmentPlacement.byteCount
        return placements.count < SegmentObject.segmentsMax
            && byteCount + bytes + overhead <= SegmentObject.byteCountMax
    }

    /// Adds a segment of one stream: `slices` are runs of whole stored records that continue one
    /// another. Without any, `state` says where the stream stands. Returns nil if it does not fit.
    /// Throws if the records are not what they must be. In both cases nothing was added.
    package mutating func add(
        stream: StreamID, streamlet: StreamletNumber, records slices: ArraySlice<Bytes>,
        state: SegmentState?
    ) throws(DecodeError) -> SegmentPlacement? {
        let bytes = slices.reduce(0) { $0 + $1.count }
        guard hasRoom(forRecords: bytes) else { return nil }
        walk.reset()
        for slice in slices { try walk.add(slice) }
        walk.finish()
        guard
            let span = walk.span(stream: stream, streamlet: streamlet)
                ?? state.map({ Self.emptySpan(stream, streamlet, $0.state.tail) })
        else { throw DecodeError(.malformed("a segment without records or state"), at: 0) }
        let start = own.count
        let checksum = SegmentIndex.encodeEnd(
            span, blocks: walk.blocks, state: state, recordsLength: walk.length, into: &own)
        let placement = SegmentPlacement(
            span: span, offset: offset, length: walk.length + own.count - start,
            checksum: checksum, hasState: state != nil, closes: state?.closes ?? false)
        parts.append(contentsOf: slices)
        endPiece()
        placements.append(placement)
        offset += placement.length
        byteCount += placement.length + SegmentPlacement.byteCount
        return placement
    }

    /// The object, as parts to be stored back to back, and where its segments are. There must be at
    /// least one. The builder is spent.
    package mutating func finish() -> (parts: [Bytes], placements: [SegmentPlacement]) {
        precondition(!placements.isEmpty, "an empty object is never written")
        let start = own.count
        for placement in placements { placement.encode(into: &own) }
        ObjectTrailer(
            tableOffset: UInt32(offset), entryCount: UInt32(placements.count),
            headerChecksum: own.load(UInt32.self, at: SegmentObjectHeader.byteCount - 4)
        ).encode(behind: &own, from: start, magic: ObjectTrailer.segmentMagic)
        endPiece()
        let bytes = own.finish()
        var parts: [Bytes] = []
        swap(&parts, &self.parts)
        var end = 0
        for piece in pieces {
            parts[piece.part] = bytes[end..<piece.end]
            end = piece.end
        }
        precondition(Primitives.byteCount(parts) == byteCount, "the size was foretold")
        return (parts, placements)
    }

    package mutating func add(
        stream: StreamID, streamlet: StreamletNumber, records slices: [Bytes],
        state: SegmentState?
    ) throws(DecodeError) -> SegmentPlacement? {
        try add(stream: stream, streamlet: streamlet, records: slices[...], state: state)
    }

    private static func emptySpan(
        _ stream: StreamID, _ streamlet: StreamletNumber, _ tail: StreamPosition
    ) -> SegmentSpan {
        SegmentSpan(
            stream: stream, streamlet: streamlet, start: tail, endSeqNum: tail.seqNum,
            lastTimestamp: tail.timestamp, meteredBytes: 0)
    }
}
