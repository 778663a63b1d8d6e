// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import Primitives
import Records
import TestSupport
import Testing

/// Whatever fails for good holds up nothing but itself.
@Suite struct SetbackTests {
    /// A cell with one writer for each of `count` streams, and a few chunks and segments of each.
    private func cell(
        _ count: Int, flushes: Int
    ) throws -> (TestCell, [(writer: TestWriter, stream: StreamID)]) {
        let cell = try TestCell()
        var pairs: [(TestWriter, StreamID)] = []
        for number in 0..<count {
            let (stream, writer) = (try cell.addStream("s\(number)"), try cell.writer())
            try writer.claim(stream)
            for _ in 0..<flushes {
                try writer.write([stream])
                try writer.flush()
            }
            pairs.append((writer, stream))
        }
        return (cell, pairs)
    }

    /// A cell with `count` condemned objects, by key.
    private func condemned(_ count: Int) throws -> (TestCell, BgTaskRole, [String]) {
        let (cell, pairs) = try cell(1, flushes: count)
        let (writer, stream) = pairs[0]
        let keys = try cell.rows(stream).map(\.object).sorted()
        try writer.write([stream])
        try writer.trim(stream, to: writer.tail(stream) - 1)
        try writer.flush()
        let worker = cell.worker { $0.partitions = 1 }
        #expect(try cell.pass(worker, [.trim]) == [.unlinkedSegment: count])
        cell.loop.run(for: .seconds(601))
        #expect(try cell.pass(worker, [.objectCollection]) == [.condemnedObject: count])
        // No transaction is left that may not have seen it.
        #expect(try cell.pass(worker, [.objectCollection]) == [:])
        cell.loop.run(for: .seconds(61))
        return (cell, worker, keys)
    }

    @Test func anObjectThatMayNotBeDeletedHoldsUpNoOther() throws {
        let (cell, worker, keys) = try condemned(3)
        cell.fault.undeletable = [keys[0]]
        #expect(
            try cell.pass(worker, [.objectCollection]) == [.failed: 1, .deletedObject: 2])
        #expect(Set(try cell.keys("seg/")).intersection(keys) == [keys[0]])
        #expect(cell.count(.failed) == 1)
        // It is tried again by every pass.
        #expect(try cell.pass(worker, [.objectCollection]) == [.failed: 1])
        cell.fault.undeletable = []
        #expect(try cell.pass(worker, [.objectCollection]) == [.deletedObject: 1])
    }

    @Test func noNumberOfThemHoldsUpTheOthersForEver() throws {
        let (cell, worker, keys) = try condemned(40)
        cell.fault.undeletable = Set(keys.prefix(30))
        var counts: [Int] = []
        while try cell.keys("seg/").contains(keys[39]) {
            try #require(counts.count < 10, "the last one has its turn")
            counts.append(try cell.pass(worker, [.objectCollection])[.failed] ?? 0)
        }
        #expect(counts == [8, 8, 8, 6], "a bucket that fails is left alone for a while")
        #expect(Set(try cell.keys("seg/")).intersection(keys[30...]) == [])
        // They come back, a few at a time.
        #expect(try cell.pass(worker, [.objectCollection]) == [.failed: 8])
        cell.fault.undeletable = []
        var deleted = 0
        for _ in 0..<2 {
            deleted += try cell.pass(worker, [.objectCollection])[.deletedObject] ?? 0
        }
        #expect(deleted == 30)
    }

    @Test func aChunkThatMayNotBeDeletedHoldsUpItsOwnLogOnly() throws {
        let (cell, pairs) = try cell(3, flushes: 5)
        let worker = cell.worker { $0.partitions = 1 }
        try cell.pass(worker, [.logCollection])
        cell.loop.run(for: .seconds(601))
        let writer = pairs[0].writer
        cell.fault.undeletable = [LogKeys.chunk(writer.id, 2)]
        #expect(
            try cell.pass(worker, [.logCollection]) == [.failed: 1, .deletedChunk: 14])
        #expect(try cell.keys("wal/") == [LogKeys.chunk(writer.id, 2)])
        cell.fault.undeletable = []
        try cell.pass(worker, [.logCollection])
        #expect(try cell.keys("wal/") == [])
        #expect(cell.rules.violations == [])
    }

    @Test func aSegmentThatCannotBeReadHoldsUpItsOwnMergeOnly() throws {
        let (cell, pairs) = try cell(3, flushes: 20)
        // The one that comes first.
        let streams = pairs.map(\.stream).sorted()
        cell.fault.unreadable = [try #require(try cell.rows(streams[0]).first).object]
        let worker = cell.worker { $0.partitions = 1 }
        #expect(try cell.pass(worker, [.compaction])[.failed] == 1)
        #expect(try streams.map { try cell.rows($0).count } == [20, 1, 1])
        cell.fault.unreadable = []
        try cell.pass(worker, [.compaction])
        #expect(try streams.map { try cell.rows($0).count } == [1, 1, 1])
    }

    @Test func anOrphanThatCannotBeReadHoldsUpNoOther() throws {
        let (cell, pairs) = try cell(1, flushes: 0)
        let (writer, stream) = pairs[0]
        for _ in 0..<3 {
            try writer.write([stream])
            _ = try writer.store()
        }
        let keys = try cell.keys("seg/")
        cell.fault.unreadable = [keys[0]]
        let worker = cell.worker { $0.partitions = 1 }
        cell.loop.run(for: .seconds(3_601))
        #expect(try cell.pass(worker, [.orphanSweep]) == [.failed: 1, .unlinkedOrphan: 2])
        cell.fault.unreadable = []
        #expect(try cell.pass(worker, [.orphanSweep]) == [.unlinkedOrphan: 1])
    }

    @Test func withoutMetadataAPassEnds() throws {
        let (cell, worker, _) = try condemned(3)
        cell.fault.isDown = true
        #expect(throws: TaskError.self) { try cell.pass(worker, [.objectCollection]) }
        cell.fault.isDown = false
        #expect(try cell.pass(worker, [.objectCollection]) == [.deletedObject: 3])
    }
}
