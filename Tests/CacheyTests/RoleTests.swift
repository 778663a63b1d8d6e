// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import TestSupport
import Testing

@testable import CacheyRole

@Suite struct FetchTests {
    @Test func pagesAreFetchedOnceAndServedFromMemory() throws {
        let bench = try Bench()
        let object = bench.put("o", 5_500)
        let first = bench.fetched("o", 1_500..<4_200)
        #expect(first.ended?.status == .ok && first.body == object[1_500..<4_200])
        #expect(try FetchReply(#require(first.ended?.payload)).objectSize == 5_500)
        #expect(
            bench.bucket.gets.map(\.range) == [
                1_000..<2_000, 2_000..<3_000, 3_000..<4_000, 4_000..<5_000,
            ])
        let second = bench.fetch("o", 1_000..<5_000)
        #expect(second.ended?.status == .ok && second.body == object[1_000..<5_000])
        #expect(bench.gets == 4, "no more were asked for")
        #expect(bench.role.metrics.count(.memory) == 4 && bench.role.metrics.count(.bucket) == 4)
    }

    @Test(arguments: [
        0..<1, 999..<1_000, 1_000..<1_001, 0..<1_000, 0..<1_001, 2_499..<2_500, 2_000..<2_500,
        0..<2_500,
    ])
    func boundaries(_ range: Range<Int>) throws {
        let bench = try Bench()
        let object = bench.put("o", 2_500)
        let call = bench.fetched("o", range)
        #expect(call.ended?.status == .ok && call.body == object[range])
        #expect(bench.gets == (range.upperBound - 1) / 1_000 - range.lowerBound / 1_000 + 1)
    }

    @Test func theObjectsEndClampsTheRange() throws {
        for size in [1_000, 1_001, 1_999, 2_000] {
            let bench = try Bench()
            let object = bench.put("o", size)
            let call = bench.fetched("o", 500..<50_000)
            #expect(call.ended?.status == .ok && call.body == object[500..<size])
        }
    }

    @Test func aRangeBehindTheEndIsNotSatisfiable() throws {
        let bench = try Bench()
        bench.put("o", 1_500)
        for range in [1_500..<1_501, 2_000..<2_001, 90_000..<90_001] {
            #expect(bench.fetched("o", range).ended?.status == .rangeNotSatisfiable)
        }
        bench.put("empty", 0)
        #expect(bench.fetched("empty", 0..<1).ended?.status == .rangeNotSatisfiable)
        let downloads = bench.role.pages.downloads
        #expect(downloads.scores.errorRate(0, at: bench.loop.now) == 0, "these are no failures")
    }

    @Test func missingObjectsAreNotFailures() throws {
        let bench = try Bench()
        for _ in 0..<20 {
            #expect(bench.fetched("nothing", 0..<1).ended?.status == .objectNotFound)
        }
        #expect(bench.gets == 20, "nothing is remembered of a failure")
        #expect(!bench.role.pages.downloads.scores.isOpen(0, at: bench.loop.now))
        let object = bench.put("nothing", 10)
        #expect(bench.fetched("nothing", 0..<10).body == object)
    }

    @Test func whoAsksMeanwhileWaitsForTheSameFlight() throws {
        let bench = try Bench()
        let object = bench.put("o", 2_000)
        bench.bucket.usual = .serve(after: .seconds(1))
        let calls = (0..<10).map { bench.fetch("o", $0 * 100..<1_000) }
        #expect(bench.gets == 1 && bench.role.pages.flights.waiterCount == 10)
        // One leaves, also the one that came first; nobody else notices.
        calls[0].onEnd?(.cancelled, Bytes())
        #expect(bench.role.pages.flights.waiterCount == 9)
        bench.loop.advance(.seconds(2))
        for (index, call) in calls.enumerated().dropFirst() {
            #expect(call.ended?.status == .ok && call.body == object[index * 100..<1_000])
        }
        #expect(calls[0].ended == nil && calls[0].messages.isEmpty)
        #expect(bench.gets == 1 && bench.role.pages.flights.waiterCount == 0)
        #expect(bench.role.metrics.count(.bucket) == 1)
        #expect(bench.role.metrics.count(.coalesced) == 8)
        #expect(bench.role.metrics.count(.memory) == 0, "who waited did not hit")
        #expect(bench.role.sessions.count == 0)
    }

    @Test func aFlightThatFailsFailsAllWhoWait() throws {
        let bench = try Bench()
        bench.put("o", 100)
        bench.bucket.replies = [.fail(.unavailable, after: .seconds(1))]
        let calls = (0..<3).map { _ in bench.fetch("o", 0..<100) }
        bench.loop.advance(.seconds(1))
        #expect(calls.allSatisfy { $0.ended?.status == .unavailable })
        #expect(bench.fetched("o", 0..<100).ended?.status == .ok)
    }

    @Test func whatWasAbandonedIsKept() throws {
        let bench = try Bench()
        bench.put("o", 100)
        bench.bucket.usual = .serve(after: .seconds(1))
        bench.fetch("o", 0..<100).onEnd?(.cancelled, Bytes())
        bench.loop.advance(.seconds(2))
        #expect(bench.fetch("o", 0..<100).ended?.status == .ok)
        #expect(bench.gets == 1)
    }

    @Test func wrongAnswersAreFailures() throws {
        let bench = try Bench()
        bench.put("o", 100)
        bench.bucket.replies = [.wrong]
        #expect(bench.fetched("o", 0..<100).ended?.status == .unavailable)
        #expect(bench.role.pages.downloads.scores.errorRate(0, at: bench.loop.now) > 0)
        #expect(bench.fetched("o", 0..<100).ended?.status == .ok, "nothing of it was kept")
    }

    @Test func pagesMustAgreeAboutTheSize() throws {
        let bench = try Bench()
        bench.put("o", 3_000)
        _ = bench.fetched("o", 0..<1_000)
        bench.put("o", 2_000)
        let call = bench.fetched("o", 0..<2_000)
        #expect(call.ended?.status == .unavailable && call.messages.count == 1)
        let early = bench.http("GET", "/fetch/b/o", [("range", "bytes=1000-1999")])
        #expect(early.status == 206)
    }

    @Test func malformedRequestsAreRefused() throws {
        let bench = try Bench()
        func ask(_ payload: Bytes, _ method: RPC.Method = .fetch) -> Status? {
            let call = FakeCall()
            bench.role.serve(call, method: method, payload: payload, deadline: nil)
            return call.ended?.status
        }
        #expect(ask(Bytes()) == .malformed)
        #expect(ask(FetchRequest(buckets: [], object: "o", range: 0..<1).encoded()) == .malformed)
        #expect(
            ask(FetchRequest(buckets: ["b"], object: "o", range: 1..<1).encoded()) == .malformed)
        let nine = Array(repeating: "b", count: 9)
        #expect(ask(FetchRequest(buckets: nine, object: "o", range: 0..<1).encoded()) == .malformed)
        let good = FetchRequest(buckets: ["x"], object: "o", range: 0..<1).encoded()
        #expect(ask(good.prefix(good.count - 1)) == .malformed)
        #expect(ask(good) == .unavailable, "no such bucket here: the reader knows better")
        #expect(ask(good, .tail) == .unknownMethod)
        #expect(bench.gets == 0)
    }
}

