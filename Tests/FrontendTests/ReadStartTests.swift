// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct ReadStartTests {
    static let tail = StreamPosition(seqNum: 10, timestamp: 100)

    @Test(
        arguments: [
            ("seq_num=3", .seqNum(3)), ("seq_num=10", .seqNum(10)),
            ("seq_num=10&count=1", .beyondTail),
            ("seq_num=10&count=1&wait=1", .seqNum(10)), ("seq_num=11", .beyondTail),
            ("seq_num=11&clamp=true", .seqNum(10)), ("seq_num=11&clamp=true&count=1", .beyondTail),
            ("seq_num=11&clamp=true&until=5&wait=0", .beyondTail), ("", .seqNum(10)),
            ("wait=0", .seqNum(10)), ("count=1", .beyondTail), ("tail_offset=4", .seqNum(6)),
            ("tail_offset=99", .seqNum(0)), ("tail_offset=0&bytes=1", .beyondTail),
            ("timestamp=100&count=1", .timestamp(100)), ("timestamp=101", .beyondTail),
            ("timestamp=101&clamp=true", .seqNum(10)), ("timestamp=0", .timestamp(0)),
            ("timestamp=101&clamp=true&count=2", .beyondTail),
        ] as [(String, ReadQuery.Place)])
    func startsAreResolvedAgainstTheTail(query: String, place: ReadQuery.Place) throws {
        #expect(try ReadQuery(query).place(tail: Self.tail) == place)
    }

    @Test(
        arguments: [
            ("seq_num=0", .beyondTail), ("timestamp=0", .timestamp(0)), ("", .beyondTail),
            ("seq_num=1&clamp=true", .beyondTail), ("seq_num=0&wait=1", .seqNum(0)),
        ] as [(String, ReadQuery.Place)])
    func unaryReadsOfAnEmptyStream(query: String, place: ReadQuery.Place) throws {
        #expect(try ReadQuery(query).cappedForUnary().place(tail: .zero) == place)
    }

    @Test(arguments: [
        ("seq_num=1&timestamp=2", "invalid"), ("seq_num=x", "bad_query"), ("wait=-1", "bad_query"),
        ("clamp=1", "bad_query"), ("timestamp=5&until=5", "invalid"), ("count=%zz", "bad_query"),
        ("wait=4294967296", "bad_query"), ("seq_num=", "bad_query"),
    ])
    func badQueriesAreRefused(query: String, code: String) {
        let error = #expect(throws: APIError.self) { try ReadQuery(query) }
        #expect(error?.code?.rawValue == code)
    }

    @Test func unaryReadsAreCapped() throws {
        let query = try ReadQuery("count=5000&bytes=10000000&wait=3600").cappedForUnary()
        #expect(query.limits == ReadLimits(count: 1_000, meteredBytes: 1_048_576))
        #expect(query.waitSeconds == 60)
    }

    @Test func resumesBehindAnEvent() throws {
        var query = try ReadQuery("timestamp=3&count=10&bytes=5")
        try query.resume(behind: "41, 4,9")
        #expect(query.origin == .seqNum(42))
        #expect(query.limits == ReadLimits(count: 6, meteredBytes: 0))
        try query.resume(behind: "18446744073709551615,0,0")
        #expect(query.origin == .seqNum(.max))
        for bad in ["", "1,2", "1,2,3,4", "a,1,1", "-1,0,0"] {
            #expect(throws: APIError.self) { try query.resume(behind: bad) }
        }
    }
}

@Suite struct ReadPlanTests {
    private func pointer(_ range: Range<UInt64>) -> ChunkPointer {
        ChunkPointer(
            object: "o\(range.lowerBound)", bucket: "b",
            start: StreamPosition(seqNum: range.lowerBound, timestamp: 1),
            count: UInt32(range.count), lastTimestamp: 1, offset: 0, length: 9)
    }

    private func reply(
        _ ranges: [Range<UInt64>], tail: UInt64, flushed: UInt64 = 0, trim: UInt64 = 0
    ) -> PlanReply {
        PlanReply(
            tail: StreamPosition(seqNum: tail, timestamp: 1), flushedEnd: flushed, trimPoint: trim,
            pointers: ranges.map(pointer))
    }

