// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

/// A worker dies at every step of its work, before the step took effect or after; the next one
/// finds nothing missing, and leaves nothing over.
@Suite struct CrashTests {
    /// Something to do for every task.
    private func cell() throws -> TestCell {
        let cell = try TestCell()
        var aged = StreamConfigWish()
        aged.retention = .age(seconds: 1)
        var fleeting = StreamConfigWish()
        fleeting.deleteOnEmptyMinAgeSeconds = 1
        let small = try cell.addStream("small")
        let expiring = try cell.addStream("expiring", wish: aged)
        let trimmed = try cell.addStream("trimmed")
        let doomed = try cell.addStream("doomed")
        try cell.addStream("fleeting", wish: fleeting)
        try cell.addBasin("other-basin")
        try cell.addStream("inner", basin: "other-basin")
        let writer = try cell.writer()
        for stream in [small, expiring, trimmed, doomed] { try writer.claim(stream) }
        for _ in 0..<9 {
            try writer.write([small, expiring, trimmed, doomed])
            try writer.flush()
        }
        try writer.trim(trimmed, to: 27)
        try writer.write([small])
        _ = try writer.store()
        try writer.flush()
        try cell.delete("doomed")
        _ = try cell.value { [metadata = cell.metadata, store = cell.store] in
            _ = try await metadata.deleteBasin("other-basin")
            _ = try await store.put("doctor/1", [Bytes(utf8: "x")], ifAbsent: true)
        }
        return cell
    }

    /// All tasks, until nothing is left to do.
    private func run(_ cell: TestCell, _ worker: BgTaskRole) throws {
        for round in 0..<8 {
            do {
                try cell.pass(worker)
            } catch {
                #expect(cell.fault.failing != nil, "round \(round): \(error)")
                // It died; and nobody knew of it for a while.
                cell.fault.failing = nil
                try run(cell, cell.worker())
                return
            }
            if round == 1, let writer = cell.writers.first { try writer.flush() }
            cell.loop.run(for: .seconds(1_000))
            try cell.checkPlans()
        }
    }

    private func judge(_ cell: TestCell, _ what: String) throws {
        // Long after: an orphan that the crash left is found.
        cell.fault.failing = nil
        let worker = cell.worker()
        for _ in 0..<6 {
            cell.loop.run(for: .seconds(1_900))
            try cell.pass(worker)
        }
        let check = try Check(cell)
        #expect(check.missing == [], "\(what)")
        #expect(check.leftover == [], "\(what)")
        #expect(cell.rules.violations == [], "\(what)")
    }

    @Test func nothingFails() throws {
        let cell = try cell()
        try run(cell, cell.worker())
        try judge(cell, "no fault")
        #expect((150...1_500).contains(cell.fault.calls), "\(cell.fault.calls)")
    }

    @Test(arguments: Fault.Moment.allCases, 0..<4)
    func everyCallMayBeTheLast(_ moment: Fault.Moment, _ shard: Int) throws {
        let calls: Int
        do {
            let cell = try cell()
            try run(cell, cell.worker())
            calls = cell.fault.calls
        }
        for call in stride(from: 1 + shard, through: calls, by: 4) {
            let cell = try cell()
            cell.fault.failing = (call, moment)
            cell.fault.isFatal = true
            try run(cell, cell.worker())
            try judge(cell, "\(moment) call \(call)")
        }
    }

    /// The same, but the worker lives on, and does what else there is.
    @Test(arguments: Fault.Moment.allCases)
    func everyCallMayFail(_ moment: Fault.Moment) throws {
        for call in stride(from: 1, through: 400, by: 9) {
            let cell = try cell()
            cell.fault.failing = (call, moment)
            try run(cell, cell.worker())
            try judge(cell, "\(moment) call \(call)")
        }
    }

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func twoWorkersDoTheSameAtOnce(_ seed: UInt64) throws {
        let cell = try cell()
        let random = RandomSource.seeded(seed)
        cell.fault.pause = { [loop = cell.loop] in
            await loop.sleep(random.within(0...(.milliseconds(20))))
        }
        let workers = [cell.worker(), cell.worker(), cell.worker()]
        for round in 0..<12 {
            var ended = 0
            for worker in workers {
                cell.loop.spawn {
                    for kind in TaskKind.allCases {
                        do {
                            _ = try await worker.run(kind, isDryRun: false)
                        } catch {
                            Issue.record(error)
                        }
                    }
                    ended += 1
                }
            }
            cell.loop.run { ended == workers.count }
            #expect(ended == workers.count)
            if round == 1, let writer = cell.writers.first { try writer.flush() }
            cell.loop.run(for: .seconds(1_000))
            try cell.checkPlans()
        }
        try judge(cell, "seed \(seed)")
    }
}
