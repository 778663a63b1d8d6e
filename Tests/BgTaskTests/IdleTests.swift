// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

/// A cell that nobody writes to costs no request that changes its store.
@Suite struct IdleTests {
    /// One of everything that stays in a store: segments of an open stream and of a closed one, an
    /// unflushed chunk, a seal, the last words of a stream, and what is not ours.
    private func cell() throws -> (cell: TestCell, writer: TestWriter, open: StreamID) {
        let cell = try TestCell()
        let streams = try ["open", "closed", "silent"].map { try cell.addStream($0) }
        let former = try cell.writer()
        try former.claim(streams[1])
        try former.write([streams[1]])
        try former.retire()
        let writer = try cell.writer()
        for stream in [streams[0], streams[2]] {
            try writer.claim(stream)
            try writer.write([stream])
            if stream == streams[2] {
                try writer.trim(stream, to: 3)
                writer.closing = [stream]
            }
            try writer.flush()
        }
        try writer.write([streams[0]])
        _ = try cell.value { [store = cell.store] in
            try await store.put("seg/00/not-ours", [Bytes(utf8: "x")], ifAbsent: true)
        }
        return (cell, writer, streams[0])
    }

    @Test func anIdleCellCausesNoWriteAndAnOrphanIsFoundAllTheSame() throws {
        let (cell, writer, open) = try cell()
        let worker = cell.worker()
        worker.start()
        cell.loop.run(for: .seconds(3 * 3_600))
        let keys = try cell.keys()
        #expect(keys.filter { $0.hasPrefix("wal/") }.count == 2, "a seal and a chunk: \(keys)")
        #expect(keys.filter { $0.hasPrefix("seg/") }.count == 4, "\(keys)")
        let (puts, deletes, calls) = (cell.fault.puts, cell.fault.deletes, cell.fault.calls)
        for _ in 0..<4 {
            cell.loop.run(for: .seconds(3_600))
            // All kinds, whatever the worker's own passes came to.
            try cell.pass(worker)
        }
        #expect(cell.fault.puts - puts == 0)
        #expect(cell.fault.deletes - deletes == 0)
        #expect(cell.fault.calls - calls > 4 * 60 * TaskKind.allCases.count, "it looked around")
        #expect(try cell.keys() == keys)

        // A flush that stored its object and died.
        _ = try writer.store()
        let orphan = try #require(Set(try cell.keys()).subtracting(keys).first)
        cell.loop.run(for: .seconds(1_700))
        try cell.pass(worker)
        #expect(cell.fault.puts - puts == 0, "a young object is not worth a question")
        cell.loop.run(for: .seconds(3 * 3_600))
        #expect(!(try cell.keys().contains(orphan)))
        #expect(cell.count(.unlinkedOrphan) == 1)
        #expect(try cell.keys() == keys)
        try writer.flush()
        #expect(try cell.rows(open).count == 2)
        #expect(cell.rules.violations == [])
    }
}
