// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Base64 of RFC 4648, section 4: the standard alphabet, padded, and only its canonical form.
package enum Base64 {
    private static let alphabet = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let invalid: UInt8 = 0xFF
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: invalid, count: 256)
        for (value, character) in alphabet.enumerated() { values[Int(character)] = UInt8(value) }
        return values
    }()

    package static func encode(_ bytes: Bytes) -> String {
        var writer = ByteWriter(capacity: (bytes.count + 2) / 3 * 4)
        encode(bytes, into: &writer)
        return writer.finish().lossyText
    }

    package static func encode(_ bytes: Bytes, into writer: inout ByteWriter) {
        let length = (bytes.count + 2) / 3 * 4
        let target = writer.reserve(length).assumingMemoryBound(to: UInt8.self)
        bytes.withUnsafeBytes { source in
            alphabet.withUnsafeBufferPointer { alphabet in
                var out = 0
                var at = 0
                while at < source.count {
                    let left = source.count - at
                    let second = left > 1 ? UInt32(source[at + 1]) : 0
                    let third = left > 2 ? UInt32(source[at + 2]) : 0
                    let group = UInt32(source[at]) << 16 | second << 8 | third
                    target[out] = alphabet[Int(group >> 18)]
                    target[out + 1] = alphabet[Int(group >> 12 & 63)]
                    target[out + 2] =
                        left > 1 ? alphabet[Int(group >> 6 & 63)] : UInt8(ascii: "=")
                    target[out + 3] = left > 2 ? alphabet[Int(group & 63)] : UInt8(ascii: "=")
                    out += 4
                    at += 3
                }
            }
        }
        writer.advance(length)
    }

    /// Nil for what no encoder writes: another alphabet, missing padding, spaces, stray bits.
    package static func decode(_ text: String) -> Bytes? {
        var text = text
        return text.withUTF8 { decode(UnsafeRawBufferPointer($0)) }
    }

    private static func decode(_ text: UnsafeRawBufferPointer) -> Bytes? {
        guard text.count % 4 == 0 else { return nil }
        guard text.count > 0 else { return Bytes() }
        let padding =
            text[text.count - 1] != UInt8(ascii: "=")
            ? 0 : text[text.count - 2] != UInt8(ascii: "=") ? 1 : 2
        var writer = ByteWriter(capacity: text.count / 4 * 3)
        let isValid = values.withUnsafeBufferPointer { values in
            for start in stride(from: 0, to: text.count, by: 4) {
                let missing = start + 4 == text.count ? padding : 0
                var group: UInt32 = 0
                for i in 0..<4 {
                    let value = i < 4 - missing ? values[Int(text[start + i])] : 0
                    guard value != invalid else { return false }
                    group = group << 6 | UInt32(value)
                }
                let strayBits: UInt32 = missing == 0 ? 0 : missing == 1 ? 0xFF : 0xFFFF
                guard group & strayBits == 0 else { return false }
                let bytes = writer.reserve(3)
                bytes.storeBytes(of: UInt8(group >> 16), as: UInt8.self)
                bytes.storeBytes(of: UInt8(group >> 8 & 255), toByteOffset: 1, as: UInt8.self)
                bytes.storeBytes(of: UInt8(group & 255), toByteOffset: 2, as: UInt8.self)
                writer.advance(3 - missing)
            }
            return true
        }
        return isValid ? writer.finish() : nil
    }
}
