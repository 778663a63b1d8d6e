// SPDX-License-Identifier: Apache-2.0

/// Where a folder keeps the object of a key.
///
/// A key's segments become folders, its last one a file whose name ends in `@`: `wal/7/12` is
/// `wal/7/12@`, and `wal/7` may be an object as well, `wal/7@`. Letters, digits and `-_.=,~` stand
/// for themselves, all other bytes (and a dot at a name's start) for `%` and two digits. A segment
/// of more than 80 bytes is cut into folders of 80, each marked by a `+` at its end. So every key
/// has a path, no two keys share one, and no name is longer than a file system allows.
struct FolderPath: Equatable {
    /// The object's folder, relative to the store's; empty for that itself.
    let directory: String
    let file: String

    /// The file, relative to the store's folder.
    var whole: String { directory.isEmpty ? file : "\(directory)/\(file)" }

    /// The longest name without escapes, in bytes.
    static let pieceBytesMax = 80
    /// What begins with it belongs to the store and is no object.
    static let ownMark = UInt8(ascii: "#")
    static let temporaryDirectory = "#temporary"

    /// The path of a valid key.
    init(key: String) {
        var path: [UInt8] = []
        path.reserveCapacity(key.utf8.count + 8)
        var nameStart = 0
        var segmentBytes = 0
        for byte in key.utf8 {
            if byte == UInt8(ascii: "/") {
                path.append(byte)
                nameStart = path.count
                segmentBytes = 0
                continue
            }
            if segmentBytes == Self.pieceBytesMax {
                path.append(Self.continuedMark)
                path.append(UInt8(ascii: "/"))
                nameStart = path.count
                segmentBytes = 0
            }
            Self.escape(byte, isFirst: path.count == nameStart, into: &path)
            segmentBytes += 1
        }
        path.append(Self.objectMark)
        directory = String(decoding: path[..<max(nameStart - 1, 0)], as: UTF8.self)
        file = String(decoding: path[nameStart...], as: UTF8.self)
    }

    /// The folder that holds all keys that begin with `prefix`, which ends in a slash or is empty.
    static func directory(ofPrefix prefix: String) -> String {
        prefix.isEmpty ? "" : FolderPath(key: prefix + "x").directory
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

    private static func escape(_ byte: UInt8, isFirst: Bool, into path: inout [UInt8]) {
        if isPlain(byte), !(isFirst && byte == UInt8(ascii: ".")) {
            path.append(byte)
        } else {
            path.append(UInt8(ascii: "%"))
            path.append(PercentCoding.digits[Int(byte >> 4)])
            path.append(PercentCoding.digits[Int(byte & 15)])
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
