// SPDX-License-Identifier: Apache-2.0

internal import CacheyRole
internal import Glibc
internal import Shared

/// A cachey's blocks as files of one folder, which no other process may use.
///
/// Calls run on a few threads and may end in any order. Nothing is flushed to the medium: what a
/// crash takes is fetched again.
final class FolderDisk: PageDisk {
    private let path: String
    private let threads: WorkerThreads
    /// Held as long as the process lives.
    private let lock: Int32
    private static let prefix = "block-"

    /// Opens the folder at `path`, and makes it where it is missing. Blocks.
    init(path: String, threads: Int = 4, queuedMax: Int = 256) throws(DiskError) {
        self.path = path
        try Self.makeFolder(path)
        lock = open("\(path)/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw DiskError("\(path)/lock", errno: errno) }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            let problem = errno
            close(lock)
            throw DiskError("another process uses \(path)", errno: problem)
        }
        do throws(StoreError) {
            self.threads = try WorkerThreads(threads: threads, queuedMax: queuedMax)
        } catch {
            close(lock)
            throw DiskError(error.description)
        }
    }

    deinit { close(lock) }

    func blocks() async throws(DiskError) -> [DiskBlock] {
        try await run { path throws(DiskError) in
            guard let folder = opendir(path) else { throw DiskError(path, errno: errno) }
            defer { closedir(folder) }
            var found: [DiskBlock] = []
            while let entry = readdir(folder) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                guard name.hasPrefix(Self.prefix),
                    let number = UInt64(name.dropFirst(Self.prefix.count))
                else { continue }
                var status = stat()
                guard fstatat(dirfd(folder), name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
                    throw DiskError(name, errno: errno)
                }
                found.append(DiskBlock(number: number, bytes: Int(status.st_size)))
            }
            return found
        }
    }

    func write(_ parts: [Bytes], block: UInt64, offset: Int) async throws(DiskError) {
        try await run { path throws(DiskError) in
            let name = Self.file(path, block)
            let file = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            guard file >= 0 else { throw DiskError(name, errno: errno) }
            defer { close(file) }
            var at = offset
            for part in parts {
                let problem = part.withUnsafeBytes { Self.write($0, file, at) }
                guard problem == 0 else { throw DiskError(name, errno: problem) }
                at += part.count
            }
        }
    }

    func read(block: UInt64, _ range: Range<Int>) async throws(DiskError) -> Bytes {
        try await run { path throws(DiskError) in
            let name = Self.file(path, block)
            let file = open(name, O_RDONLY | O_CLOEXEC)
            guard file >= 0 else { throw DiskError(name, errno: errno) }
            defer { close(file) }
            let storage = ByteStorage.make(capacity: range.count)
            var count = 0
            while count < range.count {
                let got = pread(
                    file, storage.base + count, range.count - count, range.lowerBound + count)
                if got < 0 && errno == EINTR { continue }
                guard got >= 0 else { throw DiskError(name, errno: errno) }
                if got == 0 { break }
                count += got
            }
            return Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: count)
        }
    }

    func remove(block: UInt64) async throws(DiskError) {
        try await run { path throws(DiskError) in
            let name = Self.file(path, block)
            guard unlink(name) == 0 || errno == ENOENT else { throw DiskError(name, errno: errno) }
        }
    }

    // MARK: Files

    private static func file(_ path: String, _ block: UInt64) -> String {
        "\(path)/\(prefix)\(block)"
    }

    private static func makeFolder(_ path: String) throws(DiskError) {
        var made = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            made += part + "/"
            guard mkdir(made, 0o700) == 0 || errno == EEXIST else {
                throw DiskError(made, errno: errno)
            }
        }
    }

    /// Writes all of `bytes`, or says which error stopped it.
    private static func write(_ bytes: UnsafeRawBufferPointer, _ file: Int32, _ offset: Int)
        -> Int32
    {
        var (rest, at) = (bytes, offset)
        while !rest.isEmpty {
            let count = pwrite(file, rest.baseAddress, rest.count, at)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return count == 0 ? ENOSPC : errno }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            at += count
        }
        return 0
    }

    /// Runs `work` on one of the threads; the caller goes on where it was.
    private func run<Value: Sendable>(
        _ work: @escaping @Sendable (String) throws(DiskError) -> Value
    ) async throws(DiskError) -> Value {
        let result: Result<Value, DiskError> = await withUnsafeContinuation { waiter in
            let isAccepted = threads.submit { [path] in
                do throws(DiskError) {
                    waiter.resume(returning: .success(try work(path)))
                } catch {
                    waiter.resume(returning: .failure(error))
                }
            }
            if !isAccepted {
                waiter.resume(returning: .failure(DiskError("too many calls wait for the disk")))
            }
        }
        return try result.get()
    }
}

extension DiskError {
    fileprivate init(_ what: String, errno: Int32) {
        self.init("\(what): \(String(cString: strerror(errno)))")
    }
}
