// SPDX-License-Identifier: Apache-2.0

package import ObjectStorage
package import Primitives

/// A bucket of a simulated cell: the in-memory store behind a service that is slow, refuses, and
/// loses replies.
// Safety: a simulation is one thread.
package final class SimObjectStore: ObjectStore, @unchecked Sendable {
    package let inner: MemoryStore
    private let service: SimService
    /// Whose requests these are.
    private let origin: SimLoop?
    private let ledger: Ledger

    init(inner: MemoryStore, service: SimService, origin: SimLoop?, ledger: Ledger) {
        self.inner = inner
        self.service = service
        self.origin = origin
        self.ledger = ledger
    }

    package func put(
        _ key: String, _ body: [Bytes], ifAbsent: Bool
    ) async throws(StoreError) -> PutResult {
        try await request(key, mayHaveEffect: true) { [ledger, origin] store throws(StoreError) in
            let result = try await store.put(key, body, ifAbsent: ifAbsent)
            if result == .created { ledger.stored(key, body.joined(), by: origin) }
            return result
        }
    }

    package func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try await request(key, mayHaveEffect: false) { [ledger, origin] store throws(StoreError) in
            do throws(StoreError) {
                return try await store.get(key, range: range)
            } catch {
                if error.kind == .notFound { ledger.missed(key, by: origin) }
                throw error
            }
        }
    }

    package func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        try await request(key, mayHaveEffect: false) { store throws(StoreError) in
            try await store.head(key)
        }
    }

    package func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        try await request(nil, mayHaveEffect: false) { store throws(StoreError) in
            try await store.list(prefix: prefix, after: after, limit: limit)
        }
    }

    package func delete(_ key: String) async throws(StoreError) {
        try await request(key, mayHaveEffect: true) { [ledger, origin] store throws(StoreError) in
            await ledger.willDelete(key, by: origin)
            try await store.delete(key)
        }
    }

    private func request<Value: Sendable>(
        _ key: String?, mayHaveEffect: Bool,
        _ operation: @escaping (MemoryStore) async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        let inner = inner
        return try await service.request(
            from: origin, key: key, mayHaveEffect: mayHaveEffect,
            failure: { fate in
                StoreError(
                    .unavailable, outcomeUnknown: fate == .unknown && mayHaveEffect, "simulated")
            },
            {
                do throws(StoreError) {
                    return .success(try await operation(inner))
                } catch {
                    return .failure(error)
                }
            })
    }
}
