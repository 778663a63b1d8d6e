// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import Synchronization
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct CacheyChoiceTests {
    private func nodes(_ count: Int, load: (Int) -> Double = { _ in 0 }) -> [CacheyNode] {
        (0..<count).map { CacheyNode(address: "10.0.0.\($0):7450", load: load($0)) }
    }

    private func key(_ page: Int) -> UInt64 {
        CacheyNode.key(bucket: "main", object: "seg/00/\(page / 8)", page: page % 8)
    }

    private func first(_ nodes: [CacheyNode], _ page: Int) -> String? {
        CacheyNode.choose(nodes, key: key(page), bytes: 1 << 20).first
    }

    @Test func pagesSpreadEvenly() {
        let nodes = nodes(5)
        var counts: [String: Int] = [:]
        for page in 0..<10_000 { counts[first(nodes, page) ?? "", default: 0] += 1 }
        #expect(counts.count == 5)
        #expect(counts.values.allSatisfy { abs($0 - 2_000) < 200 }, "\(counts)")
    }

    @Test func removingOneMovesItsPagesOnly() {
        let before = nodes(6)
        let gone = before[2].address
        let after = before.filter { $0.address != gone }
        var moved = 0
        for page in 0..<5_000 {
            let old = CacheyNode.choose(before, key: key(page), bytes: 1)
            let new = CacheyNode.choose(after, key: key(page), bytes: 1)
            if old[0] == gone {
                moved += 1
                #expect(new[0] == old[1], "the next in rank takes over")
            } else {
                #expect(new[0] == old[0])
            }
        }
        #expect(moved > 600 && moved < 1_050)
    }

    @Test func theOrderOfTheListIsNothing() {
        let nodes = nodes(7)
        for page in 0..<100 {
            #expect(
                CacheyNode.choose(nodes, key: key(page), bytes: 1)
                    == CacheyNode.choose(nodes.reversed(), key: key(page), bytes: 1))
        }
        #expect(CacheyNode.choose([], key: 1, bytes: 1) == [])
        #expect(CacheyNode.choose(self.nodes(2), key: 1, bytes: 1).count == 2)
        #expect(CacheyNode.choose(nodes, key: 1, bytes: 1).count == 3)
        #expect(
            CacheyNode.key(bucket: "ab", object: "c", page: 0)
                != CacheyNode.key(bucket: "a", object: "bc", page: 0))
    }

    @Test func whoHasMuchMoreThanTheMeanIsPassedOver() {
        let busy = "10.0.0.1:7450"
        let idle = nodes(4)
        let hot = nodes(4) { $0 == 1 ? 2e9 : 1e8 }
        let even = nodes(4) { _ in 2e9 }
        for page in 0..<500 {
            let plain = CacheyNode.choose(idle, key: key(page), bytes: 1 << 20)
            let bounded = CacheyNode.choose(hot, key: key(page), bytes: 1 << 20)
            #expect(bounded[0] != busy)
            #expect(bounded[0] == (plain[0] == busy ? plain[1] : plain[0]))
            #expect(Set(bounded) == Set(plain), "it is still asked before the bucket")
            #expect(CacheyNode.choose(even, key: key(page), bytes: 1 << 20) == plain)
            // With little to do, nobody is passed over.
            let calm = nodes(4) { $0 == 1 ? 5e6 : 0 }
            #expect(CacheyNode.choose(calm, key: key(page), bytes: 1 << 20) == plain)
        }
    }

    /// What a page's first rank has, and who is asked in which order.
    private func chosen(
        _ ranks: [String], loads: [Double], others: Double, bytes: Int, page: Int, of count: Int
    ) -> [String] {
        let nodes = nodes(count).map { node in
            let rank = ranks.firstIndex(of: node.address)
            let load = rank.flatMap { $0 < loads.count ? loads[$0] : nil }
            return CacheyNode(address: node.address, load: load ?? others)
        }
        return CacheyNode.choose(nodes, key: key(page), bytes: bytes)
    }

    /// With three others at 1.1e9, the bound is 1.5e9 where the first comes to just that:
    /// 1.25 times (3 * 1.1e9 + 1.5e9) / 4.
    @Test func theBoundIsAFourthMoreThanTheMean() {
        let bytes = 1 << 20
        let atBound = 1.5e9 - Double(bytes)
        for page in 0..<100 {
            let plain = CacheyNode.choose(nodes(4), key: key(page), bytes: bytes)
            func order(_ first: Double) -> [String] {
                chosen(plain, loads: [first], others: 1.1e9, bytes: bytes, page: page, of: 4)
            }
            #expect(order(atBound - 8) == plain)
            #expect(order(atBound) == plain)
            #expect(order(atBound + 8) == [plain[1], plain[0], plain[2]])
        }
    }

    @Test func belowTheFloorNobodyIsPassedOver() {
        let bytes = 1 << 20
        let atFloor = Double((64 << 20) - bytes)
        for page in 0..<100 {
            let plain = CacheyNode.choose(nodes(4), key: key(page), bytes: bytes)
            func order(_ first: Double) -> [String] {
                chosen(plain, loads: [first], others: 0, bytes: bytes, page: page, of: 4)
            }
            #expect(order(atFloor) == plain)
            #expect(order(atFloor + 1) == [plain[1], plain[0], plain[2]])
        }
    }

    @Test func theFirstRankThatIsNotBusyIsAskedFirst() {
        for page in 0..<100 {
            let plain = CacheyNode.choose(nodes(10), key: key(page), bytes: 1)
            func order(_ loads: [Double]) -> [String] {
                chosen(plain, loads: loads, others: 0, bytes: 1, page: page, of: 10)
            }
            #expect(order([2e9, 1e9]) == [plain[2], plain[0], plain[1]])
            #expect(order([2e9, 0, 1e9]) == [plain[1], plain[0], plain[2]])
        }
    }

    /// The mean is 3.3e8, and seven others have nothing to do, but they have no copy.
    @Test func whereEveryRankIsBusyTheFirstIsAsked() {
        for page in 0..<100 {
            let plain = CacheyNode.choose(nodes(10), key: key(page), bytes: 1)
            let order = chosen(
                plain, loads: [1.2e9, 1.1e9, 1e9], others: 0, bytes: 1, page: page, of: 10)
            #expect(order == plain)
        }
    }

    @Test func rangesAreCutWherePagesEnd() {
        let page = 64 << 10
        func parts(_ range: Range<Int>) -> [Range<Int>] {
            ReadFetcher.parts(of: range, pageBytes: page)
        }
        #expect(parts(0..<page) == [0..<page])
        #expect(parts(page - 1..<page + 1) == [page - 1..<page, page..<page + 1])
        #expect(parts(page..<2 * page) == [page..<2 * page])
        #expect(parts(5..<6) == [5..<6])
        #expect(parts(1..<3 * page).map(\.count) == [page - 1, page, page])
    }
}

