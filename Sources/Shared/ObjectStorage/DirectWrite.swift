// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Primitives
private import Synchronization

/// What a folder store writes without copying it: of an object of `objectBytesMin` bytes and more,
/// parts that begin at a block's boundary, both in memory and in the object, as far as they are
/// whole blocks.
package enum DirectPart {
    package static let objectBytesMin = 1 << 20
    /// What disks are given whole: as much as common ones want, or a multiple of it. One that wants
    /// more refuses the first piece.
    package static let blockBytes = 4_096
    /// Less than this in one piece is gathered with what follows.
    package static let bytesMin = 64 << 10
}

/// Writes most of a large object past the page cache.
///
/// What is written the usual way is copied into pages that the kernel has to find first: half and
/// more of what a large object costs. Here the disk takes the object from where it lies. Parts that
/// lie as no disk would take them are gathered first, in a buffer that is used again and again. A
/// small object gains nothing: it waits for the sync.
///
/// The disk takes whole blocks. So this writes those that an object begins with, and says how far
/// it came: the rest, at least what is less than a block, goes the usual way. The file never has a
/// hole, and is never longer than what it is to hold. Where a file system cannot do it, nothing is
/// written here, and it is not tried again.
final class DirectWriter: Sendable {
    /// What is gathered at once. A store keeps as many such buffers as it ever gathered objects at
    /// once: none to begin with, and at most one for each of its threads.
    static let bufferBytes = 512 << 10

    private let calls: DirectCalls
    private let isSupported = Atomic<Bool>(true)
    private let idle = Mutex<[BlockBuffer]>([])

    init(calls: DirectCalls) { self.calls = calls }

    /// Writes `body`, from its start, to a file that is empty, and returns how many bytes it wrote:
    /// the file ends there, and a usual write goes on there.
    func write(_ body: [Bytes], to file: OpenFile) throws(FolderError) -> Int {
        let size = byteCount(body)
        guard size >= DirectPart.objectBytesMin, isSupported.load(ordering: .relaxed) else {
            return 0
        }
        guard calls.setDirect(file.descriptor, true) else {
            isSupported.store(false, ordering: .relaxed)
            return 0
        }
        var buffer: BlockBuffer?
        defer { if let buffer { idle.withLock { $0.append(buffer) } } }
        let written = try write(
            size - size % DirectPart.blockBytes, of: body, by: &buffer, to: file)
        guard calls.setDirect(file.descriptor, false) else { throw FolderError("fcntl") }
        return written
    }

    /// Writes `end` bytes, which are whole blocks; fewer if a piece is taken in part, or is none
    /// that the disk can take.
    private func write(
        _ end: Int, of body: [Bytes], by buffer: inout BlockBuffer?, to file: OpenFile
    ) throws(FolderError) -> Int {
        var parts = PartReader(body)
        var written = 0
        while written < end {
            let wanted: Int
            let count: Int
            if let piece = piece(parts.rest, end - written) {
                wanted = piece.count
                parts.skip(wanted)
                count = writeOnce(wanted, at: piece.base, to: file)
            } else {
                wanted = min(Self.bufferBytes, end - written)
                let gathered = buffer ?? idle.withLock { $0.popLast() } ?? BlockBuffer()
                buffer = gathered
                parts.copy(wanted, to: gathered.base)
                count = writeOnce(wanted, at: UnsafeRawPointer(gathered.base), to: file)
            }
            guard count >= 0 else {
                guard errno == EINVAL else { throw FolderError("write") }
                if written == 0 { isSupported.store(false, ordering: .relaxed) }
                return written
            }
            written += count
            if count < wanted { return written }
        }
        return written
    }

    /// What the disk takes of `part` as it lies, at most `limit` bytes; nil if that is little.
    private func piece(_ part: Bytes, _ limit: Int) -> Bytes? {
        let count = min(part.count, limit)
        let piece = part.prefix(count - count % DirectPart.blockBytes)
        let isAtBoundary = Int(bitPattern: piece.base) % DirectPart.blockBytes == 0
        return isAtBoundary && piece.count >= DirectPart.bytesMin ? piece : nil
    }

    private func writeOnce(_ count: Int, at bytes: UnsafeRawPointer, to file: OpenFile) -> Int {
        while true {
            let written = calls.write(file.descriptor, bytes, count)
            if written >= 0 || errno != EINTR { return written }
        }
    }
}

/// What a direct write asks of the kernel, so that tests can answer otherwise.
package struct DirectCalls: Sendable {
    /// Makes writes to an open file direct or usual ones; false if that failed, as `errno` says.
    package var setDirect: @Sendable (_ descriptor: Int32, _ isDirect: Bool) -> Bool
    /// write(2).
    package var write: @Sendable (_ descriptor: Int32, UnsafeRawPointer, _ count: Int) -> Int

    package static let system = DirectCalls(
        // Of the flags that can be set, our files have no other.
        setDirect: { fcntl($0, F_SETFL, $1 ? direct : 0) == 0 },
        write: { Glibc.write($0, $1, $2) })

    /// O_DIRECT of fcntl.h, which Swift does not import.
    #if arch(arm64) || arch(arm)
        static let direct: Int32 = 0o200_000
    #else
        static let direct: Int32 = 0o40_000
    #endif
}

/// Memory that a disk can be given, cleared by nobody.
// Safety: who takes a buffer out of the pool has it alone, and puts it back after its last use.
private final class BlockBuffer: @unchecked Sendable {
    let base = UnsafeMutableRawPointer.allocate(
        byteCount: DirectWriter.bufferBytes, alignment: DirectPart.blockBytes)

    deinit { base.deallocate() }
}
