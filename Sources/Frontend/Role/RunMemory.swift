// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// Memory for runs of batches on their way to channels, which is written again once nobody refers
/// to it any more.
///
/// Runs are answered in about the order in which they were sent: only the oldest memory is looked
/// at.
struct RunMemory {
    /// So much is kept at most, about one stream's window.
    static let bytesMax = 6 << 20
    /// Less is quickly had anew.
    static let keptBytesMin = 4 << 10

    private var kept: Deque<ByteStorage> = []
    private(set) var keptBytes = 0

    /// Memory of `count` bytes and at most a quarter more, which nobody else refers to.
    mutating func take(_ count: Int) -> ByteStorage {
        guard count >= Self.keptBytesMin else { return ByteStorage.make(capacity: count) }
        if var oldest = kept.popFirst() {
            if !isKnownUniquelyReferenced(&oldest) {
                kept.prepend(oldest)
            } else if (count...count + count / 4).contains(oldest.byteCapacity) {
                kept.append(oldest)
                return oldest
            } else {
                keptBytes -= oldest.byteCapacity
            }
        }
        let made = ByteStorage.make(capacity: count)
        if keptBytes + count <= Self.bytesMax {
            kept.append(made)
            keptBytes += count
        }
        return made
    }
}
