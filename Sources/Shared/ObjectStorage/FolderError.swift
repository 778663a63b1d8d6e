// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// A system call that failed.
struct FolderError: Error {
    let code: Int32
    let call: String

    /// The calling thread's last failure.
    init(_ call: String) {
        code = errno
        self.call = call
    }

    var isMissing: Bool { code == ENOENT }
    var isPresent: Bool { code == EEXIST }
    /// The file system cannot do it; another way may work.
    var isUnsupported: Bool {
        [EOPNOTSUPP, EISDIR, EINVAL, ENOSYS, EXDEV, EPERM, ENOENT].contains(code)
    }

    func storeError(_ key: String, outcomeUnknown: Bool = false) -> StoreError {
        let text = "\(call) of \(key): \(String(cString: strerror(code)))"
        return StoreError(kind, outcomeUnknown: outcomeUnknown, text)
    }

    private var kind: StoreError.Kind {
        switch code {
        case ENOENT: .notFound
        case EACCES, EPERM: .denied
        case ENAMETOOLONG: .invalidRequest
        case EMFILE, ENFILE, ENOMEM, EAGAIN, EBUSY: .unavailable
        // A full disk, a broken one, one mounted for reading, and all that nobody expects.
        default: .failed
        }
    }
}

/// An open file or folder, closed with its last user.
final class OpenFile: Sendable {
    let descriptor: Int32

    init(adopting descriptor: Int32) { self.descriptor = descriptor }

    /// Opens `path`, which is relative to `directory`.
    init(
        _ path: String, in directory: OpenFile? = nil, flags: Int32, mode: mode_t = 0o600
    ) throws(FolderError) {
        while true {
            // A string that is passed as it is would be copied to the heap.
            let opened = path.withCString {
                openat(directory?.descriptor ?? AT_FDCWD, $0, flags | O_CLOEXEC, mode)
            }
            if opened >= 0 {
                descriptor = opened
                return
            }
            guard errno == EINTR else { throw FolderError("open") }
        }
    }

    deinit { close(descriptor) }

    static func directory(
        _ path: String, in directory: OpenFile? = nil
    ) throws(FolderError) -> OpenFile {
        try OpenFile(path.isEmpty ? "." : path, in: directory, flags: O_RDONLY | O_DIRECTORY)
    }

    /// Makes a file's bytes durable.
    func syncData() throws(FolderError) {
        guard fdatasync(descriptor) == 0 else { throw FolderError("fdatasync") }
    }

    /// Makes a folder's entries durable.
    func sync() throws(FolderError) {
        guard fsync(descriptor) == 0 else { throw FolderError("fsync") }
    }
}
