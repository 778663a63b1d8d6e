// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import Records
import TestSupport
import Testing

/// A cell on one manual loop: metadata and a store in memory, writers, readers and workers.
final class TestCell {
    let loop = ManualLoop()
    let metadata: MemoryMetadata
    let store: MemoryStore
    let storeClock = StoreClock()
    let fault = Fault()
    let random: RandomSource
    let calls: TestCalls
    let rules: DeletionRules
    private(set) var writers: [TestWriter] = []
    private(set) var plans: [TestPlan] = []
    private var metrics: [Metrics] = []

    init(seed: UInt64 = 7) throws {
        let loop = loop
        metadata = MemoryMetadata(now: { loop.wallMilliseconds })
        let storeClock = storeClock
        store = MemoryStore(wallMilliseconds: { loop.wallMilliseconds &+ storeClock.ahead })
        random = RandomSource.seeded(seed)
        calls = TestCalls(loop)
        rules = DeletionRules(metadata: metadata, store: store)
        calls.answer = { [unowned self] in serve($0, $1) }
        try addBasin("test-basin")
    }

    func value<Value: Sendable>(_ body: @escaping () async throws -> Value) throws -> Value {
        try loop.value(body)
    }

    // MARK: Workers

    /// With `terms`, the metadata tells how long objects stay.
    func worker(
        terms: (any CellTerms)? = nil, _ adjust: (inout BgTaskLimits) -> Void = { _ in }
    ) -> BgTaskRole {
        var limits = BgTaskLimits()
        adjust(&limits)
        let watched = FaultyStore(inner: store, fault: fault) { [rules] in
            await rules.check($0)
        }
        let metrics = Metrics(role: "bgtask")
        self.metrics.append(metrics)
        return BgTaskRole(
            world: BgTaskWorld(
                loop: loop, metadata: FaultyMetadata(inner: metadata, fault: fault),
                buckets: [Bucket(name: "main", store: watched)], calls: calls, random: random,
                log: .silent, metrics: metrics, terms: terms),
            limits: limits)
    }

    /// How often the workers did something, all together.
    func count(_ action: Action) -> Int {
        let name = "actions_total{action=\"\(action.rawValue)\"} "
        return metrics.flatMap { $0.render().split(separator: "\n") }.reduce(0) { sum, line in
            guard let value = line.split(separator: " ").last, line.contains(name) else {
                return sum
            }
            return sum + (Int(value) ?? 0)
        }
    }

    /// One pass of each of `kinds`.
    @discardableResult
    func pass(
        _ worker: BgTaskRole, _ kinds: [TaskKind] = TaskKind.allCases, isDryRun: Bool = false
    ) throws -> [Action: Int] {
        try value {
            var counts: [Action: Int] = [:]
            for kind in kinds {
                counts.merge(
                    try await worker.run(kind, isDryRun: isDryRun).counts, uniquingKeysWith: +)
            }
            return counts
        }
    }

    // MARK: Streams

    func addBasin(_ name: String) throws {
        try value { [metadata] in
            _ = try await metadata.createBasin(
                BasinCreation(name: name, config: BasinConfig(), location: nil, creationKey: nil))
        }
    }

    @discardableResult
    func addStream(
        _ name: String, basin: String = "test-basin", wish: StreamConfigWish = StreamConfigWish()
    ) throws -> StreamID {
        let id = StreamID(random: random)
        let creation = StreamCreation(
            id: id, basin: basin, name: name, wish: wish, creationKey: nil)
        return try value { [metadata] in try await metadata.createStream(creation).resource.id }
    }

    func writer(
        address: String = "127.0.0.1:1", unsureMilliseconds: UInt64? = nil
    ) throws -> TestWriter {
        let writer = try TestWriter(self, address: address, unsureMilliseconds)
        writers.append(writer)
        return writer
    }

    func lookup(_ stream: StreamID) throws -> StreamLookup? {
        try value { [metadata] in try await metadata.stream(stream) }
    }

    func delete(_ name: String) throws {
        _ = try value { [metadata] in
            try await metadata.deleteStream(basin: "test-basin", name: name)
        }
    }

