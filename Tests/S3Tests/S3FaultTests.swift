// SPDX-License-Identifier: Apache-2.0

import Foundation
import ObjectStorage
import Primitives
import S3
import TestSupport
import Testing

/// The store behind a proxy that injects what a test asks for.
@Suite struct S3FaultTests {
    private let server: TestServer
    private let proxy: FaultProxy
    private let store: S3Store
    /// What really is there, past the proxy.
    private let truth: S3Store
    private let key = "faults/\(ID128(random: .system()))"
    private let body = [Bytes(utf8: "id-1 and "), Bytes([UInt8](repeating: 0x62, count: 100_000))]

    init() throws {
        server = try TestServer()
        proxy = try FaultProxy(server)
        store = try server.store(endpoint: proxy.endpoint, limits: Self.limits(.seconds(30)))
        truth = try server.store()
    }

    private static func limits(_ patience: Nanoseconds) -> S3Store.Limits {
        var limits = S3Store.Limits()
        limits.requestNanosecondsMax = patience
        limits.backoff = Backoff(
            first: .milliseconds(2), delayMax: .milliseconds(20), triesMax: 4, budget: .seconds(60))
        return limits
    }

    /// Impatient where the proxy does not answer, and only there: so a busy machine fails nothing.
    private func store(against action: String) throws -> S3Store {
        guard action.hasPrefix("stall") else { return store }
        return try server.store(endpoint: proxy.endpoint, limits: Self.limits(.seconds(2)))
    }

    private func putError(_ store: S3Store) async throws -> StoreError? {
        await #expect(throws: StoreError.self) { try await store.put(key, body, ifAbsent: true) }
    }

    private func exists() async throws -> Bool { try await truth.head(key) != nil }

    @Test(arguments: [
        ("reset_before", false), ("reset_after", true), ("stall_before", false),
        ("stall_after", true),
    ])
    func aPutWithoutReply(_ action: String, isStored: Bool) async throws {
        try await proxy.set([["method": "PUT", "action": action, "times": 1]])
        let error = try await putError(store(against: action))
        #expect(error?.kind == .unavailable)
        #expect(error?.outcomeUnknown == true, "only the server knows")
        #expect(try await exists() == isStored)
        #expect(try await proxy.seen().faults == 1, "a put is not tried again by itself")
    }

    @Test(arguments: [
        (500, "InternalError", StoreError.Kind.unavailable, true),
        (502, "", .unavailable, true),
        (503, "SlowDown", .unavailable, true),
        (503, "", .unavailable, true),
        (504, "", .unavailable, true),
        (400, "RequestTimeout", .unavailable, true),
        (409, "ConditionalRequestConflict", .unavailable, false),
        (429, "TooManyRequests", .unavailable, false),
        (403, "AccessDenied", .denied, false),
        (400, "ExpiredToken", .denied, false),
        (400, "EntityTooLarge", .invalidRequest, false),
        (507, "", .unavailable, true),
        (520, "", .unavailable, true),
        (529, "", .unavailable, true),
        (501, "NotImplemented", .failed, false),
        (505, "", .failed, false),
    ])
    func aPutRefused(
        _ status: Int, _ code: String, _ kind: StoreError.Kind, isUnknown: Bool
    ) async throws {
        try await proxy.set([["method": "PUT", "action": "status", "status": status, "code": code]])
        let error = try await putError(store)
        #expect(error?.kind == kind)
        #expect(error?.outcomeUnknown == isUnknown)
        #expect(try await !exists())
    }

    @Test func aConflictIsNoPresence() async throws {
        try await proxy.set([
            [
                "method": "PUT", "action": "status", "status": 409, "times": 1,
                "code": "ConditionalRequestConflict",
            ]
        ])
        #expect(try await putOnce(store) == .stored)
        #expect(try await exists())
    }

