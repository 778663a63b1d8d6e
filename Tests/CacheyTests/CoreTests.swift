// SPDX-License-Identifier: Apache-2.0

import Primitives
import TestSupport
import Testing

@testable import CacheyRole

@Suite struct RangePlanTests {
    @Test(arguments: [
        (0..<1, 0...0), (0..<1_000, 0...0), (0..<1_001, 0...1), (999..<1_000, 0...0),
        (999..<1_001, 0...1), (1_000..<2_000, 1...1), (1_000..<2_001, 1...2),
        (2_999..<3_000, 2...2),
        (0..<3_000, 0...2),
    ])
    func pagesOfARange(_ range: Range<Int>, _ pages: ClosedRange<Int>) {
        #expect(RangePlan(range, pageBytes: 1_000).pages == pages)
    }

    @Test func theObjectsEndBoundsPages() {
        let plan = RangePlan(500..<9_000, pageBytes: 1_000)
        #expect(plan.pages(objectSize: 500) == nil)
        #expect(plan.pages(objectSize: 501) == 0...0)
        #expect(plan.pages(objectSize: 1_000) == 0...0)
        #expect(plan.pages(objectSize: 1_001) == 0...1)
        #expect(plan.pages(objectSize: 100_000) == 0...8)
        #expect(plan.wanted(objectSize: 600) == 500..<600)
        #expect(plan.wanted(ofPage: 0, objectSize: 600) == 500..<600)
        #expect(plan.wanted(ofPage: 1, objectSize: 600) == nil)
        #expect(plan.wanted(ofPage: 1, objectSize: 1_001) == 1_000..<1_001)
        #expect(plan.wanted(ofPage: 8, objectSize: 100_000) == 8_000..<9_000)
    }

    /// Whatever the range, its parts of the pages lie end to end and make it up.
    @Test func partsMakeUpTheRange() {
        for size in [1, 9, 10, 11, 20, 25] {
            for start in 0..<size {
                for end in start + 1...size + 12 {
                    let plan = RangePlan(start..<end, pageBytes: 10)
                    var at = start
                    for page in plan.pages(objectSize: size) ?? 9...9 {
                        let part = plan.wanted(ofPage: page, objectSize: size)
                        #expect(part?.lowerBound == at && part!.lowerBound / 10 == page)
                        at = part?.upperBound ?? -1
                    }
                    #expect(at == min(end, size))
                }
            }
        }
    }

    @Test func onlyWholePagesAreAccepted() {
        func isWhole(_ count: Int, _ page: Int, _ size: Int) -> Bool {
            RangePlan.isWhole(count, page: page, pageBytes: 10, objectSize: size)
        }
        #expect(isWhole(10, 0, 10) && isWhole(10, 0, 11) && isWhole(1, 1, 11) && isWhole(3, 0, 3))
        #expect(!isWhole(9, 0, 10) && !isWhole(11, 0, 11) && !isWhole(0, 1, 10))
        #expect(!isWhole(2, 1, 11) && !isWhole(10, 2, 11))
    }
}

@Suite struct PageCacheTests {
    private func weight(_ count: Int) -> Int { key(0).weight + count }

    @Test func bytesAreBounded() {
        var cache = PageCache(bytesMax: 10 * weight(1_000))
        for number in 0..<1_000 {
            _ = cache.insert(key(number), page(1_000))
            #expect(cache.bytes <= cache.bytesMax)
            #expect(cache.ghostCount <= 16)
        }
        #expect(cache.count == 10 && cache.bytes == 10 * weight(1_000))
    }

    @Test func whatLeavesIsTold() {
        var cache = PageCache(bytesMax: 2 * weight(100))
        #expect(cache.insert(key(1), page(100)).isEmpty)
        #expect(cache.insert(key(2), page(100)).isEmpty)
        #expect(cache.insert(key(3), page(100)).map(\.key) == [key(1)])
        #expect(cache.hit(key(1)) == nil && cache.hit(key(2)) != nil)
        // Again the same: nothing changes.
        #expect(cache.insert(key(3), page(100)).isEmpty && cache.count == 2)
        // Larger than the cache: it leaves at once, and nothing else does.
        #expect(cache.insert(key(4), page(10_000)).map(\.key) == [key(4)])
        #expect(cache.count == 2)
    }