/// Cacheys that answer as a test says.
private final class CacheyCalls: CallClient {
    enum Answer {
        case serve
        case end(Status)
        case never
        case short
        case tooMuch
        /// Served once the test says so.
        case held
    }
    let loop: ManualLoop
    let store: MemoryStore
    private var held: [() -> Void] = []
    var answers: [String: Answer] = [:]
    private(set) var asked: [(address: String, request: FetchRequest)] = []

    init(_ loop: ManualLoop, _ store: MemoryStore) {
        self.loop = loop
        self.store = store
    }

    func call(
        _ address: String, _ method: RPC.Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call {
        let call = FakeCall(method, loop)
        guard let request = try? FetchRequest(payload), method == .fetch else {
            call.end(.malformed, Bytes())
            return call
        }
        asked.append((address, request))
        if let deadline {
            loop.after(deadline) { call.end(.deadlineExceeded, Bytes()) }
        }
        switch answers[address] ?? .serve {
        case .end(let status): call.end(status, Bytes())
        case .never: break
        case .serve: serve(call, request, request.range)
        case .held: held.append { [self] in serve(call, request, request.range) }
        case .short: serve(call, request, request.range.dropLast())
        case .tooMuch: serve(call, request, request.range.lowerBound..<request.range.upperBound + 1)
        }
        return call
    }

    func release() {
        for serve in held { serve() }
        held = []
    }

    private func serve(_ call: FakeCall, _ request: FetchRequest, _ range: Range<Int>) {
        loop.spawn { [store] in
            do {
                let slice = try await store.get(request.object, range: range)
                let middle = slice.bytes.count / 2
                call.push(slice.bytes.prefix(middle))
                call.push(slice.bytes.dropFirst(middle))
                call.end(.ok, FetchReply(objectSize: UInt64(slice.objectSize)).encoded())
            } catch {
                call.end(.objectNotFound, Bytes())
            }
        }
    }
}

@Suite struct ReadFetcherTests {
    private final class Told: Sendable {
        let events = Mutex<[String]>([])
        var failures: Int { events.withLock { $0.count { $0 == "cachey_failed" } } }
    }

