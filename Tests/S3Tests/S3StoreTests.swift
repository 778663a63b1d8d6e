// SPDX-License-Identifier: Apache-2.0

import ObjectStorage
import Primitives
import S3
import TestSupport
import Testing

@Suite struct S3ConformanceTests {
    @Test(arguments: StoreConformance.Check.allCases)
    func pathStyle(_ check: StoreConformance.Check) async throws {
        let loop = ThreadLoop()
        defer { loop.stop() }
        try await StoreConformance(TestServer().store(), loop: loop).run(check)
    }

    /// Virtual-host style, everything below a prefix, and bodies that are not hashed.
    @Test(arguments: StoreConformance.Check.allCases)
    func virtualStyle(_ check: StoreConformance.Check) async throws {
        let server = try TestServer()
        var limits = S3Store.Limits()
        limits.signsPayload = false
        let endpoint = server.endpoint.replacing("127.0.0.1", with: "localhost")
        let store = try server.store(
            prefix: "cells/a b", endpoint: endpoint, style: .virtual, limits: limits)
        let loop = ThreadLoop()
        defer { loop.stop() }
        try await StoreConformance(store, loop: loop).run(check)
    }
}

@Suite struct S3AccessTests {
    private let key = "access/\(ID128(random: .system()))"

    @Test func aWrongSecretIsDenied() async throws {
        let server = try TestServer()
        let wrong = S3Credentials(accessKey: server.credentials.accessKey, secretKey: "wrong")
        let store = try server.store(credentials: wrong)
        let put = await #expect(throws: StoreError.self) {
            try await store.put(key, [Bytes(utf8: "x")], ifAbsent: true)
        }
        #expect(put?.kind == .denied && put?.outcomeUnknown == false)
        let get = await #expect(throws: StoreError.self) { try await store.get(key, range: nil) }
        #expect(get?.kind == .denied)
        let head = await #expect(throws: StoreError.self) { try await store.head(key) }
        #expect(head?.kind == .denied)
        let list = await #expect(throws: StoreError.self) {
            try await store.list(prefix: "", after: "", limit: 1)
        }
        #expect(list?.kind == .denied)
    }

    @Test func aMissingBucketIsDenied() async throws {
        let server = try TestServer()
        let location = S3Location(
            bucket: "no-such-bucket", endpoint: server.endpoint, region: server.region,
            style: .path)
        let store = try S3Store(location, credentials: server.credentials)
        let error = await #expect(throws: StoreError.self) {
            try await store.put(key, [Bytes(utf8: "x")], ifAbsent: true)
        }
        #expect(error?.kind == .denied)
        let get = await #expect(throws: StoreError.self) { try await store.get(key, range: nil) }
        #expect(get?.kind == .denied)
    }

    /// The real server tells a clock that is an hour ahead; its own is taken from then on.
    @Test func aWrongClockIsCorrected() async throws {
        let store = try TestServer().store(clockMillisecondsAhead: 3_600_000)
        #expect(try await store.put(key, [Bytes(utf8: "x")], ifAbsent: true) == .created)
        #expect(store.statistics.retries == 1)
        #expect(try await store.get(key, range: nil).objectSize == 1)
        #expect(store.statistics.retries == 1)
    }

    @Test func nobodyListens() async throws {
        let server = try TestServer()
        var limits = S3Store.Limits()
        limits.backoff = Backoff(first: .milliseconds(1), triesMax: 3)
        let store = try server.store(endpoint: "http://127.0.0.1:9", limits: limits)
        let put = await #expect(throws: StoreError.self) {
            try await store.put(key, [Bytes(utf8: "x")], ifAbsent: true)
        }
        #expect(put?.kind == .unavailable && put?.outcomeUnknown == false)
        let deletion = await #expect(throws: StoreError.self) { try await store.delete(key) }
        #expect(deletion?.kind == .unavailable && deletion?.outcomeUnknown == false)
        #expect(store.statistics.retries == 2)
    }

    @Test func aLongKeyBehindThePrefixIsRefused() async throws {
        let store = try TestServer().store(prefix: String(repeating: "p", count: 600))
        let error = await #expect(throws: StoreError.self) {
            try await store.put(String(repeating: "k", count: 500), [], ifAbsent: true)
        }
        #expect(error?.kind == .invalidRequest)
    }
}
