// SPDX-License-Identifier: Apache-2.0

/// Why bytes could not be understood: what was expected, and where.
package struct DecodeError: Error, Equatable, CustomStringConvertible {
    package enum Reason: Sendable, Equatable {
        /// The bytes end before what must be there.
        case truncated
        /// The bytes are there, but they cannot mean what they must.
        case malformed(String)
        /// The bytes differ from what was written.
        case checksum
    }
    package let reason: Reason
    package let offset: Int

    package init(_ reason: Reason, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    package var description: String {
        switch reason {
        case .truncated: "truncated at byte \(offset)"
        case .malformed(let what): "\(what) at byte \(offset)"
        case .checksum: "checksum mismatch at byte \(offset)"
        }
    }
}

/// Decodes what `ByteWriter` encoded; every step says precisely why it cannot go on.
package struct ByteReader {
    package let bytes: Bytes
    package private(set) var offset = 0

    package init(_ bytes: Bytes) { self.bytes = bytes }

    package var remaining: Int { bytes.count - offset }
    package var isAtEnd: Bool { remaining == 0 }

    package mutating func read<T: FixedWidthInteger>(
        _ type: T.Type = T.self
    ) throws(DecodeError) -> T {
        guard remaining >= MemoryLayout<T>.size else { throw DecodeError(.truncated, at: offset) }
        defer { offset += MemoryLayout<T>.size }
        return bytes.load(T.self, at: offset)
    }

    package mutating func readBigEndian<T: FixedWidthInteger>(
        _ type: T.Type = T.self
    ) throws(DecodeError) -> T {
        guard remaining >= MemoryLayout<T>.size else { throw DecodeError(.truncated, at: offset) }
        defer { offset += MemoryLayout<T>.size }
        return bytes.loadBigEndian(T.self, at: offset)
    }

    package mutating func read(_ count: Int) throws(DecodeError) -> Bytes {
        guard count >= 0, remaining >= count else { throw DecodeError(.truncated, at: offset) }
        defer { offset += count }
        return bytes[offset..<offset + count]
    }

    package mutating func readVarint() throws(DecodeError) -> UInt64 {
        let start = offset
        var at = offset
        guard let value = bytes.withUnsafeBytes({ Varint.read($0, &at) }) else {
            let cut = bytes.count - start < Varint.lengthMax
            throw DecodeError(cut ? .truncated : .malformed("varint beyond 64 bits"), at: start)
        }
        offset = at
        return value
    }

    /// A text behind its 4-byte length; `lengthMax` in bytes.
    package mutating func readText(lengthMax: Int = 65_536) throws(DecodeError) -> String {
        let start = offset
        let blob = try readBlob(lengthMax: lengthMax)
        guard let text = blob.validText else {
            throw DecodeError(.malformed("text is not UTF-8"), at: start)
        }
        return text
    }

    /// Bytes behind their 4-byte length; `lengthMax` in bytes.
    package mutating func readBlob(lengthMax: Int = Int(Int32.max)) throws(DecodeError) -> Bytes {
        let start = offset
        let length = Int(try read(UInt32.self))
        guard length <= lengthMax else {
            throw DecodeError(.malformed("length \(length) beyond \(lengthMax)"), at: start)
        }
        return try read(length)
    }

    /// Throws unless everything was read.
    package func finish() throws(DecodeError) {
        guard isAtEnd else { throw malformed("\(remaining) bytes too many") }
    }

    package func malformed(_ what: String) -> DecodeError {
        DecodeError(.malformed(what), at: offset)
    }
}
