// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Pages, wherever they are: in memory, on disk, or in a bucket, in this order.
///
/// However many ask for a page at once, it is read from disk or fetched once. It then stands in
/// memory, and goes to disk once; it goes there again if it was used so long that its copy on disk
/// is about to leave.
final class PageStore {
    typealias Answer = Result<(page: CachedPage, source: PageSource), FetchFailure>

    /// A wait that can be given up.
    struct Ticket {
        fileprivate let key: PageKey
        fileprivate let number: UInt64
    }

    let downloads: PageDownloads
    let disk: DiskTier?
    private(set) var memory: PageCache
    private(set) var flights: SingleFlight<(Answer) -> Void>
    private let world: CacheyWorld
    private let metrics: CacheyMetrics
    private let mutant: CacheyMutant?

    init(world: CacheyWorld, limits: CacheyLimits, metrics: CacheyMetrics) {
        self.world = world
        self.metrics = metrics
        mutant = limits.mutant
        downloads = PageDownloads(world: world, limits: limits, metrics: metrics)
        disk = world.disk.map {
            DiskTier($0, world: world, limits: limits, metrics: metrics)
        }
        memory = PageCache(bytesMax: limits.memoryBytesMax)
        flights = SingleFlight(flightsMax: limits.flightsMax, waitersMax: limits.waitersMax)
    }

    /// The page, if it is in memory.
    func inMemory(_ key: PageKey) -> CachedPage? {
        guard let page = memory.hit(place(key)) else { return nil }
        metrics.served(.memory)
        return page
    }

    /// Calls `then` with the page, once, later; not if the ticket is given back first. Nil if there
    /// is no room for another wait: `then` is not called.
    func page(
        _ key: PageKey, _ buckets: [Int], then: @escaping (Answer) -> Void
    ) -> Ticket? {
        let (join, number) = flights.join(key, then)
        switch join {
        case .full: return nil
        case .follower: break
        case .leader: fetch(key, buckets)
        }
        return Ticket(key: key, number: number)
    }

    func leave(_ ticket: Ticket) { flights.leave(ticket.key, ticket.number) }

    private func fetch(_ key: PageKey, _ buckets: [Int]) {
        guard let disk, disk.contains(key) else { return download(key, buckets) }
        disk.read(key) { [self] page in
            guard let page else { return download(key, buckets) }
            add(key, page)
            land(key, .success((page, .disk)))
        }
    }

    private func download(_ key: PageKey, _ buckets: [Int]) {
        downloads.start(key, buckets) { [self] result in
            switch result {
            case .success(let page):
                add(key, page)
                disk?.keep(key, page)
                land(key, .success((page, .bucket)))
            case .failure(let failure): land(key, .failure(failure))
            }
        }
    }

    private func add(_ key: PageKey, _ page: CachedPage) {
        for left in memory.insert(place(key), page) { disk?.keep(left.key, left.page) }
    }

    /// Under which key a page stands in memory: its own, but for a mutant.
    private func place(_ key: PageKey) -> PageKey {
        guard mutant == .objectIgnored else { return key }
        return PageKey(bucketSet: key.bucketSet, object: "any", number: key.number)
    }

    private func land(_ key: PageKey, _ answer: Answer) {
        var answer = answer
        for (_, waiter) in flights.land(key) {
            if case .success(let success) = answer { metrics.served(success.source) }
            waiter(answer)
            // The others did not cause it, and did not find it.
            if case .success((let page, .bucket)) = answer {
                answer = .success((page, .coalesced))
            }
        }
    }
}
