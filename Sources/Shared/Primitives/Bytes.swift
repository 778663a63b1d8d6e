// SPDX-License-Identifier: Apache-2.0

/// A run of immutable bytes that shares its memory: slicing and passing it on copies nothing.
///
/// A `Bytes` holds the memory's owner alive, whoever that is: our own `ByteStorage`, or a socket's
/// read buffer. That is how a record crosses every layer between a socket and an object untouched.
/// A small slice keeps its whole owner in memory; whoever keeps slices for long (a window, a cache)
/// must bound them by their owners, or copy with `detached()`.
///
/// Three words wide, so that it fits an existential's inline buffer.
///
/// Public, as little else in this project is, along with what reads and writes it: across modules,
/// Swift 6.3 neither inlines nor specialises what is `package`, not even where it is `@inlinable`,
/// and these run several times per record.
// Safety: nobody writes to the memory once a Bytes refers to it.
public struct Bytes: @unchecked Sendable {
    public let owner: AnyObject?
    public let base: UnsafeRawPointer
    public let count: Int

    /// Wraps `count` bytes at `base`, which `owner` keeps alive and never changes.
    @inlinable
    public init(owner: AnyObject?, base: UnsafeRawPointer, count: Int) {
        precondition(count >= 0, "a byte count is never negative")
        self.owner = owner
        self.base = base
        self.count = count
    }

    /// No bytes.
    @inlinable
    public init() {
        self.init(owner: nil, base: Self.nowhere, count: 0)
    }

    /// A copy of `bytes`.
    public init(_ bytes: some Collection<UInt8>) {
        let storage = ByteStorage.make(capacity: bytes.count)
        let target = UnsafeMutableRawBufferPointer(start: storage.base, count: bytes.count)
        target.copyBytes(from: bytes)
        self.init(owner: storage, base: UnsafeRawPointer(storage.base), count: bytes.count)
    }

    /// A copy of `bytes`.
    public init(copying bytes: UnsafeRawBufferPointer) {
        let storage = ByteStorage.make(capacity: bytes.count)
        if let source = bytes.baseAddress {
            storage.base.copyMemory(from: source, byteCount: bytes.count)
        }
        self.init(owner: storage, base: UnsafeRawPointer(storage.base), count: bytes.count)
    }

    /// The UTF-8 bytes of `text`.
    public init(utf8 text: String) {
        var text = text
        self = text.withUTF8 { Bytes(copying: UnsafeRawBufferPointer($0)) }
    }

