// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Observability
import Primitives
import TestSupport
import Testing

@testable import CacheyRole

/// A registry that can be away, or slow.
// Safety: everything happens on the one thread of its test.
private final class PoorRegistry: CacheyRegistry, @unchecked Sendable {
    let rows = MemoryMetadata { 1 }
    let loop = ManualLoop()
    var isDown = false
    var registering: Nanoseconds = 0
    var removing: Nanoseconds = 0

    private func check() throws(MetadataError) {
        if isDown { throw MetadataError(.unavailable, "scripted") }
    }
    func registerCachey(
        _ registration: CacheyRegistration
    ) async throws(MetadataError) -> CacheyTenure {
        try check()
        if registering > 0 { await loop.sleep(registering) }
        return try await rows.registerCachey(registration)
    }
    func renewCachey(_ id: CacheyID, load: CacheyLoad) async throws(MetadataError) -> Bool {
        try check()
        return try await rows.renewCachey(id, load: load)
    }
    func cacheys(zone: String?) async throws(MetadataError) -> [CacheyRow] {
        try check()
        return try await rows.cacheys(zone: zone)
    }
    func removeCachey(_ id: CacheyID, renewals: UInt64?) async throws(MetadataError) {
        try check()
        if removing > 0 { await loop.sleep(removing) }
        try await rows.removeCachey(id, renewals: renewals)
    }
}

@Suite struct EnrolmentOutageTests {
    private let registry = PoorRegistry()
    private let enrolment: Enrolment
    private let world: CacheyWorld

    init() throws {
        var limits = CacheyLimits(address: "c:1")
        limits.forgetNanoseconds = .seconds(20)
        world = CacheyWorld(
            loop: registry.loop, registry: registry,
            buckets: [Bucket(name: "b", store: FakeBucket(registry.loop))], disk: nil,
            log: .silent, metrics: Metrics(role: "cachey"))
        enrolment = Enrolment(world: world, limits: limits) { .idle }
        try run { [enrolment] in _ = try await enrolment.start() }
    }

    private func run(_ body: @escaping () async throws -> Void) throws {
        var result: Result<Void, any Error>?
        registry.loop.spawn {
            do { result = .success(try await body()) } catch { result = .failure(error) }
        }
        registry.loop.settle()
        try #require(result).get()
    }

    private func addresses() throws -> [String] {
        var found: [String] = []
        try run { [registry] in
            found = try await registry.rows.cacheys(zone: nil).map(\.address)
        }
        return found
    }

    @Test func anOutageStrikesNobodyFromTheList() throws {
        var other: CacheyID?
        try run { [registry] in
            other = try await registry.rows.registerCachey(
                CacheyRegistration(zone: "z", address: "d:1")
            ).id
        }
        let id = try #require(other)
        for _ in 0..<30 {
            registry.loop.advance(.seconds(1))
            try run { [registry] in _ = try await registry.rows.renewCachey(id, load: .idle) }
        }
        // Long enough to be looked at once more.
        registry.loop.advance(.seconds(7))
        registry.isDown = true
        registry.loop.advance(.seconds(60))
        registry.isDown = false
        registry.loop.advance(.seconds(10))
        #expect(try addresses() == ["c:1", "d:1"], "it could not renew either")
        registry.loop.advance(.seconds(30))
        #expect(try addresses() == ["c:1"])
    }

    @Test func aDrainDoesNotWaitForMetadataBeyondItsLimit() throws {
        let role = CacheyRole(world: world, limits: CacheyLimits(address: "e:1"))
        try run { try await role.start() }
        registry.removing = .seconds(100)
        var isDrained = false
        registry.loop.spawn {
            await role.drain(within: .seconds(3))
            isDrained = true
        }
        registry.loop.advance(.milliseconds(2_900))
        #expect(!isDrained, "it would leave the list")
        registry.loop.advance(.milliseconds(200))
        #expect(isDrained)
    }

    @Test func whoLeftDoesNotComeBackByALateRegistration() throws {
        registry.registering = .seconds(5)
        // Struck from the list, it registers again.
        try run { [registry] in
            for row in try await registry.rows.cacheys(zone: nil) {
                try await registry.rows.removeCachey(row.id, renewals: nil)
            }
        }
        registry.loop.advance(.seconds(2))
        try run { [enrolment] in await enrolment.stop() }
        registry.loop.advance(.seconds(10))
        #expect(try addresses() == [])
    }
}
