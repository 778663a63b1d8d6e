// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import Primitives
import RPC
import Records
import Testing

@testable import ChannelRole

private func makeStreamlet(
    _ number: UInt64, state: StreamState = .initial
) -> OpenStreamlet {
    OpenStreamlet(
        0,
        Stream(
            id: StreamID(ID128(high: number &* 0x9E37_79B9, low: number)), basin: "test-basin",
            name: "s-\(number)", config: .system, version: 1, cipher: nil, state: state,
            createdMilliseconds: 0, deletedMilliseconds: nil),
        basin: "test-basin", now: 0)
}

@Suite struct ChunkRecordsTests {
    private func place(
        _ bodies: [String], in records: inout ChunkRecords, _ memory: inout ChunkMemory,
        _ streamlet: OpenStreamlet, chunk: ChunkIndex
    ) throws -> Bool {
        var builder = PreparedBatchBuilder()
        for body in bodies {
            try builder.add(timestamp: nil, headers: [], body: Bytes(utf8: body))
        }
        let batch = try builder.finish()
        let placed = try SequencedBatch(
            batch, from: streamlet.assigned.tail.seqNum, timestamps: streamlet.timestamps(now: 5))
        let offset = memory.reserve(placed.storedBytes)
        placed.write(to: memory.current.base + offset)
        return records.add(
            placed, in: memory.current, at: offset, to: streamlet, chunk: chunk)
    }

    @Test func batchesOfSeveralStreamletsKeepTheirOrder() throws {
        var memory = ChunkMemory()
        var records = ChunkRecords()
        let (a, b) = (makeStreamlet(1), makeStreamlet(2))
        #expect(try place(["1", "2"], in: &records, &memory, a, chunk: 4))
        #expect(try !place(["3"], in: &records, &memory, a, chunk: 4))
        #expect(try place(["x"], in: &records, &memory, b, chunk: 4))
        #expect(try !place(["4"], in: &records, &memory, a, chunk: 4))
        let taken = records.taken()
        #expect(records.isEmpty && taken.fragments.count == 2)
        let first = taken.fragments[0]
        #expect(first.streamlet === a && first.whole.count == 4 && first.endSeqNum == 4)
        #expect(taken.batches(of: 0).map(\.firstSeqNum) == [0, 2, 3])
        #expect(taken.batches(of: 0).map(\.tail.seqNum) == [2, 3, 4])
        #expect(taken.batches(of: 1).map(\.count) == [1])
        // Neighbours in memory are one run.
        var runs: [Bytes] = []
        taken.forEachRun(of: 0) { runs.append($0) }
        #expect(runs.count == 2)
        for (trimPoint, kept) in [(1, 3), (2, 2), (3, 1), (4, 0)] as [(SeqNum, Int)] {
            var rest: [Bytes] = []
            taken.forEachRun(of: 0, above: trimPoint) { rest.append($0) }
            let batches = taken.batches(of: 0).suffix(kept).map(\.bytes)
            #expect(rest.joined() == batches.joined(), "above \(trimPoint)")
        }
        #expect(runs.joined() == taken.batches(of: 0).map(\.bytes).joined())
        #expect(runs.reduce(0) { $0 + $1.count } == Int(first.whole.length))
        #expect(a.stable.tail.seqNum == 0)
        for slot in taken.fragments.indices { taken.show(slot) }
        #expect(a.stable.tail == StreamPosition(seqNum: 4, timestamp: 5))
        #expect(a.isSettled && b.isSettled)
    }