@Suite struct BucketChoiceTests {
    @Test func theSecondBucketServesWhatTheFirstDoesNot() throws {
        for kind in [StoreError.Kind.notFound, .denied, .unavailable, .failed] {
            let bench = try Bench(buckets: ["b", "c"])
            let object = bench.put("o", 100)
            bench.buckets[0].replies = [.fail(kind, after: 0)]
            let call = bench.fetched("o", 0..<100, ["b", "c"])
            #expect(call.ended?.status == .ok && call.body == object)
            #expect(bench.buckets.map(\.gets.count) == [1, 1])
        }
    }

    @Test func oneBucketKnowsWhereAnObjectEnds() throws {
        let bench = try Bench(buckets: ["b", "c"])
        bench.put("o", 100)
        #expect(
            bench.fetched("o", 1_000..<2_000, ["b", "c"]).ended?.status == .rangeNotSatisfiable)
        #expect(bench.gets == 1)
        bench.buckets[0].replies = [.fail(.unavailable, after: 0)]
        #expect(
            bench.fetched("o", 5_000..<5_001, ["b", "c"]).ended?.status == .rangeNotSatisfiable)
    }

    @Test func notFoundNeedsBoth() throws {
        let bench = try Bench(buckets: ["b", "c"])
        #expect(bench.fetched("o", 0..<1, ["b", "c"]).ended?.status == .objectNotFound)
        for order in [[0, 1], [1, 0]] {
            bench.buckets[order[0]].replies = [.fail(.unavailable, after: 0)]
            bench.buckets[order[1]].replies = [.fail(.notFound, after: 0)]
            #expect(bench.fetched("o", 0..<1, ["b", "c"]).ended?.status == .unavailable)
        }
    }

    @Test func atMostTwoAreAskedAndTheOrderIsTheClients() throws {
        let bench = try Bench(buckets: ["b", "c", "d"])
        for bucket in bench.buckets { bucket.usual = .fail(.unavailable, after: 0) }
        #expect(bench.fetched("o", 0..<1, ["d", "b", "c"]).ended?.status == .unavailable)
        #expect(bench.buckets.map(\.gets.count) == [1, 0, 1])
    }

    @Test func aBucketThatFailsIsLeftAloneForAWhile() throws {
        let bench = try Bench(buckets: ["b", "c"])
        bench.buckets[0].usual = .fail(.unavailable, after: 0)
        for number in 0..<20 {
            bench.put("o\(number)", 10)
            #expect(bench.fetched("o\(number)", 0..<10, ["b", "c"]).ended?.status == .ok)
        }
        #expect(bench.buckets[0].gets.count < 6)
        bench.buckets[0].usual = .serve(after: 0)
        bench.loop.advance(.seconds(300))
        bench.put("later", 10)
        let before = bench.buckets[0].gets.count
        #expect(bench.fetched("later", 0..<10, ["b", "c"]).ended?.status == .ok)
        #expect(bench.buckets[0].gets.count == before + 1, "it has another chance")
    }

    @Test func aHungBucketIsGivenUpInTime() throws {
        let bench = try Bench(buckets: ["b", "c"]) { $0.attemptNanoseconds = .seconds(2) }
        let object = bench.put("o", 100)
        bench.buckets[0].usual = .serve(after: .seconds(3_600))
        let call = bench.fetch("o", 0..<100, ["b", "c"])
        bench.loop.advance(.milliseconds(1_999))
        #expect(call.ended == nil && bench.buckets[1].gets.isEmpty)
        bench.loop.advance(.milliseconds(10))
        #expect(call.ended?.status == .ok && call.body == object)
        #expect(bench.role.pages.downloads.getsInFlight == 1, "it still counts")
    }

    @Test func aLatePageIsWelcome() throws {
        let bench = try Bench(buckets: ["b", "c"]) { $0.attemptNanoseconds = .seconds(2) }
        let object = bench.put("o", 100)
        bench.buckets[0].usual = .serve(after: .seconds(3))
        bench.buckets[1].usual = .serve(after: .seconds(60))
        let call = bench.fetch("o", 0..<100, ["b", "c"])
        bench.loop.advance(.milliseconds(3_100))
        #expect(call.ended?.status == .ok && call.body == object)
    }

    @Test func theSameBucketsInAnyOrderShareTheirPages() throws {
        let bench = try Bench(buckets: ["b", "c"])
        bench.put("o", 100)
        _ = bench.fetched("o", 0..<100, ["b", "c"])
        #expect(bench.fetch("o", 0..<100, ["c", "b", "c", "unknown"]).ended?.status == .ok)
        #expect(bench.gets == 1)
        // One bucket alone may hold something else.
        #expect(bench.fetched("o", 0..<100, ["c"]).ended?.status == .ok)
        #expect(bench.gets == 2)
    }
}

