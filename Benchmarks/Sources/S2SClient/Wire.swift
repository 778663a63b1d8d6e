// SPDX-License-Identifier: Apache-2.0

func bigEndian(_ value: UInt32) -> [UInt8] {
    [
        UInt8(value >> 24), UInt8(value >> 16 & 0xFF), UInt8(value >> 8 & 0xFF),
        UInt8(value & 0xFF),
    ]
}

extension UnsafeRawBufferPointer {
    func uint32(_ offset: Int) -> UInt32 {
        UInt32(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}

extension [UInt8] {
    mutating func appendVarint(_ value: Int) {
        var rest = UInt64(value)
        while rest >= 0x80 {
            append(UInt8(rest & 0x7F) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }

    /// A string literal of HPACK, without Huffman coding.
    mutating func appendHPACK(_ text: String) {
        var count = text.utf8.count
        if count < 127 {
            append(UInt8(count))
        } else {
            append(127)
            count -= 127
            appendVarint(count)
        }
        append(contentsOf: text.utf8)
    }
}

enum HPACK {
    /// The status of a response whose header block begins with it, or 0.
    static func status(_ block: UnsafeRawBufferPointer) -> Int {
        var i = 0
        // Updates of the table's size may come first; the size is 0, one byte.
        while i < block.count, block[i] & 0xE0 == 0x20 { i += 1 }
        guard i < block.count else { return 0 }
        let known = [200, 204, 206, 304, 400, 404, 500]
        if (0x88...0x8E).contains(block[i]) { return known[Int(block[i]) - 0x88] }
        // A literal with the name of the static entries 8…14.
        let index = block[i] & 0xC0 == 0x40 ? block[i] & 0x3F : block[i] & 0x0F
        guard (8...14).contains(index), i + 1 < block.count else { return 0 }
        let isHuffman = block[i + 1] & 0x80 != 0
        let count = Int(block[i + 1] & 0x7F)
        guard i + 2 + count <= block.count else { return 0 }
        let text = block[i + 2..<i + 2 + count]
        return isHuffman ? digits(text) : Int(String(decoding: text, as: UTF8.self)) ?? 0
    }

    /// Three digits in HPACK's Huffman code: 0…2 have five bits, 3…9 have six.
    private static func digits(_ text: Slice<UnsafeRawBufferPointer>) -> Int {
        var bits: UInt64 = 0
        for byte in text { bits = bits << 8 | UInt64(byte) }
        var left = text.count * 8
        var number = 0
        for _ in 0..<3 {
            guard left >= 5 else { return 0 }
            let five = Int(bits >> UInt64(left - 5) & 0x1F)
            if five <= 2 {
                number = number * 10 + five
                left -= 5
            } else {
                guard left >= 6 else { return 0 }
                let six = Int(bits >> UInt64(left - 6) & 0x3F)
                guard (0x19...0x1F).contains(six) else { return 0 }
                number = number * 10 + six - 0x19 + 3
                left -= 6
            }
        }
        return number
    }
}

/// Walks the fields of a protobuf message.
struct Fields {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    enum Value {
        case number(UInt64)
        case bytes(UnsafeRawBufferPointer)
    }

    /// The next field, or nil at the end and before anything malformed.
    mutating func next() -> (field: UInt64, value: Value)? {
        guard let tag = varint() else { return nil }
        switch tag & 7 {
        case 0: return varint().map { (tag >> 3, .number($0)) }
        case 2:
            guard let count = varint(), Int(count) <= bytes.count - offset else { return nil }
            let body = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(count)])
            offset += Int(count)
            return (tag >> 3, .bytes(body))
        default: return nil
        }
    }

    private mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while offset < bytes.count, shift < 64 {
            let byte = bytes[offset]
            offset += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }
}

/// Cuts a response's body into S2S frames. A frame that came in one piece is not copied.
struct FrameReader {
    private var rest: [UInt8] = []

    mutating func take(
        _ bytes: UnsafeRawBufferPointer, _ each: (UInt8, UnsafeRawBufferPointer) -> Void
    ) {
        if rest.isEmpty {
            let done = Self.walk(bytes, each)
            rest.append(contentsOf: bytes[done...])
        } else {
            rest.append(contentsOf: bytes)
            if let need = Self.need(rest), rest.count < need { return }
            let done = rest.withUnsafeBytes { Self.walk($0, each) }
            rest.removeFirst(done)
        }
    }

    private static func need(_ bytes: [UInt8]) -> Int? {
        guard bytes.count >= 3 else { return nil }
        return 3 + (Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2]))
    }

    private static func walk(
        _ bytes: UnsafeRawBufferPointer, _ each: (UInt8, UnsafeRawBufferPointer) -> Void
    ) -> Int {
        var offset = 0
        while bytes.count - offset >= 4 {
            let length =
                Int(bytes[offset]) << 16 | Int(bytes[offset + 1]) << 8 | Int(bytes[offset + 2])
            guard length >= 1, bytes.count - offset >= 3 + length else { break }
            let body = UnsafeRawBufferPointer(
                rebasing: bytes[offset + 4..<offset + 3 + length])
            each(bytes[offset + 3], body)
            offset += 3 + length
        }
        return offset
    }
}
