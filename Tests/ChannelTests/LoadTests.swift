// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Testing

@testable import ChannelRole

/// What a channel tells of its load when it renews its lease, each second.
@Suite struct LoadTests {
    private func queueMilliseconds(_ bench: Bench) -> UInt64? {
        var rows: [ChannelRow] = []
        bench.run { rows = try await bench.metadata.channels([.active]) }
        return rows.first.map { $0.load.queueDelayMicroseconds / 1_000 }
    }

    @Test func aSlowStoreIsNoQueue() async throws {
        let bench = try await Bench()
        let session = try bench.openSession(bench.makeStream("s"))
        bench.store.hold()
        session.onMessage?(try Bench.batch("alone"))
        bench.pass(.milliseconds(500))
        bench.store.releaseAll()
        bench.pass(.seconds(1))
        #expect(try session.replies.count == 1)
        #expect(queueMilliseconds(bench) == 0)
    }

    @Test func theQueueIsTheWaitForAPutAndOverWithIt() async throws {
        let bench = try await Bench { $0.inFlightChunksMax = 1 }
        let session = try bench.openSession(bench.makeStream("s"))
        bench.store.hold()
        session.onMessage?(try Bench.batch("under way"))
        bench.pass()
        session.onMessage?(try Bench.batch("in the queue"))
        bench.pass(.seconds(5))
        // It counts while it lasts.
        let waiting = try #require(queueMilliseconds(bench))
        #expect((3_900...5_000).contains(waiting), "\(waiting) ms")
        bench.store.releaseAll()
        bench.pass(.seconds(1))
        #expect(try session.replies.count == 2)
        let over = try #require(queueMilliseconds(bench))
        #expect((4_900...5_100).contains(over), "\(over) ms")
        bench.pass(.seconds(2))
        #expect(queueMilliseconds(bench) == 0)
    }
}
