// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Synchronization
import Testing

private func row(
    _ low: UInt64, _ range: Range<SeqNum>, object: String, length: UInt64 = 17
) -> SegmentRow {
    var row = segment(streamID(low), range)
    row.object = object
    row.length = length
    return row
}

private func main(_ key: String) -> StoredObject { StoredObject(bucket: "bucket-1", key: key) }

extension Backend {
    fileprivate func keep(
        _ body: (any HousekeepingStore) async throws -> Void
    ) async throws {
        try await with { store in
            try await body(try #require(store as? any HousekeepingStore))
        }
    }
}

extension HousekeepingStore {
    fileprivate func add(_ rows: [SegmentRow], trim: SeqNum = 0) async throws -> ChannelID {
        if try await basin("basin-one") == nil { try await addBasin() }
        let channel = try await addChannel()
        for (low, group) in Dictionary(grouping: rows, by: { $0.stream }) {
            _ = try await createStream(
                StreamCreation(
                    id: low, basin: "basin-one", name: "of-\(low)", wish: StreamConfigWish(),
                    creationKey: nil))
            _ = try await claim(low, channel: channel)
            let part = Flush.Part(
                stream: low, streamlet: 0, from: group[0].start.seqNum,
                state: state(group[group.count - 1].endSeqNum, trim: trim), closes: false,
                segments: group)
            let one = MetadataTests.flush(channel, [part], to: 1)
            #expect(try await flush(one) == .done)
        }
        return channel
    }

    /// The garbage once some is settled: when whatever else ran on the server is over.
    fileprivate func settled() async throws -> [Garbage] {
        for _ in 0..<1_000 {
            let found = try await garbage().filter { $0.phase == .settled }
            if !found.isEmpty { return found }
            try await Task.sleep(for: .milliseconds(5))
        }
        return []
    }

    fileprivate func garbage() async throws -> [Garbage] {
        try await scanGarbage("seg/"..<"seg0", after: nil, limit: 100).items
    }
}

extension Conformance {
    @Test(arguments: Backend.allCases)
    func objectsGoStepByStep(_ backend: Backend) async throws {
        try await backend.keep { store in
            // Two streams share an object.
            let (shared, own) = ("seg/10/\"shared\" 'ü'", "seg/20/own")
            let channel = try await store.add(
                [
                    row(1, 0..<10, object: shared), row(2, 0..<10, object: shared),
                    row(1, 10..<20, object: own),
                ], trim: 10)
            #expect(
                try await store.knownObjects([shared, own, "seg/30/x"], bucket: "bucket-1")
                    == [shared, own])
            #expect(try await store.knownObjects([shared], bucket: "bucket-2").isEmpty)
            #expect(try await store.garbage().isEmpty)
            #expect(try await store.unlinkTrimmed(streamID(1), limit: 10) == 1)
            #expect(try await store.garbage().map(\.isReferenced) == [true])
            #expect(try await store.condemn(main(shared), age: 0) == false)
            #expect(try await store.unlinkTrimmed(streamID(2), limit: 10) == 1)
            #expect(try await store.condemn(main(shared), age: 1_000_000) == false)
            try await store.forgetObject(main(shared))
            #expect(try await store.garbage().map(\.object) == [main(shared)])
            #expect(try await store.knownObjects([shared], bucket: "bucket-1") == [shared])

            #expect(try await store.condemn(main(shared), age: 0))
            #expect(try await store.condemn(main(shared), age: 0) == false)
            let found = try await store.garbage()
            #expect(found.map(\.phase) == [.condemned] && found.map(\.isReferenced) == [false])
            #expect(try await store.settled().map(\.object) == [main(shared)])
            // No row enters any more that refers to it; and the flush that tried left nothing.
            let late = Flush.Part(
                stream: streamID(1), streamlet: 0, from: 20, state: state(30), closes: false,
                segments: [row(1, 20..<30, object: shared)])
            await expectError(.failed) { try await store.flush(flush(channel, [late], to: 9)) }
            #expect(try await store.channel(channel)?.flushedEnd == 1)
            #expect(try await store.stream(streamID(1))?.stream.state.tail.seqNum == 20)
            try await store.forgetObject(main(shared))
            try await store.forgetObject(main(shared))
            #expect(try await store.garbage().isEmpty)
        }
    }