    /// In either layout the object holds what was added, and everything is where the records say.
    @Test(arguments: [ChunkLayout.asAdded, .byFragment])
    func recordsLieInTheObject(_ layout: ChunkLayout) throws {
        var memory = ChunkMemory()
        memory.beginChunk()
        var records = ChunkRecords()
        let streamlets = (1...3).map { makeStreamlet($0) }
        let order = [0, 0, 1, 0, 2, 2, 1, 0]
        for (number, streamlet) in order.enumerated() {
            // The last ones lie in another slab.
            let body = String(repeating: "\(number)", count: number == 6 ? 70_000 : 3_000)
            _ = try place([body, "x"], in: &records, &memory, streamlets[streamlet], chunk: 7)
        }
        let isAsAdded = layout == .asAdded
        #expect(records.extentCount(layout) == (isAsAdded ? 6 : 3))
        var builder = ChunkBuilder(
            ChunkHeader(
                kind: .chunk, channel: ChannelID(1), index: 7, putID: ID128(high: 1, low: 2),
                storageClass: 0, createdMilliseconds: 3))
        records.place(layout, in: &builder)
        var object = builder.finish()
        if isAsAdded {
            #expect(object.count == 2)
            memory.endChunk(of: &object)
            #expect(object.count == 3, "in two slabs, and the index")
        }
        let chunk = try Chunk(object.joined())
        for entry in chunk.entries { try entry.checkRecords(chunk.fragment(entry)) }
        let taken = records.taken()
        for (slot, streamlet) in streamlets.enumerated() {
            let entries = chunk.entries.filter { $0.stream == streamlet.id }
            var extents: [ChunkRecords.Extent] = []
            taken.forEachExtent(of: slot) { extent in
                extents.append(extent)
                return true
            }
            #expect(extents.count == (isAsAdded ? [3, 2, 1][slot] : 1))
            #expect(extents.map(\.offset) == entries.map(\.offset))
            #expect(extents.map(\.length) == entries.map(\.length))
            #expect(extents.map(\.start.seqNum) == entries.map(\.firstSeqNum))
            #expect(extents.map(\.endSeqNum) == entries.map(\.endSeqNum))
            #expect(extents.map(\.start.timestamp) == entries.map(\.firstTimestamp))
            #expect(extents.map(\.lastTimestamp) == entries.map(\.lastTimestamp))
            let found = entries.map { chunk.fragment($0) }.joined()
            #expect(found == taken.batches(of: slot).map(\.bytes).joined())
            // Who has enough is not told of more.
            var told = 0
            taken.forEachExtent(of: slot) { _ in
                told += 1
                return told < 2
            }
            #expect(told == min(2, extents.count))
        }
    }

    /// Where nobody came in between, there is nothing to choose.
    @Test func aStretchPerFragment() throws {
        var memory = ChunkMemory()
        memory.beginChunk()
        var open = OpenChunk()
        let (a, b) = (makeStreamlet(1), makeStreamlet(2))
        var limits = ChannelLimits(address: "here:1")
        for (streamlet, layout) in [(a, ChunkLayout.asAdded), (a, .asAdded), (b, .asAdded)] {
            _ = try place(["1"], in: &open.records, &memory, streamlet, chunk: 0)
            #expect(open.layout(limits) == layout)
        }
        // Now `a` lies in two pieces: worth it only for what is stored without gathering.
        _ = try place(["1"], in: &open.records, &memory, a, chunk: 0)
        open.bytes = limits.asAddedBytesMin - 1
        #expect(open.layout(limits) == .byFragment)
        open.bytes += 1
        #expect(open.layout(limits) == .asAdded)
        // There must be room for the longer index.
        limits.chunkFragmentsMax = 2
        #expect(open.layout(limits) == .byFragment)
        limits.chunkFragmentsMax = 3
        #expect(open.layout(limits) == .asAdded)
        limits.chunkBytesMax = open.bytes + FragmentEntry.byteCount - 1
        #expect(open.layout(limits) == .byFragment)
        limits.chunkBytesMax += 1
        #expect(open.layout(limits) == .asAdded)
    }

    /// More than two pieces for each streamlet, only if they are long.
    @Test func manyStretches() throws {
        var memory = ChunkMemory()
        memory.beginChunk()
        var open = OpenChunk()
        let (a, b) = (makeStreamlet(1), makeStreamlet(2))
        var limits = ChannelLimits(address: "here:1")
        for streamlet in [a, b, a, b] {
            _ = try place(["1"], in: &open.records, &memory, streamlet, chunk: 0)
        }
        open.bytes = limits.asAddedBytesMin
        limits.stretchBytesMin = open.bytes / 5 + 1
        #expect(open.layout(limits) == .asAdded)
        _ = try place(["1"], in: &open.records, &memory, a, chunk: 0)
        #expect(open.layout(limits) == .byFragment)
        limits.stretchBytesMin -= 1
        #expect(open.layout(limits) == .asAdded)
    }

    @Test func aFragmentLeadsToTheOneBefore() throws {
        var memory = ChunkMemory()
        var records = ChunkRecords()
        let a = makeStreamlet(1)
        #expect(try place(["1"], in: &records, &memory, a, chunk: 0))
        let first = records.taken()
        #expect(try place(["2"], in: &records, &memory, a, chunk: 3))
        #expect(first.fragments[0].previous == nil)
        #expect(records.fragments[0].previous?.chunk == 0)
        #expect(a.newest?.chunk == 3 && a.lastChunk == 3)
    }
}

extension ChunkRecords {
    fileprivate mutating func taken() -> ChunkRecords {
        var taken = ChunkRecords()
        move(to: &taken)
        return taken
    }

    fileprivate func batches(of slot: Int) -> [OpenStreamlet.Batch] {
        var found: [OpenStreamlet.Batch] = []
        forEachBatch(of: slot) { found.append($0) }
        return found
    }
}
