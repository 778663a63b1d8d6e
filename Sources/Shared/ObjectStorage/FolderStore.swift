// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// An object store in a folder of this host, for development and for cells of one machine.
///
/// Keys map to paths as `FolderPath` says; several processes may share the folder. Calls run on a
/// few threads of the store's own and may end in any order. An object is durable, with its name,
/// before `put` returns, unless `isDurable` is false.
package final class FolderStore: MeasuredStore {
    package struct Limits: Sendable {
        /// Calls that run at once.
        package var threads = 8
        /// Calls that wait for a thread; one more is `.unavailable`.
        package var queuedMax = 1_024
        /// For one call, its wait for a thread included; then it is `.unavailable`.
        package var callNanosecondsMax: Nanoseconds = .seconds(30)
        /// What a crash left is removed at a start once it is so old, in seconds.
        package var temporarySecondsMax = 3_600

        package init() {}
    }

    private let tree: FolderTree
    private let calls: TimedCalls
    private let meter: StoreMeter

    /// Opens the folder at `path` and makes it where it is missing. Blocks.
    package init(
        path: String, isDurable: Bool = true, limits: Limits = Limits(),
        directCalls: DirectCalls = .system, meter: StoreMeter = StoreMeter()
    ) throws(StoreError) {
        self.meter = meter
        guard !path.isEmpty else { throw StoreError(.invalidRequest, "the folder has no path") }
        do throws(FolderError) {
            tree = try FolderTree(path: path, isDurable: isDurable, directCalls: directCalls)
            _ = try tree.removeTemporary(olderThanSeconds: limits.temporarySecondsMax)
        } catch {
            throw StoreError(.failed, error.storeError(path).message)
        }
        calls = try TimedCalls(
            threads: limits.threads, queuedMax: limits.queuedMax, limit: limits.callNanosecondsMax)
    }

    package var statistics: StoreStatistics { meter.snapshot }

    package func put(
        _ key: String, _ body: [Bytes], ifAbsent: Bool
    ) async throws(StoreError) -> PutResult {
        try ObjectKey.validate(key)
        let start = meter.begin()
        let result = await calls.run(isChange: true) { [tree] () throws(StoreError) in
            try tree.put(key, body, ifAbsent: ifAbsent)
        }
        meter.end(put: key, body, since: start, result)
        return try result.get()
    }

    package func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try ObjectKey.validate(key)
        try ObjectKey.validateRange(range)
        let start = meter.begin()
        let result = await calls.run(isChange: false) { [tree] () throws(StoreError) in
            try tree.get(key, range: range)
        }
        switch result {
        case .success(let slice): meter.end(.get, since: start, .done, bytes: slice.bytes.count)
        case .failure(let error): meter.end(.get, since: start, error)
        }
        return try result.get()
    }

    package func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        try ObjectKey.validate(key)
        let start = meter.begin()
        let result = await calls.run(isChange: false) { [tree] () throws(StoreError) in
            try tree.head(key)
        }
        switch result {
        case .success(let info): meter.end(.head, since: start, info == nil ? .notFound : .done)
        case .failure(let error): meter.end(.head, since: start, error)
        }
        return try result.get()
    }

    package func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        try ObjectKey.validateListing(prefix: prefix, after: after, limit: limit)
        let start = meter.begin()
        let result = await calls.run(isChange: false) { [tree] () throws(StoreError) in
            try FolderListing.run(tree, prefix: prefix, after: after, limit: limit)
        }
        switch result {
        case .success: meter.end(.list, since: start, .done)
        case .failure(let error): meter.end(.list, since: start, error)
        }
        return try result.get()
    }

    package func delete(_ key: String) async throws(StoreError) {
        try ObjectKey.validate(key)
        let start = meter.begin()
        let result = await calls.run(isChange: true) { [tree] () throws(StoreError) in
            try tree.delete(key)
        }
        switch result {
        case .success: meter.end(.delete, since: start, .done)
        case .failure(let error): meter.end(.delete, since: start, error)
        }
        try result.get()
    }
}
