// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

extension Conformance {
    @Test(arguments: Backend.allCases)
    func streamIsCreatedOnce(_ backend: Backend) async throws {
        try await backend.with { store in
            await expectError(.basinNotFound) { try await store.addStream(1) }
            await expectError(.basinNotFound) {
                try await store.stream(basin: "basin-one", name: "s")
            }
            try await store.addBasin()
            #expect(try await store.stream(basin: "basin-one", name: "s") == nil)
            #expect(try await store.stream(streamID(1)) == nil)

            let request = StreamCreation(
                id: streamID(1), basin: "basin-one", name: "s", wish: StreamConfigWish(),
                creationKey: "k1")
            let created = try await store.createStream(request)
            #expect(created.result == .created)
            #expect(created.resource.id == streamID(1))
            #expect(created.resource.config == .system)
            #expect(created.resource.version == 1)
            #expect(created.resource.cipher == nil)
            #expect(created.resource.state == .initial)
            let lookup = StreamLookup(stream: created.resource, owner: nil)
            #expect(try await store.stream(basin: "basin-one", name: "s") == lookup)
            #expect(try await store.stream(streamID(1)) == lookup)

            // The same request from another process brings another id; the first one stays.
            var again = request
            again.id = streamID(2)
            #expect(try await store.createStream(again) == Provisioned(created.resource, .noop))
            again.creationKey = "k2"
            await expectError(.alreadyExists) { try await store.createStream(again) }
            again.creationKey = nil
            await expectError(.alreadyExists) { try await store.createStream(again) }
            // An id is one stream's only.
            again.id = streamID(1)
            again.name = "t"
            await expectError(.failed) { try await store.createStream(again) }
            #expect(try await store.stream(basin: "basin-one", name: "t") == nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func configResolvesLeafByLeaf(_ backend: Backend) async throws {
        try await backend.with { store in
            try await store.addBasin(config: .full)
            let defaults = BasinConfig.full.defaultStreamConfig
            let inherited = try await store.addStream(1)
            #expect(
                inherited.config == StreamConfig(resolving: StreamConfigWish(), over: defaults))
            #expect(inherited.cipher == .aes256GCM)

            var wish = StreamConfigWish()
            wish.retention = .infinite
            wish.deleteOnEmptyMinAgeSeconds = 0
            wish.timestampingUncapped = false
            let wished = try await store.addStream(2, wish: wish)
            #expect(wished.config == StreamConfig(resolving: wish, over: defaults))
            #expect(wished.config.retention == .infinite)
            #expect(wished.config.deleteOnEmptyMinAgeSeconds == 0)
            #expect(wished.config.storageClass == defaults.storageClass)

            // Later defaults do not reach back, but an ensure resolves anew.
            _ = try await store.updateBasin("basin-one", version: 1, config: BasinConfig())
            #expect(try await store.stream(streamID(1))?.stream == inherited)
            let request = StreamCreation(
                id: streamID(9), basin: "basin-one", name: "stream-1", wish: StreamConfigWish(),
                creationKey: nil)
            let updated = try await store.ensureStream(request)
            #expect(updated.result == .updated)
            #expect(updated.resource.id == streamID(1))
            #expect(updated.resource.version == 2)
            #expect(updated.resource.config == .system)
            #expect(updated.resource.cipher == .aes256GCM)
            #expect(try await store.ensureStream(request) == Provisioned(updated.resource, .noop))
            // An explicit default is what it would inherit.
            var explicit = request
            explicit.wish.storageClass = "express"
            #expect(try await store.ensureStream(explicit).result == .noop)
            explicit.name = "new"
            let created = try await store.ensureStream(explicit)
            #expect(created.result == .created)
            #expect(created.resource.id == streamID(9))
            #expect(created.resource.cipher == nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func streamIsUpdatedByVersion(_ backend: Backend) async throws {
        try await backend.with { store in
            var config = StreamConfig.system
            config.retention = .age(seconds: u64Max)
            config.timestampingMode = .arrival
            #expect(try await store.updateStream(streamID(1), version: 1, config: config) == nil)
            try await store.addBasin()
            try await store.addStream(1)
            for version in [0, 2, u64Max] {
                #expect(
                    try await store.updateStream(streamID(1), version: version, config: config)
                        == nil)
            }
            let updated = try await store.updateStream(streamID(1), version: 1, config: config)
            #expect(updated?.stream.config == config)
            #expect(updated?.stream.version == 2)
            #expect(try await store.stream(streamID(1)) == updated)
            #expect(
                try await store.updateStream(streamID(1), version: 2, config: config) == updated)
        }
    }

    @Test(arguments: Backend.allCases)
    func deletedStreamKeepsItsName(_ backend: Backend) async throws {
        try await backend.with { store in
            await expectError(.basinNotFound) {
                try await store.deleteStream(basin: "basin-one", name: "stream-1")
            }
            let (id, channel) = try await store.addOwnedStream()
            #expect(try await store.deleteStream(basin: "basin-one", name: "other") == nil)
            let deleted = try await store.deleteStream(basin: "basin-one", name: "stream-1")
            #expect(deleted?.stream.deletedMilliseconds != nil)
            #expect(deleted?.owner?.channel == channel)
            #expect(try await store.deleteStream(basin: "basin-one", name: "stream-1") == deleted)
            #expect(try await store.stream(id) == deleted)
            await expectError(.deletionPending) { try await store.addStream(1) }
            await expectError(.deletionPending) {
                try await store.updateStream(id, version: 1, config: .system)
            }
            await expectError(.deletionPending) {
                try await store.ensureStream(
                    StreamCreation(
                        id: streamID(2), basin: "basin-one", name: "stream-1",
                        wish: StreamConfigWish(), creationKey: nil))
            }
            #expect(try await store.claim(id, channel: channel) == .streamDeletionPending)
            // The owner can still close it.
            #expect(
                try await store.flush(flush(channel, [part(id, 0..<3, closes: true)], to: 1))
                    == .done)
            #expect(try await store.stream(id)?.owner == nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func namesAreBytes(_ backend: Backend) async throws {
        try await backend.with { store in
            try await store.addBasin()
            try await store.addBasin("basin-two")
            let names = [
                "'; DROP TABLE stream; --", "\"quoted\\\" {} $1 %s", "/", "//a/./..", " ",
                "\u{1}\t\n", "e\u{301}", "\u{E9}", "ü/日本語/🙂", "\u{10FFFF}",
                "\u{10FFFF}\u{10FFFF}x", "NULL",
                String(repeating: "x", count: 512), String(repeating: "🙂", count: 128),
                String(repeating: "\u{10FFFF}", count: 128),
            ]
            for (index, name) in names.enumerated() {
                let stream = try await store.addStream(UInt64(index), name: name)
                #expect(Array(stream.name.utf8) == Array(name.utf8))
                let found = try await store.stream(basin: "basin-one", name: name)
                #expect(found?.stream.id == streamID(UInt64(index)))
                #expect(try await store.stream(basin: "basin-two", name: name) == nil)
            }
            let page = try await store.listStreams(
                basin: "basin-one", prefix: "", startAfter: "", limit: 1_000)
            let sorted = names.map { Array($0.utf8) }.sorted { $0.lexicographicallyPrecedes($1) }
            #expect(page.items.map { Array($0.name.utf8) } == sorted)
            let max = try await store.listStreams(
                basin: "basin-one", prefix: "\u{10FFFF}", startAfter: "\u{10FFFF}", limit: 1)
            #expect(max.items.map(\.name) == ["\u{10FFFF}\u{10FFFF}x"] && max.hasMore)
        }
    }

    @Test(arguments: Backend.allCases)
    func streamsAreListedByPage(_ backend: Backend) async throws {
        try await backend.with { store in
            await expectError(.basinNotFound) {
                try await store.listStreams(
                    basin: "basin-one", prefix: "", startAfter: "", limit: 1)
            }
            try await store.addBasin()
            try await store.addBasin("basin-two")
            try await store.addStream(100, basin: "basin-two", name: "a/0")
            let names = ["A", "a", "a/", "a/1", "a/10", "a/2", "a0", "a_", "z", "é", "％"]
            for (index, name) in names.enumerated().reversed() {
                try await store.addStream(UInt64(index), name: name)
            }
            func list(
                _ prefix: String, _ startAfter: String, _ limit: Int
            ) async throws -> ([String], Bool) {
                let page = try await store.listStreams(
                    basin: "basin-one", prefix: prefix, startAfter: startAfter, limit: limit)
                return (page.items.map(\.name), page.hasMore)
            }
            #expect(try await list("", "", 1_000) == (names, false))
            #expect(try await list("a/", "", 10) == (["a/", "a/1", "a/10", "a/2"], false))
            #expect(try await list("a/", "a/", 2) == (["a/1", "a/10"], true))
            #expect(try await list("a/", "a/10", 1) == (["a/2"], false))
            #expect(try await list("a/", "A", 1) == (["a/"], true))
            #expect(try await list("a/", "a0", 5) == ([], false))
            #expect(try await list("a_", "", 5) == (["a_"], false))
            #expect(try await list("%", "", 5) == ([], false))
            #expect(try await list("é", "", 5) == (["é"], false))

            var walked: [String] = []
            while true {
                let (page, more) = try await list("", walked.last ?? "", 2)
                walked += page
                if !more { break }
                #expect(page.count == 2)
            }
            #expect(walked == names)
            _ = try await store.deleteStream(basin: "basin-one", name: "z")
            #expect(try await list("z", "", 5) == (["z"], false))
        }
    }
}
