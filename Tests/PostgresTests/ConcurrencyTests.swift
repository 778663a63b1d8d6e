// SPDX-License-Identifier: Apache-2.0

import Metadata
import Postgres
import PostgresSupport
import Primitives
import Records
import Testing

private func streamID(_ low: UInt64) -> StreamID { StreamID(ID128(high: 7, low: low)) }

private let registration = ChannelRegistration(
    storageClass: "express", zone: "a", address: "127.0.0.1:7400")

extension PostgresMetadata {
    fileprivate func addBasin() async throws {
        _ = try await createBasin(
            BasinCreation(
                name: "basin-one", config: BasinConfig(), location: nil, creationKey: nil))
    }

    fileprivate func addStream(_ low: UInt64, name: String) async throws -> Provisioned<Stream> {
        try await createStream(
            StreamCreation(
                id: streamID(low), basin: "basin-one", name: name, wish: StreamConfigWish(),
                creationKey: nil))
    }
}

/// What only many callers at once can break.
@Suite(.serialized) struct ConcurrencyTests {
    private var options: PostgresOptions {
        var options = PostgresOptions.patient
        options.connectionsMax = 16
        return options
    }

    /// A flush under way may not have seen that its object was condemned meanwhile.
    @Test func anObjectIsSettledOnceTransactionsUnderWayAreOver() async throws {
        try await TestDatabase.with(options) { store, database in
            let object = StoredObject(bucket: "main", key: "seg/10/a")
            try await store.unlinkObject(object)
            var one = PostgresOptions.patient
            one.connectionsMax = 1
            let (slow, watcher) = (
                PostgresDriver(conninfo: database.conninfo, options: one),
                PostgresDriver(conninfo: database.conninfo, options: one)
            )
            defer {
                slow.stop()
                watcher.stop()
            }
            func watch(_ sql: String) async throws -> String? {
                try await watcher.execute(Statement("watch_\(sql.utf8.count)", sql), [])[0, 0]
            }
            _ = try await watch("SELECT pg_advisory_lock(7)")
            let writing = Task {
                let statement = Statement(
                    "slow",
                    """
                    WITH made AS (
                        INSERT INTO millrace.garbage VALUES ('main', 'seg/20/b') RETURNING 1
                    ) SELECT pg_advisory_lock(7) FROM made
                    """)
                _ = try await slow.execute(statement, [])
            }
            let others = """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND backend_xid IS NOT NULL
                """
            while try await watch(others) == "0" { try await Task.sleep(for: .milliseconds(5)) }
            #expect(try await store.condemn(object, age: 0))
            func phase() async throws -> Garbage.Phase? {
                try await store.scanGarbage("seg/10"..<"seg/11", after: nil, limit: 9)
                    .items.first?.phase
            }
            for _ in 0..<20 { #expect(try await phase() == .condemned) }
            _ = try await watch("SELECT pg_advisory_unlock(7)")
            try await writing.value
            while try await phase() != .settled { try await Task.sleep(for: .milliseconds(5)) }
        }
    }

    @Test func oneOfManyClaimersWins() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            for round in 0..<10 as Range<UInt64> {
                _ = try await store.addStream(round, name: "s\(round)")
                let results = try await withThrowingTaskGroup(of: (ChannelID, ClaimResult).self) {
                    group in
                    for _ in 0..<16 {
                        let channel = try await store.registerChannel(registration)
                        group.addTask {
                            (channel, try await store.claim(streamID(round), channel: channel))
                        }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                let winners = results.compactMap { channel, result -> ChannelID? in
                    if case .claimed(0, _) = result { channel } else { nil }
                }
                #expect(winners.count == 1)
                let winner = try #require(winners.first)
                for (channel, result) in results where channel != winner {
                    guard case .owned(let owner) = result else {
                        Issue.record("\(result)")
                        continue
                    }
                    #expect(owner.channel == winner && owner.channelIsActive)
                }
            }
        }
    }

    @Test func claimAndDeleteAgree() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            let channel = try await store.registerChannel(registration)
            for round in 0..<60 as Range<UInt64> {
                let name = "s\(round)"
                _ = try await store.addStream(round, name: name)
                async let claim = store.claim(streamID(round), channel: channel)
                async let delete = store.deleteStream(basin: "basin-one", name: name)
                let (claimed, deleted) = try await (claim, delete)
                // Whoever deletes sees the owner, or the owner sees the deletion.
                switch claimed {
                case .claimed: #expect(deleted?.owner?.channel == channel)
                case .streamDeletionPending: #expect(deleted?.owner == nil)
                default: Issue.record("\(claimed)")
                }
            }
        }
    }

    @Test func deathAndClaimAgree() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            for round in 0..<40 as Range<UInt64> {
                _ = try await store.addStream(round, name: "s\(round)")
                let channel = try await store.registerChannel(registration)
                async let claim = store.claim(streamID(round), channel: channel)
                async let renew = store.renewChannel(channel, load: .idle)
                async let death = store.declareDead(channel, renewals: 0)
                let (claimed, isRenewed, isDead) = try await (claim, renew, death)
                #expect(isRenewed != isDead, "either renewed or dead, never both")
                let open = try await store.streamlets(of: channel, [.open])
                if case .claimed = claimed {
                    #expect(open.count == 1)
                } else {
                    #expect(claimed == .channelNotActive && isDead && open.isEmpty)
                }
            }
        }
    }

    @Test func oneOfManyCreatorsWins() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            for round in 0..<5 as Range<UInt64> {
                let outcomes = await withTaskGroup(of: MetadataError.Kind?.self) { group in
                    for caller in 0..<32 as Range<UInt64> {
                        group.addTask {
                            do throws(MetadataError) {
                                let created = try await createOne(store, round, caller)
                                #expect(created.result == .created)
                                return nil
                            } catch {
                                return error.kind
                            }
                        }
                    }
                    return await group.reduce(into: []) { $0.append($1) }
                }
                #expect(outcomes.count { $0 == nil } == 1)
                #expect(outcomes.count { $0 == .alreadyExists } == 31)
            }
        }
    }

    @Test func racingFlushesNeverDeadlockNorRegress() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            let (old, new) = (
                try await store.registerChannel(registration),
                try await store.registerChannel(registration)
            )
            let ids = (0..<20 as Range<UInt64>).map(streamID)
            for (index, id) in ids.enumerated() {
                _ = try await store.addStream(UInt64(index), name: "s\(index)")
                _ = try await store.claim(id, channel: index % 2 == 0 ? old : new)
            }
            // Both channels flush the same streams' rows in opposite orders of their parts; each
            // owns half, so the other half's flush is refused, under the same locks.
            try await withThrowingTaskGroup(of: Void.self) { group in
                for channel in [old, new] {
                    for attempt in 0..<20 {
                        let order = attempt % 2 == 0 ? ids : ids.reversed()
                        group.addTask {
                            let all = order.map { emptyPart($0) }
                            let result = try await store.flush(
                                Flush(
                                    channel: channel, isRecovery: false, parts: all,
                                    flushedEnd: 9))
                            guard case .notContiguous = result else {
                                Issue.record("\(result)")
                                return
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await store.channel(old)?.flushedEnd == 0)
        }
    }

    @Test func repeatedFlushInFlightIsDoneOnce() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            _ = try await store.addStream(1, name: "s")
            let channel = try await store.registerChannel(registration)
            _ = try await store.claim(streamID(1), channel: channel)
            let tail = StreamPosition(seqNum: 5, timestamp: 5)
            let part = Flush.Part(
                stream: streamID(1), streamlet: 0, from: 0,
                state: StreamState(
                    tail: tail, fencingToken: "", fencingTokenPosition: 0, trimPoint: 5),
                closes: true, segments: [])
            let flush = Flush(channel: channel, isRecovery: false, parts: [part], flushedEnd: 1)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<16 {
                    group.addTask {
                        let result = try await store.flush(flush)
                        #expect(result == .done)
                    }
                }
                try await group.waitForAll()
            }
            #expect(
                try await store.streamlets(of: streamID(1), before: nil, limit: 5).map(\.end) == [5]
            )
        }
    }

    /// Nobody waits for anybody in a ring, and each row goes once.
    @Test func forgettingAndPurgingAgree() async throws {
        try await TestDatabase.with(options) { store, _ in
            try await store.addBasin()
            for round in 0..<6 as Range<UInt64> {
                let channel = try await store.registerChannel(registration)
                let ids = (round * 100)..<(round * 100 + 40)
                for low in ids {
                    _ = try await store.addStream(low, name: "s\(low)")
                    _ = try await store.claim(streamID(low), channel: channel)
                }
                try await store.resignChannel(channel)
                #expect(try await store.publishSeal(channel, sealedAt: 1, flushedEnd: 0))
                let parts = ids.map { low in
                    var part = emptyPart(streamID(low))
                    part.closes = true
                    return part
                }
                let flush = Flush(channel: channel, isRecovery: true, parts: parts, flushedEnd: 1)
                #expect(try await store.flush(flush) == .done)
                #expect(try await store.retireChannel(channel))
                try await store.markLog(channel)
                let forgotten = try await withThrowingTaskGroup(of: Int.self) { group in
                    for low in ids where low % 2 == 0 {
                        group.addTask {
                            _ = try await store.deleteStream(basin: "basin-one", name: "s\(low)")
                            _ = try await store.purgeStream(streamID(low), limit: 10)
                            return 0
                        }
                    }
                    for _ in 0..<8 {
                        group.addTask { try await store.forgetStreamlets(of: channel, limit: 7) }
                        group.addTask {
                            _ = try await store.forgetChannel(channel)
                            return 0
                        }
                    }
                    return try await group.reduce(0, +)
                }
                #expect(forgotten <= ids.count)
                #expect(try await store.forgetChannel(channel))
                #expect(try await store.channel(channel) == nil)
                #expect(try await store.stream(streamID(round * 100 + 1)) != nil)
                #expect(try await store.stream(streamID(round * 100)) == nil)
            }
        }
    }

    /// A prepared streamlet cannot be made by any operation yet: the row is put in by hand.
    @Test func lateFlushCannotUndoItsSuccessor() async throws {
        try await TestDatabase.with(options) { store, database in
            try await store.addBasin()
            _ = try await store.addStream(1, name: "s")
            let (old, new) = (
                try await store.registerChannel(registration),
                try await store.registerChannel(registration)
            )
            _ = try await store.claim(streamID(1), channel: old)
            let driver = database.driver()
            defer { driver.stop() }
            // The successor begins at 10 and flushes first; the predecessor's end comes later.
            _ = try await driver.execute(
                Statement(
                    "prepare_successor",
                    """
                    INSERT INTO millrace.streamlet
                        (stream, number, channel, start_seq_num, flushed_end, state)
                    VALUES ($1::uuid, 1, $2::bigint, 10, 10, 'prepared')
                    """), [streamID(1).description, new.description])
            guard case .owned(let owner) = try await store.claim(streamID(1), channel: new) else {
                Issue.record("a prepared streamlet is not claimed")
                return
            }
            #expect(owner.channel == old)
            _ = try await driver.execute(
                Statement(
                    "advance_successor",
                    """
                    UPDATE millrace.stream SET tail_seq_num = 15, tail_timestamp = 150,
                        fencing_token = 'new', fencing_token_position = 12, trim_point = 11
                    WHERE id = $1::uuid
                    """), [streamID(1).description])
            let late = StreamState(
                tail: StreamPosition(seqNum: 10, timestamp: 100), fencingToken: "old",
                fencingTokenPosition: 9, trimPoint: 10)
            let part = Flush.Part(
                stream: streamID(1), streamlet: 0, from: 0, state: late, closes: true,
                segments: [])
            #expect(
                try await store.flush(
                    Flush(channel: old, isRecovery: false, parts: [part], flushedEnd: 1)) == .done)
            let state = try await store.stream(streamID(1))?.stream.state
            #expect(
                state
                    == StreamState(
                        tail: StreamPosition(seqNum: 15, timestamp: 150), fencingToken: "new",
                        fencingTokenPosition: 12, trimPoint: 11))
        }
    }
}

private func createOne(
    _ store: PostgresMetadata, _ round: UInt64, _ caller: UInt64
) async throws(MetadataError) -> Provisioned<Stream> {
    try await store.createStream(
        StreamCreation(
            id: streamID(round * 100 + caller), basin: "basin-one", name: "s\(round)",
            wish: StreamConfigWish(), creationKey: "key-\(caller)"))
}

private func emptyPart(_ stream: StreamID) -> Flush.Part {
    Flush.Part(
        stream: stream, streamlet: 0, from: 0, state: .initial, closes: false, segments: [])
}
