// SPDX-License-Identifier: Apache-2.0

internal import CSupport
internal import Glibc
internal import Primitives
private import Synchronization

/// The files of a folder store; every call blocks.
///
/// An object is written to a file without a name, which is made durable and only then linked to
/// its own: it appears whole or not at all, the link tells which of several creators was first,
/// and a crash leaves nothing. Where a file system has no nameless files, and where an object is
/// replaced, the file has a name in `#temporary` meanwhile; what a crash leaves there is removed
/// by the next start that finds it old.
///
/// Who is told that an object exists may rely on it. Therefore the folder is made durable before a
/// put ends, also one that found an object which another writer may just have linked.
final class FolderTree: Sendable {
    let root: OpenFile
    private let isDurable: Bool
    private let temporary: OpenFile
    /// In front of the names in `#temporary`: no other process has the same.
    private let temporaryPrefix: String
    private let temporaryCount = Atomic<UInt64>(0)
    private let nameless: NamelessFiles
    private let direct: DirectWriter
    private let directories = DirectoryCache(limit: 32)
    /// How often a put makes its folder anew because a delete emptied and removed it.
    private static let vanishedMax = 100

    /// Opens the folder, and makes it where it is missing.
    init(path: String, isDurable: Bool, directCalls: DirectCalls) throws(FolderError) {
        direct = DirectWriter(calls: directCalls)
        try Self.makeDirectories(path, isDurable: isDurable)
        root = try OpenFile.directory(path)
        self.isDurable = isDurable
        if mkdirat(root.descriptor, FolderPath.temporaryDirectory, 0o700) != 0, errno != EEXIST {
            throw FolderError("mkdir")
        }
        temporary = try OpenFile.directory(FolderPath.temporaryDirectory, in: root)
        nameless = NamelessFiles(in: temporary)
        if isDurable { try root.sync() }
        var generator = SystemRandomNumberGenerator()
        temporaryPrefix = String(generator.next(), radix: 16)
    }

    func put(_ key: String, _ body: [Bytes], ifAbsent: Bool) throws(StoreError) -> PutResult {
        let path = FolderPath(key: key)
        for _ in 0..<Self.vanishedMax {
            let directory: OpenFile
            do throws(FolderError) {
                directory = try self.directory(path.directory)
            } catch {
                guard error.isMissing else { throw error.storeError(key) }
                directories.forget(path.directory)
                continue
            }
            var isLinked = false
            do throws(FolderError) {
                let result =
                    ifAbsent
                    ? try create(path, in: directory, body)
                    : try replace(path, in: directory, body)
                isLinked = result == .created
                if isDurable { try directory.sync() }
                return result
            } catch {
                // The folder became empty and was removed meanwhile.
                guard error.isMissing, !isLinked else {
                    throw error.storeError(key, outcomeUnknown: isLinked)
                }
                directories.forget(path.directory)
            }
        }
        throw StoreError(.unavailable, "the folder of \(key) vanished again and again")
    }

    func get(_ key: String, range: Range<Int>?) throws(StoreError) -> ObjectSlice {
        do throws(FolderError) {
            let file = try OpenFile(FolderPath(key: key).whole, in: root, flags: O_RDONLY)
            var status = stat()
            guard fstat(file.descriptor, &status) == 0 else { throw FolderError("stat") }
            let size = Int(status.st_size)
            let wanted = range ?? 0..<size
            if range == nil || wanted.lowerBound < size {
                let bytes = try Self.read(file, wanted.lowerBound..<min(wanted.upperBound, size))
                return ObjectSlice(bytes: bytes, objectSize: size)
            }
        } catch {
            throw error.storeError(key)
        }
        throw StoreError(.rangeNotSatisfiable, "\(key) ends before the range begins")
    }

    func head(_ key: String) throws(StoreError) -> ObjectInfo? {
        do throws(FolderError) {
            return try info(key, at: FolderPath(key: key).whole)
        } catch {
            throw error.storeError(key)
        }
    }