    @usableFromInline
    // Safety: one byte that is never read (every Bytes that points here is empty) nor freed.
    nonisolated(unsafe) static let nowhere = UnsafeRawPointer(
        UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))

    @inlinable public var isEmpty: Bool { count == 0 }

    /// The byte at `offset`, which must lie in `0 ..< count`.
    @inlinable
    public subscript(offset: Int) -> UInt8 {
        precondition(offset >= 0 && offset < count, "offset outside of the bytes")
        return base.load(fromByteOffset: offset, as: UInt8.self)
    }

    /// The bytes in `range`, sharing memory. The range must lie in `0 ..< count`.
    @inlinable
    public subscript(range: Range<Int>) -> Bytes {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= count, "range outside of the bytes")
        return Bytes(owner: owner, base: base + range.lowerBound, count: range.count)
    }

    @inlinable
    public func dropFirst(_ n: Int) -> Bytes { self[min(n, count)..<count] }

    @inlinable
    public func prefix(_ n: Int) -> Bytes { self[0..<min(n, count)] }

    /// Calls `body` with the memory, which is valid until it returns.
    @inlinable
    public func withUnsafeBytes<R, E: Error>(
        _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        defer { withExtendedLifetime(owner) {} }
        return try body(UnsafeRawBufferPointer(start: base, count: count))
    }

    /// A little-endian integer at `offset`; the bytes must reach that far.
    @inlinable
    public func load<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        precondition(
            offset >= 0 && offset + MemoryLayout<T>.size <= count, "integer outside of the bytes")
        return T(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// A big-endian integer at `offset`; the bytes must reach that far.
    @inlinable
    public func loadBigEndian<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        precondition(
            offset >= 0 && offset + MemoryLayout<T>.size <= count, "integer outside of the bytes")
        return T(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    public var array: [UInt8] { withUnsafeBytes { Array($0) } }

    /// The text that these bytes encode; invalid UTF-8 becomes U+FFFD.
    public var lossyText: String { withUnsafeBytes { String(decoding: $0, as: UTF8.self) } }

    /// The text that these bytes encode, or nil where they are not valid UTF-8.
    public var validText: String? {
        withUnsafeBytes { String(validating: $0, as: UTF8.self) }
    }

    /// A copy that owns just its own bytes.
    public func detached() -> Bytes { withUnsafeBytes { Bytes(copying: $0) } }
}

extension Bytes: Equatable, Hashable {
    public static func == (a: Bytes, b: Bytes) -> Bool {
        guard a.count == b.count else { return false }
        return a.withUnsafeBytes { x in b.withUnsafeBytes { y in x.elementsEqual(y) } }
    }

    public func hash(into hasher: inout Hasher) {
        withUnsafeBytes { hasher.combine(bytes: $0) }
    }
}

extension Bytes: ExpressibleByArrayLiteral {
    public init(arrayLiteral elements: UInt8...) { self.init(elements) }
}

extension Bytes: CustomStringConvertible {
    public var description: String { "\(count) bytes" }
}

/// The total length of `parts`, in bytes.
@inlinable
public func byteCount(_ parts: [Bytes]) -> Int { parts.reduce(0) { $0 + $1.count } }

extension Array where Element == Bytes {
    /// One run of all the parts; copies unless there is exactly one.
    public func joined() -> Bytes {
        if count == 1 { return self[0] }
        var writer = ByteWriter(capacity: byteCount(self))
        for part in self { writer.write(part) }
        return writer.finish()
    }
}

/// Memory of our own: allocated once, in one piece with its owner, never moved, freed with its last
/// user.
public final class ByteStorage: ManagedBuffer<Int, UInt8> {
    // Written only by its creator, before the first Bytes refers to the written part.

    /// Room for `capacity` bytes, at least 1.
    @inlinable
    public static func make(capacity: Int) -> ByteStorage {
        let capacity = max(capacity, 1)
        let made = ByteStorage.create(minimumCapacity: capacity) { _ in capacity }
        return unsafeDowncast(made, to: ByteStorage.self)
    }

    /// No room at all.
    @usableFromInline
    // Safety: it has no bytes that could be written.
    nonisolated(unsafe) static let none = unsafeDowncast(
        ByteStorage.create(minimumCapacity: 1) { _ in 0 }, to: ByteStorage.self)

    /// How many bytes were asked for.
    ///
    /// Through its pointer: an access to `header` would be checked for overlapping ones at run
    /// time, once per integer that a writer writes.
    @inlinable public var byteCapacity: Int { withUnsafeMutablePointerToHeader { $0.pointee } }

    /// Valid as long as somebody holds the storage.
    @inlinable
    public var base: UnsafeMutableRawPointer {
        withUnsafeMutablePointerToElements { UnsafeMutableRawPointer($0) }
    }

    /// `base`, for somebody who frees memory by its address: valid until `release(base:)`.
    package func retainedBase() -> UnsafeMutableRawPointer {
        _ = Unmanaged.passRetained(self)
        return base
    }

    /// Gives back what `retainedBase` gave out.
    package static func release(base: UnsafeMutableRawPointer) {
        Unmanaged<ByteStorage>.fromOpaque(base - baseOffset).release()
    }

    /// From an object to its bytes: the same for all of a class whose head has one size.
    private static let baseOffset = {
        let some = make(capacity: 1)
        return some.base - Unmanaged.passUnretained(some).toOpaque()
    }()
}
