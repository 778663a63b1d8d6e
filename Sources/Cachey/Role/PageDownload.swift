// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import ObjectStorage
internal import Observability
internal import Primitives

/// Fetches pages from buckets: which bucket first, when to ask again, how many at once.
///
/// Each bucket has the same share of the requests that may be in flight, whoever makes them: one
/// that hangs holds its own share and no other's.
final class PageDownloads {
    let world: CacheyWorld
    let limits: CacheyLimits
    let metrics: CacheyMetrics
    private(set) var scores: BucketScores
    private(set) var hedges: HedgePolicy
    /// By bucket: requests that have not ended, also those that nobody waits for any more.
    private var inFlight: [Int]
    private var waiting: [Deque<Place>]
    private let share: Int

    /// A place in the queue for a bucket.
    final class Place {
        fileprivate var begin: (() -> Void)?

        fileprivate init(_ begin: @escaping () -> Void) { self.begin = begin }
    }

    init(world: CacheyWorld, limits: CacheyLimits, metrics: CacheyMetrics) {
        self.world = world
        self.limits = limits
        self.metrics = metrics
        scores = BucketScores(bucketCount: world.buckets.count)
        hedges = HedgePolicy(
            HedgePolicy.Settings(
                percentile: limits.hedgePercentile, budgetPercent: limits.hedgeBudgetPercent),
            bucketCount: world.buckets.count)
        inFlight = Array(repeating: 0, count: world.buckets.count)
        waiting = Array(repeating: [], count: world.buckets.count)
        share = max(1, limits.getsMax / world.buckets.count)
    }

    var getsInFlight: Int { inFlight.reduce(0, +) }
    /// Downloads that wait for their turn with a bucket.
    var waitingCount: Int { waiting.reduce(0) { $0 + $1.count } }

    /// Fetches a page from the better two of `buckets`. `then` is called once, later. The caller
    /// bounds how many downloads there are.
    func start(
        _ key: PageKey, _ buckets: [Int], then: @escaping (Result<CachedPage, FetchFailure>) -> Void
    ) {
        PageDownload(key, buckets, self, then: then).begin()
    }

    /// Calls `begin`, which asks the bucket, once it may be asked: now, for which nil is returned,
    /// or later.
    fileprivate func whenFree(_ bucket: Int, _ begin: @escaping () -> Void) -> Place? {
        guard inFlight[bucket] >= share || !waiting[bucket].isEmpty else {
            begin()
            return nil
        }
        let place = Place(begin)
        waiting[bucket].append(place)
        return place
    }

    fileprivate func leave(_ place: Place, _ bucket: Int) {
        place.begin = nil
        // As a rule it is the first.
        if let index = waiting[bucket].firstIndex(where: { $0 === place }) {
            waiting[bucket].remove(at: index)
        }
    }

    private func next(_ bucket: Int) {
        while inFlight[bucket] < share, let place = waiting[bucket].popFirst() { place.begin?() }
    }

    func order(_ buckets: [Int]) -> [Int] {
        Array(scores.order(buckets, at: world.loop.now).prefix(2))
    }

    /// How long the first request may take before it is hedged; nil for ever. Call once for each.
    func hedgeDelay(_ bucket: Int) -> Nanoseconds? {
        hedges.began()
        return hedges.delay(bucket)
    }

    func mayHedge(_ bucket: Int) -> Bool { inFlight[bucket] < share && hedges.spend() }

    /// The page as `bucket` has it.
    func get(
        _ key: PageKey, _ bucket: Int, then: @escaping (Result<CachedPage, FetchFailure>) -> Void
    ) {
        inFlight[bucket] += 1
        metrics.gets.add()
        let range = RangePlan.bytes(ofPage: key.number, pageBytes: limits.pageBytes)
        let (name, store) = (world.buckets[bucket].name, world.buckets[bucket].store)
        let start = world.loop.now
        world.loop.spawn { [self] in
            let result: Result<ObjectSlice, StoreError>
            do throws(StoreError) {
                result = .success(try await store.get(key.object, range: range))
            } catch {
                result = .failure(error)
            }
            inFlight[bucket] -= 1
            then(judge(result, key, bucket, name, latency: world.loop.now - start))
            next(bucket)
        }
    }

    /// What an answer is worth. It counts for the bucket only after it was looked at.
    private func judge(
        _ result: Result<ObjectSlice, StoreError>, _ key: PageKey, _ bucket: Int, _ name: String,
        latency: Nanoseconds
    ) -> Result<CachedPage, FetchFailure> {
        let now = world.loop.now
        switch result {
        case .success(let slice):
            metrics.received(slice.bytes.count, at: now)
            guard
                RangePlan.isWhole(
                    slice.bytes.count, page: key.number, pageBytes: limits.pageBytes,
                    objectSize: slice.objectSize)
            else {
                scores.failed(bucket, at: now)
                world.log.error("bucket_answered_wrongly", [("bucket", name)])
                return .failure(.storeFailed("\(name) sent another range than was asked for"))
            }
            scores.answered(bucket, latency: latency, at: now)
            hedges.record(bucket, latency)
            metrics.pageSeconds.record(latency)
            return .success(
                CachedPage(
                    bytes: slice.bytes, objectSize: slice.objectSize, bucket: name,
                    fetchedSeconds: world.loop.wallMilliseconds / 1_000))
        case .failure(let error):
            switch error.kind {
            case .notFound, .rangeNotSatisfiable, .invalidRequest:
                scores.answered(bucket, latency: nil, at: now)
            case .denied, .unavailable, .failed:
                scores.failed(bucket, at: now)
                world.log.warning("get_failed", [("bucket", name), ("error", error.description)])
            }
            return .failure(FetchFailure(error))
        }
    }

