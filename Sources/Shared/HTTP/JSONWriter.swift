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
        guard isASCII || bytes.validText != nil else {
            write(bytes.lossyText)
            return
        }
        beginValue()
        bytes.withUnsafeBytes { writeQuoted($0) }
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

    /// `text` is valid UTF-8. Runs without anything to escape are copied whole.
    private mutating func writeQuoted(_ text: UnsafeRawBufferPointer) {
        out.write(UInt8(ascii: "\""))
        var start = 0
        for at in 0..<text.count {
            let byte = text[at]
            if byte >= 0x20 && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\") { continue }
            if at > start { out.write(UnsafeRawBufferPointer(rebasing: text[start..<at])) }
            writeEscape(byte)
            start = at + 1
        }
        if start < text.count { out.write(UnsafeRawBufferPointer(rebasing: text[start...])) }
        out.write(UInt8(ascii: "\""))
    }

    private mutating func writeEscape(_ byte: UInt8) {
        out.write(UInt8(ascii: "\\"))
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): out.write(byte)
        case 0x08: out.write(UInt8(ascii: "b"))
        case 0x09: out.write(UInt8(ascii: "t"))
        case 0x0A: out.write(UInt8(ascii: "n"))
        case 0x0C: out.write(UInt8(ascii: "f"))
        case 0x0D: out.write(UInt8(ascii: "r"))
        default:
            out.write(utf8: "u00")
            let hex = UInt8(ascii: "0")
            let low = byte & 15
            out.write(hex + (byte >> 4))
            out.write(low < 10 ? hex + low : UInt8(ascii: "a") + low - 10)
        }
    }
}
