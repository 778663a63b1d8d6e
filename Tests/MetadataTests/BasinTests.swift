// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

extension Conformance {
    @Test(arguments: Backend.allCases)
    func basinIsCreatedOnce(_ backend: Backend) async throws {
        try await backend.with { store in
            let request = BasinCreation(
                name: "basin-one", config: .full, location: "aws:here", creationKey: "k1")
            let created = try await store.createBasin(request)
            #expect(created.result == .created)
            #expect(created.resource.config == .full)
            #expect(created.resource.version == 1)
            #expect(created.resource.location == "aws:here")
            #expect(created.resource.createdMilliseconds > 0)
            #expect(created.resource.deletedMilliseconds == nil)
            #expect(try await store.basin("basin-one") == created.resource)
            #expect(try await store.basin("basin-two") == nil)

            #expect(try await store.createBasin(request) == Provisioned(created.resource, .noop))
            var other = request
            other.creationKey = "k2"
            await expectError(.alreadyExists) { try await store.createBasin(other) }
            other.creationKey = nil
            await expectError(.alreadyExists) { try await store.createBasin(other) }

            let keyless = BasinCreation(
                name: "basin-two", config: BasinConfig(), location: nil, creationKey: nil)
            let second = try await store.createBasin(keyless)
            #expect(second.resource.config == BasinConfig())
            #expect(second.resource.location == nil)
            await expectError(.alreadyExists) { try await store.createBasin(keyless) }
        }
    }

    @Test(arguments: Backend.allCases)
    func basinIsEnsured(_ backend: Backend) async throws {
        try await backend.with { store in
            var request = BasinCreation(
                name: "basin-one", config: .full, location: "here", creationKey: "k1")
            let created = try await store.ensureBasin(request)
            #expect(created.result == .created)
            request.creationKey = "k2"
            #expect(try await store.ensureBasin(request) == Provisioned(created.resource, .noop))

            request.config = BasinConfig()
            request.location = nil
            let updated = try await store.ensureBasin(request)
            #expect(updated.result == .updated)
            #expect(updated.resource.version == 2)
            #expect(updated.resource.config == BasinConfig())
            #expect(updated.resource.location == "here")

            request.location = "there"
            await expectError(.conflict) { try await store.ensureBasin(request) }
            // The creation's key is still the first one.
            let again = BasinCreation(
                name: "basin-one", config: .full, location: "here", creationKey: "k1")
            #expect(try await store.createBasin(again) == Provisioned(updated.resource, .noop))

            // An unset leaf is not the same as one set to the system's default.
            var explicit = BasinConfig()
            explicit.defaultStreamConfig.deleteOnEmptyMinAgeSeconds = 0
            request.location = nil
            request.config = explicit
            #expect(try await store.ensureBasin(request).result == .updated)
            #expect(try await store.ensureBasin(request).result == .noop)
            #expect(try await store.basin("basin-one")?.config == explicit)
            request.config.streamCipher = .aegis256
            #expect(try await store.ensureBasin(request).result == .updated)
        }
    }

    @Test(arguments: Backend.allCases)
    func basinIsUpdatedByVersion(_ backend: Backend) async throws {
        try await backend.with { store in
            #expect(
                try await store.updateBasin("basin-one", version: 1, config: .full) == nil)
            try await store.addBasin()
            let updated = try await store.updateBasin("basin-one", version: 1, config: .full)
            #expect(updated?.version == 2)
            #expect(updated?.config == .full)
            #expect(try await store.basin("basin-one") == updated)
            for version in [0, 1, 3, u64Max] {
                #expect(
                    try await store.updateBasin(
                        "basin-one", version: version, config: BasinConfig()) == nil)
            }
            // What changes nothing is not a version.
            #expect(
                try await store.updateBasin("basin-one", version: 2, config: .full) == updated)
        }
    }

    @Test(arguments: Backend.allCases)
    func deletedBasinStaysMarked(_ backend: Backend) async throws {
        try await backend.with { store in
            #expect(try await store.deleteBasin("basin-one") == false)
            try await store.addBasin(key: "k")
            try await store.addStream(1)
            #expect(try await store.deleteBasin("basin-one"))
            let mark = try await store.basin("basin-one")?.deletedMilliseconds
            #expect(mark != nil)
            #expect(try await store.deleteBasin("basin-one"))
            #expect(try await store.basin("basin-one")?.deletedMilliseconds == mark)

            await expectError(.deletionPending) { try await store.addBasin(key: "k") }
            await expectError(.deletionPending) {
                try await store.ensureBasin(
                    BasinCreation(
                        name: "basin-one", config: .full, location: nil, creationKey: nil))
            }
            await expectError(.deletionPending) {
                try await store.updateBasin("basin-one", version: 1, config: .full)
            }
            await expectError(.basinDeletionPending) { try await store.addStream(2) }
            await expectError(.basinDeletionPending) {
                try await store.ensureStream(
                    StreamCreation(
                        id: streamID(2), basin: "basin-one", name: "s", wish: StreamConfigWish(),
                        creationKey: nil))
            }
            await expectError(.basinDeletionPending) {
                try await store.updateStream(streamID(1), version: 1, config: .system)
            }
            let listed = try await store.listBasins(prefix: "", startAfter: "", limit: 10)
            #expect(listed.items.map(\.deletedMilliseconds) == [mark])
            // Its streams are still there to be deleted.
            #expect(try await store.stream(basin: "basin-one", name: "stream-1") != nil)
            #expect(try await store.deleteStream(basin: "basin-one", name: "stream-1") != nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func basinsAreListedByPage(_ backend: Backend) async throws {
        try await backend.with { store in
            let names = ["a-1", "ab", "aba", "abb", "abb-1", "b", "b0"]
            for name in names.reversed() { try await store.addBasin(name) }
            func list(
                _ prefix: String, _ startAfter: String, _ limit: Int
            ) async throws -> ([String], Bool) {
                let page = try await store.listBasins(
                    prefix: prefix, startAfter: startAfter, limit: limit)
                return (page.items.map(\.name), page.hasMore)
            }
            #expect(try await list("", "", 1_000) == (names, false))
            #expect(try await list("", "", 7) == (names, false))
            #expect(try await list("", "", 6) == (Array(names.dropLast()), true))
            #expect(try await list("ab", "", 2) == (["ab", "aba"], true))
            #expect(try await list("ab", "aba", 2) == (["abb", "abb-1"], false))
            #expect(try await list("ab", "a", 1) == (["ab"], true))
            #expect(try await list("ab", "abz", 5) == ([], false))
            #expect(try await list("ab", "b", 5) == ([], false))
            #expect(try await list("c", "", 5) == ([], false))
            #expect(try await list("", "b0", 5) == ([], false))
        }
    }
}
