// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import RPC
import TestSupport

/// Fails one call, counted over the store and the metadata of a worker: before it takes effect, or
/// after, as when a reply is lost.
final class Fault: @unchecked Sendable {
    // Safety: everything happens on the one thread of its test.
    enum Moment: CaseIterable, Sendable { case before, after }
    private(set) var calls = 0
    var failing: (call: Int, moment: Moment)?
    /// Takes time before each call, so that what happens at once mixes.
    var pause: (() async -> Void)?
    /// Falsifies what is told of logs.
    var tamper: ((inout LogGarbage) -> Void)?

    func around<Value>(
        _ body: () async throws(MetadataError) -> Value
    ) async throws(MetadataError) -> Value {
        await pause?()
        let fails = next()
        if fails == .before { throw MetadataError(.unavailable, "injected") }
        let value = try await body()
        if fails == .after { throw MetadataError(.unavailable, outcomeUnknown: true, "injected") }
        return value
    }

    func around<Value>(
        _ body: () async throws(StoreError) -> Value
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
        guard let failing, failing.call == calls else { return nil }
        return failing.moment
    }
}

/// The store as a worker sees it: with faults, and watched.
struct FaultyStore: ObjectStore {
    let inner: MemoryStore
    let fault: Fault
    /// Called before an object is deleted.
    let onDelete: @Sendable (String) async -> Void

    func put(_ key: String, _ body: [Bytes], ifAbsent: Bool) async throws(StoreError) -> PutResult {
        try await fault.around { () async throws(StoreError) in
            try await inner.put(key, body, ifAbsent: ifAbsent)
        }
    }
    func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try await fault.around { () async throws(StoreError) in
            try await inner.get(key, range: range)
        }
    }
    func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        try await fault.around { () async throws(StoreError) in try await inner.head(key) }
    }
    func list(prefix: String, after: String, limit: Int) async throws(StoreError) -> ObjectListing {
        try await fault.around { () async throws(StoreError) in
            try await inner.list(prefix: prefix, after: after, limit: limit)
        }
    }
    func delete(_ key: String) async throws(StoreError) {
        try await fault.around { () async throws(StoreError) in
            await onDelete(key)
            try await inner.delete(key)
        }
    }
}

/// Calls that end at once with what `answer` says.
final class TestCalls: CallClient {
    private let loop: VirtualLoop
    var answer: (Method, Bytes) -> Status = { _, _ in .notConnected }
    private(set) var count = 0

    init(_ loop: VirtualLoop) { self.loop = loop }

    func call(
        _ address: String, _ method: Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call {
        count += 1
        let call = TestCall()
        loop.soon { [self] in call.onEnd?(answer(method, payload), Bytes()) }
        return call
    }
}

private final class TestCall: Call {
    var onMessage: ((Bytes) -> Void)?
    var onFinishedSending: (() -> Void)?
    var onEnd: ((Status, Bytes) -> Void)?
    var onSendable: (() -> Void)?
    var unsentBytes: Int { 0 }
    func send(_ message: Bytes) {}
    func consumed(_ count: Int) {}
    func finishSending() {}
    func cancel() {}
    func end(_ status: Status, _ payload: Bytes) {}
}