    private final class Bench {
        let loop = ManualLoop()
        let registry = MemoryMetadata { 1 }
        let store = MemoryStore()
        let second = MemoryStore()
        let calls: CacheyCalls
        let fetcher: ReadFetcher
        /// What was logged.
        let told = Told()
        var isRenewing = true
        /// What cacheys tell of themselves, by address.
        var loads: [String: CacheyLoad] = [:]
        let object = Bytes((0..<3 << 20).map { UInt8(truncatingIfNeeded: $0 * 31 + $0 / 1_000) })

        init(
            _ cacheys: [String], withRegistry: Bool = true, buckets: Int = 1,
            pageBytes: Int = FetchRequest.pageBytesDefault
        ) throws {
            calls = CacheyCalls(loop, store)
            let all = [Bucket(name: "b", store: store), Bucket(name: "c", store: second)]
            let world = FrontendWorld(
                loop: loop, metadata: registry, calls: calls,
                buckets: Array(all.prefix(buckets)), random: .seeded(1),
                log: EventLog(level: .info) { [told] _, event, _ in
                    told.events.withLock { $0.append(event) }
                },
                metrics: Metrics(role: "frontend"), cacheys: withRegistry ? registry : nil)
            var limits = FrontendLimits(rootToken: nil)
            limits.pageBytes = pageBytes
            fetcher = ReadFetcher(
                world: world, limits: limits, metrics: RecordsMetrics(world.metrics))
            try run { [self] in
                _ = try await store.put("o", [object], ifAbsent: true)
                for address in cacheys { try await register(address) }
            }
            renew()
        }

        private func renew() {
            loop.after(.milliseconds(500)) { [self] in
                loop.spawn { [self] in
                    guard isRenewing, let rows = try? await registry.cacheys(zone: nil) else {
                        return
                    }
                    for row in rows {
                        let load = loads[row.address] ?? .idle
                        _ = try? await registry.renewCachey(row.id, load: load)
                    }
                    renew()
                }
            }
        }

        func register(_ address: String, zone: String = "local") async throws {
            _ = try await registry.registerCachey(
                CacheyRegistration(zone: zone, address: address))
        }

        func run(_ body: @escaping () async throws -> Void) throws {
            var result: Result<Void, any Error>?
            loop.spawn {
                do { result = .success(try await body()) } catch { result = .failure(error) }
            }
            loop.run { result != nil }
            try result?.get()
        }

        func fetch(_ object: String, _ range: Range<Int>) -> Result<Bytes, ReadFetcher.Failure>? {
            var answer: Result<Bytes, ReadFetcher.Failure>?
            fetcher.fetch(bucket: "b", object: object, range: range) { answer = $0 }
            loop.run { answer != nil }
            return answer
        }

        /// Begins to fetch the object's first page, and answers whom it asks.
        func begin(_ then: @escaping (Bool) -> Void) -> String? {
            let count = calls.asked.count
            let page = 0..<FetchRequest.pageBytesDefault
            fetcher.fetch(bucket: "b", object: "o", range: page) { [object] answer in
                guard case .success(let bytes) = answer else { return then(false) }
                then(bytes == object[page])
            }
            loop.settle()
            return calls.asked.count == count + 1 ? calls.asked.last?.address : nil
        }

