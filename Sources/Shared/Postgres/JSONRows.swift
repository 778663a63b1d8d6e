// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import Records

/// Writes an array of JSON objects into one buffer, member by member: a flush has an object per
/// streamlet and one per segment, and none of them takes memory of its own.
struct JSONRows {
    private var writer: ByteWriter
    /// The next member is its object's first.
    private var isFirst = true

    /// `bytes`: what to make room for.
    private init(capacity bytes: Int) {
        writer = ByteWriter(capacity: bytes)
        writer.write(UInt8(ascii: "["))
    }

    /// An array with what `write` writes of each of `items`.
    private static func array<Item>(
        _ items: some Sequence<Item>, capacity: Int, _ write: (Item, inout JSONRows) -> Void
    ) -> String {
        var rows = JSONRows(capacity: capacity)
        for item in items {
            if rows.writer.count > 1 { rows.writer.write(UInt8(ascii: ",")) }
            rows.writer.write(UInt8(ascii: "{"))
            rows.isFirst = true
            write(item, &rows)
            rows.writer.write(UInt8(ascii: "}"))
        }
        rows.writer.write(UInt8(ascii: "]"))
        return rows.writer.finish().lossyText
    }

    private mutating func name(_ name: StaticString) {
        if !isFirst { writer.write(UInt8(ascii: ",")) }
        isFirst = false
        writer.write(UInt8(ascii: "\""))
        writer.write(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        writer.write(UInt16(0x3A22))  // ":
    }

    private mutating func member(_ name: StaticString, _ number: UInt64) {
        self.name(name)
        var digits: UInt64 = 1
        var rest = number
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        let target = writer.reserve(Int(digits))
        rest = number
        for at in stride(from: Int(digits) - 1, through: 0, by: -1) {
            let digit = UInt8(truncatingIfNeeded: rest % 10) + UInt8(ascii: "0")
            target.storeBytes(of: digit, toByteOffset: at, as: UInt8.self)
            rest /= 10
        }
        writer.advance(Int(digits))
    }

    private mutating func member(_ name: StaticString, _ flag: Bool) {
        self.name(name)
        writer.write(utf8: flag ? "true" : "false")
    }

    private mutating func member(_ name: StaticString, _ id: ID128) {
        self.name(name)
        writer.write(UInt8(ascii: "\""))
        let target = writer.reserve(ID128.hexBytes)
        id.writeHex(UnsafeMutableRawBufferPointer(start: target, count: ID128.hexBytes))
        writer.advance(ID128.hexBytes)
        writer.write(UInt8(ascii: "\""))
    }

    private mutating func member(_ name: StaticString, _ text: String) {
        self.name(name)
        let needsEscape = text.utf8.contains {
            $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\")
        }
        if needsEscape { return writer.write(utf8: JSONText.string(text)) }
        writer.write(UInt8(ascii: "\""))
        writer.write(utf8: text)
        writer.write(UInt8(ascii: "\""))
    }
}

extension JSONRows {
    private static let bytesPerPart = 320
    private static let bytesPerSegment = 420

    static func of(_ parts: [Flush.Part]) -> String {
        array(parts, capacity: 2 + parts.count * bytesPerPart) { part, row in
            row.member("stream", part.stream.id)
            row.member("number", UInt64(part.streamlet))
            row.member("start", part.from)
            row.member("seq_num", part.state.tail.seqNum)
            row.member("timestamp", part.state.tail.timestamp)
            row.member("token", EscapedText.escape(part.state.fencingToken))
            row.member("token_position", part.state.fencingTokenPosition)
            row.member("trim_point", part.state.trimPoint)
            row.member("closes", part.closes)
        }
    }

    /// `count`: how many there are, about.
    static func of(_ segments: some Sequence<SegmentRow>, count: Int) -> String {
        array(segments, capacity: 2 + count * bytesPerSegment) { segment, row in
            row.member("stream", segment.stream.id)
            row.member("start_seq_num", segment.start.seqNum)
            row.member("start_timestamp", segment.start.timestamp)
            row.member("end_seq_num", segment.endSeqNum)
            row.member("last_timestamp", segment.lastTimestamp)
            row.member("bucket", segment.bucket)
            row.member("object", segment.object)
            row.member("object_offset", segment.offset)
            row.member("object_length", segment.length)
            row.member("metered_bytes", segment.meteredBytes)
            row.member("checksum", UInt64(segment.checksum))
        }
    }
}
