// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Primitives
internal import RPC

/// The file of a unix domain socket that this process listens on.
///
/// Nobody but the process's own user can connect, from the first moment: the file is made with mode
/// 0600. A file that a dead process left behind is replaced; one that somebody listens on, or that
/// is no socket, is left alone. The folder is locked while one looks and replaces, so that of
/// several who find the same old file one makes the new one and the others find it in use.
struct SocketFile {
    private let path: String
    private let device: dev_t
    private let number: ino_t

    /// What a socket's address has room for, besides the 0 at its end.
    static let pathBytesMax = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1
    private static let scheme = "unix:"
    /// Connections that wait to be accepted.
    private static let backlog: Int32 = 1_024

    /// The path of `unix:/path`; nil for addresses of other kinds.
    static func path(of address: String) throws(NetworkError) -> String? {
        guard address.hasPrefix(scheme + "/") else { return nil }
        let path = String(address.dropFirst(scheme.count))
        guard path.utf8.count <= pathBytesMax else {
            throw NetworkError(
                "the path of \(address) is \(path.utf8.count) bytes long, but a socket's path has"
                    + " at most \(pathBytesMax)")
        }
        guard !path.utf8.contains(0) else { throw NetworkError("a path has a zero byte") }
        return path
    }

    /// A path as a socket's address; it is no longer than such a path may be.
    static func address(_ path: String) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return address
    }

    /// Makes the file; the descriptor listens, and is the caller's.
    static func listen(
        _ path: String, _ loop: any Loop
    ) async throws(NetworkError) -> (file: SocketFile, descriptor: Int32) {
        let lock = try await lockFolder(of: path, loop)
        defer { close(lock) }
        try makeRoom(path)
        let descriptor = try make()
        do throws(NetworkError) {
            return (try bind(descriptor, path), descriptor)
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// Removes the file, unless it is another's by now. To be called while the socket listens: so
    /// long nobody takes the file for a dead one's. A file that cannot be removed is replaced by
    /// the next who listens there.
    func remove() {
        guard let found = Self.status(path), found.st_dev == device, found.st_ino == number
        else { return }
        unlink(path)
    }

    private static func bind(
        _ descriptor: Int32, _ path: String
    ) throws(NetworkError) -> SocketFile {
        // Linux makes the file with the mode that the socket has.
        guard fchmod(descriptor, 0o600) == 0 else { throw error("the mode of", path) }
        guard (withAddress(path) { Glibc.bind(descriptor, $0, $1) }) == 0 else {
            throw error("listening at", path)
        }
        guard let found = status(path), found.st_mode & 0o077 == 0,
            Glibc.listen(descriptor, backlog) == 0
        else {
            let error = error("listening at", path)
            unlink(path)
            throw error
        }
        return SocketFile(path: path, device: found.st_dev, number: found.st_ino)
    }

    /// Removes what a dead process left at `path`.
    private static func makeRoom(_ path: String) throws(NetworkError) {
        guard let found = status(path) else { return }
        guard found.st_mode & S_IFMT == S_IFSOCK else {
            throw NetworkError("unix:\(path) is not a socket, and left alone")
        }
        let probe = try make()
        defer { close(probe) }
        let isTaken = withAddress(path) { connect(probe, $0, $1) } == 0
        // A listener whose queue is full is alive.
        if isTaken || errno == EAGAIN {
            throw NetworkError("unix:\(path) is in use: another process listens there")
        }
        switch errno {
        case ENOENT: return
        case ECONNREFUSED:
            guard unlink(path) == 0 || errno == ENOENT else { throw error("removing", path) }
        default: throw error("asking who listens at", path)
        }
    }

    /// Waits for the lock for some seconds; others hold it for moments.
    private static func lockFolder(
        of path: String, _ loop: any Loop
    ) async throws(NetworkError) -> Int32 {
        let end = path.lastIndex(of: "/") ?? path.startIndex
        let folder = end == path.startIndex ? "/" : String(path[..<end])
        let file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard file >= 0 else { throw error("the folder of", path) }
        for _ in 0..<500 {
            if flock(file, LOCK_EX | LOCK_NB) == 0 { return file }
            guard errno == EWOULDBLOCK else { break }
            await loop.sleep(.milliseconds(10))
        }
        let error = error("locking the folder of", path)
        close(file)
        throw error
    }

    private static func make() throws(NetworkError) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else {
            throw NetworkError("a socket: \(String(cString: strerror(errno)))")
        }
        return descriptor
    }

    /// Of the file itself, also where it is a link.
    private static func status(_ path: String) -> stat? {
        var found = stat()
        return lstat(path, &found) == 0 ? found : nil
    }

    private static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = address(path)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    private static func error(_ what: String, _ path: String) -> NetworkError {
        NetworkError("\(what) unix:\(path): \(String(cString: strerror(errno)))")
    }
}
