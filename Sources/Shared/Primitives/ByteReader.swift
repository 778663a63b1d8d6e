// SPDX-License-Identifier: Apache-2.0

/// Why bytes could not be understood: what was expected, and where.
public struct DecodeError: Error, Equatable, CustomStringConvertible {
    public enum Reason: Sendable, Equatable {
        /// The bytes end before what must be there.
        case truncated
        /// The bytes are there, but they cannot mean what they must.
        case malformed(String)
        /// The bytes differ from what was written.
        case checksum
    }
    public let reason: Reason
    public let offset: Int

    public init(_ reason: Reason, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    public var description: String {
        switch reason {
        case .truncated: "truncated at byte \(offset)"
        case .malformed(let what): "\(what) at byte \(offset)"
        case .checksum: "checksum mismatch at byte \(offset)"
        }
    }
}

/// Decodes what `ByteWriter` encoded; every step says precisely why it cannot go on.
public struct ByteReader {
    public let bytes: Bytes
    @usableFromInline var position = 0

    @inlinable
    public init(_ bytes: Bytes) { self.bytes = bytes }

    /// How much was read, in bytes.
    @inlinable public var offset: Int { position }
    @inlinable public var remaining: Int { bytes.count - position }
    @inlinable public var isAtEnd: Bool { remaining == 0 }

    // Inlinable: from another module, a generic function is slow unless it is specialised there.

    @inlinable
    public mutating func read<T: FixedWidthInteger>(
        _ type: T.Type = T.self
    ) throws(DecodeError) -> T {
        guard remaining >= MemoryLayout<T>.size else { throw DecodeError(.truncated, at: offset) }
        defer { position += MemoryLayout<T>.size }
        return bytes.load(T.self, at: offset)
    }

    @inlinable
    public mutating func readBigEndian<T: FixedWidthInteger>(
        _ type: T.Type = T.self
    ) throws(DecodeError) -> T {
        guard remaining >= MemoryLayout<T>.size else { throw DecodeError(.truncated, at: offset) }
        defer { position += MemoryLayout<T>.size }
        return bytes.loadBigEndian(T.self, at: offset)
    }

    @inlinable
    public mutating func read(_ count: Int) throws(DecodeError) -> Bytes {
        guard count >= 0, remaining >= count else { throw DecodeError(.truncated, at: offset) }
        defer { position += count }
        return bytes[offset..<offset + count]
    }

    /// Moves on by `count` bytes, at least 0.
    @inlinable
    public mutating func skip(_ count: Int) throws(DecodeError) {
        guard remaining >= count else { throw DecodeError(.truncated, at: offset) }
        position += count
    }

    public mutating func readVarint() throws(DecodeError) -> UInt64 {
        let start = offset
        var at = offset
        guard let value = bytes.withUnsafeBytes({ Varint.read($0, &at) }) else {
            let cut = bytes.count - start < Varint.lengthMax
            throw DecodeError(cut ? .truncated : .malformed("varint beyond 64 bits"), at: start)
        }
        position = at
        return value
    }

    /// A text behind its 4-byte length; `lengthMax` in bytes.
    public mutating func readText(lengthMax: Int = 65_536) throws(DecodeError) -> String {
        let start = offset
        let blob = try readBlob(lengthMax: lengthMax)
        guard let text = blob.validText else {
            throw DecodeError(.malformed("text is not UTF-8"), at: start)
        }
        return text
    }

    /// Bytes behind their 4-byte length; `lengthMax` in bytes.
    public mutating func readBlob(lengthMax: Int = Int(Int32.max)) throws(DecodeError) -> Bytes {
        let start = offset
        let length = Int(try read(UInt32.self))
        guard length <= lengthMax else {
            throw DecodeError(.malformed("length \(length) beyond \(lengthMax)"), at: start)
        }
        return try read(length)
    }

    /// Throws unless everything was read.
    public func finish() throws(DecodeError) {
        guard isAtEnd else { throw malformed("\(remaining) bytes too many") }
    }

    public func malformed(_ what: String) -> DecodeError {
        DecodeError(.malformed(what), at: offset)
    }
}
