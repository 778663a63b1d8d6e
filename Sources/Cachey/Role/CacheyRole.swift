// SPDX-License-Identifier: Apache-2.0

package import HTTP
internal import Metadata
internal import ObjectStorage
internal import Observability
package import Primitives
package import RPC

/// A cachey: reads immutable objects for the readers of its zone, page by page, and keeps them.
///
/// Readers share pages, so a bucket is asked once for what many want, and later ones need not wait
/// for it at all. It owns nothing: whatever becomes of it, readers ask another one, or the bucket.
/// Processes fetch over RPC; `/fetch/{kind}/{object}` is the same over HTTP. Confined to its
/// world's loop.
package final class CacheyRole: CallService, HTTPService {
    private let world: CacheyWorld
    private let limits: CacheyLimits
    let metrics: CacheyMetrics
    let pages: PageStore
    let sessions: FetchSessions
    private let enrolment: Enrolment
    private var isStarted = false
    private var isDraining = false
    private let drained = Signal<Void>()

    package init(world: CacheyWorld, limits: CacheyLimits) {
        precondition(limits.pageBytes > 0 && limits.lookaheadPages > 0)
        precondition(
            limits.responseBufferBytesMax >= 1 << 20,
            "a client that has taken little must be told apart from one that has taken enough")
        self.world = world
        self.limits = limits
        let metrics = CacheyMetrics(world.metrics)
        self.metrics = metrics
        pages = PageStore(world: world, limits: limits, metrics: metrics)
        sessions = FetchSessions(world: world, limits: limits, store: pages)
        enrolment = Enrolment(world: world, limits: limits) { [loop = world.loop] in
            CacheyLoad(
                egressBytesPerSecond: UInt64(metrics.egressBytesPerSecond(at: loop.now)))
        }
        addGauges()
    }

    /// Whether new requests are taken.
    package var isReady: Bool { isStarted && !isDraining }

    /// Makes itself known and begins to serve; what is on disk is found in the background. Throws
    /// if metadata is away.
    package func start() async throws {
        let cell = try await enrolment.start()
        pages.disk?.start(cell: cell)
        isStarted = true
    }

    /// Leaves the list, refuses what comes new, and returns once all that is in flight is over, or
    /// after `limit`.
    package func drain(within limit: Nanoseconds = .seconds(20)) async {
        if !isDraining {
            isDraining = true
            _ = world.loop.after(limit) { [drained] in drained.set(()) }
            world.loop.spawn { [self] in
                // Metadata that is away must not hold the drain up.
                await enrolment.stop()
                sessions.onEmpty = { [drained] in drained.set(()) }
                if sessions.count == 0 { drained.set(()) }
            }
        }
        await drained.wait()
        sessions.cancelAll()
    }

    // MARK: Requests

    package func serve(
        _ call: any Call, method: Method, payload: Bytes, deadline: Nanoseconds?
    ) {
        guard method == .fetch else { return call.end(.unknownMethod, Bytes()) }
        guard !isDraining else { return call.end(.draining, Bytes()) }
        guard isStarted else { return call.end(.unavailable, Bytes()) }
        FetchCall(call, world: world, metrics: metrics)
            .serve(payload, deadline: deadline, sessions)
    }

    package func serve(_ exchange: any HTTPExchange) {
        let request = exchange.request
        guard request.method == "GET" || request.method == "HEAD" else {
            return exchange.sendText(405, "only GET and HEAD\n", [("allow", "GET, HEAD")])
        }
        switch request.path {
        case "/stats": exchange.sendText(200, stats, contentType: "application/json")
        case "/metrics":
            exchange.sendText(
                200, world.metrics.render(), contentType: "text/plain; version=0.0.4")
        case "/health", "/health/ready":
            exchange.sendText(isReady ? 200 : 503, isReady ? "OK\n" : "not ready\n")
        case "/health/live": exchange.sendText(200, "OK\n")
        case let path where path.hasPrefix("/fetch/"):
            guard isReady else {
                return exchange.sendText(503, "not ready\n", [("retry-after", "1")])
            }
            FetchExchange(exchange, world: world, limits: limits, metrics: metrics)
                .serve(sessions)
        default: exchange.sendText(404, "there are /fetch, /stats, /metrics and /health\n")
        }
    }

    private var stats: String {
        let now = world.loop.now
        let egress = metrics.egressBytesPerSecond(at: now)
        let ingress = metrics.ingressBytesPerSecond(at: now)
        return "{\"egress_throughput_10s_bps\":\(egress),\"ingress_throughput_10s_bps\":\(ingress)}"
    }

    // MARK: Gauges

    private func addGauges() {
        let registry = world.metrics
        let (loop, downloads) = (world.loop, pages.downloads)
        registry.gauge("memory_bytes", help: "Pages in memory, with their keys.") { [weak pages] in
            Double(pages?.memory.bytes ?? 0)
        }
        registry.gauge("memory_pages", help: "Pages in memory.") { [weak pages] in
            Double(pages?.memory.count ?? 0)
        }
        registry.gauge("disk_bytes", help: "Blocks on disk.") { [weak pages] in
            Double(pages?.disk?.bytes ?? 0)
        }
        registry.gauge("disk_pages", help: "Pages on disk.") { [weak pages] in
            Double(pages?.disk?.pageCount ?? 0)
        }
        registry.gauge("fetches", help: "Requests being served.") { [weak sessions] in
            Double(sessions?.count ?? 0)
        }
        registry.gauge("gets", help: "Requests to buckets in flight.") { [weak downloads] in
            Double(downloads?.getsInFlight ?? 0)
        }
        registry.gauge("pages_in_flight", help: "Pages being fetched from buckets or disk.") {
            [weak pages] in Double(pages?.flights.flightCount ?? 0)
        }
        registry.gauge("waiters", help: "Requests that wait for a page.") { [weak pages] in
            Double(pages?.flights.waiterCount ?? 0)
        }
        for (index, bucket) in world.buckets.enumerated() {
            let labels = "bucket=\"\(bucket.name)\""
            registry.gauge(
                "bucket_error_ratio", labels: labels, help: "Requests that failed, lately."
            ) { [weak downloads] in downloads?.scores.errorRate(index, at: loop.now) ?? 0 }
            registry.gauge(
                "bucket_latency_seconds", labels: labels, help: "Mean time of a page, lately."
            ) { [weak downloads] in
                Double(downloads?.scores.latency(index, at: loop.now) ?? 0) / 1e9
            }
            registry.gauge(
                "bucket_circuit_open", labels: labels, help: "1 while the bucket is left alone."
            ) { [weak downloads] in
                downloads?.scores.isOpen(index, at: loop.now) == true ? 1 : 0
            }
        }
    }
}
