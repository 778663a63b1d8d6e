// SPDX-License-Identifier: Apache-2.0

import Compression
import HTTP
import Primitives
import Records
import TestSupport
import Testing

@testable import FrontendRole

/// What clients can make this process hold, and do at a time.
@Suite struct AppendBoundsTests {
    private let codec = Codec()

    /// A frame of few bytes that expands to an input of many.
    private func bomb(_ bodyBytes: Int, match: SeqNum) -> Bytes {
        var writer = ByteWriter()
        let body = Bytes([UInt8](repeating: 0, count: bodyBytes))
        writer.writeAppendInput(
            [AppendRecord(body: body)], AppendConditions(matchSeqNum: match))
        let packed = codec.compress(writer.finish(), .zstd)
        return [SessionFrame.header(payloadBytes: packed.count, compression: .zstd), packed]
            .joined()
    }

    private func bench(sessionBytes: Int) throws -> DataBench {
        var limits = FrontendLimits(rootToken: nil)
        limits.sessionInFlightBytesMax = sessionBytes
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        return bench
    }

    /// Lets the channel answer, few batches at a time, until nothing waits any more. The most bytes
    /// that were in flight.
    private func stabilise(_ bench: DataBench, atATime count: Int = 4) throws -> Int {
        let streamlet = try #require(bench.streamlet)
        var most = bench.records.path.budget.bytes
        bench.loop.settle()
        while !streamlet.waiting.isEmpty {
            most = max(most, bench.records.path.budget.bytes)
            bench.channel.stabilise(streamlet, count)
            bench.loop.settle()
        }
        return most
    }

    @Test func fewBytesThatExpandToManyAreHeldBack() throws {
        let bench = try bench(sessionBytes: 100_000)
        let session = bench.appendSession()
        session.feed((0..<3_000).map { bomb(20_000, match: $0) }.joined())
        session.endBody()
        let most = try stabilise(bench)
        #expect((100_000...121_000).contains(most), "the budget and one frame")
        let frames = try Frames(session)
        #expect(try frames.acks.map(\.start.seqNum) == Array(0..<3_000))
        #expect(frames.terminal == nil && session.isFinished)
        #expect(bench.records.path.budget.bytes == 0)
    }

    @Test func oneTurnOfTheLoopExpandsLittle() throws {
        let bench = try bench(sessionBytes: 20 << 20)
        let session = bench.appendSession()
        session.feed((0..<6).map { bomb(1_000_000, match: $0) }.joined())
        #expect(bench.records.path.budget.bytes < 3_000_000)
        bench.loop.settle()
        #expect(bench.records.path.budget.bytes > 6_000_000)
        #expect(session.isReading)
        session.endBody()
        _ = try stabilise(bench)
        #expect(try Frames(session).acks.map(\.start.seqNum) == Array(0..<6))
        #expect(session.isFinished)
    }

    @Test(arguments: [
        ([0, 0, 1, 0x20] as [UInt8], 400), ([0, 0, 1, 0], 422), ([0, 0, 9, 0, 1], 400),
    ])
    func whatIsWrongBehindHeldFramesIsTold(end: [UInt8], status: Int) throws {
        let bench = try bench(sessionBytes: 100_000)
        let session = bench.appendSession()
        let frames = (0..<50).map { bomb(20_000, match: $0) }
        session.feed((frames + [Bytes(end)]).joined())
        session.endBody()
        _ = try stabilise(bench)
        let told = try Frames(session)
        #expect(told.messages.count == 50 && told.terminal?.status == status)
        #expect(session.isFinished)
    }

