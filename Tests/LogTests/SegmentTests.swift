// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Records
import TestSupport
import Testing

@Suite struct SegmentTests {
    let header = SegmentObjectHeader(
        id: ID128(high: 5, low: 6), channel: ChannelID(3), createdMilliseconds: 1_700)
    let state = SegmentState(
        basin: "my-basin", name: "a/stream", configVersion: 3, state: someState, closes: true)

    private func object(_ runs: [(Run, SegmentState?)]) throws -> (
        bytes: Bytes, placements: [SegmentPlacement]
    ) {
        var builder = SegmentObjectBuilder(header)
        for (i, (run, state)) in runs.enumerated() {
            let added = try builder.add(
                stream: stream(UInt64(i)), streamlet: 4, records: run.slices(3), state: state)
            #expect(added != nil)
        }
        let (parts, placements) = builder.finish()
        return (parts.joined(), placements)
    }

    @Test func roundTrip() throws {
        let runs = [Run(1, count: 20, from: 7), Run(2, count: 0), Run(3, count: 1)]
        let (bytes, placements) = try object([(runs[0], nil), (runs[1], state), (runs[2], state)])
        let read = try SegmentObject(bytes)
        #expect(read.header == header)
        #expect(read.placements == placements)
        #expect(read.segments.map(\.records) == runs.map(\.bytes))
        #expect(read.segments.map(\.index.state) == [nil, state, state])
        #expect(placements.map(\.closes) == [false, true, true])
        #expect(placements.map(\.hasState) == [false, true, true])
        let first = placements[0].span
        #expect(first.start == runs[0].positions[0])
        #expect(first.endSeqNum == 27)
        #expect(first.lastTimestamp == runs[0].positions.last?.timestamp)
        #expect(first.meteredBytes == UInt64(runs[0].metered))
        #expect(first.streamlet == 4)
        #expect(placements[1].span.isEmpty)
        #expect(placements[1].span.start == someState.tail)
        for segment in read.segments { try segment.checkRecords() }
        #expect(
            bytes[SegmentObjectHeader.identity.putID].load(UInt64.self, at: 0) == 5
                && bytes[SegmentObjectHeader.identity.putID].load(UInt64.self, at: 8) == 6)
        let directory = try SegmentDirectory(
            tail: bytes.dropFirst(
                bytes.count
                    - SegmentDirectory.tailBytes(
                        bytes.dropFirst(bytes.count - SegmentDirectory.trailerBytes),
                        objectSize: bytes.count)), objectSize: bytes.count)
        #expect(directory.placements == placements)
    }

    @Test func everyByteCounts() throws {
        let (bytes, placements) = try object([(Run(1, count: 5), state), (Run(2, count: 3), nil)])
        expectFragile(bytes) { try SegmentObject($0) }
        let range = placements[0].range
        expectFragile(bytes[range]) { try Segment($0, checksum: placements[0].checksum) }
        expectFragile(bytes[range]) { try Segment($0) }
        #expect(throws: DecodeError.self) {
            try Segment(bytes[range], checksum: placements[1].checksum)
        }
    }

    @Test func blocks() throws {
        let run = Run(5, count: 700, from: 1_000, body: 100...2_000)
        let (bytes, placements) = try object([(run, state)])
        let whole = bytes[placements[0].range]
        let tailBytes = SegmentIndex.tailBytesMax(segmentLength: whole.count)
        #expect(tailBytes < 2_000)
        let index = try SegmentIndex(
            tail: whole.dropFirst(whole.count - tailBytes), segmentLength: whole.count,
            checksum: placements[0].checksum)
        #expect(index.state == state)
        #expect(index.recordsLength == run.bytes.count)
        #expect(index.blocks.count == run.bytes.count / (65_536 + 1_000) + 1)
        var records = 0
        var metered = 0
        var joined: [Bytes] = []
        for (i, block) in index.blocks.enumerated() {
            let slice = whole[index.range(ofBlock: i)]
            try index.verify(block: i, slice)
            #expect(block.meteredBytesBefore == UInt64(metered))
            #expect(index.count(beforeBlock: i) == UInt64(records))
            #expect(block.start == run.positions[records])
            let cut = try ReadLimits().cut(
                slice,
                within: ReadBatchBounds(
                    recordsMax: .max, meteredBytesMax: .max, storedBytesMax: .max))
            records += cut.count
            metered += cut.meteredBytes
            joined.append(slice)
            #expect(throws: DecodeError.self) {
                try index.verify(block: i, Bytes(slice.array.map { $0 ^ 1 }))
            }
            #expect(throws: DecodeError.self) { try index.verify(block: i, slice.dropFirst(1)) }
        }
        #expect(joined.joined() == run.bytes)
        #expect(records == 700)
    }

    @Test func finds() throws {
        let run = Run(6, count: 300, from: 50, body: 1_000...3_000)
        let (bytes, placements) = try object([(run, nil)])
        let segment = try Segment(bytes[placements[0].range])
        let index = segment.index
        #expect(index.blocks.count > 5)
        for seqNum in 40..<360 as Range<UInt64> {
            let expected = run.positions.firstIndex { $0.seqNum >= seqNum }
            guard let block = index.block(seqNum: seqNum) else {
                #expect(expected == nil)
                continue
            }
            let from = segment.records[index.range(ofBlock: block)]
            let offset = try StoredRecords.offset(in: from, seqNum: seqNum)
            var walk = StoredRecords(from.dropFirst(offset))
            #expect(try walk.next()?.position == expected.map { run.positions[$0] })
        }
        for timestamp in 90..<run.positions.last!.timestamp + 3 {
            let expected = run.positions.first { $0.timestamp >= timestamp }
            guard let block = index.block(timestamp: timestamp) else {
                #expect(expected == nil)
                continue
            }
            let from = segment.records.dropFirst(index.range(ofBlock: block).lowerBound)
            let offset = try StoredRecords.offset(in: from, timestamp: timestamp)
            // At the latest, the next block begins with it.
            #expect(offset <= index.range(ofBlock: block).count)
            var walk = StoredRecords(from.dropFirst(offset))
            #expect(try walk.next()?.position == expected)
        }
    }

    @Test func refusesRecordsThatDoNotFollow() throws {
        let (a, b) = (Run(1, count: 3), Run(2, count: 3, from: 4))
        var builder = SegmentObjectBuilder(header)
        func refuses(_ records: [Bytes], _ state: SegmentState? = nil) {
            #expect(throws: DecodeError.self) {
                try builder.add(stream: stream(1), streamlet: 0, records: records, state: state)
            }
        }
        refuses([a.bytes, b.bytes])
        refuses([a.elements[0], a.elements[2]])
        refuses([a.elements[1], a.elements[0]])
        refuses([a.bytes.prefix(a.bytes.count - 1)])
        refuses([])
        refuses([Bytes()])
        let before = builder.byteCount
        #expect(builder.isEmpty)
        let added = try builder.add(
            stream: stream(1), streamlet: 0, records: a.elements, state: nil)
        #expect(added?.span.count == 3)
        #expect(builder.byteCount > before)
    }

    @Test func limits() throws {
        var builder = SegmentObjectBuilder(header)
        let big = Run(1, count: 1_000, body: 10_000...10_000)
        var added = 0
        while let placement = try builder.add(
            stream: stream(UInt64(added)), streamlet: 0, records: [big.bytes], state: state)
        {
            #expect(placement.span.count == 1_000)
            added += 1
        }
        #expect(added == 3)
        #expect(!builder.hasRoom(forRecords: big.bytes.count))
        let rest = SegmentObject.byteCountMax - builder.byteCount
        #expect(!builder.hasRoom(forRecords: rest))
        #expect(builder.hasRoom(forRecords: rest - 5_000))
        let (parts, placements) = builder.finish()
        #expect(placements.count == 3)
        #expect(try SegmentObject(parts.joined()).segments.count == 3)
    }

    @Test func theTailBoundIsABound() throws {
        let longest = SegmentState(
            basin: String(repeating: "a", count: 48), name: String(repeating: "b", count: 512),
            configVersion: .max,
            state: StreamState(
                tail: StreamPosition(seqNum: 1, timestamp: 1),
                fencingToken: String(repeating: "c", count: 36), fencingTokenPosition: 0,
                trimPoint: 0), closes: false)
        for run in [Run(1, count: 0), Run(2, count: 1), Run(3, count: 90, body: 3_000...4_000)] {
            let (bytes, placements) = try object([(run, longest)])
            let segment = bytes[placements[0].range]
            let tail = SegmentIndex.tailBytesMax(segmentLength: segment.count)
            let index = try SegmentIndex(
                tail: segment.dropFirst(segment.count - tail), segmentLength: segment.count)
            #expect(index.state == longest)
            #expect(segment.count - index.recordsLength <= tail)
        }
    }

    @Test func fuzz() throws {
        var random = SplitMix64(seed: 8)
        let (bytes, placements) = try object([(Run(1, count: 30), state), (Run(2, count: 3), nil)])
        let whole = bytes.array
        for _ in 0..<fuzzIterations {
            var changed = whole
            for _ in 0..<1 + random.next() % 4 {
                let at = Int(random.next() % UInt64(whole.count))
                changed[at] = UInt8(truncatingIfNeeded: random.next())
            }
            let accepted = (try? SegmentObject(Bytes(changed))) != nil
            #expect(accepted == (changed == whole))
            let range = placements[0].range
            let start = range.lowerBound + Int(random.next() % UInt64(range.count))
            let whole = (try? Segment(bytes[start..<range.upperBound])) != nil
            #expect(whole == (start == range.lowerBound))
        }
    }
}