    func keys(_ prefix: String = "") throws -> [String] {
        try value { [store] in
            var keys: [String] = []
            while true {
                let page = try await store.list(
                    prefix: prefix, after: keys.last ?? "", limit: 1_000)
                keys += page.objects.map(\.key)
                if !page.hasMore { return keys }
            }
        }
    }

    func rows(_ stream: StreamID) throws -> [SegmentRow] {
        try value { [metadata] in
            try await metadata.segments(of: stream, from: .seqNum(0), limit: 10_000).segments
        }
    }

    /// A channel hears that a stream is deleted, and closes it.
    private func serve(_ method: Method, _ payload: Bytes) -> Status {
        guard method == .refresh, let request = try? RefreshRequest(payload), request.deleted,
            let writer = writers.first(where: { $0.holds(request.stream) })
        else { return .notOwner }
        writer.closing.insert(request.stream)
        return .ok
    }

    // MARK: Readers

    /// A reader's plan for all that a stream holds, made as frontends make it.
    func plan(_ stream: StreamID) throws {
        let pointers = writers.flatMap { $0.pointers(stream) }
        guard let found = try lookup(stream), found.stream.deletedMilliseconds == nil else {
            return
        }
        let trimPoint = found.stream.state.trimPoint
        let rows = try rows(stream).filter { $0.endSeqNum > trimPoint }
        plans.append(
            TestPlan(madeAt: loop.now, objects: Set(pointers + rows.map(\.object))))
    }

    /// Every object of every plan that is still in use must be there.
    func checkPlans() throws {
        plans.removeAll { loop.now - $0.madeAt > .seconds(300) }
        let keys = Set(try keys())
        for plan in plans {
            #expect(plan.objects.subtracting(keys) == [], "a plan of \(plan.madeAt)")
        }
        #expect(rules.violations == [])
    }
}

// Safety: everything happens on the one thread of its test.
final class StoreClock: @unchecked Sendable {
    /// Milliseconds; wraps for one that is behind.
    var ahead: UInt64 = 0
}

struct TestPlan {
    let madeAt: Nanoseconds
    let objects: Set<String>
}

/// What may be deleted, judged by the metadata at that very moment.
// Safety: everything happens on the one thread of its test.
final class DeletionRules: @unchecked Sendable {
    private let metadata: MemoryMetadata
    private let store: MemoryStore
    private(set) var violations: [String] = []
    /// Seals, and what lies behind them, may go.
    var allowsSeals = false
    /// Chunks that may be deleted at once.
    var stride: ChunkIndex = 64

    init(metadata: MemoryMetadata, store: MemoryStore) {
        self.metadata = metadata
        self.store = store
    }

    func check(_ key: String) async {
        do {
            if let (channel, index) = LogKeys.parseChunk(key) {
                guard let row = try await metadata.channel(channel) else { return }
                if index >= row.flushedEnd && !allowsSeals {
                    violations.append("\(key) is not flushed")
                }
                let first = try await store.list(
                    prefix: LogKeys.logPrefix(channel), after: "", limit: 1
                ).objects.first
                // Those of one stride may go in any order.
                if let first = first.flatMap({ LogKeys.parseChunk($0.key)?.index }),
                    index >= first + stride, !allowsSeals
                {
                    violations.append("\(key) goes before \(first): a hole")
                }
            } else if LogKeys.parseSegment(key) != nil {
                if try await metadata.isReferenced(key) {
                    violations.append("\(key) is referred to")
                }
            }
        } catch {
            violations.append("\(error)")
        }
    }
}

extension MemoryMetadata {
    func allStreams() async throws -> [StreamID] {
        var ids: [StreamID] = []
        for basin in try await listBasins(prefix: "", startAfter: "", limit: 1_000).items {
            ids += try await listStreams(
                basin: basin.name, prefix: "", startAfter: "", limit: 100_000
            ).items.map(\.id)
        }
        return ids
    }

    func isReferenced(_ key: String) async throws -> Bool {
        for id in try await allStreams() {
            let page = try await segments(of: id, from: .seqNum(0), limit: 100_000)
            if page.segments.contains(where: { $0.object == key }) { return true }
        }
        return false
    }
}