    /// Whatever happened to the reply: our own object is ours, another's is not.
    @Test(arguments: ["reset_before", "reset_after", "stall_after", "status_after"])
    func aLostReplyIsResolved(_ action: String) async throws {
        let rule: [String: Any] = ["method": "PUT", "action": action, "status": 500, "times": 1]
        let store = try store(against: action)
        try await proxy.set([rule])
        #expect(try await putOnce(store) == .stored)
        #expect(try await truth.get(key, range: nil).bytes == body.joined())
        try await proxy.set([rule])
        #expect(
            try await putOnce(store, "id-2 is another") == .occupied(identity: Bytes(utf8: "id-1")))
        #expect(try await truth.get(key, range: nil).bytes == body.joined())
    }

    private func putOnce(_ store: S3Store, _ text: String? = nil) async throws -> PutOnceOutcome {
        let loop = ThreadLoop()
        defer { loop.stop() }
        let body = text.map { [Bytes(utf8: $0)] } ?? body
        return try await loop.run { [key] in
            try await store.putOnce(
                key, body, identity: ObjectIdentity(prefixBytes: 4, putID: 0..<4), loop: loop,
                random: .system(), backoff: Backoff(first: .milliseconds(5)))
        }
    }

    @Test(arguments: [
        "reset_before", "reset_after", "stall_before", "stall_after", "cut", "status",
    ])
    func readsAreTriedAgain(_ action: String) async throws {
        _ = try await truth.put(key, body, ifAbsent: true)
        let whole = body.joined()
        let store = try store(against: action)
        let rules: [[String: Any]] = [
            ["key": "faults", "action": action, "status": 503, "code": "SlowDown", "times": 1]
        ]
        try await proxy.set(rules)
        #expect(try await store.get(key, range: nil).bytes == whole)
        try await proxy.set(rules)
        #expect(try await store.get(key, range: 5..<50_000).bytes == whole[5..<50_000])
        if action != "cut" {
            try await proxy.set(rules)
            #expect(try await store.head(key)?.size == whole.count)
        }
        try await proxy.set(rules)
        let page = try await store.list(prefix: key, after: "", limit: 10)
        #expect(page.objects.map(\.key) == [key])
        // After a reset on a connection that was used before, libcurl is the one to try again.
        #expect(store.statistics.retries >= (action.hasPrefix("reset") ? 1 : 3))
        try await proxy.set(rules)
        try await store.delete(key)
        #expect(try await !exists())
    }

    @Test func triesEnd() async throws {
        try await proxy.set([["action": "status", "status": 503]])
        let error = await #expect(throws: StoreError.self) { try await store.get(key, range: nil) }
        #expect(error?.kind == .unavailable && error?.outcomeUnknown == false)
        #expect(try await proxy.seen() == FaultProxy.Seen(faults: 4, upstream: 0))
        let deletion = await #expect(throws: StoreError.self) { try await store.delete(key) }
        #expect(deletion?.kind == .unavailable && deletion?.outcomeUnknown == true)
    }

    /// Connections that the server closed while they were idle: the request goes out again on a
    /// fresh one, the body from its start.
    @Test func idleConnectionsClose() async throws {
        for round in 0..<10 {
            try await proxy.set([["action": "close_idle"]])
            _ = try await store.head(key)
            let own = "\(key)-\(round)"
            do throws(StoreError) {
                let result = try await store.put(own, body, ifAbsent: true)
                #expect(result == .created)
            } catch {
                #expect(error.kind == .unavailable && error.outcomeUnknown)
            }
        }
    }

    @Test func theDoctorRefusesAStoreWithoutConditions() async throws {
        try await proxy.set([["method": "PUT", "action": "accept"]])
        let loop = ThreadLoop()
        defer { loop.stop() }
        let error = await #expect(throws: StoreError.self) {
            try await loop.run { [store] in
                try await checkStore(store, loop: loop, random: .system())
            }
        }
        #expect(error?.kind == .failed && error?.message.contains("If-None-Match") == true)
        #expect(try await truth.list(prefix: "doctor/", after: "", limit: 1).objects.isEmpty)
    }

    @Test func aCancelledTaskGivesUp() async throws {
        try await proxy.set([["method": "PUT", "action": "stall_before"]])
        var limits = S3Store.Limits()
        limits.requestNanosecondsMax = .seconds(60)
        let patient = try server.store(endpoint: proxy.endpoint, limits: limits)
        let start = ContinuousClock.now
        let task = Task { [key, body] in try await patient.put(key, body, ifAbsent: true) }
        while patient.statistics.inFlight == 0 { await Task.yield() }
        task.cancel()
        let error = await #expect(throws: StoreError.self) { try await task.value }
        #expect(error?.kind == .unavailable)
        #expect(ContinuousClock.now - start < .seconds(20))
        #expect(patient.statistics.inFlight == 0)
    }

    @Test func aFullQueueRefuses() async throws {
        try await proxy.set([["method": "PUT", "action": "stall_before"]])
        var limits = Self.limits(.seconds(2))
        limits.curl.inFlightMax = 2
        limits.curl.queuedMax = 3
        let small = try server.store(endpoint: proxy.endpoint, limits: limits)
        let errors = await withTaskGroup(of: StoreError?.self) { [key, body] group in
            for n in 0..<12 {
                group.addTask {
                    do throws(StoreError) {
                        _ = try await small.put("\(key)-\(n)", body, ifAbsent: true)
                        return nil
                    } catch {
                        return error
                    }
                }
            }
            return await group.reduce(into: [StoreError?]()) { $0.append($1) }.compactMap { $0 }
        }
        #expect(errors.count == 12 && errors.allSatisfy { $0.kind == .unavailable })
        #expect(errors.filter { $0.message.contains("too many") }.count == 7)
        // Two were sent; one of the three that waited may have been, when those gave up.
        #expect((2...5).contains(errors.filter(\.outcomeUnknown).count))
    }

    @Test(arguments: ["-9223372036854775808", "-1", "3", "99999999999999999999", "*"])
    func aSizeThatCannotBe(_ size: String) async throws {
        _ = try await truth.put(key, body, ifAbsent: true)
        try await proxy.set([["method": "GET", "action": "range", "size": size]])
        let error = await #expect(throws: StoreError.self) {
            try await store.get(key, range: 5..<10)
        }
        #expect(error?.kind == .failed)
    }

    @Test func repliesHaveALimit() async throws {
        _ = try await truth.put(key, body, ifAbsent: true)
        var limits = S3Store.Limits()
        limits.objectBytesMax = 50_000
        let small = try server.store(limits: limits)
        let error = await #expect(throws: StoreError.self) { try await small.get(key, range: nil) }
        #expect(error?.kind == .failed)
        #expect(try await small.get(key, range: 0..<50_000).bytes.count == 50_000)
    }
}
