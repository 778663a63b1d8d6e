// SPDX-License-Identifier: Apache-2.0

internal import CopRole
internal import Glibc
internal import Shared

/// The folder in which the processes that cop starts make their sockets.
enum SocketFolder {
    /// Makes the folder, for this user alone, where it is missing. One that others might write to
    /// is refused: they could put sockets of their own in the place of ours.
    static func prepare(_ path: String) throws(CommandError) {
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw CommandError(.failure, "\(path): \(String(cString: strerror(errno)))")
        }
        var found = stat()
        guard stat(path, &found) == 0 else {
            throw CommandError(.failure, "\(path): \(String(cString: strerror(errno)))")
        }
        guard found.st_mode & S_IFMT == S_IFDIR, found.st_uid == geteuid(),
            found.st_mode & 0o022 == 0
        else {
            throw CommandError(
                .failure,
                "\(path), of \(Setting.rpcSockets.option), is no folder that only this user may"
                    + " write to")
        }
    }
}
