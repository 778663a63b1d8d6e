// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// One field of a protobuf message, as far as its wire type tells.
package struct WireField {
    package enum Kind { case varint, fixed64, bytes, group, fixed32 }
    package let number: UInt32
    package let kind: Kind
    /// A varint's value, 0 for other kinds.
    package let value: UInt64
    /// Where the content of a field of bytes stands; empty for other kinds.
    package let content: Range<Int>
    /// Where its tag stands.
    package let offset: Int
}

/// Walks over the fields of any well-formed protobuf message, ours or not.
package struct WireFields {
    private let bytes: UnsafeRawBufferPointer
    private var offset: Int

    private static let groupDepthMax = 100

    /// Over the message in `range` of `bytes`; offsets count from the start of `bytes`, which must
    /// outlive this walk.
    @inline(__always)
    package init(_ bytes: UnsafeRawBufferPointer, in range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
        self.bytes = UnsafeRawBufferPointer(start: bytes.baseAddress, count: range.upperBound)
        offset = range.lowerBound
    }

    package init(_ bytes: UnsafeRawBufferPointer) { self.init(bytes, in: 0..<bytes.count) }

    /// The next field, or nil at the message's end.
    @inline(__always)
    package mutating func next() throws(DecodeError) -> WireField? {
        guard offset < bytes.count else { return nil }
        let start = offset
        let tag = try varint()
        guard tag <= UInt64(UInt32.max), tag >= 8 else { throw error("invalid tag", start) }
        let number = UInt32(truncatingIfNeeded: tag >> 3)
        if tag & 7 == 2 {
            let length = try varint()
            guard length <= UInt64(bytes.count - offset) else { throw truncated(start) }
            let content = offset..<offset + Int(truncatingIfNeeded: length)
            offset = content.upperBound
            return WireField(
                number: number, kind: .bytes, value: 0, content: content, offset: start)
        }
        return try nextScalar(number, wireType: tag & 7, start)
    }

    private mutating func nextScalar(
        _ number: UInt32, wireType: UInt64, _ start: Int
    ) throws(DecodeError) -> WireField {
        var value: UInt64 = 0
        let kind: WireField.Kind
        switch wireType {
        case 0:
            kind = .varint
            value = try varint()
        case 1:
            kind = .fixed64
            try skip(8, start)
        case 3:
            kind = .group
            try skipGroup(number, depth: 1, start)
        case 5:
            kind = .fixed32
            try skip(4, start)
        default: throw error("invalid wire type \(wireType)", start)
        }
        return WireField(
            number: number, kind: kind, value: value, content: offset..<offset, offset: start)
    }

    @inline(__always)
    private mutating func varint() throws(DecodeError) -> UInt64 {
        guard let value = Varint.read(bytes, &offset) else { throw badVarint() }
        return value
    }

    private mutating func skip(_ count: Int, _ start: Int) throws(DecodeError) {
        guard bytes.count - offset >= count else { throw truncated(start) }
        offset += count
    }

    /// Groups are long deprecated, yet every parser must know how to pass over an unknown one.
    private mutating func skipGroup(
        _ number: UInt32, depth: Int, _ start: Int
    ) throws(DecodeError) {
        guard depth <= Self.groupDepthMax else { throw error("groups nested too deep", start) }
        while true {
            guard offset < bytes.count else { throw truncated(start) }
            let tag = try varint()
            guard tag <= UInt64(UInt32.max), tag >= 8 else { throw error("invalid tag", start) }
            switch tag & 7 {
            case 0: _ = try varint()
            case 1: try skip(8, start)
            case 2:
                let length = try varint()
                guard length <= UInt64(bytes.count - offset) else { throw truncated(start) }
                offset += Int(length)
            case 3: try skipGroup(UInt32(tag >> 3), depth: depth + 1, start)
            case 4:
                guard tag >> 3 == UInt64(number) else { throw error("unbalanced group", start) }
                return
            case 5: try skip(4, start)
            default: throw error("invalid wire type \(tag & 7)", start)
            }
        }
    }

    @inline(never)
    private func badVarint() -> DecodeError {
        let isCut =
            bytes[offset...].prefix(Varint.lengthMax).allSatisfy { $0 >= 0x80 }
            && bytes.count - offset < Varint.lengthMax
        return isCut ? truncated(offset) : error("varint beyond 64 bits", offset)
    }

    @inline(never)
    private func truncated(_ offset: Int) -> DecodeError { DecodeError(.truncated, at: offset) }

    @inline(never)
    private func error(_ what: String, _ offset: Int) -> DecodeError {
        DecodeError(.malformed(what), at: offset)
    }
}

extension WireField {
    /// The field's varint, or an error if it is of another kind.
    package func varint(_ name: StaticString) throws(DecodeError) -> UInt64 {
        guard kind == .varint else { throw mismatch(name) }
        return value
    }

    /// Where the field's bytes stand, or an error if it is of another kind.
    @inline(__always)
    package func bytes(_ name: StaticString) throws(DecodeError) -> Range<Int> {
        guard kind == .bytes else { throw mismatch(name) }
        return content
    }

    @inline(never)
    private func mismatch(_ name: StaticString) -> DecodeError {
        DecodeError(.malformed("field \(name) has the wrong wire type"), at: offset)
    }
}
