// SPDX-License-Identifier: Apache-2.0

/// Text of clients as Postgres can keep it. A fencing token may be any UTF-8, and Postgres has no
/// text with NUL: it is kept as `\0`, and a backslash as `\\`.
enum EscapedText {
    static func escape(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == 0 || $0 == backslash }) else { return text }
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0: bytes += [backslash, zero]
            case backslash: bytes += [backslash, backslash]
            default: bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// nil if `text` is nothing that `escape` makes.
    static func unescape(_ text: String) -> String? {
        guard text.utf8.contains(backslash) else { return text }
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == backslash else {
                bytes.append(byte)
                continue
            }
            switch rest.popFirst() {
            case zero: bytes.append(0)
            case backslash: bytes.append(backslash)
            default: return nil
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static let backslash = UInt8(ascii: "\\")
    private static let zero = UInt8(ascii: "0")
}
