// SPDX-License-Identifier: Apache-2.0

import HTTP
import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct ResponseBudgetTests {
    /// Of a reader that takes nothing: one small batch, with its frame.
    private static let smallBytes = ResponseBudget.smallBatchBytes + 64

    private func bench(bytesMax: Int, seed: UInt64 = 1) throws -> DataBench {
        var limits = FrontendLimits(rootToken: nil)
        limits.processResponseBytesMax = bytesMax
        return try DataBench(limits: limits, seed: seed)
    }

    private func stalled(_ bench: DataBench, _ query: String) -> FakeExchange {
        let exchange = FakeExchange(
            "GET", "/v1/streams/s/records?\(query)", headers: [("content-type", "s2s/proto")])
        exchange.holdsUnsent = true
        exchange.serve(by: bench)
        exchange.endBody()
        return exchange
    }

    @Test(arguments: [false, true])
    func manyStalledReadersHoldLittle(isFlushed: Bool) throws {
        let bytesMax = 4 << 20
        let bench = try bench(bytesMax: bytesMax)
        try bench.fill([Int](repeating: 10, count: 15), bodyBytes: 10_000)
        if isFlushed { try bench.run { try await bench.channel.flush(bench.stream) } }
        let readers = (0..<500).map { _ in stalled(bench, "seq_num=0&count=150") }
        let budget = bench.records.path.responses
        let heldMax = bytesMax + readers.count * Self.smallBytes
        func check() {
            #expect(budget.bytes <= heldMax)
            #expect(readers.reduce(0) { $0 + $1.unsentBytes } <= budget.bytes)
        }
        var steps = 0
        while steps < 2_000, readers.contains(where: { $0.unsentBytes == 0 }) {
            steps += 1
            bench.loop.advance(.milliseconds(25))
            if budget.bytes > heldMax { break }
        }
        bench.loop.advance(.seconds(2))
        check()
        #expect(readers.allSatisfy { $0.unsentBytes > 0 }, "everybody got a batch")
        var turns = 0
        while turns < 20_000, readers.contains(where: { !$0.isFinished || $0.unsentBytes > 0 }) {
            turns += 1
            for reader in readers { reader.takeUnsentQuietly() }
            bench.loop.advance(.milliseconds(25))
            if turns % 50 == 0 { check() }
        }
        for reader in readers {
            let frames = try Frames(reader)
            #expect(frames.terminal == nil && reader.isFinished)
            #expect(try frames.seqNums == Array(0..<150))
        }
        bench.loop.advance(.seconds(1))
        #expect(budget.bytes == 0 && !budget.hasWork)
    }

    @Test func oneReaderAboveTheLimitGetsEverything() throws {
        for isFlushed in [false, true] {
            let bench = try bench(bytesMax: 1)
            try bench.fill([10, 10, 10, 1], bodyBytes: 100_000)
            if isFlushed { try bench.run { try await bench.channel.flush(bench.stream) } }
            let read = stalled(bench, "seq_num=0")
            for _ in 0..<400 {
                #expect(read.unsentBytes < 110_000, "a record at a time")
                read.takeUnsentQuietly()
                bench.loop.advance(.milliseconds(25))
            }
            try bench.activate()
            try bench.channel.write(bench.stream, count: 2, bodyBytes: 90_000)
            for _ in 0..<100 {
                read.takeUnsentQuietly()
                bench.loop.advance(.milliseconds(25))
            }
            #expect(try Frames(read).seqNums == Array(0..<33))
            read.hangUp()
            bench.loop.settle()
            #expect(bench.records.path.responses.bytes == 0)
        }
    }

    /// What it takes may be just what made the budget tight.
    @Test func whoTakesAPartGoesOn() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.processResponseBytesMax = 2 << 20
        limits.responseBufferBytesMax = 300_000
        let bench = try DataBench(limits: limits)
        try bench.fill([Int](repeating: 10, count: 30), bodyBytes: 10_000)
        let budget = bench.records.path.responses
        let read = stalled(bench, "seq_num=0&count=300")
        bench.loop.advance(.seconds(1))
        #expect(read.unsentBytes >= 300_000)
        while !budget.isTight {
            _ = stalled(bench, "seq_num=0&count=300")
            for _ in 0..<100 where !budget.isTight { bench.loop.advance(.milliseconds(2)) }
        }
        let others = budget.bytes - read.unsentBytes
        try #require(others + 10_000 < limits.processResponseBytesMax / 8 * 7)
        read.takeUnsent(allBut: 10_000)
        for _ in 0..<100 {
            bench.loop.advance(.milliseconds(100))
            // A transport tells only of what was beyond its own mark.
            if read.unsentBytes >= 300_000 { read.takeUnsent() } else { read.takeUnsentQuietly() }
        }
        #expect(read.isFinished)
        #expect(try Frames(read).seqNums == Array(0..<300))
    }

    @Test func aResponseIsCountedUntilItsClientHasTakenIt() throws {
        let bench = try bench(bytesMax: 1 << 20)
        try bench.fill([10, 10], bodyBytes: 10_000)
        let budget = bench.records.path.responses
        let read = stalled(bench, "seq_num=0&count=20")
        bench.loop.settle()
        #expect(read.isFinished && budget.bytes == read.unsentBytes)
        bench.loop.advance(.seconds(100))
        #expect(budget.bytes == read.unsentBytes && budget.bytes > 200_000)
        bench.loop.advance(.seconds(30))
        #expect(budget.bytes == 0 && !budget.hasWork, "no transport waits that long")
    }

    @Test func whoWaitsIsWokenInOrderAndOneAtATimeBeyondTheLimit() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.processResponseBytesMax = 800
        let budget = ResponseBudget(limits: limits)
        var woken: [Int] = []
        var granted: [Int] = []
        let shares = (0..<4).map { _ in
            ResponseBudget.Share(budget, FakeExchange("GET", "/"))
        }
        for (index, share) in shares.enumerated() {
            share.resume = {
                woken.append(index)
                if share.fetch(1_000, isNext: true) { granted.append(index) }
            }
            if share.fetch(1_000, isNext: true) { granted.append(index) }
        }
        #expect(granted == [0] && budget.bytes == 1_000)
        budget.wake()
        #expect(woken.isEmpty)
        shares[0].fetched = 0
        shares[0].wait(for: 1_000)
        for next in [1, 2, 3, 0] {
            budget.wake()
            #expect(granted.last == next)
            #expect(budget.bytes == 1_000)
            shares[next].fetched -= 1_000
        }
        #expect(woken == [1, 2, 3, 0] && budget.bytes == 0 && !budget.hasWork)
    }

    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func allIsGivenBackOnEveryPath(seed: UInt64) throws {
        let random = RandomSource.seeded(seed)
        let bench = try bench(bytesMax: 1 << (8 + Int(random.below(14))), seed: seed)
        let budget = bench.records.path.responses
        try bench.fill([3])
        var sessions: [(exchange: FakeExchange, start: UInt64)] = []
        var others: [FakeExchange] = []
        for _ in 0..<120 {
            let read = sessions.isEmpty ? 0 : Int(random.below(UInt64(sessions.count)))
            switch random.below(12) {
            case 0...3:
                if bench.streamlet == nil { try bench.activate() }
                try bench.channel.write(
                    bench.stream, count: 1 + Int(random.below(9)),
                    bodyBytes: Int(random.below(30_000)))
            case 4, 5:
                let start = random.below((bench.streamlet?.stable.seqNum ?? 0) + 1)
                sessions.append((stalled(bench, "seq_num=\(start)"), start))
            case 6:
                let accept = random.oneIn(2) ? "text/event-stream" : "application/protobuf"
                others.append(bench.get("seq_num=0&wait=1", [("accept", accept)]))
                others.last?.holdsUnsent = true
            case 7 where !sessions.isEmpty: sessions[read].exchange.takeUnsentQuietly()
            case 8 where !sessions.isEmpty && random.oneIn(3):
                sessions.remove(at: read).exchange.hangUp()
            case 9:
                bench.loop.spawn {
                    try? await bench.channel.flush(bench.stream, closes: random.oneIn(4))
                }
            case 10: bench.loop.advance(.milliseconds(Int64(random.below(300))))
            default: bench.loop.settle()
            }
        }
        bench.loop.settle()
        if bench.streamlet == nil { try bench.activate() }
        let tail = try bench.channel.write(bench.stream, count: 1).seqNum
        for _ in 0..<2_000 {
            for session in sessions { session.exchange.takeUnsentQuietly() }
            bench.loop.advance(.milliseconds(25))
        }
        for session in sessions {
            let frames = try Frames(session.exchange)
            #expect(frames.terminal == nil)
            #expect(try frames.seqNums == Array(session.start..<tail))
        }
        for exchange in sessions.map(\.exchange) + others {
            if random.oneIn(2) { exchange.holdsUnsent = false }
            if exchange.isFinished { exchange.takeUnsentQuietly() } else { exchange.hangUp() }
        }
        bench.loop.advance(.seconds(1))
        #expect(budget.bytes == 0)
        #expect(!budget.hasWork)
    }
}

extension FakeExchange {
    /// The client takes all, but there was too little for the transport to say so.
    fileprivate func takeUnsentQuietly() {
        let told = onWritable
        onWritable = nil
        takeUnsent()
        onWritable = told
    }
}
