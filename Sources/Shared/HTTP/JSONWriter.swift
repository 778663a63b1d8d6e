// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Writes JSON, straight into the bytes that go out. Puts commas itself; nesting is the caller's.
///
/// The output is one line: every control character is escaped.
package struct JSONWriter {
    private var out: ByteWriter
    private var needsComma = false

    package init(capacity: Int = 256) { out = ByteWriter(capacity: capacity) }

    /// Bytes written so far.
    package var count: Int { out.count }

    package consuming func finish() -> Bytes { out.finish() }

    package mutating func beginObject() { open(UInt8(ascii: "{")) }
    package mutating func endObject() { close(UInt8(ascii: "}")) }
    package mutating func beginArray() { open(UInt8(ascii: "[")) }
    package mutating func endArray() { close(UInt8(ascii: "]")) }

    /// A member's name; its value is written next.
    package mutating func name(_ name: String) {
        write(name)
        out.write(UInt8(ascii: ":"))
        needsComma = false
    }

    package mutating func write(_ text: String) {
        var text = text
        beginValue()
        text.withUTF8 { writeQuoted(UnsafeRawBufferPointer($0)) }
    }

    /// The UTF-8 that `bytes` hold, as a string; what is not UTF-8 becomes U+FFFD.
    package mutating func write(lossy bytes: Bytes) {
        let isASCII = bytes.withUnsafeBytes { $0.allSatisfy { $0 < 0x80 } }
        let isUTF8 = isASCII || bytes.validText != nil
        beginValue()
        bytes.withUnsafeBytes { bytes in
            if isUTF8 { writeQuoted(bytes) } else { writeRepaired(bytes) }
        }
    }

    /// `bytes` in Base64, as a string.
    package mutating func write(base64 bytes: Bytes) {
        beginValue()
        out.write(UInt8(ascii: "\""))
        Base64.encode(bytes, into: &out)
        out.write(UInt8(ascii: "\""))
    }

    package mutating func write(_ number: UInt64) {
        beginValue()
        var digits: (UInt64, UInt64, UInt32) = (0, 0, 0)
        var rest = number
        withUnsafeMutableBytes(of: &digits) { digits in
            var start = digits.count
            repeat {
                start -= 1
                digits[start] = UInt8(ascii: "0") + UInt8(rest % 10)
                rest /= 10
            } while rest > 0
            out.write(UnsafeRawBufferPointer(rebasing: digits[start...]))
        }
    }

    package mutating func write(_ value: Bool) {
        beginValue()
        out.write(utf8: value ? "true" : "false")
    }

    package mutating func writeNull() {
        beginValue()
        out.write(utf8: "null")
    }

    package mutating func field(_ name: String, _ value: String) {
        self.name(name)
        write(value)
    }

    package mutating func field(_ name: String, _ value: String?) {
        self.name(name)
        if let value { write(value) } else { writeNull() }
    }

    package mutating func field(_ name: String, _ value: UInt64) {
        self.name(name)
        write(value)
    }

    package mutating func field(_ name: String, _ value: Bool) {
        self.name(name)
        write(value)
    }

    private mutating func open(_ bracket: UInt8) {
        beginValue()
        out.write(bracket)
        needsComma = false
    }

    private mutating func close(_ bracket: UInt8) {
        out.write(bracket)
        needsComma = true
    }

    private mutating func beginValue() {
        if needsComma { out.write(UInt8(ascii: ",")) }
        needsComma = true
    }

    /// `text` is valid UTF-8.
    private mutating func writeQuoted(_ text: UnsafeRawBufferPointer) {
        out.write(UInt8(ascii: "\""))
        writeEscaped(text)
        out.write(UInt8(ascii: "\""))
    }

    /// Runs without anything to escape are copied whole. Bodies may be large and need an escape for
    /// every byte, while everybody waits: behind an escape a whole block is written byte by byte,
    /// with room for the worst.
    private mutating func writeEscaped(_ text: UnsafeRawBufferPointer) {
        var at = 0
        while at < text.count {
            let start = at
            while at < text.count, !Self.needsEscape(text[at]) { at += 1 }
            if at > start { out.write(UnsafeRawBufferPointer(rebasing: text[start..<at])) }
            let end = min(text.count, at + Self.blockBytes)
            guard at < end else { return }
            let room = out.reserve((end - at) * Self.escapeBytesMax)
            var written = 0
            while at < end {
                let byte = text[at]
                at += 1
                if Self.needsEscape(byte) {
                    written += Self.escape(byte, to: room + written)
                } else {
                    room.storeBytes(of: byte, toByteOffset: written, as: UInt8.self)
                    written += 1
                }
            }
            out.advance(written)
        }
    }

    private static let blockBytes = 64
    private static let escapeBytesMax = 6

    @inline(__always)
    private static func needsEscape(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
    }

    /// Returns how many bytes it wrote, at most `escapeBytesMax`.
    @inline(__always)
    private static func escape(_ byte: UInt8, to room: UnsafeMutableRawPointer) -> Int {
        let short: UInt8
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): short = byte
        case 0x08: short = UInt8(ascii: "b")
        case 0x09: short = UInt8(ascii: "t")
        case 0x0A: short = UInt8(ascii: "n")
        case 0x0C: short = UInt8(ascii: "f")
        case 0x0D: short = UInt8(ascii: "r")
        default:
            // `\u00`, and two digits.
            room.storeBytes(of: UInt32(0x3030_755C).littleEndian, as: UInt32.self)
            let low = byte & 15
            let digit = low < 10 ? UInt8(ascii: "0") + low : UInt8(ascii: "a") + low - 10
            room.storeBytes(of: UInt8(ascii: "0") + (byte >> 4), toByteOffset: 4, as: UInt8.self)
            room.storeBytes(of: digit, toByteOffset: 5, as: UInt8.self)
            return 6
        }
        room.storeBytes(of: UInt8(ascii: "\\"), as: UInt8.self)
        room.storeBytes(of: short, toByteOffset: 1, as: UInt8.self)
        return 2
    }

    /// Puts U+FFFD for whatever is not UTF-8, once for each longest beginning of a character.
    private mutating func writeRepaired(_ bytes: UnsafeRawBufferPointer) {
        out.write(UInt8(ascii: "\""))
        var start = 0
        var at = 0
        while at < bytes.count {
            let (count, isWhole) = Self.character(bytes, at)
            at += count
            if isWhole { continue }
            if start < at - count {
                writeEscaped(UnsafeRawBufferPointer(rebasing: bytes[start..<at - count]))
            }
            let room = out.reserve(4)
            // U+FFFD; the fourth byte is written over.
            room.storeBytes(of: UInt32(0x00BD_BFEF).littleEndian, as: UInt32.self)
            out.advance(3)
            start = at
        }
        writeEscaped(UnsafeRawBufferPointer(rebasing: bytes[start...]))
        out.write(UInt8(ascii: "\""))
    }

    /// The bytes at `at` that are a character of UTF-8, or the longest beginning of one; not 0.
    private static func character(
        _ bytes: UnsafeRawBufferPointer, _ at: Int
    ) -> (count: Int, isWhole: Bool) {
        let lead = bytes[at]
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch lead {
        case 0..<0x80: return (1, true)
        case 0xC2...0xDF: length = 2
        case 0xE0...0xEF:
            length = 3
            if lead == 0xE0 { second = 0xA0...0xBF } else if lead == 0xED { second = 0x80...0x9F }
        case 0xF0...0xF4:
            length = 4
            if lead == 0xF0 { second = 0x90...0xBF } else if lead == 0xF4 { second = 0x80...0x8F }
        default: return (1, false)
        }
        for offset in 1..<length {
            let wanted = offset == 1 ? second : 0x80...0xBF
            guard at + offset < bytes.count, wanted.contains(bytes[at + offset]) else {
                return (offset, false)
            }
        }
        return (length, true)
    }
}
