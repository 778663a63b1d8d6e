// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

/// Random histories of writers and readers while workers clean up behind them.
@Suite struct HistoryTests {
    /// Readers hold plans for as long as they may; none ever misses an object, and in the end
    /// nothing is left over.
    @Test func readersNeverMissAnObject() throws {
        var totals: [Action: Int] = [:]
        for seed in 1...6 as ClosedRange<UInt64> {
            try live(seed)
                .forEach { totals[$0.key, default: 0] += $0.value }
        }
        for action in [
            .deletedChunk, .deletedObject, .unlinkedSegment, .compactedSegment, .purgedStream,
            .raisedTrimPoint, .pushedDeletion,
        ] as [Action] {
            #expect(totals[action, default: 0] > 0, "\(action)")
        }
        #expect(totals[.violation, default: 0] == 0)
    }

    private func live(_ seed: UInt64) throws -> [Action: Int] {
        let cell = try TestCell(seed: seed)
        var history = try History(cell)
        let workers = (0..<2).map { _ in
            cell.worker {
                $0.partitions = 2
                $0.leaseNanoseconds = .seconds(60)
            }
        }
        for worker in workers { worker.start() }
        for _ in 0..<150 { try history.step() }
        try history.settle()
        cell.loop.run(for: .seconds(4 * 3_600))
        try cell.checkPlans()
        let check = try Check(cell)
        #expect(check.missing == [], "seed \(seed)")
        #expect(check.leftover == [], "seed \(seed)")
        #expect(workers.map(\.leasesHeld).reduce(0, +) == 17)
        #expect(history.flushes > 20)
        return Dictionary(
            uniqueKeysWithValues: Action.allCases.map { ($0, cell.count($0)) })
    }
}

/// One cell's random life.
struct History {
    private let cell: TestCell
    private var names: [String: StreamID] = [:]
    private var writer: TestWriter
    private(set) var flushes = 0

    init(_ cell: TestCell) throws {
        self.cell = cell
        writer = try cell.writer()
    }

    mutating func step() throws {
        switch cell.random.below(20) {
        case 0...7:
            let streams = try names.values.sorted().filter {
                try !isDeleted($0) && writer.claim($0)
            }
            try writer.write(streams, count: 1 + Int(cell.random.below(5)))
            if cell.random.oneIn(3) { try flush() }
        case 8, 9: try flush()
        case 10:
            if let stream = any(writer.streams) {
                try writer.trim(stream, to: cell.random.below(writer.tail(stream) + 1))
            }
        case 11: if let stream = any(writer.streams) { writer.closing.insert(stream) }
        case 12:
            if let name = any(names.keys.sorted()) {
                try cell.delete(name)
                names[name] = nil
            }
        case 13...15: try create("stream-\(cell.random.below(4))")
        case 16, 17:
            if let stream = any(names.values.sorted()) { try cell.plan(stream) }
        default: cell.loop.run(for: cell.random.within(.seconds(1)...(.seconds(240))))
        }
        if cell.random.oneIn(40) {
            try writer.retire()
            writer = try cell.writer()
        }
        cell.loop.run(for: .seconds(5))
        try cell.checkPlans()
    }

    /// Brings all to rest, so that all that is not needed may go.
    mutating func settle() throws {
        cell.loop.run(for: .seconds(300))
        try flush()
        cell.loop.run(for: .seconds(300))
        try flush()
    }

    private mutating func flush() throws {
        try writer.flush()
        flushes += 1
    }

    private mutating func create(_ name: String) throws {
        var wish = StreamConfigWish()
        wish.retention = cell.random.oneIn(3) ? .age(seconds: 900) : .infinite
        guard names[name] == nil else { return }
        do {
            names[name] = try cell.addStream(name, wish: wish)
        } catch let error as MetadataError {
            // Its namesake is not gone yet.
            #expect(error.kind == .deletionPending)
        }
    }

    private func isDeleted(_ stream: StreamID) throws -> Bool {
        try cell.lookup(stream)?.stream.deletedMilliseconds != nil
    }

    private func any<Item>(_ items: [Item]) -> Item? {
        items.isEmpty ? nil : items[Int(cell.random.below(UInt64(items.count)))]
    }
}