    @Test(arguments: Backend.allCases)
    func orphansBecomeGarbage(_ backend: Backend) async throws {
        try await backend.keep { store in
            _ = try await store.add([row(1, 0..<10, object: "seg/10/live")])
            try await store.unlinkObject(main("seg/10/live"))
            #expect(try await store.garbage().isEmpty)
            for key in ["seg/30/c", "seg/10/a", "seg/20/b"] {
                try await store.unlinkObject(main(key))
                try await store.unlinkObject(main(key))
            }
            #expect(
                try await store.garbage().map(\.object.key) == ["seg/10/a", "seg/20/b", "seg/30/c"])
            let first = try await store.scanGarbage("seg/10"..<"seg/30", after: nil, limit: 1)
            #expect(first.items.map(\.object) == [main("seg/10/a")])
            let second = try await store.scanGarbage(
                "seg/10"..<"seg/30", after: first.next, limit: 2)
            #expect(second.items.map(\.object) == [main("seg/20/b")] && second.next == nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func namesOfOrphansStayRefused(_ backend: Backend) async throws {
        try await backend.keep { store in
            let (orphan, known) = ("seg/10/orphan", "seg/20/known")
            let channel = try await store.add([row(1, 0..<10, object: known)], trim: 10)
            #expect(try await store.unlinkTrimmed(streamID(1), limit: 9) == 1)
            try await store.unlinkObject(main(orphan))
            for key in [orphan, known] {
                #expect(try await store.condemn(main(key), age: 0))
                try await store.forgetObject(main(key))
                try await store.forgetObject(main(key))
            }
            #expect(try await store.garbage().isEmpty)
            #expect(try await store.knownObjects([orphan, known], bucket: "bucket-1").isEmpty)
            // The flush that stored it comes in the end, long after it was deleted.
            let late = Flush.Part(
                stream: streamID(1), streamlet: 0, from: 10, state: state(20), closes: false,
                segments: [row(1, 10..<20, object: orphan)])
            await expectError(.failed) { try await store.flush(flush(channel, [late], to: 9)) }
            #expect(try await store.channel(channel)?.flushedEnd == 1)

            // Should its PUT come later still, the object goes again, and is refused meanwhile.
            try await store.unlinkObject(main(orphan))
            #expect(try await store.garbage().map(\.object) == [main(orphan)])
            await expectError(.failed) { try await store.flush(flush(channel, [late], to: 9)) }
            #expect(try await store.condemn(main(orphan), age: 0) == false)
            #expect(try await store.settled().map(\.object) == [main(orphan)])
            try await store.forgetObject(main(orphan))
            #expect(try await store.garbage().isEmpty)
        }
    }

    @Test(arguments: Backend.allCases)
    func thePlanWaitChangesSlowly(_ backend: Backend) async throws {
        try await backend.keep { store in
            let terms = try #require(store as? any CellTerms)
            #expect(try await terms.planWait() == .standard)
            // Nobody reads anything of a cell without channels.
            try await terms.setPlanWait(3_000)
            #expect(try await terms.planWait() == PlanWait(shortest: 3_000, longest: 3_000))
            _ = try await store.addChannel()
            try await terms.setPlanWait(3_000)
            #expect(try await terms.planWait() == PlanWait(shortest: 3_000, longest: 3_000))
            try await terms.setPlanWait(9_000)
            #expect(try await terms.planWait() == PlanWait(shortest: 3_000, longest: 9_000))
            try await terms.setPlanWait(5_000)
            #expect(try await terms.planWait() == PlanWait(shortest: 3_000, longest: 9_000))
            try await terms.setPlanWait(1_000)
            #expect(try await terms.planWait() == PlanWait(shortest: 1_000, longest: 9_000))
        }
    }

    @Test func thePlanWaitHasChangedOnceNobodyBelievesOtherwise() async throws {
        let now = Mutex<UInt64>(1_000_000)
        let store = MemoryMetadata { now.withLock { $0 } }
        _ = try await store.addChannel()
        try await store.setPlanWait(9_000)
        now.withLock { $0 += 659_999 }
        #expect(try await store.planWait() == PlanWait(shortest: 9_000, longest: 600_000))
        now.withLock { $0 += 1 }
        #expect(try await store.planWait() == PlanWait(shortest: 9_000, longest: 9_000))
    }

    @Test(arguments: Backend.allCases)
    func channelsSayForHowLongTheyTrustTheirLogs(_ backend: Backend) async throws {
        try await backend.keep { store in
            _ = try await store.addChannel()
            _ = try await store.registerChannel(
                ChannelRegistration(
                    storageClass: "express", zone: "a", address: "a:1", unsureMilliseconds: 7_000))
            let logs = try await store.scanLogs(partition: 0, of: 1, after: nil, limit: 9).items
            #expect(logs.map(\.unsureMilliseconds) == [86_400_000, 7_000])
        }
    }

