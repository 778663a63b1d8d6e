// SPDX-License-Identifier: Apache-2.0

import ObjectStorage
import Primitives
import Synchronization
import TestSupport
import Testing

/// A store whose faults a test chooses.
private final class FaultyStore: ObjectStore {
    enum Fault {
        /// The put is done; its reply is lost.
        case loseReply
        case refuse(StoreError.Kind)
    }
    let inner = MemoryStore()
    let ignoresIfAbsent: Bool
    let readsWrong: Bool
    let listsNothing: Bool
    private let putFaults: Mutex<[Fault]>
    private let getFaults: Mutex<[StoreError.Kind]>

    init(
        puts: [Fault] = [], gets: [StoreError.Kind] = [], ignoresIfAbsent: Bool = false,
        readsWrong: Bool = false, listsNothing: Bool = false
    ) {
        putFaults = Mutex(puts)
        getFaults = Mutex(gets)
        self.ignoresIfAbsent = ignoresIfAbsent
        self.readsWrong = readsWrong
        self.listsNothing = listsNothing
    }

    func put(
        _ key: String, _ body: [Bytes], ifAbsent: Bool
    ) async throws(StoreError) -> PutResult {
        let fault = putFaults.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        if case .refuse(let kind) = fault { throw StoreError(kind, "refused") }
        let result = try await inner.put(key, body, ifAbsent: ifAbsent && !ignoresIfAbsent)
        if case .loseReply = fault {
            throw StoreError(.unavailable, outcomeUnknown: true, "lost")
        }
        return result
    }

    func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        if let kind = getFaults.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
            throw StoreError(kind, "refused")
        }
        return try await inner.get(key, range: readsWrong ? nil : range)
    }

    func head(_ key: String) async throws(StoreError) -> ObjectInfo? { try await inner.head(key) }

    func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        if listsNothing { return ObjectListing(objects: [], hasMore: false) }
        return try await inner.list(prefix: prefix, after: after, limit: limit)
    }

    func delete(_ key: String) async throws(StoreError) { try await inner.delete(key) }
}

private let identity = ObjectIdentity(prefixBytes: 4, putID: 0..<4)
private let quick = Backoff(
    first: .milliseconds(1), delayMax: .milliseconds(2), triesMax: 4, budget: .seconds(5))

@Suite struct PutOnceTests {
    private func putOnce(
        _ store: any ObjectStore, _ body: String = "mine and more"
    ) async throws -> PutOnceOutcome {
        let loop = ThreadLoop()
        defer { loop.stop() }
        return try await loop.run {
            try await store.putOnce(
                "slot", [Bytes(utf8: body)], identity: identity, loop: loop, random: .system(),
                backoff: quick)
        }
    }

    @Test func aLostReplyIsResolved() async throws {
        let store = FaultyStore(puts: [.loseReply])
        #expect(try await putOnce(store) == .stored)
        #expect(try await putOnce(store) == .stored, "the same bytes again")
        #expect(
            try await putOnce(store, "others") == .occupied(identity: Bytes(utf8: "mine")))
    }

    @Test func aForeignObjectIsTold() async throws {
        let store = FaultyStore(puts: [.refuse(.unavailable)], gets: [.unavailable, .unavailable])
        _ = try await store.inner.put("slot", [Bytes(utf8: "theirs")], ifAbsent: true)
        #expect(try await putOnce(store) == .occupied(identity: Bytes(utf8: "thei")))
    }

    @Test func aShortObjectIsForeign() async throws {
        let store = FaultyStore()
        _ = try await store.inner.put("slot", [Bytes(utf8: "abc")], ifAbsent: true)
        #expect(try await putOnce(store) == .occupied(identity: Bytes(utf8: "abc")))
    }

    /// Tries end, and the error remembers that one of them may have stored the object.
    @Test func givingUp() async throws {
        let first = FaultyStore(
            puts: [FaultyStore.Fault](repeating: .refuse(.unavailable), count: 9))
        let plain = await #expect(throws: StoreError.self) { try await putOnce(first) }
        #expect(plain?.kind == .unavailable && plain?.outcomeUnknown == false)

        let second = FaultyStore(
            puts: [.loseReply] + [FaultyStore.Fault](repeating: .refuse(.unavailable), count: 9))
        let unknown = await #expect(throws: StoreError.self) { try await putOnce(second) }
        #expect(unknown?.kind == .unavailable && unknown?.outcomeUnknown == true)

        let third = FaultyStore(puts: [.loseReply, .refuse(.denied)])
        let denied = await #expect(throws: StoreError.self) { try await putOnce(third) }
        #expect(denied?.kind == .denied && denied?.outcomeUnknown == true)
    }
}

@Suite struct DoctorTests {
    private func check(_ store: FaultyStore) async throws -> [ObjectInfo] {
        let loop = ThreadLoop()
        defer { loop.stop() }
        try await loop.run { try await checkStore(store, loop: loop, random: .system()) }
        return try await store.inner.list(prefix: "", after: "", limit: 10).objects
    }

    @Test func aGoodStorePasses() async throws {
        #expect(try await check(FaultyStore()).isEmpty, "no probe stays behind")
        #expect(try await check(FaultyStore(puts: [.loseReply], gets: [.unavailable])).isEmpty)
    }

    @Test func aStoreThatIgnoresTheConditionIsRefused() async throws {
        let store = FaultyStore(ignoresIfAbsent: true)
        let error = await #expect(throws: StoreError.self) { try await check(store) }
        #expect(error?.kind == .failed)
        #expect(error?.message.contains("If-None-Match") == true)
        #expect(try await store.inner.list(prefix: "", after: "", limit: 10).objects.isEmpty)
    }

    @Test func otherFaultsAreNamed() async throws {
        let wrong = await #expect(throws: StoreError.self) {
            try await check(FaultyStore(readsWrong: true))
        }
        #expect(wrong?.kind == .failed)
        let blind = await #expect(throws: StoreError.self) {
            try await check(FaultyStore(listsNothing: true))
        }
        #expect(blind?.message.contains("list") == true)
        let denied = await #expect(throws: StoreError.self) {
            try await check(FaultyStore(puts: [.refuse(.denied)]))
        }
        #expect(denied?.kind == .denied)
    }
}
