// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct TailCallsTests {
    private func checkTail(_ bench: DataBench) -> FakeExchange {
        let exchange = FakeExchange("GET", "/v1/streams/s/records/tail")
        exchange.serve(by: bench)
        exchange.endBody()
        return exchange
    }

    @Test func manyAtOnceShareCalls() throws {
        let bench = try DataBench()
        try bench.fill([2])
        let all = (0..<100).map { _ in checkTail(bench) }
        bench.loop.settle()
        let timestamp = try #require(bench.streamlet).stable.timestamp
        let body = #"{"tail":{"seq_num":2,"timestamp":\#(timestamp)}}"#
        #expect(all.allSatisfy { $0.bodyText == body })
        #expect(bench.calls.count(.tail) == 2, "the first one's, and one for those behind it")
    }

    /// Whoever was told of a record before it asked must see that record.
    @Test func nobodySharesACallThatWasBegunBefore() throws {
        let bench = try DataBench()
        try bench.fill([1])
        var held: [FakeCall] = []
        bench.calls.holds = { call in
            guard call.method == .tail else { return false }
            held.append(call)
            return true
        }
        let first = checkTail(bench)
        bench.loop.settle()
        try bench.channel.write(bench.stream, count: 1)
        let (second, third) = (checkTail(bench), checkTail(bench))
        bench.loop.settle()
        #expect(held.count == 1)
        held[0].end(.ok, TailReply(tail: .init(seqNum: 1, timestamp: 5)).encoded())
        bench.loop.settle()
        #expect(first.bodyText.contains(#""seq_num":1"#))
        #expect(held.count == 2 && second.status == nil && third.status == nil)
        held[1].end(.ok, TailReply(tail: .init(seqNum: 2, timestamp: 5)).encoded())
        bench.loop.settle()
        #expect(second.bodyText.contains(#""seq_num":2"#))
        #expect(third.bodyText == second.bodyText)
    }

    @Test func aSlowAnswerHoldsNobodyUpForLong() throws {
        let bench = try DataBench()
        try bench.fill([1])
        var held: [FakeCall] = []
        bench.calls.holds = { call in
            guard call.method == .tail, held.isEmpty else { return false }
            held.append(call)
            return true
        }
        let first = checkTail(bench)
        bench.loop.settle()
        let second = checkTail(bench)
        bench.loop.advance(TailCalls.waitNanoseconds)
        #expect(second.status == 200 && first.status == nil)
        let third = checkTail(bench)
        bench.loop.settle()
        #expect(third.status == 200, "nothing is left of what went before")
        held[0].end(.ok, TailReply(tail: .init(seqNum: 1, timestamp: 5)).encoded())
        bench.loop.settle()
        #expect(first.status == 200)
    }

    @Test func whoAsksInVainAsksAgain() throws {
        let bench = try DataBench()
        try bench.fill([1])
        bench.channel.streamlets = [:]
        let all = (0..<3).map { _ in checkTail(bench) }
        bench.loop.advance(.seconds(60))
        #expect(all.allSatisfy { $0.status == 503 })
    }
}
