// SPDX-License-Identifier: Apache-2.0

import HTTP
import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct ReadUnaryTests {
    /// Three batches at rest in chunks: records 0 ..< 6, of 12 metered bytes each.
    private func filled(flushed: Int = 0, dormant: Bool = false) throws -> DataBench {
        let bench = try DataBench()
        try bench.fill([1, 2, 3])
        if flushed > 0 || dormant {
            try bench.run { try await bench.channel.flush(bench.stream, closes: dormant) }
        }
        return bench
    }

    @Test(
        arguments: [
            ("seq_num=0", 0..<6), ("seq_num=2", 2..<6), ("seq_num=0&count=4", 0..<4),
            ("seq_num=0&count=6", 0..<6), ("seq_num=0&count=0", 0..<0),
            ("seq_num=0&bytes=0", 0..<0),
            ("seq_num=0&bytes=11", 0..<0), ("seq_num=0&bytes=24", 0..<2),
            ("seq_num=0&bytes=35", 0..<2), ("seq_num=1&bytes=100&count=2", 1..<3),
            ("tail_offset=2", 4..<6), ("tail_offset=77", 0..<6), ("timestamp=0", 0..<6),
            ("seq_num=0&until=5", 0..<0), ("seq_num=0&wait=10", 0..<6),
        ] as [(String, Range<UInt64>)])
    func whatComesBack(query: String, expected: Range<UInt64>) throws {
        for bench in [try filled(), try filled(flushed: 6), try filled(dormant: true)] {
            let read = bench.protobuf(query)
            #expect(read.status == 200)
            let batch = try ReadBatch(read.body)
            #expect(batch.records.map(\.seqNum) == Array(expected))
            if expected.upperBound == 6 { #expect(batch.tail?.seqNum == 6) }
            #expect(bench.channel.activations == 1, "reading wakes nobody up")
        }
    }

    @Test(arguments: [
        "seq_num=6", "seq_num=7", "seq_num=7&clamp=true", "tail_offset=0", "", "count=1",
        "timestamp=9999999999999",
    ])
    func beyondTheTailIs416(query: String) throws {
        let read = try filled().get(query)
        #expect(read.status == 416)
        #expect(
            read.bodyText == #"{"tail":{"seq_num":6,"timestamp":1700000000000}}"#)
    }

    @Test func emptyStreams() throws {
        let bench = try DataBench()
        #expect(bench.get("seq_num=0").bodyText == #"{"tail":{"seq_num":0,"timestamp":0}}"#)
        #expect(bench.get("timestamp=0").bodyText == #"{"records":[]}"#)
        let tail = FakeExchange("GET", "/v1/streams/s/records/tail")
        tail.serve(by: bench)
        bench.loop.settle()
        #expect(tail.bodyText == #"{"tail":{"seq_num":0,"timestamp":0}}"#)
        #expect(bench.channel.activations == 0)
        let waiting = bench.get("seq_num=5&clamp=true&wait=1")
        #expect(!waiting.isFinished)
        bench.loop.advance(.seconds(1))
        #expect(waiting.status == 200 && waiting.bodyText == #"{"records":[]}"#)
    }

    @Test func aWaitEndsWithTheFirstLiveBatch() throws {
        let bench = try filled()
        let read = bench.protobuf("wait=10")
        bench.loop.advance(.seconds(1))
        #expect(!read.isFinished)
        try bench.channel.write(bench.stream, count: 2)
        bench.loop.settle()
        let batch = try ReadBatch(read.body)
        #expect(batch.records.map(\.seqNum) == [6, 7] && batch.tail?.seqNum == 8)
    }

    @Test func timestampsFindTheFirstOfSeveral() throws {
        for flushed in [false, true] {
            let bench = try DataBench()
            try bench.activate()
            for time in [10, 20, 20, 30] as [UInt64] {
                try bench.channel.write(bench.stream, count: 2, timestamp: time)
            }
            bench.loop.settle()
            if flushed { try bench.run { try await bench.channel.flush(bench.stream) } }
            for (query, first) in [("11", 2), ("20", 2), ("21", 6), ("10", 0), ("30", 6)] {
                let batch = try ReadBatch(bench.protobuf("timestamp=\(query)").body)
                #expect(batch.records.first?.seqNum == UInt64(first))
                #expect(batch.records.count == 8 - first)
            }
            let until = try ReadBatch(bench.protobuf("timestamp=10&until=20").body)
            #expect(until.records.map(\.seqNum) == [0, 1])
        }
    }

    @Test func trimmedRecordsAreSkipped() throws {
        let bench = try filled()
        try #require(bench.streamlet).trimPoint = 4
        #expect(try ReadBatch(bench.protobuf("seq_num=0").body).records.map(\.seqNum) == [4, 5])
        try #require(bench.streamlet).trimPoint = 6
        let all = bench.get("seq_num=0")
        #expect(all.status == 200 && all.bodyText == #"{"records":[]}"#)
    }

    @Test func largeSegmentsAreReadInParts() throws {
        let bench = try DataBench()
        try bench.fill([Int](repeating: 10, count: 12), bodyBytes: 100_000)
        try bench.run { try await bench.channel.flush(bench.stream) }
        let batch = try ReadBatch(bench.protobuf("seq_num=55&count=3").body)
        #expect(batch.records.map(\.seqNum) == [55, 56, 57])
        let all = try Frames(bench.session("seq_num=0&count=120"))
        #expect(try all.seqNums == Array(0..<120))
        #expect(try all.batches.allSatisfy { $0.records.count <= 10 }, "1 MiB a batch")
    }

    @Test func anObjectThatIsGoneMeansAnotherPlan() throws {
        let bench = try filled()
        // The flush deletes chunks between the plan and the fetch.
        let read = FakeExchange("GET", "/v1/streams/s/records?seq_num=0")
        read.serve(by: bench)
        bench.loop.spawn { try? await bench.channel.flush(bench.stream) }
        bench.loop.run { read.isFinished }
        #expect(read.status == 200)
        #expect(read.bodyText.contains(#""seq_num":5"#))
    }

    /// An object goes and the trim point rises between two plans, as retention has it: an answer in
    /// one piece ends before the hole, while a session and who has got nothing go on behind it.
    @Test func aTrimBetweenPlansLeavesNoHole() throws {
        func seqNums(_ query: String, isSession: Bool = false) throws -> [SeqNum] {
            let bench = try filled()
            let streamlet = try #require(bench.streamlet)
            try bench.run { try await bench.store.delete(streamlet.stored[1].object) }
            bench.calls.holds = { [unowned bench] call in
                if call.method == .plan, bench.calls.count(.plan) == 2 { streamlet.trimPoint = 3 }
                return false
            }
            let read = isSession ? bench.session(query) : bench.protobuf(query)
            #expect(bench.calls.count(.plan) == 2)
            return try isSession
                ? Frames(read).seqNums : ReadBatch(read.body).records.map(\.seqNum)
        }
        #expect(try seqNums("seq_num=0") == [0])
        #expect(try seqNums("seq_num=1") == [3, 4, 5])
        #expect(try seqNums("seq_num=0", isSession: true) == [0, 3, 4, 5])
    }

    @Test func lostObjectsAreAnErrorInTheEnd() throws {
        let bench = try filled()
        let object = try #require(bench.streamlet?.stored[1].object)
        try bench.run { try await bench.store.delete(object) }
        let read = bench.get("seq_num=0")
        bench.loop.run { read.isFinished }
        #expect(read.status == 503)
    }

    @Test func deadChannelsMakeReadersWaitThenFail() throws {
        let bench = try filled()
        bench.calls.channels["a:1"] = nil
        let read = bench.get("seq_num=0")
        #expect(!read.isFinished)
        bench.loop.advance(.seconds(11))
        #expect(read.status == 503 && read.bodyText.contains("unavailable"))
    }

    @Test func autoCreationHappensOnReadsAndOnlyValidOnes() throws {
        var config = BasinConfig()
        config.createStreamOnRead = true
        let bench = try DataBench(createsStream: false, config: config)
        #expect(bench.get("timestamp=5&until=5").status == 422)
        let none = try bench.run {
            try await bench.metadata.stream(basin: DataBench.basin, name: "s")
        }
        #expect(none == nil)
        #expect(bench.get("seq_num=0").status == 416)
        let made = try bench.run {
            try await bench.metadata.stream(basin: DataBench.basin, name: "s")
        }
        #expect(made != nil)
    }
}

@Suite struct ReadSessionTests {
    @Test func catchesUpThenFollows() throws {
        let bench = try DataBench()
        try bench.fill([2, 3])
        let read = bench.session("seq_num=0")
        var batches = try Frames(read).batches
        #expect(batches.count == 2, "what is there goes out in one batch, then a heartbeat")
        #expect(batches[0].records.map(\.seqNum) == Array(0..<5))
        #expect(batches[0].tail?.seqNum == 5)
        #expect(batches[1].records.isEmpty && batches[1].tail?.seqNum == 5)
        let end = try bench.channel.write(bench.stream, count: 3)
        bench.loop.settle()
        batches = try Frames(read).batches
        #expect(batches.count == 3)
        #expect(batches[2].records.map(\.seqNum) == [5, 6, 7] && batches[2].tail == end)
        #expect(!read.isFinished)
    }

    @Test func aDormantStreamIsWokenUpByFollowersOnly() throws {
        let bench = try DataBench()
        let read = bench.session("")
        #expect(try Frames(read).batches == [ReadBatch(records: [], tail: .zero)])
        #expect(bench.channel.activations == 1)
        try bench.channel.write(bench.stream, count: 1)
        bench.loop.settle()
        #expect(try Frames(read).seqNums == [0])
    }

    @Test func heartbeatsBreakTheSilenceWithoutMovingTheWait() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let read = bench.session("wait=40")
        bench.loop.advance(.seconds(39))
        let beats = try Frames(read).batches
        #expect((4...9).contains(beats.count), "one at once, then every 5 to 15 seconds")
        #expect(beats.allSatisfy { $0.records.isEmpty && $0.tail?.seqNum == 1 })
        #expect(!read.isFinished)
        bench.loop.advance(.seconds(2))
        #expect(try Frames(read).terminal == nil && read.isFinished)
    }

    @Test func deliveredBatchesMoveTheWait() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let read = bench.session("wait=10")
        bench.loop.advance(.seconds(8))
        try bench.channel.write(bench.stream, count: 1)
        bench.loop.advance(.seconds(9))
        #expect(!read.isFinished)
        bench.loop.advance(.seconds(2))
        #expect(read.isFinished)
    }

    @Test func noWaitEndsAtTheTail() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let atTail = bench.session("wait=0")
        #expect(atTail.status == 200 && atTail.isFinished && atTail.body.isEmpty)
        let behind = bench.session("seq_num=0&wait=0")
        #expect(try Frames(behind).messages.count == 1 && behind.isFinished)
        #expect(bench.session("count=1").status == 416)
        #expect(bench.session("seq_num=9").status == 416)
        #expect(bench.session("seq_num=9&clamp=true").status == 200)
    }

    @Test func limitsCutLiveBatches() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let count = bench.session("count=3&wait=60")
        let bytes = bench.session("bytes=11&wait=60")
        let until = bench.session("seq_num=0&until=1700000000001&wait=60")
        try bench.channel.write(bench.stream, count: 2)
        bench.loop.settle()
        try bench.channel.write(bench.stream, count: 2, timestamp: 1_700_000_000_001)
        bench.loop.settle()
        #expect(try Frames(count).seqNums == [1, 2, 3] && count.isFinished)
        #expect(try Frames(bytes).seqNums.isEmpty && bytes.isFinished)
        #expect(try Frames(until).seqNums == [0, 1, 2] && until.isFinished)
    }

    @Test func sessionsIgnoreTheFormatOfJSON() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let headers = [(name: "content-type", value: "S2S/proto"), ("s2-format", "hex")]
        #expect(bench.get("seq_num=0", headers).status == 200)
        #expect(bench.get("seq_num=0", [("s2-format", "hex")]).status == 400)
    }

    @Test func manyReadersShareOneFollow() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let readers = (0..<20).map { _ in bench.session("seq_num=0") }
        for _ in 0..<5 { try bench.channel.write(bench.stream, count: 2) }
        bench.loop.settle()
        #expect(try readers.allSatisfy { try Frames($0).seqNums == Array(0..<11) })
        #expect(bench.calls.count(.follow) == 1)
        for reader in readers { reader.hangUp() }
        bench.loop.advance(.seconds(5))
        #expect(bench.streamlet?.follows.isEmpty == true)
    }

    @Test func aSlowReaderFallsBackAndMissesNothing() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.responseBufferBytesMax = 200
        limits.followerBufferBytesMax = 400
        let bench = try DataBench(limits: limits)
        try bench.fill([1])
        let slow = bench.session("seq_num=0")
        let fast = bench.session("seq_num=0")
        slow.holdsUnsent = true
        for _ in 0..<30 {
            try bench.channel.write(bench.stream, count: 3)
            bench.loop.settle()
        }
        #expect(try Frames(fast).seqNums == Array(0..<91))
        #expect(try Frames(slow).seqNums.count < 60)
        for _ in 0..<60 {
            slow.takeUnsent()
            bench.loop.advance(.milliseconds(200))
        }
        #expect(try Frames(slow).seqNums == Array(0..<91))
        slow.holdsUnsent = false
        try bench.channel.write(bench.stream, count: 1)
        bench.loop.settle()
        #expect(try Frames(slow).seqNums.last == 91)
    }

    /// Plans made by a reader whose client takes something twice a second.
    private func plans(waiting planWaitMilliseconds: UInt64?) throws -> Int {
        var limits = FrontendLimits(rootToken: nil)
        limits.responseBufferBytesMax = 200
        let bench = try DataBench(limits: limits, planWaitMilliseconds: planWaitMilliseconds)
        try bench.fill(Array(repeating: 1, count: 120), bodyBytes: 300_000)
        let slow = FakeExchange(
            "GET", "/v1/streams/s/records?seq_num=0", headers: [("content-type", "s2s/proto")])
        slow.holdsUnsent = true
        slow.serve(by: bench)
        slow.endBody()
        bench.loop.settle()
        for _ in 0..<130 {
            slow.takeUnsent()
            bench.loop.advance(.milliseconds(500))
        }
        #expect(try Frames(slow).seqNums == Array(0..<120))
        return Int(bench.records.path.metrics.readPlans.value)
    }

    @Test func aPlanIsUsedForHalfAsLongAsObjectsStay() throws {
        #expect(try plans(waiting: nil) == 1)
        #expect(try plans(waiting: 600_000) == 1)
        // With plans of 2 s; what was fetched by then is delivered.
        let short = try plans(waiting: 4_000)
        #expect((3...9).contains(short), "\(short)")
    }

    @Test func aMovedStreamIsFollowedFurther() throws {
        let bench = try DataBench()
        try bench.fill([2])
        let read = bench.session("seq_num=0")
        try bench.run { try await bench.channel.flush(bench.stream, closes: true) }
        bench.loop.advance(.seconds(1))
        #expect(bench.channel.activations == 2)
        try bench.channel.write(bench.stream, count: 2)
        bench.loop.advance(.seconds(1))
        #expect(try Frames(read).seqNums == [0, 1, 2, 3])
    }

    @Test func aDeletedStreamEndsItsFollowers() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let session = bench.session("seq_num=0")
        let events = bench.get("seq_num=0", [("accept", "text/event-stream")])
        bench.channel.lose(bench.stream, .streamDeleted)
        bench.loop.settle()
        #expect(try Frames(session).terminal?.status == 409)
        #expect(session.isFinished && events.isFinished)
        #expect(
            events.bodyText.contains("event: error\ndata: {\"code\":\"stream_deletion_pending\""))
        #expect(!events.bodyText.contains("[DONE]"))
    }

    @Test func aChannelThatIsLostForGoodEndsItsFollowersInTime() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let read = bench.session("seq_num=0")
        bench.calls.channels["a:1"] = nil
        bench.channel.lose(bench.stream, .connectionLost)
        bench.loop.advance(.seconds(25))
        #expect(try Frames(read).terminal?.status == 503)
    }

    @Test func events() throws {
        let bench = try DataBench()
        try bench.fill([2])
        let read = bench.get("seq_num=0&count=3&wait=5", [("accept", "text/event-stream")])
        #expect(read.responseHeader("content-type") == "text/event-stream")
        #expect(read.responseHeader("x-accel-buffering") == "no")
        let start = "event: batch\nid: 1,2,24\ndata: {\"records\":[{\"seq_num\":0,"
        #expect(read.bodyText.hasPrefix(start))
        #expect(read.bodyText.contains("event: ping\ndata: {\"timestamp\":"))
        try bench.channel.write(bench.stream, count: 2)
        bench.loop.settle()
        #expect(read.bodyText.contains("id: 2,3,36\n"))
        #expect(read.bodyText.hasSuffix("data: [DONE]\n\n") && read.isFinished)
        let resumed = bench.get(
            "seq_num=0&count=3", [("accept", "text/event-stream"), ("last-event-id", "1,2,24")])
        #expect(resumed.bodyText.contains("id: 2,1,12\n"))
        let bad = bench.get("", [("accept", "text/event-stream"), ("last-event-id", "x")])
        #expect(bad.status == 400 && bad.bodyText.contains("bad_header"))
    }

    @Test func drainingSendsReadersAway() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let read = bench.session("seq_num=0")
        bench.records.drain()
        #expect(try Frames(read).terminal?.text.contains("server_draining") == true)
    }

    /// Readers come, stall and leave while batches are written, flushed and the stream moves: each
    /// gets every record from its start on, once, in order, and never a tail that hides one.
    @Test(arguments: 1...60)
    func noGapAndNoDuplicateUnderAnyInterleaving(seed: UInt64) throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.responseBufferBytesMax = 150
        limits.followerBufferBytesMax = 300
        let bench = try DataBench(limits: limits, seed: seed)
        let random = RandomSource.seeded(seed)
        try bench.fill([1])
        var readers: [(exchange: FakeExchange, start: UInt64)] = []
        for _ in 0..<120 {
            switch random.below(12) {
            case 0...4:
                if bench.streamlet == nil { try bench.activate() }
                try bench.channel.write(bench.stream, count: 1 + Int(random.below(3)))
            case 5 where readers.count < 8:
                let tail = bench.streamlet?.stable.seqNum ?? 0
                let start = bench.streamlet == nil ? 0 : random.below(tail + 1)
                let read = FakeExchange(
                    "GET", "/v1/streams/s/records?seq_num=\(start)",
                    headers: [("content-type", "s2s/proto")])
                read.serve(by: bench)
                readers.append((read, start))
            case 7: readers.randomElement(random)?.exchange.holdsUnsent = true
            case 8: readers.randomElement(random)?.exchange.takeUnsent()
            case 9:
                bench.loop.spawn {
                    try? await bench.channel.flush(bench.stream, closes: random.oneIn(4))
                }
            case 10: bench.loop.advance(.milliseconds(Int64(random.below(300))))
            default: bench.loop.settle()
            }
        }
        for reader in readers { reader.exchange.holdsUnsent = false }
        for _ in 0..<20 {
            for reader in readers { reader.exchange.takeUnsent() }
            bench.loop.advance(.seconds(1))
        }
        if bench.streamlet == nil { try bench.activate() }
        let tail = try bench.channel.write(bench.stream, count: 1).seqNum
        bench.loop.advance(.seconds(2))
        for reader in readers {
            let frames = try Frames(reader.exchange)
            #expect(frames.terminal == nil)
            #expect(try frames.seqNums == Array(reader.start..<tail), "from \(reader.start)")
            var next = reader.start
            for batch in try frames.batches {
                next = batch.records.last.map { $0.seqNum + 1 } ?? next
                #expect(batch.tail == nil || batch.tail?.seqNum == next)
            }
        }
    }
}

extension Array {
    fileprivate func randomElement(_ random: RandomSource) -> Element? {
        isEmpty ? nil : self[Int(random.below(UInt64(count)))]
    }
}