    /// Nil where there is no file.
    func info(_ key: String, at path: String) throws(FolderError) -> ObjectInfo? {
        var status = stat()
        guard fstatat(root.descriptor, path, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
            let error = FolderError("stat")
            if error.isMissing { return nil }
            throw error
        }
        let time = status.st_mtim
        // A file may bear any time: taken are the years 1970 to 9999.
        let seconds = UInt64(min(max(time.tv_sec, 0), 253_402_300_799))
        return ObjectInfo(
            key: key, size: Int(status.st_size),
            modifiedMilliseconds: seconds * 1_000 + UInt64(time.tv_nsec) / 1_000_000)
    }

    func delete(_ key: String) throws(StoreError) {
        let path = FolderPath(key: key)
        var isUnlinked = false
        do throws(FolderError) {
            let directory = try OpenFile.directory(String(path.directory), in: root)
            let code = path.withName { unlinkat(directory.descriptor, $0, 0) }
            guard code == 0 else { throw FolderError("unlink") }
            isUnlinked = true
            if isDurable { try directory.sync() }
        } catch {
            if error.isMissing { return }
            throw error.storeError(key, outcomeUnknown: isUnlinked)
        }
        removeEmpty(path.directory)
    }

    /// Removes files that a crash left in `#temporary` more than `age` seconds ago.
    func removeTemporary(olderThanSeconds age: Int) throws(FolderError) -> Int {
        var removed = 0
        let oldest = Int(SystemClock.wallMilliseconds / 1_000) - age
        for name in try DirectoryNames.of(FolderPath.temporaryDirectory, in: root) {
            let name = String(decoding: name, as: UTF8.self)
            var status = stat()
            guard fstatat(temporary.descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0,
                status.st_mode & S_IFMT == S_IFREG, status.st_mtim.tv_sec < oldest,
                unlinkat(temporary.descriptor, name, 0) == 0
            else { continue }
            removed += 1
        }
        return removed
    }

    private func create(
        _ path: FolderPath, in directory: OpenFile, _ body: [Bytes]
    ) throws(FolderError) -> PutResult {
        guard let file = try nameless.make() else {
            return try createNamed(path, in: directory, body)
        }
        try write(body, to: file)
        let code = path.withName {
            millrace_link_nameless(file.descriptor, directory.descriptor, $0)
        }
        if code == 0 { return .created }
        let error = FolderError("link")
        if error.isPresent { return .exists }
        // Without /proc the link fails like one into a folder that was removed: the other way
        // tells the two apart.
        guard error.isUnsupported else { throw error }
        return try createNamed(path, in: directory, body)
    }

    private func createNamed(
        _ path: FolderPath, in directory: OpenFile, _ body: [Bytes]
    ) throws(FolderError) -> PutResult {
        let other = try writeTemporary(body)
        defer { unlinkat(temporary.descriptor, other, 0) }
        let code = path.withName {
            linkat(temporary.descriptor, other, directory.descriptor, $0, 0)
        }
        if code == 0 { return .created }
        let error = FolderError("link")
        guard error.isPresent else { throw error }
        return .exists
    }

    private func replace(
        _ path: FolderPath, in directory: OpenFile, _ body: [Bytes]
    ) throws(FolderError) -> PutResult {
        let other = try writeTemporary(body)
        let code = path.withName {
            renameat(temporary.descriptor, other, directory.descriptor, $0)
        }
        guard code == 0 else {
            let error = FolderError("rename")
            unlinkat(temporary.descriptor, other, 0)
            throw error
        }
        return .created
    }

    private func writeTemporary(_ body: [Bytes]) throws(FolderError) -> String {
        let number = temporaryCount.wrappingAdd(1, ordering: .relaxed).newValue
        let name = "\(temporaryPrefix)-\(number)"
        let file = try OpenFile(name, in: temporary, flags: O_WRONLY | O_CREAT | O_EXCL)
        do throws(FolderError) {
            try write(body, to: file)
        } catch {
            unlinkat(temporary.descriptor, name, 0)
            throw error
        }
        return name
    }

    private func write(_ body: [Bytes], to file: OpenFile) throws(FolderError) {
        // What need not be durable is quickest left in the page cache.
        let written = isDurable ? try direct.write(body, to: file) : 0
        try GatheredWrite.write(body, from: written, to: file)
        if isDurable { try file.syncData() }
    }

    private static func read(_ file: OpenFile, _ range: Range<Int>) throws(FolderError) -> Bytes {
        let storage = ByteStorage.make(capacity: range.count)
        var count = 0
        while count < range.count {
            let n = pread(
                file.descriptor, storage.base + count, range.count - count,
                off_t(range.lowerBound + count))
            if n < 0, errno == EINTR { continue }
            guard n >= 0 else { throw FolderError("read") }
            guard n > 0 else { break }
            count += n
        }
        return Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: count)
    }

