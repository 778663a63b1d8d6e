// SPDX-License-Identifier: Apache-2.0

import Metadata
import Postgres
import PostgresSupport
import Primitives
import Testing

extension Conformance {
    private func check(_ store: any CacheyRegistry) async throws {
        let first = try await store.registerCachey(
            CacheyRegistration(zone: "it's", address: "[::1]:7450"))
        let second = try await store.registerCachey(
            CacheyRegistration(zone: "b", address: "b:1"))
        #expect(first.id.number > 0 && second.id > first.id)
        #expect(first.cell == second.cell)
        let idle = CacheyRow(
            id: first.id, zone: "it's", address: "[::1]:7450", renewals: 0, load: .idle)
        #expect(try await store.cacheys(zone: "it's") == [idle])
        #expect(try await store.cacheys(zone: nil).map(\.id) == [first.id, second.id])
        #expect(try await store.cacheys(zone: "c") == [])

        let load = CacheyLoad(egressBytesPerSecond: u64Max)
        #expect(try await store.renewCachey(first.id, load: load))
        let renewed = try #require(try await store.cacheys(zone: "it's").first)
        #expect(renewed.renewals == 1 && renewed.load == load)

        // It was renewed since somebody thought it dead.
        try await store.removeCachey(first.id, renewals: 0)
        #expect(try await store.cacheys(zone: "it's").count == 1)
        try await store.removeCachey(first.id, renewals: 1)
        #expect(try await store.cacheys(zone: "it's") == [])
        #expect(try await store.renewCachey(first.id, load: .idle) == false)
        try await store.removeCachey(first.id, renewals: nil)
        try await store.removeCachey(second.id, renewals: nil)
        #expect(try await store.cacheys(zone: nil) == [])
        #expect(try await store.renewCachey(CacheyID(u64Max), load: .idle) == false)
        let third = try await store.registerCachey(
            CacheyRegistration(zone: "b", address: "b:1"))
        #expect(third.id > second.id && third.cell == first.cell)
    }

    @Test func cacheysInMemory() async throws { try await check(MemoryMetadata { 1 }) }

    @Test func cacheysInPostgres() async throws {
        var cells: [ID128] = []
        for _ in 0..<2 {
            try await TestDatabase.with { metadata, _ in
                try await check(metadata)
                let tenure = try await metadata.registerCachey(
                    CacheyRegistration(zone: "z", address: "a:1"))
                cells.append(tenure.cell)
            }
        }
        // Databases that are copies of one template are one cell; those made anew are not.
        #expect(cells[0] == cells[1])
        let other = try await TestDatabase.empty()
        try PostgresMetadata.migrate(conninfo: other.conninfo)
        let metadata = PostgresMetadata(conninfo: other.conninfo, options: .patient)
        let tenure = try await metadata.registerCachey(
            CacheyRegistration(zone: "z", address: "a:1"))
        #expect(tenure.cell != cells[0])
        metadata.stop()
        try await other.drop()
    }
}
