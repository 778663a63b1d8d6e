// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Primitives

/// A write of several parts without joining them.
enum GatheredWrite {
    /// Parts of one writev(2): as many as the stack has room for.
    private static let partsMax = 64

    /// Writes `body` without its first `written` bytes, where the file's position is.
    static func write(
        _ body: [Bytes], from written: Int, to file: OpenFile
    ) throws(FolderError) {
        var parts = PartReader(body)
        parts.skip(written)
        let failure = withUnsafeTemporaryAllocation(of: iovec.self, capacity: partsMax) {
            write(&parts, to: file, by: $0)
        }
        if let failure { throw failure }
    }

    private static func write(
        _ parts: inout PartReader, to file: OpenFile, by vectors: UnsafeMutableBufferPointer<iovec>
    ) -> FolderError? {
        while true {
            let count = parts.point(vectors)
            if count == 0 { return nil }
            let written = writev(file.descriptor, vectors.baseAddress, Int32(count))
            if written < 0, errno == EINTR { continue }
            guard written >= 0 else { return FolderError("write") }
            parts.skip(written)
        }
    }
}

/// The bytes of several parts, one after another.
struct PartReader {
    private let parts: [Bytes]
    /// The first part of which bytes are left, if any is, and how many of it were taken.
    private var part = 0
    private var offset = 0

    init(_ parts: [Bytes]) {
        self.parts = parts
        skip(0)
    }

    /// Moves on by `count` bytes, which there must be.
    mutating func skip(_ count: Int) {
        offset += count
        while part < parts.count, offset >= parts[part].count {
            offset -= parts[part].count
            part += 1
        }
    }

    /// What is left of the part that comes next; empty behind the last one.
    var rest: Bytes { part < parts.count ? parts[part].dropFirst(offset) : Bytes() }

    /// Copies the next `count` bytes, which there must be.
    mutating func copy(_ count: Int, to target: UnsafeMutableRawPointer) {
        var copied = 0
        while copied < count {
            let rest = rest.prefix(count - copied)
            rest.withUnsafeBytes { bytes in
                UnsafeMutableRawBufferPointer(start: target + copied, count: bytes.count)
                    .copyMemory(from: bytes)
            }
            copied += rest.count
            skip(rest.count)
        }
    }

    /// Points `vectors` to the next bytes, as far as they suffice, and returns how many are used.
    /// The reader keeps the bytes.
    func point(_ vectors: UnsafeMutableBufferPointer<iovec>) -> Int {
        var count = 0
        var offset = offset
        for part in parts[part...] where count < vectors.count {
            if part.count > offset {
                vectors[count] = iovec(
                    iov_base: UnsafeMutableRawPointer(mutating: part.base + offset),
                    iov_len: part.count - offset)
                count += 1
            }
            offset = 0
        }
        return count
    }
}