@Suite struct HedgeTests {
    /// Enough pages that took 10 ms.
    private func warmed(
        buckets: [String] = ["b"], _ adjust: (inout CacheyLimits) -> Void = { _ in }
    ) throws -> Bench {
        let bench = try Bench(buckets: buckets, adjust)
        for bucket in bench.buckets { bucket.usual = .serve(after: .milliseconds(10)) }
        for number in 0..<200 {
            bench.put("warm\(number)", 10)
            _ = bench.fetched("warm\(number)", 0..<10, buckets)
        }
        return bench
    }

    @Test func aHedgeWins() throws {
        let bench = try warmed()
        let object = bench.put("o", 100)
        let before = bench.gets
        bench.bucket.replies = [.serve(after: .seconds(5)), .serve(after: .milliseconds(10))]
        let call = bench.fetch("o", 0..<100)
        bench.loop.advance(.milliseconds(25))
        #expect(call.ended?.status == .ok && call.body == object)
        #expect(bench.gets == before + 2)
        #expect(bench.role.metrics.hedges.value == 1 && bench.role.metrics.hedgeWins.value == 1)
        bench.loop.advance(.seconds(10))
        #expect(bench.role.pages.downloads.getsInFlight == 0)
    }

    @Test func aHedgeLoses() throws {
        let bench = try warmed()
        bench.put("o", 100)
        bench.bucket.replies = [.serve(after: .milliseconds(30)), .serve(after: .seconds(5))]
        let call = bench.fetch("o", 0..<100)
        bench.loop.advance(.milliseconds(40))
        #expect(call.ended?.status == .ok)
        #expect(bench.role.metrics.hedges.value == 1 && bench.role.metrics.hedgeWins.value == 0)
    }