        func isServed(_ range: Range<Int>) -> Bool {
            guard case .success(let bytes) = fetch("o", range) else { return false }
            return bytes == object[range]
        }
    }

    private static let cacheys = ["a:1", "b:1", "c:1", "d:1"]

    @Test func pagesAreAskedOfTheirCacheys() throws {
        let bench = try Bench(Self.cacheys)
        #expect(bench.isServed(10..<500))
        #expect(bench.calls.asked.count == 1)
        #expect(bench.isServed(500..<3 << 20))
        #expect(bench.calls.asked.count == 4, "three pages more")
        #expect(bench.calls.asked[0].address == bench.calls.asked[1].address)
        #expect(bench.calls.asked.allSatisfy { $0.request.buckets == ["b"] })
    }

    @Test func pagesAreAsLargeAsTheCellHasThem() throws {
        let bench = try Bench(Self.cacheys, pageBytes: 256 << 10)
        #expect(bench.isServed(0..<1 << 20))
        let ranges = bench.calls.asked.map(\.request.range).sorted { $0.lowerBound < $1.lowerBound }
        #expect(ranges == (0..<4).map { $0 << 18..<($0 + 1) << 18 })
    }

    @Test func withoutCacheysTheBucketIsRead() throws {
        for bench in [try Bench([]), try Bench([], withRegistry: false)] {
            #expect(bench.isServed(0..<3 << 20))
            #expect(bench.calls.asked.isEmpty)
        }
        let elsewhere = try Bench([])
        try elsewhere.run { try await elsewhere.register("z:1", zone: "other") }
        #expect(elsewhere.isServed(0..<10) && elsewhere.calls.asked.isEmpty)
    }

    @Test func allBucketsAreAskedTheOneThatWasNamedFirst() throws {
        let bench = try Bench(Self.cacheys, buckets: 2)
        #expect(bench.isServed(0..<10))
        #expect(bench.calls.asked.map(\.request.buckets) == [["b", "c"]])
        var answer: Result<Bytes, ReadFetcher.Failure>?
        bench.fetcher.fetch(bucket: "c", object: "o", range: 0..<10) { answer = $0 }
        bench.loop.run { answer != nil }
        #expect(bench.calls.asked.last?.request.buckets == ["c", "b"])
        // Without cacheys too.
        let direct = try Bench([], buckets: 2)
        try direct.run { _ = try await direct.second.put("copy", [direct.object], ifAbsent: true) }
        guard case .success(let bytes) = direct.fetch("copy", 5..<50) else {
            return #expect(Bool(false), "the second bucket has a copy")
        }
        #expect(bytes == direct.object[5..<50])
        guard case .failure(.gone) = direct.fetch("missing", 0..<10) else {
            return #expect(Bool(false), "gone from both buckets")
        }
    }

    @Test func failuresGoDownTheRanksAndThenToTheBucket() throws {
        for answer in [
            CacheyCalls.Answer.end(.connectionLost), .end(.overloaded), .end(.draining),
            .end(.unavailable), .end(.unknownMethod), .never, .tooMuch,
        ] {
            let bench = try Bench(Self.cacheys)
            #expect(bench.isServed(0..<10))
            let first = bench.calls.asked[0].address
            bench.calls.answers[first] = answer
            #expect(bench.isServed(0..<10))
            #expect(bench.calls.asked.count == 3 && bench.calls.asked[2].address != first)
            for address in Self.cacheys { bench.calls.answers[address] = answer }
            bench.loop.advance(.seconds(4))
            #expect(bench.isServed(0..<10))
            #expect(bench.calls.asked.count == 6, "three ranks, then the bucket")
        }
    }

