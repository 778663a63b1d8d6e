// SPDX-License-Identifier: Apache-2.0

internal import ObjectStorage
internal import Observability
internal import Primitives

/// Fetches ranges of objects: the one way from readers to bytes at rest.
final class ReadFetcher {
    private let world: FrontendWorld
    private let metrics: RecordsMetrics
    private let backoff: Backoff

    init(world: FrontendWorld, limits: FrontendLimits, metrics: RecordsMetrics) {
        self.world = world
        self.metrics = metrics
        backoff = Backoff(
            first: .milliseconds(20), delayMax: .milliseconds(500), triesMax: 8,
            budget: limits.callNanoseconds)
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
            do throws(Failure) {
                then(.success(try await fetch(bucket: bucket, object: object, range: range)))
            } catch {
                then(.failure(error))
            }
        }
    }

    private func fetch(
        bucket: String, object: String, range: Range<Int>
    ) async throws(Failure) -> Bytes {
        guard let store = world.buckets.first(where: { $0.name == bucket })?.store else {
            throw .failed(APIError(.storage, "the bucket \(bucket) is not configured here"))
        }
        let start = world.loop.now
        let slice: ObjectSlice
        do throws(StoreError) {
            slice = try await store.getRetrying(
                object, range: range, loop: world.loop, random: world.random, backoff: backoff)
        } catch {
            if error.kind == .notFound { throw .gone }
            world.log.warning("fetch_failed", [("object", object), ("error", "\(error)")])
            throw .failed(APIError(error))
        }
        guard slice.bytes.count == range.count else {
            world.log.error("object_too_short", [("object", object)])
            throw .failed(APIError(.storage, "an object is shorter than it must be"))
        }
        metrics.fetchBytes.add(slice.bytes.count)
        metrics.fetchSeconds.record(world.loop.now - start)
        return slice.bytes
    }
}