    @Test(arguments: Backend.allCases)
    func compactionTakesLiveInputsOnly(_ backend: Backend) async throws {
        try await backend.keep { store in
            let inputs = (0..<8 as Range<UInt64>).map {
                row(1, $0 * 10..<($0 + 1) * 10, object: "seg/10/\($0)")
            }
            let large = row(1, 80..<90, object: "seg/20/x", length: SmallSegments.lengthEnd)
            _ = try await store.add(inputs + [large])
            let due = try await store.scanStreams(
                for: .compaction, in: streamID(0)...streamID(9), after: nil, limit: 9)
            #expect(due.items == [streamID(1)])
            let small = try await store.smallSegments(of: streamID(1), from: 10, limit: 3)
            #expect(small.map(\.row) == Array(inputs[1...3]))
            #expect(small.allSatisfy { $0.createdMilliseconds > 0 })

            var output = row(1, 0..<80, object: "seg/30/out", length: 99)
            output.lastTimestamp = 79
            output.meteredBytes = 24
            var other = inputs
            other[3].object = "seg/10/other"
            #expect(try await store.compact(other, into: output) == false)
            var short = output
            short.endSeqNum = 79
            await expectError(.failed) { try await store.compact(inputs, into: short) }
            #expect(try await store.garbage().isEmpty)

            #expect(try await store.compact(inputs, into: output))
            #expect(try await store.compact(inputs, into: output))
            let page = try await store.segments(of: streamID(1), from: .seqNum(0), limit: 9)
            #expect(page.segments == [output, large])
            #expect(try await store.garbage().count == 8)
            let merged = try await store.smallSegments(of: streamID(1), from: 0, limit: 9)
            #expect(merged.map(\.row) == [output])
            #expect(
                try #require(merged.first).createdMilliseconds
                    >= small.map(\.createdMilliseconds).max() ?? 0)
            // The inputs are gone now.
            var again = output
            again.object = "seg/30/again"
            #expect(try await store.compact(inputs, into: again) == false)
        }
    }

    @Test(arguments: Backend.allCases)
    func trimmedInputsAreNotCompacted(_ backend: Backend) async throws {
        try await backend.keep { store in
            let inputs = [row(1, 0..<10, object: "seg/10/a"), row(1, 10..<20, object: "seg/10/b")]
            _ = try await store.add(inputs, trim: 10)
            var output = row(1, 0..<20, object: "seg/30/out")
            output.lastTimestamp = 19
            output.meteredBytes = 6
            #expect(try await store.compact(inputs, into: output) == false)
            _ = try await store.deleteStream(basin: "basin-one", name: "of-\(streamID(1))")
            #expect(try await store.compact(inputs, into: output) == false)
        }
    }

    @Test(arguments: Backend.allCases)
    func logsGoAsPrefixes(_ backend: Backend) async throws {
        try await backend.keep { store in
            let channel = try await store.addChannel()
            let other = try await store.addChannel()
            func logs() async throws -> [LogGarbage] {
                var found: [LogGarbage] = []
                for partition in 0..<2 {
                    found += try await store.scanLogs(
                        partition: partition, of: 2, after: nil, limit: 10
                    ).items
                }
                return found.filter { $0.channel.id != other }
            }
            func log() async throws -> LogGarbage { try #require(try await logs().first) }
            try await store.markLog(channel)
            #expect(try await log().mark == nil)
            #expect(try await store.flush(flush(channel, [], to: 10)) == .done)
            try await store.markLog(channel)
            #expect(try await log().mark?.end == 10)
            // A pending mark stays, whatever is flushed meanwhile.
            #expect(try await store.flush(flush(channel, [], to: 20)) == .done)
            try await store.markLog(channel)
            #expect(try await log().mark?.end == 10)
            try await store.forgetLog(channel, below: 11)
            #expect(try await log().deletedEnd == 0)
            try await store.forgetLog(channel, below: 4)
            #expect(try await log().deletedEnd == 4)
            #expect(try await log().mark?.end == 10)
            try await store.forgetLog(channel, below: 2)
            #expect(try await log().deletedEnd == 4)
            try await store.forgetLog(channel, below: 10)
            #expect(try await log().deletedEnd == 10)
            #expect(try await log().mark == nil)
            try await store.forgetLog(channel, below: 10)
            try await store.markLog(channel)
            #expect(try await log().mark?.end == 20)
            #expect(try await log().retiredAge == nil)

            #expect(try await store.forgetChannel(channel) == false)
            #expect(try await logs().count == 1)
            try await store.kill(channel, sealedAt: 20)
            #expect(try await store.retireChannel(channel))
            try await store.markLog(channel)
            #expect(try await log().mark?.end == 20)
            #expect(try await log().retiredAge != nil)
            #expect(try await store.forgetChannel(channel))
            #expect(try await logs().isEmpty)
        }
    }

    @Test(arguments: Backend.allCases)
    func leasesAreListed(_ backend: Backend) async throws {
        try await backend.keep { store in
            _ = try await store.holdLease("bgtask/b", holder: "me", stale: nil)
            _ = try await store.holdLease("bgtask/a", holder: "you", stale: nil)
            _ = try await store.holdLease("cop", holder: "me", stale: nil)
            try await store.releaseLease("bgtask/a", holder: "you")
            #expect(
                try await store.leases(prefix: "bgtask/") == [
                    NamedLease(name: "bgtask/a", holder: nil, renewals: 1),
                    NamedLease(name: "bgtask/b", holder: "me", renewals: 1),
                ])
        }
    }
}