    /// Else the usual time would be that of the winners, and ever shorter.
    @Test(arguments: [true, false]) func whoLosesTheRaceIsMeasured(hedgeWins: Bool) throws {
        let bench = try warmed { $0.hedgeBudgetPercent = 100 }
        func usual() -> Nanoseconds? {
            var hedges = bench.role.pages.downloads.hedges
            return hedges.delay(0)
        }
        let seconds = bench.role.metrics.pageSeconds
        #expect(usual() == .milliseconds(10) * 9 / 8 && seconds.count == 200)
        // As many as credit is saved for, all at once. First the requests, then the hedges.
        let slow = Array(repeating: FakeBucket.Reply.serve(after: .seconds(5)), count: 10)
        let fast = Array(repeating: FakeBucket.Reply.serve(after: .milliseconds(20)), count: 10)
        bench.bucket.replies = hedgeWins ? slow + fast : fast + slow
        let calls = (0..<10).map { number in
            bench.put("o\(number)", 10)
            return bench.fetch("o\(number)", 0..<10)
        }
        bench.loop.advance(.milliseconds(100))
        #expect(calls.allSatisfy { $0.ended?.status == .ok })
        #expect(bench.role.metrics.hedges.value == 10)
        #expect(bench.role.metrics.hedgeWins.value == (hedgeWins ? 10 : 0))
        #expect(seconds.count == 210 && seconds.quantile(1) < .milliseconds(100))
        bench.loop.advance(.seconds(6))
        #expect(seconds.count == 220)
        #expect(seconds.quantile(1) > .milliseconds(4_900))
        #expect(usual() == .seconds(5) * 9 / 8, "one page in twenty-two")
    }

    @Test func whoeverOfTheTwoFailsTheOtherIsAwaited() throws {
        for primaryFails in [true, false] {
            let bench = try warmed()
            bench.put("o", 100)
            let fails = FakeBucket.Reply.fail(.unavailable, after: .milliseconds(30))
            let serves = FakeBucket.Reply.serve(after: .milliseconds(60))
            bench.bucket.replies = primaryFails ? [fails, serves] : [serves, fails]
            let call = bench.fetch("o", 0..<100)
            bench.loop.advance(.milliseconds(100))
            #expect(call.ended?.status == .ok)
        }
    }

    @Test func aFinalAnswerIsNotAwaitedTwice() throws {
        let bench = try warmed()
        bench.bucket.replies = [.serve(after: .seconds(5)), .fail(.notFound, after: 0)]
        let call = bench.fetch("missing", 0..<100)
        bench.loop.advance(.milliseconds(20))
        #expect(call.ended?.status == .objectNotFound)
    }

    @Test func aSlowStoreIsNotAskedForMuchMore() throws {
        let bench = try warmed { $0.hedgeBudgetPercent = 3 }
        let before = bench.gets
        // Now every request is slow, all at once: nothing can be learned in between.
        bench.bucket.usual = .serve(after: .seconds(1))
        let calls = (0..<100).map { number in
            bench.put("slow\(number)", 10)
            return bench.fetch("slow\(number)", 0..<10)
        }
        bench.loop.advance(.seconds(10))
        #expect(calls.allSatisfy { $0.ended?.status == .ok })
        let extra = bench.gets - before - 100
        #expect(extra >= 1 && extra <= 9, "\(extra) hedges of 300 requests")
    }

    @Test func withoutHedgesThereAreNone() throws {
        let bench = try warmed { $0.hedgePercentile = 0 }
        bench.put("o", 100)
        bench.bucket.replies = [.serve(after: .seconds(1))]
        #expect(bench.fetched("o", 0..<100).ended?.status == .ok)
        #expect(bench.role.metrics.hedges.value == 0)
    }
}
