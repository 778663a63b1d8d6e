// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import TestSupport

@testable import CacheyRole

/// A cachey with one bucket or more, all in memory, on a manual clock. Pages have 1,000 bytes.
final class Bench {
    static let pageBytes = 1_000
    let loop: ManualLoop
    let registry: MemoryMetadata
    let buckets: [FakeBucket]
    let disk: FakeDisk?
    let role: CacheyRole
    let limits: CacheyLimits
    let world: CacheyWorld

    convenience init(
        buckets names: [String] = ["b"], disk: FakeDisk? = nil,
        _ adjust: (inout CacheyLimits) -> Void = { _ in }
    ) throws {
        try self.init(
            loop: disk?.loop ?? ManualLoop(), registry: MemoryMetadata { 1 }, names, disk, adjust)
    }

    init(
        loop: ManualLoop, registry: MemoryMetadata, _ names: [String], _ disk: FakeDisk?,
        _ adjust: (inout CacheyLimits) -> Void
    ) throws {
        self.loop = loop
        self.registry = registry
        self.disk = disk
        let buckets = names.map { _ in FakeBucket(loop) }
        self.buckets = buckets
        var limits = CacheyLimits(address: "c:1")
        limits.pageBytes = Self.pageBytes
        limits.memoryBytesMax = 1 << 20
        limits.diskBytesMax = 1 << 20
        adjust(&limits)
        self.limits = limits
        world = CacheyWorld(
            loop: loop, registry: registry,
            buckets: zip(names, buckets).map { Bucket(name: $0, store: $1) }, disk: disk,
            log: .silent, metrics: Metrics(role: "cachey"))
        role = CacheyRole(world: world, limits: limits)
        try run { [role] in try await role.start() }
    }

    var bucket: FakeBucket { buckets[0] }
    var gets: Int { buckets.reduce(0) { $0 + $1.gets.count } }

    /// The same object in all buckets.
    @discardableResult
    func put(_ key: String, _ count: Int) -> Bytes {
        let salt = key.utf8.reduce(7) { ($0 * 31 + Int($1)) % 251 }
        let object = Bytes((0..<count).map { UInt8(($0 * 7 + $0 / 256 + salt) % 256) })
        for bucket in buckets { bucket.objects[key] = object }
        return object
    }

    func run(_ body: @escaping () async throws -> Void) throws {
        var result: Result<Void, any Error>?
        loop.spawn {
            do { result = .success(try await body()) } catch { result = .failure(error) }
        }
        loop.settle()
        loop.advance(until: { result != nil })
        guard let result else { throw Stuck() }
        try result.get()
    }

    struct Stuck: Error {}

    func fetch(
        _ object: String, _ range: Range<Int>, _ buckets: [String] = ["b"],
        deadline: Nanoseconds? = nil
    ) -> FakeCall {
        let call = FakeCall()
        begin(call, object, range, buckets, deadline: deadline)
        return call
    }

    func begin(
        _ call: FakeCall, _ object: String, _ range: Range<Int>, _ buckets: [String] = ["b"],
        deadline: Nanoseconds? = nil
    ) {
        let request = FetchRequest(buckets: buckets, object: object, range: range)
        role.serve(call, method: .fetch, payload: request.encoded(), deadline: deadline)
        loop.settle()
    }

    /// A fetch to its end.
    func fetched(
        _ object: String, _ range: Range<Int>, _ buckets: [String] = ["b"]
    ) -> FakeCall {
        let call = fetch(object, range, buckets)
        loop.advance(until: { call.ended != nil })
        return call
    }

    func http(
        _ method: String, _ path: String, _ headers: [(name: String, value: String)] = [],
        isHTTP2: Bool = true
    ) -> FakeExchange {
        let exchange = FakeExchange(method, path, headers, isHTTP2: isHTTP2)
        role.serve(exchange)
        loop.settle()
        loop.advance(until: {
            exchange.isFinished || exchange.isAborted || exchange.holdsUnsent
        })
        return exchange
    }
}

extension ManualLoop {
    /// Lets time pass in steps, for 100 seconds at most.
    fileprivate func advance(until isDone: () -> Bool) {
        var steps = 0
        while steps < 100_000, !isDone() {
            advance(.milliseconds(1))
            steps += 1
        }
    }
}

func page(_ count: Int, of size: Int? = nil, bucket: String = "b") -> CachedPage {
    CachedPage(
        bytes: Bytes([UInt8](repeating: 7, count: count)), objectSize: size ?? count,
        bucket: bucket, fetchedSeconds: 9)
}

func key(_ number: Int, _ object: String = "o") -> PageKey {
    PageKey(bucketSet: "b", object: object, number: number)
}
