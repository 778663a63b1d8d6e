// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

@Suite struct CollectionTests {
    private let day = Nanoseconds.seconds(86_400)

    private func flushedCell() throws -> (TestCell, TestWriter, StreamID) {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer()
        try writer.claim(stream)
        for _ in 0..<5 { try writer.write([stream]) }
        try writer.flush()
        return (cell, writer, stream)
    }

    @Test func chunksGoOnceNoPlanNeedsThem() throws {
        let (cell, writer, stream) = try flushedCell()
        try writer.write([stream])
        let worker = cell.worker()
        #expect(try cell.pass(worker, [.logCollection]) == [.markedLog: 1])
        cell.loop.run(for: .seconds(599))
        #expect(try cell.pass(worker, [.logCollection]) == [:])
        cell.loop.run(for: .seconds(2))
        let dry = try cell.pass(worker, [.logCollection], isDryRun: true)
        #expect(dry == [.deletedChunk: 5])
        #expect(try cell.keys("wal/").count == 6)
        #expect(try cell.pass(worker, [.logCollection]) == [.deletedChunk: 5])
        #expect(try cell.keys("wal/") == [LogKeys.chunk(writer.id, 5)])
        #expect(try cell.pass(worker, [.logCollection]) == [:])
        #expect(cell.rules.violations == [])
    }

