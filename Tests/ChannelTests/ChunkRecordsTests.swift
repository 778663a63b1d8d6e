// SPDX-License-Identifier: Apache-2.0

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
        _ bodies: [String], in records: inout ChunkRecords, _ ring: inout SlabRing,
        _ streamlet: OpenStreamlet, chunk: ChunkIndex
    ) throws -> Bool {
        var builder = PreparedBatchBuilder()
        for body in bodies {
            try builder.add(timestamp: nil, headers: [], body: Bytes(utf8: body))
        }
        let batch = try builder.finish()
        let placed = try SequencedBatch(
            batch, from: streamlet.assigned.tail.seqNum, timestamps: streamlet.timestamps(now: 5))
        let offset = ring.reserve(placed.storedBytes)
        placed.write(to: ring.current.base + offset)
        return records.add(
            placed, in: ring.current, at: offset, to: streamlet, chunk: chunk)
    }

    @Test func batchesOfSeveralStreamletsKeepTheirOrder() throws {
        var ring = SlabRing()
        var records = ChunkRecords()
        let (a, b) = (makeStreamlet(1), makeStreamlet(2))
        #expect(try place(["1", "2"], in: &records, &ring, a, chunk: 4))
        #expect(try !place(["3"], in: &records, &ring, a, chunk: 4))
        #expect(try place(["x"], in: &records, &ring, b, chunk: 4))
        #expect(try !place(["4"], in: &records, &ring, a, chunk: 4))
        let taken = records.take()
        #expect(records.isEmpty && taken.fragments.count == 2)
        let first = taken.fragments[0]
        #expect(first.streamlet === a && first.count == 4 && first.endSeqNum == 4)
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
        #expect(runs.reduce(0) { $0 + $1.count } == Int(first.length))
        #expect(a.stable.tail.seqNum == 0)
        for slot in taken.fragments.indices { taken.show(slot) }
        #expect(a.stable.tail == StreamPosition(seqNum: 4, timestamp: 5))
        #expect(a.isSettled && b.isSettled)
    }

    @Test func aFragmentLeadsToTheOneBefore() throws {
        var ring = SlabRing()
        var records = ChunkRecords()
        let a = makeStreamlet(1)
        #expect(try place(["1"], in: &records, &ring, a, chunk: 0))
        let first = records.take()
        #expect(try place(["2"], in: &records, &ring, a, chunk: 3))
        #expect(first.fragments[0].previous == nil)
        #expect(records.fragments[0].previous?.chunk == 0)
        #expect(a.newest?.chunk == 3 && a.lastChunk == 3)
    }

    @Test func slabsAreWrittenAgainOnceTheyAreFree() {
        var ring = SlabRing()
        var held: [ByteStorage] = []
        var seen: Set<ObjectIdentifier> = []
        // Chunks hold the slabs of the last 8 MiB.
        for _ in 0..<200 {
            _ = ring.reserve(512 << 10)
            held.append(ring.current)
            if held.count > 16 { held.removeFirst() }
            seen.insert(ObjectIdentifier(ring.current))
            for slab in held.dropLast() where slab === ring.current {
                #expect(held.suffix(2).allSatisfy { $0 === slab }, "a slab in use is not reused")
            }
        }
        #expect(seen.count < 20, "\(seen.count) slabs for 100 MiB")
        held = []
        ring.trim()
        let before = ring.current
        _ = ring.reserve(3 << 20)
        #expect(ring.current !== before && ring.current.byteCapacity >= 3 << 20)
    }
}

extension ChunkRecords {
    fileprivate func batches(of slot: Int) -> [OpenStreamlet.Batch] {
        var found: [OpenStreamlet.Batch] = []
        forEachBatch(of: slot) { found.append($0) }
        return found
    }
}
