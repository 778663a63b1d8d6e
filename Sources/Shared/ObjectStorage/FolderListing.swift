// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// One listing of a folder store: a walk in the order of the keys.
///
/// A folder is read whole and sorted, so a page costs as much as the folders that it touches hold
/// entries. What appears or vanishes meanwhile may or may not be seen.
struct FolderListing {
    private let tree: FolderTree
    private let prefix: [UInt8]
    private let after: [UInt8]
    private let limit: Int
    private var found: [ObjectInfo] = []

    static func run(
        _ tree: FolderTree, prefix: String, after: String, limit: Int
    ) throws(StoreError) -> ObjectListing {
        var listing = FolderListing(
            tree: tree, prefix: Array(prefix.utf8), after: Array(after.utf8), limit: limit)
        let slash = prefix.utf8.lastIndex(of: UInt8(ascii: "/"))
        let start = slash.map { String(prefix[...$0]) } ?? ""
        // No key leads through such a segment, and a path must not either.
        guard !"/\(start)".contains("//"), start != "/" else {
            return ObjectListing(objects: [], hasMore: false)
        }
        do throws(FolderError) {
            try listing.walk(FolderPath.directory(ofPrefix: start), keys: Array(start.utf8))
        } catch {
            throw error.storeError(prefix)
        }
        let found = listing.found
        return ObjectListing(objects: Array(found.prefix(limit)), hasMore: found.count > limit)
    }

    private init(tree: FolderTree, prefix: [UInt8], after: [UInt8], limit: Int) {
        self.tree = tree
        self.prefix = prefix
        self.after = after
        self.limit = limit
    }

    /// An object, or a folder whose key then ends in a slash.
    private struct Entry {
        let key: [UInt8]
        let path: String
        var isDirectory: Bool { key.last == UInt8(ascii: "/") }
    }

    /// Visits the folder at `path`, whose keys all begin with `keys`, until one object more than
    /// the limit was found.
    private mutating func walk(_ path: String, keys: [UInt8]) throws(FolderError) {
        var entries: [Entry] = []
        try collect(path, keys: keys, into: &entries)
        entries.sort { $0.key.lexicographicallyPrecedes($1.key) }
        for entry in entries where isWanted(entry) {
            if entry.isDirectory {
                try walk(entry.path, keys: entry.key)
            } else if let info = try tree.info(
                String(decoding: entry.key, as: UTF8.self), at: entry.path)
            {
                found.append(info)
            }
            if found.count > limit { return }
        }
    }

    private func isWanted(_ entry: Entry) -> Bool {
        guard entry.isDirectory else {
            return entry.key.starts(with: prefix) && after.lexicographicallyPrecedes(entry.key)
        }
        return (entry.key.starts(with: prefix) || prefix.starts(with: entry.key))
            && (after.starts(with: entry.key) || after.lexicographicallyPrecedes(entry.key))
    }

    private func collect(
        _ path: String, keys: [UInt8], into entries: inout [Entry]
    ) throws(FolderError) {
        let names: [[UInt8]]
        do throws(FolderError) {
            names = try DirectoryNames.of(path, in: tree.root)
        } catch {
            // Removed meanwhile, or a foreign file whose name could be a folder's.
            if error.isMissing || error.code == ENOTDIR { return }
            throw error
        }
        for name in names {
            let entry = name.withUnsafeBufferPointer { FolderPath.Entry(name: $0) }
            let text = String(decoding: name, as: UTF8.self)
            let below = path.isEmpty ? text : "\(path)/\(text)"
            switch entry {
            case .object(let bytes): entries.append(Entry(key: keys + bytes, path: below))
            case .directory(let bytes):
                entries.append(Entry(key: keys + bytes + [UInt8(ascii: "/")], path: below))
            case .continued(let bytes): try collect(below, keys: keys + bytes, into: &entries)
            case nil: break
            }
        }
    }
}

/// The names in a folder, in no order.
enum DirectoryNames {
    static func of(_ path: String, in root: OpenFile) throws(FolderError) -> [[UInt8]] {
        let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC
        let descriptor = openat(root.descriptor, path.isEmpty ? "." : path, flags)
        guard descriptor >= 0 else { throw FolderError("open") }
        guard let stream = fdopendir(descriptor) else {
            let error = FolderError("opendir")
            close(descriptor)
            throw error
        }
        defer { closedir(stream) }
        var names: [[UInt8]] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw FolderError("readdir") }
                return names
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                let start = UnsafeRawPointer(tuple).assumingMemoryBound(to: UInt8.self)
                return Array(UnsafeBufferPointer(start: start, count: strlen(tuple)))
            }
            if name != Array(".".utf8), name != Array("..".utf8) { names.append(name) }
        }
    }
}
