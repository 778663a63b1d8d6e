// SPDX-License-Identifier: Apache-2.0

/// Encodes into memory that grows as needed, and hands it over as `Bytes` without a copy.
///
/// Integers are little-endian unless the name says otherwise: everything that is ours is
/// little-endian; what S2's session protocol prescribes is not.
public struct ByteWriter {
    @usableFromInline var storage: ByteStorage
    @usableFromInline var written = 0

    /// How much was written, in bytes.
    @inlinable public var count: Int { written }

    /// With a capacity of 0 it takes no memory until something is written.
    @inlinable
    public init(capacity: Int = 256) {
        storage = capacity > 0 ? ByteStorage.make(capacity: capacity) : ByteStorage.none
    }

    /// Begins at the start of `storage`, which nobody else refers to.
    @inlinable
    public init(into storage: ByteStorage) { self.storage = storage }

    /// Makes room for `more` bytes and returns where they go. The caller then calls `advance`.
    @inlinable
    @inline(__always)
    public mutating func reserve(_ more: Int) -> UnsafeMutableRawPointer {
        if count + more > storage.byteCapacity { grow(count + more) }
        return storage.base + count
    }

    /// Declares that `n` bytes were written where `reserve` pointed.
    @inlinable
    @inline(__always)
    public mutating func advance(_ n: Int) {
        precondition(
            n >= 0 && count + n <= storage.byteCapacity, "advanced beyond the reserved room")
        written += n
    }

    @usableFromInline
    mutating func grow(_ needed: Int) {
        let larger = ByteStorage.make(capacity: max(needed, storage.byteCapacity * 2))
        larger.base.copyMemory(from: storage.base, byteCount: count)
        storage = larger
    }

    @inlinable
    public mutating func write<T: FixedWidthInteger>(_ value: T) {
        reserve(MemoryLayout<T>.size).storeBytes(of: value.littleEndian, as: T.self)
        written += MemoryLayout<T>.size
    }

    @inlinable
    public mutating func writeBigEndian<T: FixedWidthInteger>(_ value: T) {
        reserve(MemoryLayout<T>.size).storeBytes(of: value.bigEndian, as: T.self)
        written += MemoryLayout<T>.size
    }

    @inlinable
    public mutating func write(_ bytes: Bytes) {
        bytes.withUnsafeBytes { write($0) }
    }

    @inlinable
    public mutating func write(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        reserve(bytes.count).copyMemory(from: source, byteCount: bytes.count)
        written += bytes.count
    }

    @inlinable
    public mutating func write(_ bytes: some Collection<UInt8>) {
        let room = UnsafeMutableRawBufferPointer(start: reserve(bytes.count), count: bytes.count)
        room.copyBytes(from: bytes)
        written += bytes.count
    }

    public mutating func write(utf8 text: String) {
        var text = text
        text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }

    /// A base-128 varint, as protobuf writes it (1 to 10 bytes).
    @inlinable
    @inline(__always)
    public mutating func writeVarint(_ value: UInt64) {
        written += Varint.write(value, to: reserve(Varint.lengthMax))
    }

    /// A 4-byte length and the text's UTF-8.
    public mutating func writeText(_ text: String) {
        write(UInt32(text.utf8.count))
        write(utf8: text)
    }

    /// A 4-byte length and the bytes.
    public mutating func writeBlob(_ bytes: Bytes) {
        write(UInt32(bytes.count))
        write(bytes)
    }

    /// Overwrites an integer that was written before, at `offset`.
    @inlinable
    public mutating func patch<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        precondition(
            offset >= 0 && offset + MemoryLayout<T>.size <= count, "patched beyond the end")
        (storage.base + offset).storeBytes(of: value.littleEndian, as: T.self)
    }

    /// An integer that was written before, at `offset`.
    @inlinable
    public func load<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        precondition(
            offset >= 0 && offset + MemoryLayout<T>.size <= count, "integer beyond the end")
        return T(littleEndian: storage.base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// CRC-32C of what was written from `start` on.
    public func checksum(from start: Int = 0) -> UInt32 {
        CRC32C.of(UnsafeRawBufferPointer(start: storage.base + start, count: count - start))
    }

    /// What was written; the writer is spent.
    @inlinable
    public consuming func finish() -> Bytes {
        Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: count)
    }
}

/// Base-128 varints, as protobuf defines them.
public enum Varint {
    public static let lengthMax = 10

    /// How many bytes `value` takes, 1 to 10.
    @inlinable
    @inline(__always)
    public static func length(_ value: UInt64) -> Int {
        // 7 bits a byte: one division of the position of the highest bit, by multiplication.
        ((63 - (value | 1).leadingZeroBitCount) * 9 + 73) / 64
    }

    /// Writes `value` at `target`, which has room for it, and returns the bytes taken.
    @inlinable
    @inline(__always)
    @discardableResult
    public static func write(_ value: UInt64, to target: UnsafeMutableRawPointer) -> Int {
        var value = value
        var n = 0
        while value >= 0x80 {
            let byte = UInt8(truncatingIfNeeded: value) | 0x80
            target.storeBytes(of: byte, toByteOffset: n, as: UInt8.self)
            value >>= 7
            n += 1
        }
        target.storeBytes(of: UInt8(truncatingIfNeeded: value), toByteOffset: n, as: UInt8.self)
        return n + 1
    }

    /// Reads a varint at `offset`, moving it on; nil where it is cut off or longer than 64 bits.
    @inlinable
    @inline(__always)
    public static func read(_ bytes: UnsafeRawBufferPointer, _ offset: inout Int) -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        var at = offset
        while at < bytes.count {
            let byte = bytes[at]
            at += 1
            if shift == 63 && byte > 1 { return nil }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 {
                offset = at
                return value
            }
            shift += 7
            if shift > 63 { return nil }
        }
        return nil
    }
}