    /// What nobody knows of an input is dropped, and its memory with it.
    @Test func whatIsDroppedOfAnInputIsNotHeld() throws {
        let bench = try DataBench()
        var capacities: [Int] = []
        bench.channel.onAppend = {
            capacities.append(($0.owner as? ByteStorage)?.byteCapacity ?? .max)
        }
        var writer = ByteWriter()
        writer.writeAppendInput([AppendRecord(body: Bytes(utf8: "x"))])
        writer.writeVarint(15 << 3 | 2)
        writer.writeVarint(1_000_000)
        writer.write(Bytes([UInt8](repeating: 0, count: 1_000_000)))
        let input = writer.finish()
        let session = bench.appendSession()
        session.feed([SessionFrame.header(payloadBytes: input.count), input].joined())
        let unary = FakeExchange(
            "POST", "/v1/streams/s/records", headers: [("content-type", "application/protobuf")])
        unary.serve(by: bench)
        unary.feed(input)
        unary.endBody()
        bench.loop.settle()
        #expect(try Frames(session).acks.count == 1 && unary.status == 200)
        #expect(capacities.count == 2 && capacities.allSatisfy { $0 < 10_000 })
    }

    @Test func heldFramesAreNotTakenByADrainingServer() throws {
        let bench = try bench(sessionBytes: 100_000)
        let session = bench.appendSession()
        session.feed((0..<50).map { bomb(20_000, match: $0) }.joined())
        session.endBody()
        bench.loop.settle()
        bench.records.drain()
        _ = try stabilise(bench)
        let told = try Frames(session)
        #expect((5...6).contains(told.messages.count) && told.terminal?.status == 503)
        #expect(session.isFinished)
    }