    @Test func aScanLeavesWhatIsUsed() {
        var cache = PageCache(bytesMax: 100 * weight(100))
        for number in 0..<50 { _ = cache.insert(key(number, "hot"), page(100)) }
        for _ in 0..<2 { for number in 0..<50 { #expect(cache.hit(key(number, "hot")) != nil) } }
        for number in 0..<1_000 { _ = cache.insert(key(number, "scan"), page(100)) }
        let left = (0..<50).count { cache.contains(key($0, "hot")) }
        #expect(left == 50)
    }

    @Test func whatComesBackSoonStays() {
        var cache = PageCache(bytesMax: 10 * weight(100))
        for number in 0..<11 { _ = cache.insert(key(number), page(100)) }
        #expect(!cache.contains(key(0)))
        _ = cache.insert(key(0), page(100))
        for number in 100..<108 { _ = cache.insert(key(number), page(100)) }
        #expect(cache.contains(key(0)), "a page that came back is in the main queue")
    }

    @Test func withoutRoomNothingIsKept() {
        var cache = PageCache(bytesMax: 0)
        #expect(cache.insert(key(1), page(1)).map(\.key) == [key(1)])
        #expect(cache.count == 0 && cache.bytes == 0)
    }
}

@Suite struct SingleFlightTests {
    @Test func oneLeadsAndAllLand() {
        var flights = SingleFlight<String>(flightsMax: 2, waitersMax: 4)
        let a = flights.join(key(1), "a")
        let b = flights.join(key(1), "b")
        #expect(a.join == .leader && b.join == .follower && a.ticket != b.ticket)
        #expect(flights.join(key(2), "c").join == .leader)
        #expect(flights.join(key(3), "d").join == .full, "two flights are all")
        #expect(flights.join(key(1), "e").join == .follower)
        #expect(flights.join(key(1), "f").join == .full, "four waiters are all")
        flights.leave(key(1), b.ticket)
        flights.leave(key(1), b.ticket)
        #expect(flights.waiterCount == 3)
        #expect(flights.land(key(1)).map(\.waiter) == ["a", "e"])
        #expect(flights.land(key(1)).isEmpty)
        #expect(flights.waiterCount == 1 && flights.flightCount == 1)
        #expect(flights.join(key(1), "g").join == .leader)
    }

    @Test func aFlightGoesOnWithoutWaiters() {
        var flights = SingleFlight<Int>(flightsMax: 1, waitersMax: 1)
        flights.leave(key(1), flights.join(key(1), 1).ticket)
        #expect(flights.flightCount == 1 && flights.waiterCount == 0)
        #expect(flights.join(key(1), 2).join == .follower)
        #expect(flights.land(key(1)).map(\.waiter) == [2])
    }
}

@Suite struct HedgePolicyTests {
    @Test func theDelayIsAQuantile() {
        var policy = HedgePolicy(.init(percentile: 90, samplesMin: 10), bucketCount: 2)
        for n in 1...9 { policy.record(0, .milliseconds(Int64(n) * 10)) }
        #expect(policy.delay(0) == nil, "too few")
        policy.record(0, .milliseconds(100))
        #expect(policy.delay(0) == .milliseconds(90) * 9 / 8)
        #expect(policy.delay(1) == nil, "the other bucket's own business")
        for _ in 0..<1_000 { policy.record(0, .milliseconds(7)) }
        #expect(policy.delay(0) == .milliseconds(7) * 9 / 8, "old samples leave")
        for _ in 0..<300 { policy.record(0, 1_000) }
        #expect(policy.delay(0) == .milliseconds(5), "the least delay")
        var never = HedgePolicy(.init(percentile: 0, samplesMin: 1), bucketCount: 1)
        never.record(0, 1)
        #expect(never.delay(0) == nil)
    }

    @Test func hedgesAreAFewPercent() {
        var policy = HedgePolicy(.init(budgetPercent: 3), bucketCount: 1)
        let early = policy.spend()
        #expect(!early, "nothing was earned")
        var hedges = 0
        for _ in 0..<10_000 {
            policy.began()
            if policy.spend() { hedges += 1 }
        }
        #expect(hedges == 300)
        for _ in 0..<10_000 { policy.began() }
        hedges = 0
        while policy.spend() { hedges += 1 }
        #expect(hedges == 10, "what is saved is bounded")
    }
}

@Suite struct BucketScoresTests {
    private let second: Nanoseconds = .seconds(1)

    @Test func theClientsOrderIsTheDefault() {
        let scores = BucketScores(bucketCount: 3)
        #expect(scores.order([2, 0, 1], at: 0) == [2, 0, 1])
    }

    @Test func latencyCountsLittle() {
        var scores = BucketScores(bucketCount: 2)
        for _ in 0..<50 { scores.answered(0, latency: .milliseconds(150), at: second) }
        #expect(scores.order([0, 1], at: second) == [0, 1], "150 ms are less than one place")
        for _ in 0..<200 { scores.answered(0, latency: .milliseconds(300), at: second) }
        #expect(scores.order([0, 1], at: second) == [1, 0])
    }

    @Test func failuresCountAndFade() {
        var scores = BucketScores(bucketCount: 2)
        for _ in 0..<3 { scores.failed(0, at: second) }
        #expect(scores.order([0, 1], at: second) == [1, 0])
        #expect(!scores.isOpen(0, at: second))
        #expect(scores.order([0, 1], at: 200 * second) == [0, 1])
        let rate = scores.errorRate(0, at: second)
        #expect(abs(scores.errorRate(0, at: 47 * second) - rate / 2) < rate / 50, "half after 46 s")
        scores.answered(0, latency: nil, at: second)
        #expect(scores.errorRate(0, at: second) < rate)
    }

    @Test func aStreakOpensTheCircuitForAWhile() {
        var scores = BucketScores(bucketCount: 2)
        for n in 1...4 { scores.failed(0, at: Int64(n) * second) }
        scores.answered(0, latency: nil, at: 5 * second)
        for n in 6...9 { scores.failed(0, at: Int64(n) * second) }
        #expect(!scores.isOpen(0, at: 9 * second), "an answer ends a streak")
        scores.failed(0, at: 10 * second)
        #expect(scores.isOpen(0, at: 10 * second) && scores.isOpen(0, at: 39 * second))
        #expect(!scores.isOpen(0, at: 40 * second))
        // A new streak begins at one.
        scores.failed(0, at: 41 * second)
        #expect(scores.failures(0, at: 41 * second) == 1)
        #expect(scores.score(0, place: 0, at: 10 * second) >= 0)
    }

    @Test func silenceOfAnHourIsNoOverflow() {
        var scores = BucketScores(bucketCount: 1)
        scores.failed(0, at: 0)
        scores.answered(0, latency: .seconds(3), at: 0)
        #expect(scores.errorRate(0, at: 3_600 * second) == 0)
        #expect(scores.latency(0, at: 3_600 * second) == 0)
    }
}

@Suite struct ThroughputTests {
    @Test func onlyCompleteSecondsCount() {
        var meter = Throughput()
        meter.add(1_000, at: .milliseconds(500))
        #expect(meter.bytesPerSecond(at: .milliseconds(999)) == 0)
        #expect(meter.bytesPerSecond(at: .milliseconds(1_000)) == 100)
        for second in 1...30 { meter.add(500, at: .seconds(Int64(second))) }
        #expect(meter.bytesPerSecond(at: .seconds(31)) == 500)
        #expect(meter.bytesPerSecond(at: .seconds(36)) == 250, "seconds 26 to 30")
        #expect(meter.bytesPerSecond(at: .seconds(41)) == 0)
        meter.add(10, at: .seconds(1_000_000))
        #expect(meter.bytesPerSecond(at: .seconds(1_000_001)) == 1)
    }
}
