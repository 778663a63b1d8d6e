// SPDX-License-Identifier: Apache-2.0

import ObjectStorage
import Primitives
import Simulation
import Testing

@testable import ChannelRole

@Suite struct ChunkPutsTests {
    private let scheduler = Scheduler(seed: 1, trace: Trace())
    private let store = HeldStore()
    /// As long as a header.
    private let body = [Bytes([UInt8](repeating: 7, count: 256))]

    private func pass(_ loop: SimLoop) {
        var over = false
        _ = loop.after(.milliseconds(1)) { over = true }
        _ = scheduler.run(until: .max, steps: 100_000) { over }
    }

    private func makePuts(_ loop: SimLoop) -> ChunkPuts {
        ChunkPuts(
            store, loop, .seeded(1),
            Backoff(first: 1, delayMax: 1, triesMax: 1, budget: .seconds(1)))
    }

    @Test func eachChunkIsPutOnceThoughTasksAreUsedAgain() {
        let loop = scheduler.makeLoop("puts")
        let puts = makePuts(loop)
        var ended: [ChunkIndex] = []
        puts.onEnd = { index, _ in ended.append(index) }
        store.hold()
        for index in 0..<3 as Range<ChunkIndex> {
            puts.begin(index, "\(index)", body)
        }
        pass(loop)
        #expect(store.held == ["0", "1", "2"], "all at once")
        store.release("1")
        pass(loop)
        #expect(ended == [1])
        // One task is idle, and takes one of these.
        for index in 3..<5 as Range<ChunkIndex> {
            puts.begin(index, "\(index)", body)
        }
        pass(loop)
        #expect(store.held == ["0", "2", "3", "4"])
        store.releaseAll()
        pass(loop)
        #expect(ended.sorted() == [0, 1, 2, 3, 4] && ended.count == 5)
        puts.end()
        pass(loop)
    }

    @Test func whatIsUnderWayEndsAfterTheLog() {
        let loop = scheduler.makeLoop("puts")
        let puts = makePuts(loop)
        var ended = 0
        puts.onEnd = { _, _ in ended += 1 }
        store.hold()
        puts.begin(0, "0", body)
        pass(loop)
        puts.end()
        #expect(ended == 0)
        store.releaseAll()
        pass(loop)
        #expect(ended == 1)
    }

    /// A task that waits for more does not keep what it worked for.
    @Test func idleTasksKeepNothing() {
        let loop = scheduler.makeLoop("puts")
        weak var kept: ChunkPuts?
        do {
            let puts = makePuts(loop)
            kept = puts
            puts.begin(0, "0", body)
            pass(loop)
        }
        #expect(kept == nil)
    }
}
