// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Primitives

/// The token that may do everything, in a file that only its owner can read.
package enum RootToken {
    /// The file's token; makes a random one where there is no file. Several processes may do this
    /// at once: all get the same token.
    package static func load(path: String) throws(ProcessError) -> String {
        if let token = try read(path) { return token }
        try create(path)
        guard let token = try read(path) else {
            throw ProcessError("\(path) is gone as soon as it was made")
        }
        return token
    }

    private static func read(_ path: String) throws(ProcessError) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw ProcessError(path, errno: errno)
        }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw ProcessError(path, errno: errno) }
        guard status.st_mode & 0o077 == 0 else {
            throw ProcessError("\(path) may be read by others than its owner: chmod 600 it")
        }
        var bytes = [UInt8](repeating: 0, count: 4_096)
        let count = Glibc.read(file, &bytes, bytes.count)
        guard count >= 0 else { throw ProcessError(path, errno: errno) }
        let line = bytes.prefix(count).prefix { $0 != UInt8(ascii: "\n") }
        guard !line.isEmpty, line.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw ProcessError("\(path) does not hold a token on its first line")
        }
        return String(decoding: line, as: UTF8.self)
    }

    /// The file appears whole or not at all.
    private static func create(_ path: String) throws(ProcessError) {
        let token = ID128(random: RandomSource.system()).description + "\n"
        let temporary = "\(path).\(getpid())"
        unlink(temporary)
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw ProcessError(temporary, errno: errno) }
        defer { unlink(temporary) }
        let written = token.utf8.withContiguousStorageIfAvailable {
            write(file, $0.baseAddress, $0.count) == $0.count && fsync(file) == 0
        }
        let problem = errno
        close(file)
        guard written == true else { throw ProcessError(temporary, errno: problem) }
        guard link(temporary, path) == 0 || errno == EEXIST else {
            throw ProcessError(path, errno: errno)
        }
        try syncFolder(of: path)
    }

    /// A token that was told to clients must not be another one after a crash.
    private static func syncFolder(of path: String) throws(ProcessError) {
        var folder = "."
        if let slash = path.lastIndex(of: "/") { folder = String(path[...slash]) }
        let opened = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard opened >= 0 else { throw ProcessError(folder, errno: errno) }
        defer { close(opened) }
        guard fsync(opened) == 0 else { throw ProcessError(folder, errno: errno) }
    }
}

/// Why a process cannot start or go on.
package struct ProcessError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }

    package init(_ what: String, errno: Int32) {
        self.init("\(what): \(String(cString: strerror(errno)))")
    }
}
