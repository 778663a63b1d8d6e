// SPDX-License-Identifier: Apache-2.0

internal import CSupport
internal import Glibc
private import Synchronization

/// Makes files that have no name yet.
///
/// ext4 looks for a new file's inode in the group of its folder, from the group's beginning on, and
/// passes over those that were freed within the last 5 to 35 seconds (`recently_deleted` in its
/// ialloc.c), after a look at each. Where the chunks of a log come and go that is thousands of
/// looks, more time than the rest of a small put takes. So files are made in folders of their own,
/// in turns, which the file system is asked to place far apart; they get their names elsewhere.
final class NamelessFiles: Sendable {
    static let folderCount = 64

    private let parent: OpenFile
    private let isSupported = Atomic<Bool>(true)
    private let count = Atomic<Int>(0)

    /// The folders will be in `parent`, each made when it is wanted.
    init(in parent: OpenFile) {
        self.parent = parent
        millrace_spread_folders(parent.descriptor)
    }

    /// A file, open for writing, which goes with its last user unless it was given a name. Nil
    /// where the file system knows no such files.
    func make() throws(FolderError) -> OpenFile? {
        guard isSupported.load(ordering: .relaxed) else { return nil }
        let turn = count.wrappingAdd(1, ordering: .relaxed).oldValue
        let folder = String(turn & (Self.folderCount - 1))
        do throws(FolderError) {
            do throws(FolderError) {
                return try make(in: folder)
            } catch {
                guard error.isMissing else { throw error }
                if mkdirat(parent.descriptor, folder, 0o700) != 0, errno != EEXIST {
                    throw FolderError("mkdir")
                }
                return try make(in: folder)
            }
        } catch {
            guard error.isUnsupported, !error.isMissing else { throw error }
            isSupported.store(false, ordering: .relaxed)
            return nil
        }
    }

    private func make(in folder: String) throws(FolderError) -> OpenFile {
        try OpenFile(folder, in: parent, flags: O_WRONLY | Self.nameless)
    }

    /// O_TMPFILE of fcntl.h, which Swift does not import.
    private static let nameless: Int32 = 0o20_000_000 | O_DIRECTORY
}