    @Test func whoFailedIsAvoidedForAWhile() throws {
        let bench = try Bench(Self.cacheys)
        #expect(bench.isServed(0..<10))
        let first = bench.calls.asked[0].address
        bench.calls.answers[first] = .never
        var answered = 0
        for _ in 0..<5 {
            bench.fetcher.fetch(bucket: "b", object: "o", range: 0..<10) { _ in answered += 1 }
        }
        bench.loop.run { answered == 5 }
        #expect(bench.calls.asked.count == 11)
        #expect(bench.told.failures == 1, "all that waited for it fail together")
        #expect(bench.isServed(0..<10))
        #expect(bench.calls.asked.count == 12, "it is not asked again")
        #expect(bench.told.failures == 1)
        bench.calls.answers = [:]
        bench.loop.advance(.seconds(4))
        #expect(bench.isServed(0..<10))
        #expect(bench.calls.asked[12].address == first)
    }

    /// The places of the object's first page, where nobody has anything to do.
    private static let ranks = CacheyNode.choose(
        cacheys.map { CacheyNode(address: $0, load: 0) },
        key: CacheyNode.key(bucket: "b", object: "o", page: 0), bytes: 1)

    @Test func whoTellsOfMuchToDoIsPassedOver() throws {
        let bench = try Bench(Self.cacheys)
        #expect(bench.isServed(0..<10))
        bench.loads[Self.ranks[0]] = CacheyLoad(egressBytesPerSecond: 1_000_000_000)
        bench.loop.advance(.seconds(2))
        #expect(bench.isServed(0..<10))
        // So has the next, and then the one behind.
        bench.loads[Self.ranks[1]] = CacheyLoad(egressBytesPerSecond: 1_000_000_000)
        bench.loop.advance(.seconds(2))
        #expect(bench.isServed(0..<10))
        bench.loads = [:]
        bench.loop.advance(.seconds(2))
        #expect(bench.isServed(0..<10))
        let order = [Self.ranks[0], Self.ranks[1], Self.ranks[2], Self.ranks[0]]
        #expect(bench.calls.asked.map(\.address) == order)
    }

    /// Whatever its row says: 64 MiB is what may be asked of one while others have nothing to do.
    @Test func whoOwesUsMuchIsPassedOver() throws {
        let bench = try Bench(Self.cacheys)
        bench.calls.answers[Self.ranks[0]] = .held
        var served = 0
        for _ in 0..<64 {
            #expect(bench.begin { served += $0 ? 1 : 0 } == Self.ranks[0])
        }
        #expect(served == 0)
        #expect(bench.begin { served += $0 ? 1 : 0 } == Self.ranks[1])
        #expect(served == 1, "the next in rank answers at once")
        bench.calls.release()
        bench.loop.settle()
        #expect(served == 65)
        #expect(bench.begin { _ in } == Self.ranks[0], "what came is owed no more")
    }

    @Test func goneAndShortObjects() throws {
        let bench = try Bench(Self.cacheys)
        guard case .failure(.gone) = bench.fetch("missing", 0..<10) else {
            return #expect(Bool(false), "a missing object is gone")
        }
        #expect(bench.calls.asked.count == 1)
        for answer in [CacheyCalls.Answer.short, .end(.rangeNotSatisfiable)] {
            for address in Self.cacheys { bench.calls.answers[address] = answer }
            guard case .failure(.failed(let error)) = bench.fetch("o", 0..<10) else {
                return #expect(Bool(false), "an object that is too short is a failure")
            }
            #expect(error.code == .storage)
        }
    }

    @Test func theDeadAreForgottenAndTheNewFound() throws {
        let bench = try Bench(["a:1"])
        #expect(bench.isServed(0..<10) && bench.calls.asked.count == 1)
        bench.loop.advance(.seconds(10))
        #expect(bench.isServed(0..<10) && bench.calls.asked.count == 2)
        bench.isRenewing = false
        bench.loop.advance(.seconds(10))
        #expect(bench.isServed(0..<10) && bench.calls.asked.count == 2)
        try bench.run { try await bench.register("b:1") }
        bench.loop.advance(.seconds(2))
        #expect(bench.isServed(0..<10))
        #expect(bench.calls.asked.map(\.address) == ["a:1", "a:1", "b:1"])
    }
}
