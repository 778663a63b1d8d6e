// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

/// A dry run tells what the next pass does, and does nothing.
@Suite struct DryRunTests {
    @Test(arguments: TaskKind.allCases)
    func aDryRunTellsWhatThePassThenDoes(_ kind: TaskKind) throws {
        let cell = try TestCell()
        let worker = cell.worker()
        let told = try prepare(kind, cell, worker)
        let before = try snapshot(cell)
        let (puts, deletes) = (cell.fault.puts, cell.fault.deletes)
        for _ in 0..<2 {
            #expect(try cell.pass(worker, [kind], isDryRun: true) == told)
            #expect(try snapshot(cell) == before)
        }
        #expect(cell.fault.puts == puts && cell.fault.deletes == deletes && cell.calls.count == 0)

        #expect(try cell.pass(worker, [kind]) == told)
        #expect(try snapshot(cell) != before)
        #expect(cell.rules.violations == [])
    }

    /// Makes work for a task; what the next pass is to do about it.
    private func prepare(
        _ kind: TaskKind, _ cell: TestCell, _ worker: BgTaskRole
    ) throws -> [Action: Int] {
        switch kind {
        case .logCollection: return try logs(cell, worker)
        case .objectCollection: return try objects(cell, worker)
        case .trim:
            let (writer, stream) = try flushed(cell, "orders", 3)
            try writer.trim(stream, to: 6)
            try writer.flush()
            return [.unlinkedSegment: 2]
        case .retention:
            var wish = StreamConfigWish()
            wish.retention = .age(seconds: 60)
            for name in ["orders", "events"] { _ = try flushed(cell, name, 2, wish: wish) }
            cell.loop.run(for: .seconds(61))
            return [.raisedTrimPoint: 2]
        case .streamDeletion:
            let (writer, stream) = try flushed(cell, "closed", 2)
            writer.closing = [stream]
            try writer.flush()
            _ = try flushed(cell, "open", 2)
            for name in ["closed", "open"] { try cell.delete(name) }
            return [.purgedStream: 1, .pushedDeletion: 1]
        case .basinDeletion:
            for name in ["empty-basin", "other-basin"] { try cell.addBasin(name) }
            for name in ["a", "b"] { try cell.addStream(name, basin: "other-basin") }
            try cell.value { [metadata = cell.metadata] in
                for name in ["empty-basin", "other-basin"] {
                    _ = try await metadata.deleteBasin(name)
                }
            }
            return [.purgedBasin: 1, .deletedStream: 2]
        case .deleteOnEmpty:
            var wish = StreamConfigWish()
            wish.deleteOnEmptyMinAgeSeconds = 60
            for name in ["a", "b"] { try cell.addStream(name, wish: wish) }
            #expect(try cell.pass(worker, [.deleteOnEmpty]) == [:])
            cell.loop.run(for: .seconds(61))
            return [.deletedStream: 2]
        case .compaction:
            _ = try flushed(cell, "orders", 9)
            return [.compactedSegment: 9]
        case .orphanSweep:
            let (writer, stream) = try flushed(cell, "orders", 1)
            try writer.write([stream])
            _ = try writer.store()
            _ = try cell.value { [store = cell.store] in
                try await store.put("doctor/1", [Bytes(utf8: "x")], ifAbsent: true)
            }
            cell.loop.run(for: .seconds(3_602))
            return [.unlinkedOrphan: 1, .deletedProbe: 1]
        }
    }

    /// A log whose mark is old enough, one that is flushed, one that is retired.
    private func logs(_ cell: TestCell, _ worker: BgTaskRole) throws -> [Action: Int] {
        _ = try flushed(cell, "marked", 3)
        try cell.pass(worker, [.logCollection])
        cell.loop.run(for: .seconds(601))
        _ = try flushed(cell, "flushed", 2)
        let (writer, _) = try flushed(cell, "retired", 2)
        try writer.retire()
        return [.deletedChunk: 3, .markedLog: 2, .forgottenStreamlet: 1]
    }

    /// An object that is to be deleted, and one that is to be condemned, with a stream's last word.
    private func objects(_ cell: TestCell, _ worker: BgTaskRole) throws -> [Action: Int] {
        let (writer, stream) = try flushed(cell, "trimmed", 2)
        let (other, silent) = try flushed(cell, "silent", 1)
        try writer.trim(stream, to: 3)
        try writer.flush()
        try cell.pass(worker, [.trim])
        cell.loop.run(for: .seconds(601))
        #expect(try cell.pass(worker, [.objectCollection]) == [.condemnedObject: 1])
        // Nothing is under way that has not seen it.
        #expect(try cell.pass(worker, [.objectCollection]) == [:])
        try other.trim(silent, to: 3)
        try other.commit([:])
        try cell.pass(worker, [.trim])
        cell.loop.run(for: .seconds(601))
        return [.deletedObject: 1, .condemnedObject: 1, .keptState: 1]
    }

    /// A stream with some segments, on a channel of its own.
    private func flushed(
        _ cell: TestCell, _ name: String, _ count: Int, wish: StreamConfigWish = StreamConfigWish()
    ) throws -> (writer: TestWriter, stream: StreamID) {
        let (stream, writer) = (try cell.addStream(name, wish: wish), try cell.writer())
        try writer.claim(stream)
        for _ in 0..<count {
            try writer.write([stream])
            try writer.flush()
        }
        return (writer, stream)
    }

    /// All rows that tasks change, without their ages, and the keys of all objects.
    private func snapshot(_ cell: TestCell) throws -> [String] {
        let keys = try cell.keys()
        return try cell.value { [metadata = cell.metadata] in
            var lines = keys
            for basin in try await metadata.listBasins(
                prefix: "", startAfter: "", limit: 1_000
            ).items {
                lines.append("\(basin)")
            }
            for id in try await metadata.allStreams() {
                lines.append("\(try await metadata.segments(of: id, from: .seqNum(0), limit: 99))")
                lines.append("\(try await metadata.streamlets(of: id, before: nil, limit: 99))")
            }
            for row in try await metadata.scanGarbage("a"..<"z", after: nil, limit: 99).items {
                lines.append("\(row.object) \(row.phase) \(row.isReferenced)")
            }
            for log in try await metadata.scanLogs(
                partition: 0, of: 1, after: nil, limit: 99
            ).items {
                lines.append("\(log.channel) \(log.deletedEnd) \(log.mark?.end ?? 0)")
                lines.append("\(log.retiredAge == nil)")
            }
            return lines
        }
    }
}
