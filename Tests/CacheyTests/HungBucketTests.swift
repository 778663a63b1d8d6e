// SPDX-License-Identifier: Apache-2.0

import ObjectStorage
import Primitives
import RPC
import TestSupport
import Testing

@testable import CacheyRole

/// A bucket that does not answer costs its own pages, and a share of the requests.
@Suite struct HungBucketTests {
    private func bench() throws -> Bench {
        let bench = try Bench(buckets: ["a", "b"]) { $0.getsMax = 8 }
        bench.put("o", 100_000)
        // As long as the store's own limit, and longer than sessions wait.
        bench.buckets[0].usual = .fail(.unavailable, after: .seconds(60))
        return bench
    }

    private func fetches(_ bench: Bench, _ count: Int, _ buckets: [String]) -> [FakeCall] {
        (0..<count).map { bench.fetch("o", $0 * 1_000..<$0 * 1_000 + 10, buckets) }
    }

    @Test func whatFallsBackIsBoundedToo() throws {
        let bench = try bench()
        bench.buckets[1].usual = .fail(.unavailable, after: .seconds(60))
        let calls = fetches(bench, 40, ["a", "b"])
        var most = 0
        for _ in 0..<200 {
            bench.loop.advance(.seconds(1))
            most = max(most, bench.buckets.reduce(0) { $0 + $1.running })
        }
        #expect(most == 8)
        #expect(calls.allSatisfy { $0.ended != nil })
    }

    @Test func thePagesOfAnotherBucketComeAllTheSame() throws {
        let bench = try bench()
        let hung = fetches(bench, 40, ["a"])
        bench.loop.advance(.seconds(1))
        let calls = fetches(bench, 60, ["b"])
        bench.loop.advance(.seconds(1))
        #expect(calls.allSatisfy { $0.ended?.status == .ok })
        #expect(hung.allSatisfy { $0.ended == nil })
    }

    @Test func whatWaitsForABucketGoesOnToTheNext() throws {
        let bench = try bench()
        let calls = fetches(bench, 60, ["a", "b"])
        bench.loop.advance(.seconds(20))
        #expect(calls.allSatisfy { $0.ended?.status == .ok })
        #expect(bench.buckets[0].runningMost <= 4)
        #expect(bench.role.pages.downloads.waitingCount == 0)
        // All of the share is hung: what waits for it alone ends with its session.
        let alone = bench.fetch("o", 90_000..<90_010, ["a"])
        bench.loop.advance(.seconds(31))
        #expect(alone.ended?.status == .deadlineExceeded)
    }
}
