// SPDX-License-Identifier: Apache-2.0

internal import ObjectStorage
internal import Observability
internal import Primitives
internal import RPC

/// Fetches ranges of objects: the one way from readers to bytes at rest.
///
/// A range is asked of the zone's cacheys, page by page, each of the cachey that has this page's
/// place; if that one fails, of the next two. Whatever they cannot do, and everything while there
/// are none, is read from the buckets themselves.
///
/// A range is of some bucket, but the cell's other buckets may have a copy of its object, so they
/// are named behind it, and asked where it fails. The pages' grain is a setting of the cell: were
/// it another one than the cacheys', bytes would be right all the same, but pages be kept twice.
final class ReadFetcher {
    private let world: FrontendWorld
    private let metrics: RecordsMetrics
    private let directory: CacheyDirectory?
    private let backoff: Backoff
    private let cacheyNanoseconds: Nanoseconds
    private let buckets: [String]
    private let fromCachey: Counter
    private let fromBucket: Counter
    private let cacheyFailures: Counter
    private let pageBytes: Int
    private static let once = Backoff(triesMax: 1)

    init(world: FrontendWorld, limits: FrontendLimits, metrics: RecordsMetrics) {
        self.world = world
        self.metrics = metrics
        directory = world.cacheys.map {
            CacheyDirectory(registry: $0, world: world, limits: limits)
        }
        backoff = Backoff(
            first: .milliseconds(20), delayMax: .milliseconds(500), triesMax: 8,
            budget: limits.callNanoseconds)
        cacheyNanoseconds = limits.cacheyNanoseconds
        pageBytes = limits.pageBytes
        buckets = world.buckets.map(\.name)
        let (name, help) = ("fetches_total", "Ranges fetched, by where they came from.")
        fromCachey = world.metrics.counter(name, labels: "source=\"cachey\"", help: help)
        fromBucket = world.metrics.counter(name, labels: "source=\"bucket\"", help: help)
        cacheyFailures = world.metrics.counter(
            "cachey_failures_total", help: "Calls to cacheys that brought nothing.")
    }

    enum Failure: Error {
        /// No such object any more: plan again.
        case gone
        case failed(APIError)
    }

    /// All of `range`; an object that ends before is a failure. `then` is called once, later.
    func fetch(
        bucket: String, object: String, range: Range<Int>,
        then: @escaping (Result<Bytes, Failure>) -> Void
    ) {
        world.loop.spawn { [self] in
            let start = world.loop.now
            do throws(Failure) {
                let bytes = try await fetch(bucket, object, range)
                metrics.fetchBytes.add(bytes.count)
                metrics.fetchSeconds.record(world.loop.now - start)
                then(.success(bytes))
            } catch {
                then(.failure(error))
            }
        }
    }

    private func fetch(
        _ bucket: String, _ object: String, _ range: Range<Int>
    ) async throws(Failure) -> Bytes {
        guard let directory else { return try await fetchDirectly(bucket, object, range) }
        await directory.ready()
        let parts = Self.parts(of: range, pageBytes: pageBytes)
        if let first = parts.first, parts.count == 1 {
            return try await fetchPart(bucket, object, first, directory)
        }
        // With nobody to ask, one request to the bucket does for all pages.
        guard !candidates(directory, bucket, object, parts[0]).isEmpty else {
            return try await fetchDirectly(bucket, object, range)
        }
        let gathering = Gathering(count: parts.count)
        for (index, part) in parts.enumerated() {
            world.loop.spawn { [self] in
                do throws(Failure) {
                    let bytes = try await fetchPart(bucket, object, part, directory)
                    gathering.add(index, .success(bytes))
                } catch {
                    gathering.add(index, .failure(error))
                }
            }
        }
        return try await gathering.all().joined()
    }

    /// `range`, cut where pages end.
    static func parts(of range: Range<Int>, pageBytes: Int) -> [Range<Int>] {
        var parts: [Range<Int>] = []
        var start = range.lowerBound
        repeat {
            let end = min((start / pageBytes + 1) * pageBytes, range.upperBound)
            parts.append(start..<end)
            start = end
        } while start < range.upperBound
        return parts
    }

    private func candidates(
        _ directory: CacheyDirectory, _ bucket: String, _ object: String, _ part: Range<Int>
    ) -> [String] {
        directory.candidates(
            bucket: bucket, object: object, page: part.lowerBound / pageBytes,
            bytes: part.count)
    }

