// SPDX-License-Identifier: Apache-2.0

/// The rules for keys, the same in every store.
package enum ObjectKey {
    /// The longest key, in bytes of UTF-8.
    package static let bytesMax = 1_024

    /// Throws `.invalidRequest` unless `key` has 1 to 1,024 bytes, no control characters, and no
    /// empty, `.` or `..` segment between slashes.
    package static func validate(_ key: String) throws(StoreError) {
        guard !key.utf8.isEmpty else { throw StoreError(.invalidRequest, "the key is empty") }
        try validatePrefix(key)
        var segment = Segment()
        for byte in key.utf8 {
            if byte == UInt8(ascii: "/") {
                guard segment.isValid else { throw bad(key, "has an empty, . or .. segment") }
                segment = Segment()
            } else {
                segment.add(byte)
            }
        }
        guard segment.isValid else { throw bad(key, "has an empty, . or .. segment") }
    }

    /// Throws `.invalidRequest` unless `prefix` has at most 1,024 bytes and no control characters.
    package static func validatePrefix(_ prefix: String) throws(StoreError) {
        guard prefix.utf8.count <= bytesMax else {
            throw StoreError(
                .invalidRequest, "a key of \(prefix.utf8.count) bytes; the limit is \(bytesMax)")
        }
        var previous: UInt8 = 0
        for byte in prefix.utf8 {
            // U+0080 to U+009F are C2 80 to C2 9F.
            let isControl = byte < 0x20 || byte == 0x7F || (previous == 0xC2 && byte < 0xA0)
            guard !isControl else { throw bad(prefix, "has a control character") }
            previous = byte
        }
    }

    /// Throws `.invalidRequest` unless a listing may be asked like that.
    package static func validateListing(
        prefix: String, after: String, limit: Int
    ) throws(StoreError) {
        try validatePrefix(prefix)
        try validatePrefix(after)
        guard (1...1_000).contains(limit) else {
            throw StoreError(.invalidRequest, "a listing of \(limit) objects; the limit is 1,000")
        }
    }

    /// Throws `.invalidRequest` where a range is empty or begins below zero.
    package static func validateRange(_ range: Range<Int>?) throws(StoreError) {
        guard let range else { return }
        guard range.lowerBound >= 0, !range.isEmpty else {
            throw StoreError(.invalidRequest, "the range \(range) holds no bytes")
        }
    }

    /// Whether `a` comes before `b`. (Swift's `<` compares characters, not bytes.)
    package static func precedes(_ a: String, _ b: String) -> Bool {
        a.utf8.lexicographicallyPrecedes(b.utf8)
    }

    private static func bad(_ key: String, _ what: String) -> StoreError {
        StoreError(.invalidRequest, "the key \(key.debugDescription) \(what)")
    }

    /// What must be known of a segment: whether it is empty, `.` or `..`.
    private struct Segment {
        private var count = 0
        private var isDotsOnly = true

        mutating func add(_ byte: UInt8) {
            count += 1
            isDotsOnly = isDotsOnly && byte == UInt8(ascii: ".")
        }

        var isValid: Bool { count > 0 && !(isDotsOnly && count <= 2) }
    }
}
