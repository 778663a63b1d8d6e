// SPDX-License-Identifier: Apache-2.0

/// A run of immutable bytes that shares its memory: slicing and passing it on copies nothing.
///
/// A `Bytes` holds the memory's owner alive, whoever that is: our own `ByteStorage`, or a socket's
/// read buffer. That is how a record crosses every layer between a socket and an object untouched.
/// A small slice keeps its whole owner in memory; whoever keeps slices for long (a window, a cache)
/// must bound them by their owners, or copy with `detached()`.
///
/// Three words wide, so that it fits an existential's inline buffer.
package struct Bytes: @unchecked Sendable {
    // Safety: nobody writes to the memory once a Bytes refers to it.
    package let owner: AnyObject?
    package let base: UnsafeRawPointer
    package let count: Int

    /// Wraps `count` bytes at `base`, which `owner` keeps alive and never changes.
    @inlinable
    package init(owner: AnyObject?, base: UnsafeRawPointer, count: Int) {
        precondition(count >= 0, "a byte count is never negative")
        self.owner = owner
        self.base = base
        self.count = count
    }

    /// No bytes.
    package init() {
        self.init(owner: nil, base: Self.nowhere, count: 0)
    }

    /// A copy of `bytes`.
    package init(_ bytes: some Collection<UInt8>) {
        let storage = ByteStorage(capacity: bytes.count)
        let target = UnsafeMutableRawBufferPointer(start: storage.base, count: bytes.count)
        target.copyBytes(from: bytes)
        self.init(owner: storage, base: UnsafeRawPointer(storage.base), count: bytes.count)
    }

    /// A copy of `bytes`.
    package init(copying bytes: UnsafeRawBufferPointer) {
        let storage = ByteStorage(capacity: bytes.count)
        if let source = bytes.baseAddress {
            storage.base.copyMemory(from: source, byteCount: bytes.count)
        }
        self.init(owner: storage, base: UnsafeRawPointer(storage.base), count: bytes.count)
    }

    /// The UTF-8 bytes of `text`.
    package init(utf8 text: String) {
        var text = text
        self = text.withUTF8 { Bytes(copying: UnsafeRawBufferPointer($0)) }
    }

    // Safety: one byte that is never read (every Bytes that points here is empty) nor freed.
    nonisolated(unsafe) private static let nowhere = UnsafeRawPointer(
        UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))

    @inlinable package var isEmpty: Bool { count == 0 }

    /// The byte at `offset`, which must lie in `0 ..< count`.
    @inlinable
    package subscript(offset: Int) -> UInt8 {
        precondition(offset >= 0 && offset < count, "offset outside of the bytes")
        return base.load(fromByteOffset: offset, as: UInt8.self)
    }

    /// The bytes in `range`, sharing memory. The range must lie in `0 ..< count`.
    @inlinable
    package subscript(range: Range<Int>) -> Bytes {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= count, "range outside of the bytes")
        return Bytes(owner: owner, base: base + range.lowerBound, count: range.count)
    }

    @inlinable
    package func dropFirst(_ n: Int) -> Bytes { self[min(n, count)..<count] }

    @inlinable
    package func prefix(_ n: Int) -> Bytes { self[0..<min(n, count)] }

    /// Calls `body` with the memory, which is valid until it returns.
    @inlinable
    package func withUnsafeBytes<R, E: Error>(
        _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        defer { withExtendedLifetime(owner) {} }
        return try body(UnsafeRawBufferPointer(start: base, count: count))
    }

    /// A little-endian integer at `offset`; the bytes must reach that far.
    @inlinable
    package func load<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        precondition(
            offset >= 0 && offset + MemoryLayout<T>.size <= count, "integer outside of the bytes")
        return T(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// A big-endian integer at `offset`; the bytes must reach that far.
    @inlinable
    package func loadBigEndian<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        precondition(
            offset >= 0 && offset + MemoryLayout<T>.size <= count, "integer outside of the bytes")
        return T(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    package var array: [UInt8] { withUnsafeBytes { Array($0) } }

    /// The text that these bytes encode; invalid UTF-8 becomes U+FFFD.
    package var lossyText: String { withUnsafeBytes { String(decoding: $0, as: UTF8.self) } }

    /// The text that these bytes encode, or nil where they are not valid UTF-8.
    package var validText: String? {
        withUnsafeBytes { String(validating: $0, as: UTF8.self) }
    }

    /// A copy that owns just its own bytes.
    package func detached() -> Bytes { withUnsafeBytes { Bytes(copying: $0) } }
}

extension Bytes: Equatable, Hashable {
    package static func == (a: Bytes, b: Bytes) -> Bool {
        guard a.count == b.count else { return false }
        return a.withUnsafeBytes { x in b.withUnsafeBytes { y in x.elementsEqual(y) } }
    }

    package func hash(into hasher: inout Hasher) {
        withUnsafeBytes { hasher.combine(bytes: $0) }
    }
}

extension Bytes: ExpressibleByArrayLiteral {
    package init(arrayLiteral elements: UInt8...) { self.init(elements) }
}

extension Bytes: CustomStringConvertible {
    package var description: String { "\(count) bytes" }
}

/// The total length of `parts`, in bytes.
package func byteCount(_ parts: [Bytes]) -> Int { parts.reduce(0) { $0 + $1.count } }

extension Array where Element == Bytes {
    /// One run of all the parts; copies unless there is exactly one.
    package func joined() -> Bytes {
        if count == 1 { return self[0] }
        var writer = ByteWriter(capacity: byteCount(self))
        for part in self { writer.write(part) }
        return writer.finish()
    }
}

/// Memory of our own: allocated once, never moved, freed with its last user.
package final class ByteStorage: @unchecked Sendable {
    // Safety: written only by its creator before the first Bytes refers to the written part.
    package private(set) var base: UnsafeMutableRawPointer
    package let capacity: Int
    private var owned = true

    package init(capacity: Int) {
        self.capacity = max(capacity, 1)
        base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 1)
    }

    /// Adopts memory that `malloc` gave.
    package init(adopting base: UnsafeMutableRawPointer, capacity: Int) {
        self.base = base
        self.capacity = capacity
    }

    deinit { if owned { base.deallocate() } }

    /// Gives the memory away; the caller frees it. Only for a storage that nobody else holds.
    package func release() -> UnsafeMutableRawPointer {
        precondition(owned, "memory is given away once")
        owned = false
        return base
    }
}
