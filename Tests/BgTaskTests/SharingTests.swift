// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Metadata
import Primitives
import Records
import TestSupport
import Testing

/// Workers share the leases, whoever comes and goes.
@Suite struct SharingTests {
    private func leases(_ cell: TestCell, _ prefix: String = "bgtask/") throws -> [NamedLease] {
        try cell.value { [metadata = cell.metadata] in
            try await metadata.leases(prefix: prefix)
        }
    }

    private func holders(_ cell: TestCell) throws -> [String?] {
        try leases(cell).map(\.holder)
    }

    @Test func eachWorkerHoldsItsShare() throws {
        let cell = try TestCell()
        var first: BgTaskRole? = cell.worker()
        let second = cell.worker()
        first?.start()
        cell.loop.run(for: .seconds(25))
        #expect(first?.leasesHeld == 33)
        second.start()
        cell.loop.run(for: .seconds(40))
        #expect([first?.leasesHeld, second.leasesHeld] == [17, 16])
        // And they leave it at that.
        let shared = try holders(cell)
        for _ in 0..<20 {
            cell.loop.run(for: .seconds(31))
            #expect(try holders(cell) == shared)
        }
        #expect(Set(shared).count == 2)

        let third = cell.worker()
        third.start()
        cell.loop.run(for: .seconds(40))
        #expect([first?.leasesHeld, second.leasesHeld, third.leasesHeld] == [11, 11, 11])
        // One dies: its last renewals were up to 10 s before.
        first = nil
        cell.loop.run(for: .seconds(20))
        #expect(second.leasesHeld + third.leasesHeld == 22)
        cell.loop.run(for: .seconds(70))
        #expect([second.leasesHeld, third.leasesHeld].sorted() == [16, 17])
        // One that drains gives its own up at once.
        try cell.value { await second.drain() }
        cell.loop.run(for: .seconds(25))
        #expect(third.leasesHeld == 33 && second.leasesHeld == 0 && third.isReady)
        #expect(try !holders(cell).contains(nil))
    }

    @Test(arguments: 1...3 as ClosedRange<UInt64>)
    func workersThatStartAtOnceComeToTerms(_ seed: UInt64) throws {
        let cell = try TestCell(seed: seed)
        let random = RandomSource.seeded(seed)
        cell.fault.pause = { [loop = cell.loop] in
            await loop.sleep(random.within(0...(.milliseconds(300))))
        }
        let workers = (0..<5).map { _ in cell.worker() }
        for worker in workers { worker.start() }
        cell.loop.run(for: .seconds(120))
        #expect(workers.map(\.leasesHeld).reduce(0, +) == 33)
        #expect(workers.count { (4...7).contains($0.leasesHeld) } == 5)
        let shared = try holders(cell)
        cell.loop.run(for: .seconds(200))
        #expect(try holders(cell) == shared)
    }

    @Test func whoHasLittleToShareKeepsNobodyWaiting() throws {
        let cell = try TestCell()
        let workers = (0..<20).map { _ in cell.worker { $0.partitions = 1 } }
        for worker in workers { worker.start() }
        cell.loop.run(for: .seconds(120))
        #expect(
            workers.map(\.leasesHeld).sorted() == Array(repeating: 0, count: 11)
                + Array(repeating: 1, count: 9))
        #expect(workers.count { $0.isReady } == 20)
    }

    /// A lease is let go behind the pass that is under way, not in the middle of it.
    @Test func aPassIsBroughtToItsEndFirst() throws {
        let cell = try TestCell()
        let writer = try cell.writer()
        // One in each half of the keys, at a channel that does not answer.
        for number in 0..<8 {
            try writer.claim(try cell.addStream("s\(number)"))
            try cell.delete("s\(number)")
        }
        cell.calls.hung = ["127.0.0.1:1"]
        func worker() -> BgTaskRole {
            cell.worker {
                $0.partitions = 2
                $0.callNanoseconds = .seconds(200)
                $0.streamsAtOnce = 8
            }
        }
        let first = worker()
        first.start()
        cell.loop.run(for: .seconds(25))
        #expect(first.leasesHeld == 17)
        #expect(cell.calls.count == 8)
        let others = (0..<16).map { _ in worker() }
        for other in others { other.start() }
        cell.loop.run(for: .seconds(100))
        #expect(first.leasesHeld == 2, "those with a pass under way")
        cell.loop.run(for: .seconds(110))
        #expect(first.leasesHeld == 1)
        #expect(others.map(\.leasesHeld).reduce(0, +) == 16)
    }

    @Test func seatsAreUsedAgain() throws {
        let cell = try TestCell()
        for _ in 0..<5 {
            let worker = cell.worker { $0.partitions = 1 }
            worker.start()
            cell.loop.run(for: .seconds(25))
            #expect(worker.leasesHeld == 9)
            try cell.value { await worker.drain() }
        }
        #expect(try leases(cell, "bgtask-seat/").map(\.holder) == [nil])
        // Those that die leave theirs, and there is an end to seats.
        for _ in 0..<40 {
            let worker = cell.worker { $0.partitions = 1 }
            worker.start()
            cell.loop.run(for: .seconds(120))
            #expect(worker.leasesHeld == 9)
        }
        #expect(try leases(cell, "bgtask-seat/").count == 32)
    }
}