    func gaveUp(_ bucket: Int) { scores.failed(bucket, at: world.loop.now) }
}

extension FetchFailure {
    init(_ error: StoreError) {
        switch error.kind {
        case .notFound: self = .notFound
        case .rangeNotSatisfiable: self = .rangeNotSatisfiable
        default: self = .storeFailed(error.description)
        }
    }

    /// Whether another request to the same bucket could end differently.
    fileprivate var isFinal: Bool { self == .notFound || self == .rangeNotSatisfiable }
}

/// One page on its way: at most two buckets, and at most two requests to each.
///
/// The first page that comes wins, whichever request brought it. What a request is too late for is
/// still measured, by `PageDownloads`.
private final class PageDownload {
    private let key: PageKey
    private let buckets: [Int]
    private let downloads: PageDownloads
    private var then: ((Result<CachedPage, FetchFailure>) -> Void)?
    private var order: [Int] = []
    /// Which bucket of `order` is being asked.
    private var turn = 0
    /// Requests of this turn that may still answer.
    private var running = 0
    private var failures: [FetchFailure] = []
    private var hedgeTimer: Timer?
    private var turnTimer: Timer?
    private var place: PageDownloads.Place?

    init(
        _ key: PageKey, _ buckets: [Int], _ downloads: PageDownloads,
        then: @escaping (Result<CachedPage, FetchFailure>) -> Void
    ) {
        self.key = key
        self.buckets = buckets
        self.downloads = downloads
        self.then = then
    }

    func begin() {
        order = downloads.order(buckets)
        precondition(!order.isEmpty, "a page is fetched from a bucket")
        ask()
    }

    /// Asks the present bucket as soon as it may be asked. If another one may have the page, this
    /// is waited for no longer than for the page itself.
    private func ask() {
        let bucket = order[turn]
        place = downloads.whenFree(bucket) { [self] in
            turnTimer?.cancel()
            place = nil
            askNow()
        }
        guard let place, turn + 1 < order.count else { return }
        let limit = downloads.limits.attemptNanoseconds
        turnTimer = downloads.world.loop.after(limit) { [self] in
            downloads.leave(place, bucket)
            self.place = nil
            endTurn(.timedOut)
        }
    }

    private func askNow() {
        let (bucket, turn) = (order[turn], turn)
        let loop = downloads.world.loop
        turnTimer = loop.after(downloads.limits.attemptNanoseconds) { [self] in
            downloads.gaveUp(bucket)
            endTurn(.timedOut)
        }
        if let delay = downloads.hedgeDelay(bucket) {
            hedgeTimer = loop.after(delay) { [self] in
                guard running == 1, downloads.mayHedge(bucket) else { return }
                downloads.metrics.hedges.add()
                get(bucket, turn, isHedge: true)
            }
        }
        get(bucket, turn, isHedge: false)
    }

    private func get(_ bucket: Int, _ turn: Int, isHedge: Bool) {
        running += 1
        downloads.get(key, bucket) { [self] result in
            guard then != nil else { return }
            switch result {
            case .success(let page):
                if isHedge { downloads.metrics.hedgeWins.add() }
                finish(.success(page))
            case .failure(let failure):
                // Of a turn that was given up, only a page is welcome.
                guard turn == self.turn else { return }
                running -= 1
                if failure.isFinal || running == 0 { endTurn(failure) }
            }
        }
    }

    /// The present bucket does not serve the page.
    private func endTurn(_ failure: FetchFailure) {
        hedgeTimer?.cancel()
        turnTimer?.cancel()
        failures.append(failure)
        // The buckets hold the same objects: one knows where they end.
        guard failure != .rangeNotSatisfiable, turn + 1 < order.count else {
            // "No such object" is true only if all say so.
            let unsure = failure == .rangeNotSatisfiable ? nil : failures.first { !$0.isFinal }
            return finish(.failure(unsure ?? failure))
        }
        turn += 1
        running = 0
        downloads.metrics.fallbacks.add()
        ask()
    }

    private func finish(_ result: Result<CachedPage, FetchFailure>) {
        hedgeTimer?.cancel()
        turnTimer?.cancel()
        if let place { downloads.leave(place, order[turn]) }
        place = nil
        let then = self.then
        self.then = nil
        then?(result)
    }
}