    /// One session waits for the room that it holds itself, another for the same.
    @Test func heldFramesGoOnWhenOthersMakeRoom() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.streamInFlightBytesMax = 50_000
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let first = bench.appendSession()
        first.feed([bomb(60_000, match: 0), Bytes([0, 0, 0])].joined())
        bench.loop.settle()
        let second = bench.appendSession()
        second.feed([inputFrame(["a"]), inputFrame(["b"]), Bytes([0, 0, 0])].joined())
        second.endBody()
        bench.loop.settle()
        #expect(try #require(bench.streamlet).assigned.seqNum == 1)
        _ = try stabilise(bench, atATime: 1)
        let told = try Frames(second)
        #expect(told.messages.count == 2 && told.terminal?.status == 400)
        let toldFirst = try Frames(first)
        #expect(toldFirst.messages.count == 1 && toldFirst.terminal?.status == 400)
    }

    @Test func aSessionThatEndsLeavesTheBudgetOfItsStreamOnce() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.streamInFlightBytesMax = 400
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let first = bench.appendSession()
        first.feed(inputFrame(["x"]))
        first.endBody()
        bench.loop.settle()
        let second = bench.appendSession()
        second.feed(inputFrame([String(repeating: "y", count: 300)]))
        bench.loop.settle()
        bench.channel.stabilise(try #require(bench.streamlet), 1)
        bench.loop.settle()
        #expect(first.isFinished)
        let unary = bench.append(json: #"{"records":[{}]}"#)
        #expect(unary.status == 429, "what the second session holds still counts")
    }

    // MARK: Unary

    private func post(
        _ bench: DataBench, _ body: Bytes, _ headers: [(name: String, value: String)] = []
    ) -> FakeExchange {
        let exchange = FakeExchange(
            "POST", "/v1/streams/s/records",
            headers: [
                ("content-type", "application/json"), ("content-length", "\(body.count)"),
            ] + headers)
        exchange.serve(by: bench)
        exchange.feed(body)
        exchange.endBody()
        return exchange
    }

    private func json(_ bodyBytes: Int) -> Bytes {
        Bytes(utf8: #"{"records":[{"body":"\#(String(repeating: "x", count: bodyBytes))"}]}"#)
    }

    @Test func appendsThatAreLookedUpCount() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.processInFlightBytesMax = 25_000
        let bench = try DataBench(limits: limits)
        try bench.activate()
        // Nobody's stream is found before the loop turns.
        let exchanges = (0..<5).map { _ in post(bench, json(10_000)) }
        #expect(exchanges.map(\.status) == [nil, nil, 502, 502, 502])
        bench.loop.settle()
        #expect(exchanges.prefix(2).allSatisfy { $0.status == 200 })
        for _ in 0..<10 {
            let again = post(bench, json(10_000))
            bench.loop.settle()
            #expect(again.status == 200)
        }
    }

    @Test func appendsCountAsWhatTheyExpandTo() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.processInFlightBytesMax = 25_000
        let bench = try DataBench(limits: limits)
        try bench.activate()
        let packed = codec.compress(json(10_000), .gzip)
        let exchanges = (0..<4).map { _ in post(bench, packed, [("content-encoding", "gzip")]) }
        #expect(exchanges.map(\.status) == [nil, nil, 502, 502])
        bench.loop.settle()
        #expect(exchanges.prefix(2).allSatisfy { $0.status == 200 })
    }

    @Test func smallAppendsCountTooAndFailuresGiveBack() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.processInFlightBytesMax = 10_000
        let bench = try DataBench(limits: limits, createsStream: false)
        for _ in 0..<3 {
            let exchanges = (0..<20).map { _ in post(bench, json(1)) }
            #expect((1...10).contains(exchanges.count { $0.status == nil }))
            bench.loop.settle()
            #expect(exchanges.allSatisfy { $0.status == 404 || $0.status == 502 })
        }
    }

    @Test func aBodyThatTricklesInHoldsNoReadBuffers() throws {
        let bench = try DataBench()
        let buffers = ReadBuffers()
        let exchange = FakeExchange(
            "POST", "/v1/streams/s/records", headers: [("content-type", "application/json")])
        exchange.serve(by: bench)
        let body = json(500)
        for i in 0..<body.count {
            exchange.feed(buffers.read(body[i..<i + 1]))
            #expect(buffers.heldBytes <= 65_536)
        }
        exchange.endBody()
        bench.loop.settle()
        #expect(exchange.status == 200)
    }

    @Test func aFrameThatTricklesInHoldsNoReadBuffers() throws {
        let bench = try DataBench()
        let buffers = ReadBuffers()
        let session = bench.appendSession()
        let frame = inputFrame([String(repeating: "x", count: 500)])
        for i in 0..<frame.count {
            session.feed(buffers.read(frame[i..<i + 1]))
            #expect(buffers.heldBytes <= 65_536)
        }
        bench.loop.settle()
        #expect(try Frames(session).acks.count == 1)
    }

    /// What the budget holds back, and what comes behind it, waits in memory of its own.
    @Test func framesThatWaitHoldNoReadBuffers() throws {
        let bench = try bench(sessionBytes: 100_000)
        let buffers = ReadBuffers(capacity: 1 << 20)
        let session = bench.appendSession()
        let frames = (0..<200).map { bomb(20_000, match: $0) }
        for part in 0..<4 {
            session.onBody?(buffers.read(Array(frames[part * 50..<part * 50 + 50]).joined()))
            #expect(buffers.heldBytes == 0)
        }
        #expect(!session.isReading)
        session.endBody()
        _ = try stabilise(bench)
        #expect(try Frames(session).acks.map(\.start.seqNum) == Array(0..<200))
        #expect(session.isFinished)
    }

    /// Neither does what comes before it is known who has the stream.
    @Test func whatComesEarlyHoldsNoReadBuffers() throws {
        let bench = try DataBench()
        let buffers = ReadBuffers()
        let exchange = FakeExchange(
            "POST", "/v1/streams/s/records", headers: [("content-type", "s2s/proto")])
        exchange.serve(by: bench)
        exchange.onBody?(buffers.read(inputFrame(["x"])))
        #expect(buffers.heldBytes == 0)
        exchange.endBody()
        bench.loop.settle()
        #expect(try Frames(exchange).acks.count == 1)
    }

    // MARK: Draining

    @Test func whatIsOpenedDuringADrainIsToldToo() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let append = FakeExchange(
            "POST", "/v1/streams/s/records", headers: [("content-type", "s2s/proto")])
        append.serve(by: bench)
        let read = FakeExchange(
            "GET", "/v1/streams/s/records?seq_num=0", headers: [("content-type", "s2s/proto")])
        read.serve(by: bench)
        bench.records.drain()
        bench.loop.settle()
        #expect(append.isFinished && append.bodyText.contains("server_draining"))
        #expect(read.isFinished && read.bodyText.contains("server_draining"))
    }
}