    /// The open folder at `path`, made where missing, and durable in its parent.
    private func directory(_ path: Substring) throws(FolderError) -> OpenFile {
        if path.isEmpty { return root }
        if let known = directories.find(path) { return known }
        let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
        let parent = try directory(slash.map { path[..<$0] } ?? "")
        let name = String(slash.map { path[path.utf8.index(after: $0)...] } ?? path)
        if mkdirat(parent.descriptor, name, 0o700) != 0, errno != EEXIST {
            throw FolderError("mkdir")
        }
        let opened = try OpenFile.directory(name, in: parent)
        // Whoever made it may not have come that far yet.
        if isDurable { try parent.sync() }
        directories.keep(opened, at: String(path))
        return opened
    }

    /// Removes `path` and the folders above it, as far as they are empty.
    private func removeEmpty(_ path: Substring) {
        var path = path
        while !path.isEmpty, unlinkat(root.descriptor, String(path), AT_REMOVEDIR) == 0 {
            directories.forget(path)
            let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
            path = slash.map { path[..<$0] } ?? ""
        }
    }

    /// Makes the folders of `path` that are missing, each durable in its parent.
    private static func makeDirectories(
        _ path: String, isDurable: Bool
    ) throws(FolderError) {
        var end = path.startIndex
        while end != path.endIndex {
            let start = end
            let rest = path[path.index(after: end)...]
            end = rest.firstIndex(of: "/") ?? path.endIndex
            let isNew = mkdir(String(path[..<end]), 0o700) == 0
            guard isNew || errno == EEXIST || errno == EISDIR else { throw FolderError("mkdir") }
            guard isDurable else { continue }
            let parent = path[..<start]
            do throws(FolderError) {
                try OpenFile.directory(path.hasPrefix("/") ? "/\(parent)" : String(parent)).sync()
            } catch {
                // Whoever made it may not have come that far yet; but one that has been there for
                // long may be in a folder that we may not open.
                if isNew { throw error }
            }
        }
    }
}

/// Folders that writers keep open, the least recently used closed first.
private final class DirectoryCache: Sendable {
    /// The most recently used first: nearly always the one that is asked for.
    private let entries = Mutex<[(path: String, directory: OpenFile)]>([])
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    func find(_ path: Substring) -> OpenFile? {
        entries.withLock { entries in
            let found = entries.firstIndex { $0.path.utf8.elementsEqual(path.utf8) }
            guard let found else { return nil }
            if found > 0 { entries.insert(entries.remove(at: found), at: 0) }
            return entries[0].directory
        }
    }

    func keep(_ directory: OpenFile, at path: String) {
        entries.withLock { entries in
            entries.removeAll { $0.path == path }
            entries.insert((path, directory), at: 0)
            if entries.count > limit { entries.removeLast() }
        }
    }

    /// Forgets the folder at `path` and those above it.
    func forget(_ path: Substring) {
        entries.withLock { entries in
            entries.removeAll { known, _ in
                path.utf8.elementsEqual(known.utf8) || path.utf8.starts(with: "\(known)/".utf8)
            }
        }
    }
}