    private func page(
        _ ranges: [Range<UInt64>], tail: UInt64, trim: UInt64 = 0, hasMore: Bool = false
    ) -> SegmentPage {
        let id = StreamID(ID128(high: 1, low: 1))
        let stream = Stream(
            id: id, basin: "b", name: "s", config: .system, version: 1, cipher: nil,
            state: StreamState(
                tail: StreamPosition(seqNum: tail, timestamp: 1), fencingToken: "",
                fencingTokenPosition: 0, trimPoint: trim),
            createdMilliseconds: 0, deletedMilliseconds: nil)
        return SegmentPage(
            lookup: StreamLookup(stream: stream, owner: nil),
            segments: ranges.map { range in
                SegmentRow(
                    stream: id, start: StreamPosition(seqNum: range.lowerBound, timestamp: 1),
                    endSeqNum: range.upperBound, lastTimestamp: 1, bucket: "b", object: "x",
                    offset: 0, length: 1, meteredBytes: 1, checksum: 0)
            }, hasMore: hasMore)
    }

    private func plan(
        _ start: ReadStart, _ channel: PlanReply?, _ metadata: SegmentPage?, max: Int = 99
    ) throws -> ReadPlan {
        try ReadPlan(from: start, channel: channel, pointersMax: max, metadata: metadata)
    }

    private func spans(_ plan: ReadPlan) -> [Range<UInt64>] { plan.pieces.map { $0.from..<$0.end } }

    @Test func segmentsThenChunks() throws {
        let both = try plan(
            .seqNum(3), reply([5..<8, 8..<12], tail: 12, flushed: 5), page([0..<5], tail: 5))
        #expect(spans(both) == [3..<5, 5..<8, 8..<12])
        #expect(both.reachesTail && both.position == 3)
    }

    @Test func whatAFlushMovedInBetweenIsTakenOnce() throws {
        let moved = try plan(
            .seqNum(0), reply([5..<8, 8..<12], tail: 12, flushed: 5),
            page([0..<5, 5..<10], tail: 10))
        #expect(spans(moved) == [0..<5, 5..<10, 10..<12])
    }

    @Test func gapsAreNeverPassedOver() {
        #expect(throws: ReadPlan.Gap(at: 5)) {
            try plan(.seqNum(0), reply([6..<12], tail: 12, flushed: 5), page([0..<5], tail: 5))
        }
        #expect(throws: ReadPlan.Gap(at: 3)) {
            try plan(.seqNum(0), nil, page([4..<9], tail: 9, trim: 3))
        }
        #expect(throws: ReadPlan.Gap(at: 9)) { try plan(.seqNum(0), nil, page([0..<9], tail: 10)) }
        #expect(throws: ReadPlan.Gap(at: 0)) { try plan(.seqNum(0), reply([], tail: 2), nil) }
    }

    @Test func trimmedRecordsArePassedOver() throws {
        let trimmed = try plan(.seqNum(0), nil, page([2..<9], tail: 9, trim: 4))
        #expect(spans(trimmed) == [4..<9])
        let all = try plan(.seqNum(0), reply([], tail: 7, trim: 7), nil)
        #expect(all.position == 7 && all.pieces.isEmpty && all.reachesTail)
        let beyond = try plan(.seqNum(0), reply([], tail: 7, trim: .max), nil)
        #expect(beyond.position == 7)
    }

    @Test func cutAnswersAreNoTails() throws {
        let cut = try plan(.seqNum(0), reply([0..<2, 2..<4], tail: 9), nil, max: 2)
        #expect(!cut.reachesTail && spans(cut) == [0..<2, 2..<4])
        let more = try plan(
            .seqNum(0), reply([5..<9], tail: 9, flushed: 5), page([0..<3], tail: 5, hasMore: true))
        #expect(!more.reachesTail && spans(more) == [0..<3])
    }

    @Test func timestampsBeginWithTheFirstRun() throws {
        let found = try plan(
            .timestamp(1), reply([5..<9], tail: 9, flushed: 5), page([3..<5], tail: 5))
        #expect(found.position == 3 && spans(found) == [3..<5, 5..<9])
        let none = try plan(.timestamp(1), reply([], tail: 9, flushed: 9), page([], tail: 9))
        #expect(none.position == 9 && none.reachesTail)
    }
}