    @Test func aHoleIsNoticed() throws {
        let (cell, writer, stream) = try flushedCell()
        for _ in 0..<3 { try writer.write([stream]) }
        try cell.value { [rules = cell.rules, id = writer.id] in
            await rules.check(LogKeys.chunk(id, 0))
            await rules.check(LogKeys.chunk(id, 1))
            #expect(rules.violations == [])
            rules.stride = 1
            await rules.check(LogKeys.chunk(id, 1))
            #expect(rules.violations.count == 1)
            await rules.check(LogKeys.chunk(id, 5))
            #expect(rules.violations.count == 3)
        }
        func delete(_ index: ChunkIndex) throws {
            _ = try cell.value { [store = cell.store, id = writer.id] in
                try await store.delete(LogKeys.chunk(id, index))
            }
        }
        try delete(2)
        #expect(try Check(cell).missing == [])
        try delete(6)
        #expect(
            try Check(cell).missing == [
                "log \(writer.id) has a hole behind 5", "log \(writer.id) lacks unflushed chunks",
            ])
    }

    @Test func logsThatWentBackInTimeAreLeftAlone() throws {
        let (cell, _, _) = try flushedCell()
        let worker = cell.worker()
        try cell.pass(worker, [.logCollection])
        cell.loop.run(for: .seconds(601))
        // Metadata that has lost the flush, but not the mark.
        cell.fault.tamper = { $0.channel.flushedEnd = 4 }
        #expect(try cell.pass(worker, [.logCollection]) == [.violation: 1])
        #expect(try cell.keys("wal/").count == 5)
        cell.fault.tamper = nil
        #expect(try cell.pass(worker, [.logCollection]) == [.deletedChunk: 5])
    }

    @Test func sealsOutliveTheirWritersByAMonth() throws {
        let (cell, writer, _) = try flushedCell()
        try writer.retire()
        let seal = LogKeys.chunk(writer.id, writer.next)
        // A chunk whose PUT came in long after the log had ended.
        let late = LogKeys.chunk(writer.id, writer.next + 2)
        _ = try cell.value { [store = cell.store] in
            try await store.put(late, [Bytes(utf8: "late")], ifAbsent: true)
        }
        let worker = cell.worker()
        try cell.pass(worker)
        cell.loop.run(for: .seconds(601))
        try cell.pass(worker)
        #expect(try cell.keys("wal/") == [seal, late])
        cell.loop.run(for: 30 * day - .seconds(700))
        #expect(try cell.pass(worker, [.logCollection]) == [:])
        #expect(try cell.keys("wal/") == [seal, late])
        cell.loop.run(for: .seconds(200))
        cell.rules.allowsSeals = true
        #expect(
            try cell.pass(worker, [.logCollection])
                == [.deletedSeal: 1, .deletedChunk: 1, .forgottenChannel: 1])
        #expect(try cell.keys("wal/") == [])
        #expect(try cell.pass(worker, [.logCollection]) == [:])
    }

    @Test func unlinkedObjectsAreCondemnedAndDeleted() throws {
        let (cell, writer, stream) = try flushedCell()
        let old = try #require(try cell.rows(stream).first?.object)
        try writer.write([stream])
        try writer.trim(stream, to: 15)
        try writer.flush()
        let worker = cell.worker()
        #expect(try cell.pass(worker, [.trim]) == [.unlinkedSegment: 1])
        #expect(try cell.pass(worker, [.objectCollection]) == [:])
        cell.loop.run(for: .seconds(601))
        #expect(try cell.pass(worker, [.objectCollection]) == [.condemnedObject: 1])
        #expect(try cell.pass(worker, [.objectCollection]) == [:])
        cell.loop.run(for: .seconds(61))
        #expect(try cell.pass(worker, [.objectCollection], isDryRun: true) == [.deletedObject: 1])
        #expect(try cell.keys("seg/").contains(old))
        #expect(try cell.pass(worker, [.objectCollection]) == [.deletedObject: 1])
        #expect(!(try cell.keys("seg/").contains(old)))
        #expect(try cell.pass(worker, [.objectCollection]) == [:])
        #expect(cell.rules.violations == [])
    }

    @Test func orphansGoAndLastWordsStay() throws {
        let (cell, writer, stream) = try flushedCell()
        // A flush that stored its object and died.
        try writer.write([stream])
        _ = try writer.store()
        // A stream that closes with all trimmed: an object that no row names.
        try writer.trim(stream, to: 18)
        writer.closing = [stream]
        try writer.flush()
        _ = try cell.value { [store = cell.store] in
            for key in ["doctor/0123", "seg/00/not-ours", "other/thing"] {
                _ = try await store.put(key, [Bytes(utf8: "x")], ifAbsent: true)
            }
        }
        let worker = cell.worker()
        #expect(try cell.pass(worker, [.orphanSweep]) == [:])
        cell.loop.run(for: .seconds(3_601))
        #expect(
            try cell.pass(worker, [.orphanSweep])
                == [.unlinkedOrphan: 1, .deletedProbe: 1, .skipped: 1])
        for _ in 0..<4 {
            try cell.pass(worker)
            cell.loop.run(for: .seconds(700))
        }
        let left = try cell.keys()
        #expect(left.contains("other/thing") && left.contains("seg/00/not-ours"))
        #expect(!left.contains("doctor/0123"))
        // The close tells where the stream stands: it is kept until the stream moves on.
        func words() throws -> [String] {
            try cell.keys("seg/").filter { LogKeys.parseSegment($0) != nil }
        }
        // (Twice: the lost flush had stored it too.)
        #expect(try words().count == 2)
        #expect(try cell.rows(stream).isEmpty)
        try writer.claim(stream)
        try writer.write([stream])
        try writer.flush()
        cell.loop.run(for: .seconds(3_601))
        for _ in 0..<4 {
            try cell.pass(worker)
            cell.loop.run(for: .seconds(700))
        }
        #expect(try words() == [try #require(try cell.rows(stream).first?.object)])
    }

    @Test func aTrimmedStreamsTailIsWrittenDownBeforeItsLastObjectGoes() throws {
        let (cell, writer, stream) = try flushedCell()
        let old = try #require(try cell.rows(stream).first?.object)
        try writer.trim(stream, to: 15)
        // An open stream: nothing is stored for the trim alone.
        try writer.commit([:])
        let worker = cell.worker()
        try cell.pass(worker)
        for _ in 0..<3 {
            cell.loop.run(for: .seconds(601))
            try cell.pass(worker)
        }
        let left = try cell.keys("seg/")
        #expect(left.count == 1 && left != [old])
        let object = try SegmentObject(
            try cell.value { [store = cell.store] in
                try await store.get(left[0], range: nil).bytes
            })
        let word = try #require(object.segments.first)
        #expect(word.records.isEmpty)
        #expect(word.index.state?.state.tail.seqNum == 15)
        #expect(word.index.state?.name == "orders")
    }

    @Test func aLateFlushOfACondemnedObjectIsRefused() throws {
        let (cell, writer, stream) = try flushedCell()
        try writer.write([stream])
        let rows = try writer.store()
        let worker = cell.worker()
        cell.loop.run(for: .seconds(3_601))
        try cell.pass(worker, [.orphanSweep])
        cell.loop.run(for: .seconds(601))
        try cell.pass(worker, [.objectCollection])
        #expect(throws: MetadataError.self) { try writer.commit(rows) }
        // A flush with an object of its own goes through.
        try writer.flush()
        for _ in 0..<3 {
            cell.loop.run(for: .seconds(700))
            try cell.pass(worker)
        }
        #expect(try Check(cell).missing == [])
        #expect(try cell.keys("seg/").count == 2)
    }
}
