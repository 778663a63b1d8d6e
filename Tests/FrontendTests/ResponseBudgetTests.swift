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
    private func bench(bytesMax: Int, seed: UInt64 = 1) throws -> DataBench {
        var limits = FrontendLimits(rootToken: nil)
        limits.processResponseBytesMax = bytesMax
        return try DataBench(limits: limits, seed: seed)
    }

    /// However many they are, and however large their records.
    @Test(arguments: [(10_000, false), (10_000, true), (900_000, false), (900_000, true)])
    func stalledReadersHoldTheLimitAndNobodyUp(bodyBytes: Int, isFlushed: Bool) throws {
        let bytesMax = 4 << 20
        let bench = try bench(bytesMax: bytesMax)
        let count = 3_600_000 / bodyBytes
        try bench.fill([Int](repeating: 1, count: count), bodyBytes: bodyBytes)
        if isFlushed { try bench.run { try await bench.channel.flush(bench.stream) } }
        let budget = bench.records.path.responses
        // A range, the records that are cut from it, and the frame that they are sent in.
        let rangeBytes = isFlushed ? ReadCatchUp.wholeBytesMax : bodyBytes + 100
        let bound = bytesMax + rangeBytes + 2 * max(bodyBytes, ResponseBudget.smallBatchBytes) + 400
        var most = 0
        func pass() throws {
            bench.loop.advance(.milliseconds(25))
            most = max(most, budget.bytes)
            try #require(budget.bytes <= bound)
        }
        let deaf = (0..<90).map { n in
            stalled(bench, n % 3 == 0 ? "tail_offset=0" : "seq_num=0")
        }
        let unary = (0..<30).map { _ in
            let read = bench.get("seq_num=0", [("accept", "application/protobuf")])
            read.holdsUnsent = true
            return read
        }
        for _ in 0..<200 { try pass() }
        let honest = Reader(bench, from: 0)
        var passes = 0
        while honest.next < UInt64(count), passes < 4_000 {
            passes += 1
            try honest.take()
            try pass()
        }
        #expect(honest.next == UInt64(count))
        #expect(most > bytesMax / 2, "they hold something")
        // Who follows gets what comes, too.
        try bench.activate()
        for _ in 0..<count { try bench.channel.write(bench.stream, count: 1, bodyBytes: bodyBytes) }
        passes = 0
        while honest.next < UInt64(2 * count), passes < 4_000 {
            passes += 1
            try honest.take()
            try pass()
        }
        #expect(honest.next == UInt64(2 * count) && honest.comings == 1, "and never cut off")
        for exchange in deaf + unary + [honest.exchange] { exchange.hangUp() }
        for exchange in unary { exchange.takeUnsent() }
        bench.loop.advance(.seconds(1))
        #expect(budget.bytes == 0 && !budget.hasWork)
    }

    @Test func nobodyIsCutOffInVain() throws {
        let bench = try bench(bytesMax: 1 << 20)
        try bench.fill([Int](repeating: 1, count: 8), bodyBytes: 140_000)
        let readers = (0..<8).map { n in
            defer { bench.loop.settle() }
            return stalled(bench, "seq_num=\(n)&count=1")
        }
        bench.loop.advance(.seconds(60))
        #expect(bench.records.path.responses.isSpent && readers.allSatisfy { !$0.isAborted })
        let late = Reader(bench, from: 0)
        bench.loop.advance(.seconds(1))
        try late.take()
        #expect(late.next > 0)
        // Its range, the batch that is made of it, and what is beyond the limit.
        #expect(readers.map(\.isAborted) == [true, true, true] + Array(repeating: false, count: 5))
    }

    /// A client that takes a byte now and then holds what it has not taken all the same.
    @Test(arguments: [(1, true), (1_200, true), (2_000, false)])
    func whoTakesNextToNothingIsCutOff(perPass: Int, isCutOff: Bool) throws {
        let bench = try bench(bytesMax: 1 << 20)
        try bench.fill([Int](repeating: 1, count: 5), bodyBytes: 900_000)
        let slow = stalled(bench, "seq_num=0&count=1")
        bench.loop.settle()
        let next = stalled(bench, "seq_num=1&count=1")
        bench.loop.settle()
        try #require(slow.unsentBytes > 900_000 && next.unsentBytes > 900_000)
        // There is no room for this one, nor may it exceed the limit, which `next` does.
        let late = Reader(bench, from: 2)
        for _ in 0..<120 {
            slow.takeUnsent(allBut: slow.unsentBytes - perPass)
            bench.loop.advance(.milliseconds(25))
            try late.take()
        }
        #expect(next.isAborted && slow.isAborted == isCutOff)
        #expect(late.next == 5)
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
        #expect(granted == [0] && budget.bytes == 2_000, "with the batch that is made of it")
        budget.wake()
        #expect(woken.isEmpty)
        shares[0].fetched = 0
        shares[0].wait(for: 1_000)
        for next in [1, 2, 3, 0] {
            budget.wake()
            #expect(granted.last == next)
            #expect(budget.bytes == 2_000)
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
        var readers: [Reader] = []
        var others: [FakeExchange] = []
        for _ in 0..<120 {
            let read = readers.isEmpty ? 0 : Int(random.below(UInt64(readers.count)))
            switch random.below(12) {
            case 0...3:
                if bench.streamlet == nil { try bench.activate() }
                try bench.channel.write(
                    bench.stream, count: 1 + Int(random.below(9)),
                    bodyBytes: Int(random.below(30_000)))
            case 4, 5:
                let start = random.below((bench.streamlet?.stable.seqNum ?? 0) + 1)
                readers.append(Reader(bench, from: start))
            case 6:
                let accept = random.oneIn(2) ? "text/event-stream" : "application/protobuf"
                others.append(bench.get("seq_num=0&wait=1", [("accept", accept)]))
                others.last?.holdsUnsent = true
            case 7 where !readers.isEmpty: try readers[read].take()
            case 8 where !readers.isEmpty && random.oneIn(3):
                readers.remove(at: read).exchange.hangUp()
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
            for reader in readers { try reader.take() }
            bench.loop.advance(.milliseconds(25))
        }
        for reader in readers { #expect(reader.next == tail) }
        for exchange in readers.map(\.exchange) + others {
            if random.oneIn(2) { exchange.holdsUnsent = false }
            if exchange.isFinished { exchange.takeUnsentQuietly() } else { exchange.hangUp() }
        }
        bench.loop.advance(.seconds(1))
        #expect(budget.bytes == 0)
        #expect(!budget.hasWork)
    }
}

/// A read session whose client takes nothing by itself.
private func stalled(_ bench: DataBench, _ query: String) -> FakeExchange {
    let exchange = FakeExchange(
        "GET", "/v1/streams/s/records?\(query)", headers: [("content-type", "s2s/proto")])
    exchange.holdsUnsent = true
    exchange.serve(by: bench)
    exchange.endBody()
    return exchange
}

/// A client that takes what it is sent whenever it is told to, and comes again if it is cut off.
private final class Reader {
    private let bench: DataBench
    private(set) var exchange: FakeExchange
    /// The first record that it has not taken.
    private(set) var next: UInt64
    private(set) var comings = 1
    private var partsTaken = 0

    init(_ bench: DataBench, from start: UInt64) {
        self.bench = bench
        next = start
        exchange = stalled(bench, "seq_num=\(start)")
    }

    func take() throws {
        if exchange.isAborted {
            comings += 1
            partsTaken = 0
            exchange = stalled(bench, "seq_num=\(next)")
        }
        exchange.takeUnsentQuietly()
        let frames = try Frames(exchange, skipping: partsTaken)
        partsTaken = exchange.written.count
        let seqNums = try frames.seqNums
        #expect(frames.terminal == nil && seqNums == Array(next..<next + UInt64(seqNums.count)))
        next += UInt64(seqNums.count)
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
