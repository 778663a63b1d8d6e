// SPDX-License-Identifier: Apache-2.0

import Primitives

/// Pieces of bytes in large buffers, as reads of a socket leave them, and what is held of those.
final class ReadBuffers {
    private struct Buffer {
        weak var storage: ByteStorage?
    }
    private let capacity: Int
    private var buffers: [Buffer] = []

    init(capacity: Int = 65_536) { self.capacity = capacity }

    /// `bytes` in a buffer of their own.
    func read(_ bytes: Bytes) -> Bytes {
        let storage = ByteStorage.make(capacity: max(capacity, bytes.count))
        bytes.withUnsafeBytes { source in
            UnsafeMutableRawBufferPointer(start: storage.base, count: bytes.count)
                .copyMemory(from: source)
        }
        buffers.append(Buffer(storage: storage))
        return Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: bytes.count)
    }

    /// Bytes of the buffers that somebody still holds.
    var heldBytes: Int { buffers.reduce(0) { $0 + ($1.storage?.byteCapacity ?? 0) } }
}
