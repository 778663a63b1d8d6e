// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Primitives

/// Fails one call, counted over the store and the metadata of a test: before it takes effect, or
/// after, as when a reply is lost.
// Safety: everything happens on the one thread of its test.
package final class Fault: @unchecked Sendable {
    package enum Moment: CaseIterable, Sendable { case before, after }
    package private(set) var calls = 0
    /// Requests that change a store, whether they succeeded or not.
    package fileprivate(set) var puts = 0
    package fileprivate(set) var deletes = 0
    package var failing: (call: Int, moment: Moment)?
    /// Whether nothing works any more once a call failed, until `failing` is nil: its caller died.
    package var isFatal = false
    /// Keys that the store does not let go, or does not hand out.
    package var undeletable: Set<String> = []
    package var unreadable: Set<String> = []
    /// The metadata is away.
    package var isDown = false
    /// Takes time before each call, so that what happens at once mixes.
    package var pause: (() async -> Void)?
    /// Falsifies what is told of logs.
    package var tamper: ((inout LogGarbage) -> Void)?

    package init() {}

    func onMetadata<Value>(
        _ body: @autoclosure () async throws(MetadataError) -> Value
    ) async throws(MetadataError) -> Value {
        await pause?()
        let fails = next()
        if isDown || fails == .before { throw MetadataError(.unavailable, "injected") }
        let value = try await body()
        if fails == .after { throw MetadataError(.unavailable, outcomeUnknown: true, "injected") }
        return value
    }

    func onStore<Value>(
        _ body: @autoclosure () async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        await pause?()
        let fails = next()
        if fails == .before { throw StoreError(.failed, "injected") }
        let value = try await body()
        if fails == .after { throw StoreError(.failed, outcomeUnknown: true, "injected") }
        return value
    }

    private func next() -> Moment? {
        calls += 1
        guard let failing, calls >= failing.call else { return nil }
        if calls == failing.call { return failing.moment }
        return isFatal ? .before : nil
    }
}

/// A store with faults, watched.
package struct FaultyStore: ObjectStore {
    private let inner: MemoryStore
    private let fault: Fault
    private let onDelete: @Sendable (String) async -> Void

    /// `onDelete` is called before an object is deleted.
    package init(
        inner: MemoryStore, fault: Fault,
        onDelete: @escaping @Sendable (String) async -> Void = { _ in }
    ) {
        self.inner = inner
        self.fault = fault
        self.onDelete = onDelete
    }

    package func put(
        _ key: String, _ body: [Bytes], ifAbsent: Bool
    ) async throws(StoreError) -> PutResult {
        fault.puts += 1
        return try await fault.onStore(await inner.put(key, body, ifAbsent: ifAbsent))
    }
    package func get(
        _ key: String, range: Range<Int>?
    ) async throws(StoreError) -> ObjectSlice {
        if fault.unreadable.contains(key) { throw StoreError(.denied, "scripted") }
        return try await fault.onStore(await inner.get(key, range: range))
    }
    package func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        try await fault.onStore(await inner.head(key))
    }
    package func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        try await fault.onStore(await inner.list(prefix: prefix, after: after, limit: limit))
    }
    package func delete(_ key: String) async throws(StoreError) {
        fault.deletes += 1
        if fault.undeletable.contains(key) { throw StoreError(.denied, "scripted") }
        try await fault.onStore(await watchedDelete(key))
    }
    private func watchedDelete(_ key: String) async throws(StoreError) {
        await onDelete(key)
        try await inner.delete(key)
    }
}
