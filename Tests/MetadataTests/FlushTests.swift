// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

extension Conformance {
    @Test(arguments: Backend.allCases)
    func flushMovesForward(_ backend: Backend) async throws {
        try await backend.with { store in
            let (id, channel) = try await store.addOwnedStream()
            let first = flush(
                channel, [part(id, 0..<4, state: state(4, token: "it's \"", at: 2, trim: 1))],
                to: 3)
            #expect(try await store.flush(first) == .done)
            #expect(
                try await store.stream(id)?.stream.state
                    == state(4, token: "it's \"", at: 2, trim: 1))
            #expect(try await store.channel(channel)?.flushedEnd == 3)
            #expect(try await store.flush(first) == .done)

            let gap = flush(channel, [part(id, 5..<6)], to: 4)
            #expect(try await store.flush(gap) == .notContiguous(id))
            let overlap = flush(channel, [part(id, 3..<6)], to: 4)
            #expect(try await store.flush(overlap) == .notContiguous(id))
            #expect(try await store.channel(channel)?.flushedEnd == 3)

            // Nothing goes back: not the token, not the trim point, not the channel's end.
            let second = flush(channel, [part(id, 4..<9, closes: true)], to: 2)
            #expect(try await store.flush(second) == .done)
            #expect(
                try await store.stream(id)?.stream.state
                    == state(9, token: "it's \"", at: 2, trim: 1))
            #expect(try await store.channel(channel)?.flushedEnd == 3)
            #expect(try await store.stream(id)?.owner == nil)
            // The earlier flush once more, and the later one: all is in.
            #expect(try await store.flush(first) == .done)
            #expect(try await store.flush(second) == .done)
            let closedElsewhere = flush(channel, [part(id, 4..<8, closes: true)], to: 9)
            #expect(try await store.flush(closedElsewhere) == .notContiguous(id))
            let beyond = flush(channel, [part(id, 9..<10)], to: 9)
            #expect(try await store.flush(beyond) == .notContiguous(id))
            #expect(try await store.channel(channel)?.flushedEnd == 3)
            let page = try await store.segments(of: id, from: .seqNum(0), limit: 10)
            #expect(page.segments == [segment(id, 0..<4), segment(id, 4..<9)])
        }
    }

    @Test(arguments: Backend.allCases)
    func flushIsAllOrNothing(_ backend: Backend) async throws {
        try await backend.with { store in
            try await store.addBasin()
            let (channel, other) = (try await store.addChannel(), try await store.addChannel())
            for low in 1...3 as ClosedRange<UInt64> {
                try await store.addStream(low)
                _ = try await store.claim(streamID(low), channel: low == 3 ? other : channel)
            }
            let (a, b, foreign) = (streamID(1), streamID(2), streamID(3))
            let good = part(a, 0..<4)
            for (bad, misfit) in [
                (part(b, 1..<2), b), (part(foreign, 0..<2), foreign),
                (part(b, number: 1, 0..<2), b), (part(streamID(9), 0..<1), streamID(9)),
                (part(a, 0..<4), a),
            ] {
                let mixed = flush(channel, [good, bad], to: 7)
                #expect(try await store.flush(mixed) == .notContiguous(misfit))
                let reversed = flush(channel, [bad, good], to: 7)
                #expect(try await store.flush(reversed) == .notContiguous(misfit))
            }
            #expect(try await store.stream(a)?.stream.state == .initial)
            #expect(try await store.channel(channel)?.flushedEnd == 0)
            #expect(
                try await store.segments(of: a, from: .seqNum(0), limit: 10).segments.isEmpty)

            // The order of parts is free, and an empty flush moves the end only.
            let both = flush(channel, [part(b, 0..<2), good], to: 7)
            #expect(try await store.flush(both) == .done)
            #expect(try await store.flush(both) == .done)
            // One part is in, the other is new: that is no repetition.
            let mixed = flush(channel, [good, part(b, 2..<3)], to: 8)
            #expect(try await store.flush(mixed) == .notContiguous(a))
            #expect(try await store.flush(flush(channel, [], to: u64Max)) == .done)
            #expect(try await store.channel(channel)?.flushedEnd == u64Max)
        }
    }

    @Test(arguments: Backend.allCases)
    func flushNeedsItsChannelsState(_ backend: Backend) async throws {
        try await backend.with { store in
            let (id, channel) = try await store.addOwnedStream()
            let own = flush(channel, [part(id, 0..<4)], to: 3)
            let recovered = flush(
                channel, [part(id, 0..<5, closes: true)], to: 4, recovery: true)
            #expect(try await store.flush(recovered) == .channelNotActive)
            #expect(
                try await store.flush(flush(ChannelID(77), [part(id, 0..<4)], to: 3))
                    == .channelNotActive)
            #expect(
                try await store.flush(flush(ChannelID(u64Max), [], to: 3)) == .channelNotActive)
            try await store.resignChannel(channel)
            #expect(try await store.flush(own) == .channelNotActive)
            #expect(try await store.flush(recovered) == .channelNotActive)
            #expect(try await store.publishSeal(channel, sealedAt: 4, flushedEnd: 0))
            #expect(try await store.flush(own) == .channelNotActive)
            await expectError(.failed) {
                try await store.flush(flush(channel, [], to: 5, recovery: true))
            }
            #expect(try await store.flush(recovered) == .done)
            #expect(try await store.flush(recovered) == .done)
            let streamlet = try await store.streamlets(of: id, before: nil, limit: 1).first
            #expect(streamlet?.end == 5 && streamlet?.state == .closed)
            #expect(try await store.channel(channel)?.flushedEnd == 4)
        }
    }

    @Test(arguments: Backend.allCases)
    func parallelChannelsFlushOneStream(_ backend: Backend) async throws {
        try await backend.with { store in
            // One channel holds many streamlets of others' streams at once.
            try await store.addBasin()
            var channels: [ChannelID] = []
            for low in 1...6 as ClosedRange<UInt64> {
                try await store.addStream(low)
                channels.append(try await store.addChannel())
            }
            for (low, channel) in zip(UInt64(1)..., channels) {
                _ = try await store.claim(streamID(low), channel: channel)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (low, channel) in zip(UInt64(1)..., channels) {
                    group.addTask {
                        for step in 0..<10 as Range<UInt64> {
                            let range = step * 3..<(step + 1) * 3
                            let one = flush(
                                channel, [part(streamID(low), range)], to: step + 1)
                            let result = try await store.flush(one)
                            #expect(result == .done)
                        }
                    }
                }
                try await group.waitForAll()
            }
            for low in 1...6 as ClosedRange<UInt64> {
                let page = try await store.segments(
                    of: streamID(low), from: .seqNum(0), limit: 100)
                #expect(page.segments.count == 10)
                #expect(page.lookup?.stream.state == state(30))
            }
        }
    }

    @Test(arguments: Backend.allCases)
    func trimmedRecordsNeedNoSegment(_ backend: Backend) async throws {
        try await backend.with { store in
            let (id, channel) = try await store.addOwnedStream()
            func trimmed(_ range: Range<SeqNum>, trim: SeqNum, _ segments: [SegmentRow])
                -> Flush.Part
            {
                Flush.Part(
                    stream: id, streamlet: 0, from: range.lowerBound,
                    state: state(range.upperBound, trim: trim), closes: false,
                    segments: segments)
            }
            for bad in [
                trimmed(0..<10, trim: 3, [segment(id, 4..<10)]),
                trimmed(0..<10, trim: 3, [segment(id, 2..<4), segment(id, 5..<10)]),
                trimmed(0..<10, trim: 3, [segment(id, 3..<9)]),
                trimmed(0..<10, trim: 3, [segment(id, 3..<11)]),
                trimmed(0..<10, trim: 0, []),
                trimmed(0..<10, trim: 10, [segment(id, 5..<10), segment(id, 2..<5)]),
                trimmed(0..<10, trim: 0, [segment(streamID(8), 0..<10)]),
                trimmed(0..<0, trim: 0, [segment(id, 0..<1)]),
                Flush.Part(
                    stream: id, streamlet: 0, from: 4, state: state(3), closes: false,
                    segments: []),
            ] {
                #expect(
                    try await store.flush(flush(channel, [bad], to: 1)) == .notContiguous(id))
            }
            let good = [
                trimmed(0..<10, trim: 3, [segment(id, 3..<6), segment(id, 6..<10)]),
                trimmed(10..<20, trim: 20, []),
                trimmed(20..<u64Max, trim: u64Max, [segment(id, (u64Max - 1)..<u64Max)]),
            ]
            for part in good {
                #expect(try await store.flush(flush(channel, [part], to: 1)) == .done)
            }
            let page = try await store.segments(of: id, from: .seqNum(0), limit: 10)
            #expect(page.segments.map(\.start.seqNum) == [3, 6, u64Max - 1])
            #expect(page.lookup?.stream.state.tail.seqNum == u64Max)
            #expect(page.lookup?.stream.state.trimPoint == u64Max)
        }
    }

    @Test(arguments: Backend.allCases)
    func extremesRoundTrip(_ backend: Backend) async throws {
        try await backend.with { store in
            let (id, channel) = try await store.addOwnedStream()
            let row = SegmentRow(
                stream: id, start: StreamPosition(seqNum: 0, timestamp: u64Max),
                endSeqNum: u64Max, lastTimestamp: u64Max, bucket: "", object: "o",
                offset: u64Max, length: u64Max, meteredBytes: u64Max, checksum: .max)
            let extreme = StreamState(
                tail: StreamPosition(seqNum: u64Max, timestamp: u64Max),
                fencingToken: "\u{10FFFF}'\"\\{},\n\0\\0\u{7F}", fencingTokenPosition: u64Max,
                trimPoint: 0)
            let all = Flush.Part(
                stream: id, streamlet: 0, from: 0, state: extreme, closes: true, segments: [row])
            let whole = flush(channel, [all], to: u64Max)
            #expect(try await store.flush(whole) == .done)
            #expect(try await store.flush(whole) == .done)
            #expect(try await store.stream(id)?.stream.state == extreme)
            #expect(try await store.streamlets(of: id, before: nil, limit: 1).first?.end == u64Max)
            for start in [
                ReadStart.seqNum(0), .seqNum(u64Max - 1), .timestamp(0), .timestamp(u64Max),
            ] {
                let page = try await store.segments(of: id, from: start, limit: 1)
                #expect(page.segments == [row] && !page.hasMore)
            }
            let none = try await store.segments(of: id, from: .seqNum(u64Max), limit: 1)
            #expect(none.segments.isEmpty && none.lookup?.stream.state == extreme)
            guard case .claimed(1, let again) = try await store.claim(id, channel: channel) else {
                Issue.record("not claimed")
                return
            }
            #expect(again.state == extreme)
            #expect(
                try await store.streamlets(of: id, before: nil, limit: 1).first?.start == u64Max)
        }
    }

    @Test(arguments: Backend.allCases)
    func segmentsComeFromTheStart(_ backend: Backend) async throws {
        try await backend.with { store in
            let empty = SegmentPage(lookup: nil, segments: [], hasMore: false)
            #expect(try await store.segments(of: streamID(1), from: .seqNum(0), limit: 5) == empty)
            let (id, channel) = try await store.addOwnedStream()
            let dormant = try await store.segments(of: id, from: .seqNum(0), limit: 5)
            #expect(dormant.segments.isEmpty && dormant.lookup?.owner?.channel == channel)

            let rows = [
                segment(id, 0..<10, timestamps: 100...200),
                segment(id, 10..<20, timestamps: 200...200),
                segment(id, 20..<21, timestamps: 200...300),
                segment(id, 21..<30, timestamps: 400...500),
            ]
            let all = Flush.Part(
                stream: id, streamlet: 0, from: 0, state: state(30, timestamp: 500), closes: false,
                segments: rows)
            #expect(try await store.flush(flush(channel, [all], to: 1)) == .done)
            let cases: [(ReadStart, Int)] = [
                (.seqNum(0), 0), (.seqNum(9), 0), (.seqNum(10), 1), (.seqNum(20), 2),
                (.seqNum(29), 3), (.seqNum(30), 4), (.seqNum(u64Max), 4), (.timestamp(0), 0),
                (.timestamp(200), 0), (.timestamp(201), 2), (.timestamp(300), 2),
                (.timestamp(301), 3), (.timestamp(500), 3), (.timestamp(501), 4),
            ]
            for (start, first) in cases {
                for limit in 1...5 {
                    let page = try await store.segments(of: id, from: start, limit: limit)
                    let wanted = rows.dropFirst(first)
                    #expect(page.segments == Array(wanted.prefix(limit)), "\(start)")
                    #expect(page.hasMore == (wanted.count > limit))
                    #expect(page.lookup?.stream.state.tail.seqNum == 30)
                    #expect(page.lookup?.owner?.channel == channel)
                }
            }
        }
    }
}

/// What only the memory store promises.
struct MemoryMetadataTests {
    @Test func sameCallsGiveTheSameAnswers() async throws {
        func run() async throws -> [Stream] {
            let store = MemoryMetadata { 7 }
            try await store.addBasin()
            for low in 0..<50 as Range<UInt64> { try await store.addStream(low) }
            let channel = try await store.addChannel()
            for low in 0..<50 as Range<UInt64> {
                _ = try await store.claim(streamID(low), channel: channel)
            }
            let open = try await store.streamlets(of: channel, [.open])
            #expect(open.map(\.stream) == (0..<50).map(streamID))
            return try await store.listStreams(
                basin: "basin-one", prefix: "", startAfter: "", limit: 100
            ).items
        }
        #expect(try await run() == run())
    }
}
