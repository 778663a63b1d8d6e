// SPDX-License-Identifier: Apache-2.0

/// Where a folder keeps the object of a key.
///
/// A key's segments become folders, its last one a file whose name ends in `@`: `wal/7/12` is
/// `wal/7/12@`, and `wal/7` may be an object as well, `wal/7@`. Letters, digits and `-_.=,~` stand
/// for themselves, all other bytes (and a dot at a name's start) for `%` and two digits. A segment
/// of more than 80 bytes is cut into folders of 80, each marked by a `+` at its end. So every key
/// has a path, no two keys share one, and no name is longer than a file system allows.
struct FolderPath {
    /// The file, relative to the store's folder.
    let whole: String
    /// Where its name begins.
    private let nameStart: Int

    /// The object's folder, relative to the store's; empty for that itself.
    var directory: Substring {
        whole[..<whole.utf8.index(whole.startIndex, offsetBy: max(nameStart - 1, 0))]
    }

    /// Calls `body` with the file's name in its folder.
    func withName<R>(_ body: (UnsafePointer<CChar>) -> R) -> R {
        whole.withCString { body($0 + nameStart) }
    }

    /// The longest name without escapes, in bytes.
    static let pieceBytesMax = 80
    /// What begins with it belongs to the store and is no object.
    static let ownMark = UInt8(ascii: "#")
    static let temporaryDirectory = "#temporary"

    /// The path of a valid key.
    init(key: String) {
        var nameStart = 0
        // One piece of memory, as a put's path is made for it alone.
        let length = key.utf8.count
        let most = 3 * length + 2 * (length / Self.pieceBytesMax) + 1
        whole = String(unsafeUninitializedCapacity: most) { text in
            var path = PathWriter(text)
            path.write(key)
            nameStart = path.nameStart
            return path.count
        }
        self.nameStart = nameStart
    }

    /// The folder that holds all keys that begin with `prefix`, which ends in a slash or is empty.
    static func directory(ofPrefix prefix: String) -> String {
        prefix.isEmpty ? "" : String(FolderPath(key: prefix + "x").directory)
    }

    /// What a name in a folder stands for.
    enum Entry: Equatable {
        case object([UInt8])
        case directory([UInt8])
        /// A folder with the continuations of a long segment.
        case continued([UInt8])

        /// Nil for a name that no key leads to.
        init?(name: UnsafeBufferPointer<UInt8>) {
            guard let last = name.last, name.first != FolderPath.ownMark else { return nil }
            let isMarked = last == FolderPath.objectMark || last == FolderPath.continuedMark
            let text = isMarked ? name[..<(name.count - 1)] : name[...]
            guard !text.isEmpty, let bytes = FolderPath.unescape(text) else { return nil }
            switch last {
            case FolderPath.objectMark: self = .object(bytes)
            case FolderPath.continuedMark: self = .continued(bytes)
            default: self = .directory(bytes)
            }
        }
    }

    private static let objectMark = UInt8(ascii: "@")
    private static let continuedMark = UInt8(ascii: "+")

    /// Writes a path where there is room for it.
    private struct PathWriter {
        private let text: UnsafeMutableBufferPointer<UInt8>
        private(set) var count = 0
        private(set) var nameStart = 0
        private var segmentBytes = 0

        init(_ text: UnsafeMutableBufferPointer<UInt8>) { self.text = text }

        mutating func write(_ key: String) {
            for byte in key.utf8 {
                if byte == UInt8(ascii: "/") {
                    beginName()
                    continue
                }
                if segmentBytes == pieceBytesMax {
                    append(continuedMark)
                    beginName()
                }
                escape(byte)
                segmentBytes += 1
            }
            append(objectMark)
        }

        private mutating func beginName() {
            append(UInt8(ascii: "/"))
            nameStart = count
            segmentBytes = 0
        }

        private mutating func escape(_ byte: UInt8) {
            if isPlain(byte), !(count == nameStart && byte == UInt8(ascii: ".")) {
                append(byte)
            } else {
                append(UInt8(ascii: "%"))
                append(PercentCoding.digits[Int(byte >> 4)])
                append(PercentCoding.digits[Int(byte & 15)])
            }
        }

        private mutating func append(_ byte: UInt8) {
            text[count] = byte
            count += 1
        }
    }

    private static func unescape(_ text: Slice<UnsafeBufferPointer<UInt8>>) -> [UInt8]? {
        guard text.allSatisfy({ isPlain($0) || $0 == UInt8(ascii: "%") }) else { return nil }
        return PercentCoding.decode(text, plusIsSpace: false)
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        PercentCoding.isUnreserved(byte) || byte == UInt8(ascii: "=") || byte == UInt8(ascii: ",")
    }
}
