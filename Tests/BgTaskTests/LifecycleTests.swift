// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

@Suite struct LifecycleTests {
    private func settle(_ cell: TestCell, _ worker: BgTaskRole) throws {
        for _ in 0..<4 {
            try cell.pass(worker)
            cell.loop.run(for: .seconds(1_900))
        }
        try cell.pass(worker)
    }

    @Test func aDeletedStreamIsClosedAndItsNameFreed() throws {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer()
        try writer.claim(stream)
        try writer.write([stream])
        try writer.flush()
        try writer.write([stream])
        try cell.delete("orders")
        let worker = cell.worker()
        // The channel hears of it here, whoever deleted it has died.
        #expect(try cell.pass(worker, [.streamDeletion]) == [.pushedDeletion: 1])
        #expect(writer.closing == [stream])
        #expect(throws: MetadataError.self) { try cell.addStream("orders") }
        try writer.flush()
        #expect(
            try cell.pass(worker, [.streamDeletion]) == [.purgedStream: 1])
        // Another stream of the same name is no business of what is left of the first.
        let second = try cell.addStream("orders")
        try writer.claim(second)
        try writer.write([second])
        try writer.flush()
        let rows = try cell.rows(second)
        try settle(cell, worker)
        #expect(try cell.rows(second) == rows)
        let check = try Check(cell)
        #expect(check.missing == [] && check.leftover == [])
        #expect(cell.calls.count == 1)
    }

    @Test func aStreamOnADeadChannelWaitsForRecovery() throws {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer()
        try writer.claim(stream)
        try cell.delete("orders")
        _ = try cell.value { [metadata = cell.metadata, id = writer.id] in
            try await metadata.resignChannel(id)
        }
        #expect(try cell.pass(cell.worker(), [.streamDeletion]) == [:])
        #expect(cell.calls.count == 0)
        #expect(try cell.lookup(stream) != nil)
    }

    @Test func aChannelThatDoesNotAnswerHoldsUpNoOther() throws {
        let cell = try TestCell()
        let (hung, sound) = (try cell.writer(), try cell.writer(address: "127.0.0.1:2"))
        cell.calls.hung = ["127.0.0.1:1"]
        for number in 0..<40 {
            let name = "s\(number)"
            try (number % 2 == 0 ? hung : sound).claim(try cell.addStream(name))
            try cell.delete(name)
        }
        let worker = cell.worker { $0.partitions = 1 }
        for turn in 1...2 {
            let start = cell.loop.now
            let counts = try cell.pass(worker, [.streamDeletion])
            #expect(counts[.pushedDeletion] == 20)
            #expect(cell.loop.now - start < .seconds(15), "one call was waited for")
            // As many as are told at once.
            #expect(cell.calls.count == turn * (20 + BgTaskLimits().streamsAtOnce))
        }
        #expect(sound.closing.count == 20)
        cell.calls.hung = []
        #expect(try cell.pass(worker, [.streamDeletion])[.pushedDeletion] == 40)
    }

    @Test func aBasinGoesWithItsStreams() throws {
        let cell = try TestCell()
        try cell.addBasin("other-basin")
        let ids = try (0..<5).map { try cell.addStream("s\($0)", basin: "other-basin") }
        let kept = try cell.addStream("kept")
        _ = try cell.value { [metadata = cell.metadata] in
            try await metadata.deleteBasin("other-basin")
        }
        let worker = cell.worker { $0.changeRows = 2 }
        #expect(try cell.pass(worker, [.basinDeletion], isDryRun: true) == [.deletedStream: 5])
        #expect(try cell.pass(worker, [.basinDeletion]) == [.deletedStream: 5])
        #expect(try cell.pass(worker, [.streamDeletion]) == [.purgedStream: 5])
        #expect(try cell.pass(worker, [.basinDeletion]) == [.purgedBasin: 1])
        #expect(try cell.pass(worker) == [:])
        for id in ids { #expect(try cell.lookup(id) == nil) }
        #expect(try cell.lookup(kept) != nil)
        try cell.addBasin("other-basin")
    }

    @Test func emptyStreamsAreDeletedUnlessTheyFillAgain() throws {
        let cell = try TestCell()
        var wish = StreamConfigWish()
        wish.deleteOnEmptyMinAgeSeconds = 60
        let idle = try cell.addStream("idle", wish: wish)
        let busy = try cell.addStream("busy", wish: wish)
        let kept = try cell.addStream("kept")
        let worker = cell.worker()
        #expect(try cell.pass(worker, [.deleteOnEmpty]) == [:])
        let writer = try cell.writer()
        try writer.claim(busy)
        try writer.write([busy])
        cell.loop.run(for: .seconds(61))
        #expect(try cell.pass(worker, [.deleteOnEmpty]) == [.deletedStream: 1])
        #expect(try cell.lookup(idle)?.stream.deletedMilliseconds != nil)
        #expect(try cell.lookup(busy)?.stream.deletedMilliseconds == nil)
        // Written, trimmed and closed: its time begins anew.
        try writer.trim(busy, to: 3)
        writer.closing = [busy]
        try writer.flush()
        #expect(try cell.pass(worker, [.deleteOnEmpty]) == [:])
        cell.loop.run(for: .seconds(59))
        #expect(try cell.pass(worker, [.deleteOnEmpty]) == [:])
        cell.loop.run(for: .seconds(2))
        #expect(try cell.pass(worker, [.deleteOnEmpty]) == [.deletedStream: 1])
        #expect(try cell.lookup(kept)?.stream.deletedMilliseconds == nil)
    }

    @Test func recordsExpireByTheirArrivalNotTheirTimestamps() throws {
        let cell = try TestCell()
        var wish = StreamConfigWish()
        wish.retention = .age(seconds: 3_600)
        let stream = try cell.addStream("orders", wish: wish)
        let writer = try cell.writer()
        try writer.claim(stream)
        for _ in 0..<3 {
            try writer.write([stream])
            try writer.flush()
            cell.loop.run(for: .seconds(1_000))
        }
        let worker = cell.worker()
        #expect(try cell.pass(worker, [.retention]) == [:])
        cell.loop.run(for: .seconds(601))
        try cell.plan(stream)
        #expect(try cell.pass(worker, [.retention]) == [.raisedTrimPoint: 1])
        #expect(try cell.lookup(stream)?.stream.state.trimPoint == 3)
        // Published first; unlinked by trim.
        #expect(try cell.rows(stream).count == 3)
        #expect(try cell.pass(worker, [.trim]) == [.unlinkedSegment: 1])
        try cell.checkPlans()
        cell.loop.run(for: .seconds(10_000))
        try settle(cell, worker)
        #expect(try cell.rows(stream).isEmpty)
        // The tail stays.
        #expect(try cell.lookup(stream)?.stream.state.tail.seqNum == 9)
        #expect(try Check(cell).missing == [])
    }

    @Test func runsOfSmallSegmentsAreMerged() throws {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer()
        try writer.claim(stream)
        for _ in 0..<20 {
            try writer.write([stream], count: 5, bodyBytes: 2_000)
            try writer.flush()
        }
        try cell.plan(stream)
        let worker = cell.worker()
        #expect(
            try cell.pass(worker, [.compaction], isDryRun: true) == [.compactedSegment: 20])
        #expect(try cell.pass(worker, [.compaction]) == [.compactedSegment: 20])
        let rows = try cell.rows(stream)
        #expect(rows.count == 1 && rows[0].start.seqNum == 0 && rows[0].endSeqNum == 100)
        #expect(try cell.pass(worker, [.compaction]) == [:])
        // Who planned before reads on.
        cell.loop.run(for: .seconds(290))
        try cell.pass(worker)
        try cell.checkPlans()
        try settle(cell, worker)
        let check = try Check(cell)
        #expect(check.missing == [] && check.leftover == [])
        #expect(try cell.keys("seg/") == [rows[0].object])
    }

    @Test func aMergeThatIsNotDoneIsNotCounted() throws {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer()
        try writer.claim(stream)
        for _ in 0..<20 {
            try writer.write([stream])
            try writer.flush()
        }
        let gone = try #require(try cell.rows(stream).first).object
        _ = try cell.value { [store = cell.store] in try await store.delete(gone) }
        #expect(try cell.pass(cell.worker(), [.compaction]) == [.skipped: 1])
    }
}