    /// A range within one page.
    private func fetchPart(
        _ bucket: String, _ object: String, _ part: Range<Int>, _ directory: CacheyDirectory
    ) async throws(Failure) -> Bytes {
        let request = FetchRequest(
            buckets: Array(names(from: bucket).prefix(FetchRequest.bucketsMax)), object: object,
            range: part
        ).encoded()
        for address in candidates(directory, bucket, object, part) {
            directory.began(address, bytes: part.count)
            let reply = await CacheyCall.fetch(
                world.calls, address, request, bytesMax: part.count, limit: cacheyNanoseconds)
            directory.ended(address, bytes: part.count)
            switch reply.status {
            case .ok where reply.bytes.count == part.count:
                fromCachey.add()
                return reply.bytes
            case .objectNotFound: throw .gone
            case .ok, .rangeNotSatisfiable: throw tooShort(object)
            // The bucket failed it: another cachey may have the page, and this one does no worse.
            case .unavailable: break
            default: directory.failed(address, reply.status)
            }
            cacheyFailures.add()
        }
        return try await fetchDirectly(bucket, object, part)
    }

    /// The buckets that may have an object of `bucket`, in the order in which they are asked.
    private func names(from bucket: String) -> [String] {
        [bucket] + buckets.filter { $0 != bucket }
    }

    /// An object is gone once every bucket says so; else the first failure is told.
    private func fetchDirectly(
        _ bucket: String, _ object: String, _ range: Range<Int>
    ) async throws(Failure) -> Bytes {
        var failure = Failure.gone
        let names = names(from: bucket)
        for (index, name) in names.enumerated() {
            do throws(Failure) {
                // Only the last one is asked with patience.
                let isLast = index == names.count - 1
                return try await fetch(from: name, object, range, isLast ? backoff : Self.once)
            } catch {
                if case .gone = failure { failure = error }
            }
        }
        throw failure
    }

    private func fetch(
        from bucket: String, _ object: String, _ range: Range<Int>, _ backoff: Backoff
    ) async throws(Failure) -> Bytes {
        guard let store = world.buckets.first(where: { $0.name == bucket })?.store else {
            throw .failed(APIError(.storage, "the bucket \(bucket) is not configured here"))
        }
        let slice: ObjectSlice
        do throws(StoreError) {
            slice = try await store.getRetrying(
                object, range: range, loop: world.loop, random: world.random, backoff: backoff)
        } catch {
            if error.kind == .notFound { throw .gone }
            world.log.warning("fetch_failed", [("object", object), ("error", "\(error)")])
            throw .failed(APIError(error))
        }
        guard slice.bytes.count == range.count else { throw tooShort(object) }
        fromBucket.add()
        return slice.bytes
    }

    private func tooShort(_ object: String) -> Failure {
        world.log.error("object_too_short", [("object", object)])
        return .failed(APIError(.storage, "an object is shorter than it must be"))
    }
}

/// Several parts on their way; the first failure is the whole's.
private final class Gathering {
    private var parts: [Bytes]
    private var missing: Int
    private let done = Signal<Result<[Bytes], ReadFetcher.Failure>>()

    init(count: Int) {
        parts = Array(repeating: Bytes(), count: count)
        missing = count
    }

    func add(_ index: Int, _ result: Result<Bytes, ReadFetcher.Failure>) {
        switch result {
        case .success(let bytes):
            parts[index] = bytes
            missing -= 1
            if missing == 0 { done.set(.success(parts)) }
        case .failure(let failure): done.set(.failure(failure))
        }
    }

    func all() async throws(ReadFetcher.Failure) -> [Bytes] { try await done.wait().get() }
}

/// One call to a cachey.
private enum CacheyCall {
    /// What came, and how it ended; `.ok` with fewer bytes if the object is shorter. Ends within
    /// `limit`.
    static func fetch(
        _ calls: any CallClient, _ address: String, _ request: Bytes, bytesMax: Int,
        limit: Nanoseconds
    ) async -> (status: Status, bytes: Bytes) {
        await withUnsafeContinuation {
            (waiter: UnsafeContinuation<(status: Status, bytes: Bytes), Never>) in
            var parts: [Bytes] = []
            var isOver = false
            let call = calls.call(address, .fetch, request, deadline: limit)
            call.onMessage = { [unowned call] part in
                guard !isOver else { return }
                parts.append(part)
                call.consumed(part.count)
                guard byteCount(parts) > bytesMax else { return }
                // It sends what nobody asked for.
                isOver = true
                call.cancel()
                waiter.resume(returning: (.malformed, Bytes()))
            }
            call.onEnd = { status, _ in
                guard !isOver else { return }
                isOver = true
                waiter.resume(returning: (status, parts.joined()))
            }
        }
    }
}
