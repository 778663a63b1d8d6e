// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Records
import TestSupport
import Testing

@Suite struct SegmentPackerTests {
    private func header(_ n: Int) -> SegmentObjectHeader {
        SegmentObjectHeader(
            id: ID128(high: 1, low: UInt64(n)), channel: ChannelID(3), createdMilliseconds: 1_700)
    }

    /// All objects, decoded, and what was told of each.
    private func objects(
        _ packer: SegmentPacker
    ) throws -> [(object: SegmentObject, packed: SegmentPacker.Packed)] {
        var packer = packer
        var objects: [(object: SegmentObject, packed: SegmentPacker.Packed)] = []
        while !packer.isEmpty {
            let packed = try packer.next(header(objects.count))
            objects.append((try SegmentObject(packed.parts.joined()), packed))
        }
        return objects
    }

    private func state(_ n: UInt64) -> SegmentState {
        SegmentState(
            basin: "my-basin", name: "s\(n)", configVersion: n, state: someState,
            closes: n % 2 == 0)
    }

    /// Some streams with some runs of some records each: any of it may be none.
    private func shares(_ random: inout SplitMix64) -> [SegmentPacker.Share] {
        (0..<random.next() % 7).map { n in
            let whole = Run(
                n, count: Int(random.next() % 60), from: random.next() % 1_000, body: 0...2_000)
            var runs: [Bytes] = []
            var rest = whole.elements[...]
            while !rest.isEmpty {
                let count = Int(1 + random.next() % 12)
                runs.append(Array(rest.prefix(count)).joined())
                rest = rest.dropFirst(count)
            }
            return SegmentPacker.Share(
                stream: stream(n), streamlet: UInt32(n), runs: runs,
                state: random.next() % 2 == 0 ? state(n) : nil)
        }
    }

    @Test func fuzzEveryRunAppearsOnceInOrderWithinTheBounds() throws {
        var random = SplitMix64(seed: 42)
        for _ in 0..<fuzzIterations / 4 {
            let shares = shares(&random)
            let objectTarget = Int(random.next() % 60_000)
            let segmentTarget = Int(random.next() % 30_000)
            let objects = try objects(
                SegmentPacker(
                    shares, objectBytesTarget: objectTarget, segmentBytesTarget: segmentTarget))
            var runs = shares.map { $0.runs[...] }
            var states: [StreamID: SegmentState] = [:]
            var lastShare = 0
            for (number, (object, packed)) in objects.enumerated() {
                #expect(object.header == header(number))
                let full = zip(object.placements, object.segments).filter { !$0.0.span.isEmpty }
                #expect(full.map(\.0) == packed.segments.map(\.placement))
                var runsInObject = 0
                for ((share, placement), (_, segment)) in zip(packed.segments, full) {
                    #expect(placement.span.stream == shares[share].stream)
                    #expect(placement.span.streamlet == shares[share].streamlet)
                    #expect(share >= lastShare, "streams keep their order")
                    lastShare = share
                    try segment.checkRecords()
                    let count = taken(segment.records, from: &runs[share])
                    runsInObject += count
                    #expect(count == 1 || segment.records.count <= segmentTarget)
                    let isLast = runs[share].isEmpty
                    #expect(placement.hasState == (isLast && shares[share].state != nil))
                }
                let bytes = byteCount(packed.parts)
                #expect(runsInObject <= 1 || bytes <= objectTarget + overhead(of: object))
                for segment in object.segments {
                    guard let state = segment.index.state else { continue }
                    #expect(states.updateValue(state, forKey: segment.index.span.stream) == nil)
                }
            }
            #expect(runs.allSatisfy { $0.isEmpty }, "every run is somewhere")
            for share in shares { #expect(states[share.stream] == share.state) }
        }
    }

    /// How many runs at the front make up `records`, which are taken away; they must.
    private func taken(_ records: Bytes, from runs: inout ArraySlice<Bytes>) -> Int {
        var bytes: [UInt8] = []
        var count = 0
        while bytes.count < records.count, let run = runs.popFirst() {
            bytes += run.array
            count += 1
        }
        #expect(bytes == records.array, "a segment holds whole runs")
        return count
    }

    /// What an object holds besides records, which the target does not foresee of the last segment.
    private func overhead(of object: SegmentObject) -> Int {
        zip(object.placements, object.segments).reduce(0) { $0 + $1.0.length - $1.1.records.count }
            + 80 * object.placements.count
    }

    @Test func anObjectIsFilled() throws {
        let runs = Run(1, count: 1_000, body: 100...100).slices(100)
        let share = SegmentPacker.Share(stream: stream(1), streamlet: 0, runs: runs, state: nil)
        let target = runs[0].count * 30
        let objects = try objects(SegmentPacker([share], objectBytesTarget: target))
        #expect(objects.count == 4)
        for (_, packed) in objects.dropLast() {
            #expect(byteCount(packed.parts) > target - 2 * runs[0].count)
        }
        let segments = try self.objects(
            SegmentPacker([share], segmentBytesTarget: runs[0].count * 30))
        #expect(segments.map(\.packed.segments.count) == [4])
    }

    @Test func nothingIsNoObject() throws {
        #expect(SegmentPacker([]).isEmpty)
        let empty = SegmentPacker.Share(stream: stream(1), streamlet: 0, runs: [], state: nil)
        #expect(SegmentPacker([empty, empty]).isEmpty)
        let word = SegmentPacker.Share(
            stream: stream(2), streamlet: 5, runs: [], state: state(2))
        let objects = try objects(SegmentPacker([empty, word, empty]))
        #expect(objects.count == 1)
        #expect(objects[0].object.segments.map(\.index.state) == [state(2)])
        #expect(objects[0].packed.segments.isEmpty, "a word alone is not published")
    }

    @Test func largeStreamsGoOnInTheNextObject() throws {
        let runs = Run(1, count: 700, body: 60_000...60_000).slices(5)
        let share = SegmentPacker.Share(
            stream: stream(1), streamlet: 0, runs: runs, state: state(1))
        let objects = try objects(SegmentPacker([share]))
        #expect(objects.map(\.packed.segments.count) == [1, 1])
        #expect(objects.map(\.object.segments[0].index.span.count) == [420, 280])
        #expect(objects.map { $0.object.segments[0].index.state } == [nil, state(1)])

        var whole = SegmentPacker([
            SegmentPacker.Share(
                stream: stream(1), streamlet: 0, runs: [runs.joined()], state: nil)
        ])
        let error = #expect(throws: SegmentPackingError.self) { try whole.next(header(0)) }
        #expect(error?.description.contains("fits no object") == true)
    }

    @Test func recordsThatDoNotContinueAreRefused() throws {
        let runs = [Run(1, count: 3).bytes, Run(2, count: 3, from: 4).bytes]
        var packer = SegmentPacker([
            SegmentPacker.Share(stream: stream(1), streamlet: 0, runs: runs, state: nil)
        ])
        let error = #expect(throws: SegmentPackingError.self) { try packer.next(header(0)) }
        #expect(error?.description.contains("do not continue") == true)
    }
}
