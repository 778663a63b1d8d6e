// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Where objects lie that a store is tried by: nothing refers to them, and they are soon deleted.
package let storeProbesPrefix = "doctor/"

/// Proves, with a probe object, that `store` keeps the promises that a cell lives by; throws what
/// it found else.
///
/// Above all: a second put-if-absent under one key must find the first. A store that takes both
/// would let two writers believe that they own one slot of a log, and acknowledged records would
/// be lost. Part of every start but a cachey's, which only reads, and of
/// `cop doctor`.
package func checkStore(
    _ store: any ObjectStore, loop: any Loop, random: RandomSource
) async throws(StoreError) {
    let probe = StoreProbe(store, loop: loop, random: random)
    var failure: StoreError?
    do throws(StoreError) {
        try await probe.run()
    } catch {
        failure = error
    }
    do throws(StoreError) {
        try await probe.remove()
    } catch {
        failure = failure ?? error
    }
    if let failure { throw failure }
}

private struct StoreProbe {
    let store: any ObjectStore
    let loop: any Loop
    let random: RandomSource
    let backoff = Backoff(triesMax: 5, budget: .seconds(10))
    let prefix = storeProbesPrefix
    let key: String
    let body: Bytes

    init(_ store: any ObjectStore, loop: any Loop, random: RandomSource) {
        self.store = store
        self.loop = loop
        self.random = random
        let id = ID128(random: random)
        key = prefix + id.description
        body = Self.body(id)
    }

    /// The id, and behind it a text of 100 bytes or so.
    private static func body(_ id: ID128) -> Bytes {
        var writer = ByteWriter()
        writer.write(id)
        writer.write(utf8: String(repeating: "probe ", count: 16))
        return writer.finish()
    }

    func run() async throws(StoreError) {
        try await checkCreation()
        try await checkReads()
        try await checkListing()
        try await checkDeletion()
    }

    /// Leaves nothing behind.
    func remove() async throws(StoreError) { try await store.delete(key) }

    private func checkCreation() async throws(StoreError) {
        let identity = ObjectIdentity(prefixBytes: 16, putID: 0..<16)
        let outcome = try await store.putOnce(
            key, [body], identity: identity, loop: loop, random: random, backoff: backoff)
        guard outcome == .stored else { throw broken("a random new key was taken") }
        let other = Self.body(ID128(random: random))
        let second = try await store.putOnce(
            key, [other], identity: identity, loop: loop, random: random, backoff: backoff)
        guard second == .occupied(identity: body[0..<16]) else {
            throw broken(
                "it ignores If-None-Match: two put-if-absent of one key both succeeded. A log in "
                    + "this store could lose acknowledged records")
        }
    }

    private func checkReads() async throws(StoreError) {
        let whole = try await get(nil)
        guard whole.bytes == body, whole.objectSize == body.count else {
            throw broken("it does not return the bytes that were stored")
        }
        let middle = try await get(5..<25)
        guard middle.bytes == body[5..<25], middle.objectSize == body.count else {
            throw broken("it does not serve a range of bytes")
        }
        let end = try await get(body.count - 3..<body.count + 100)
        guard end.bytes == body[body.count - 3..<body.count] else {
            throw broken("it does not clamp a range at the object's end")
        }
        guard let info = try await store.head(key), info.size == body.count else {
            throw broken("it does not know an object that it stored")
        }
    }

    private func checkListing() async throws(StoreError) {
        let listing = try await store.list(prefix: key, after: prefix, limit: 2)
        guard listing.objects.map(\.key) == [key], listing.objects[0].size == body.count,
            !listing.hasMore
        else { throw broken("it does not list an object that it stored") }
        let beyond = try await store.list(prefix: key, after: key, limit: 2)
        guard beyond.objects.isEmpty else { throw broken("its listings do not begin behind a key") }
    }

    private func checkDeletion() async throws(StoreError) {
        try await store.delete(key)
        guard try await store.head(key) == nil else {
            throw broken("an object is there after it was deleted")
        }
    }

    private func get(_ range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try await store.getRetrying(key, range: range, loop: loop, random: random, backoff: backoff)
    }

    private func broken(_ what: String) -> StoreError {
        StoreError(.failed, "the object store cannot be used: \(what) (probe \(key))")
    }
}
