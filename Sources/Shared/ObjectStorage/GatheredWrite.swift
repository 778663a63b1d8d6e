// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Primitives

/// A write of several parts without joining them.
enum GatheredWrite {
    /// The most that writev(2) takes at once on Linux.
    private static let partsMax = 1_024

    /// Writes `body` without its first `written` bytes, where the file's position is.
    static func write(
        _ body: [Bytes], from written: Int, to file: OpenFile
    ) throws(FolderError) {
        var vectors = body.filter { !$0.isEmpty }.map { part in
            iovec(iov_base: UnsafeMutableRawPointer(mutating: part.base), iov_len: part.count)
        }
        defer { withExtendedLifetime(body) {} }
        var first = skip(written, in: &vectors, from: 0)
        while first < vectors.count {
            let count = min(vectors.count - first, partsMax)
            let written = vectors.withUnsafeBufferPointer { all in
                writev(file.descriptor, all.baseAddress.map { $0 + first }, Int32(count))
            }
            if written < 0, errno == EINTR { continue }
            guard written >= 0 else { throw FolderError("write") }
            first = skip(written, in: &vectors, from: first)
        }
    }

    /// Leaves out what was written; returns the first vector that is not.
    private static func skip(_ written: Int, in vectors: inout [iovec], from first: Int) -> Int {
        var first = first
        var left = written
        while first < vectors.count, left >= vectors[first].iov_len {
            left -= vectors[first].iov_len
            first += 1
        }
        if left > 0 {
            vectors[first].iov_base += left
            vectors[first].iov_len -= left
        }
        return first
    }
}
