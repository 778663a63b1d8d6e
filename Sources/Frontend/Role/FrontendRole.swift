// SPDX-License-Identifier: Apache-2.0

internal import Compression
package import HTTP
internal import Observability
package import Primitives

/// The cell's face to clients: S2's API over HTTP.
///
/// A request is routed, then authorized, then handed on: what concerns records to the data path,
/// which answers at its own pace, everything else to the control plane, which reads the whole
/// request and sends a whole reply. A change that was begun goes on when its client leaves.
///
/// Draining refuses what comes new with `server_draining`, which is true because nothing was begun
/// for it, and sees what is in flight to its end. Confined to its world's loop.
package final class FrontendRole: HTTPService {
    /// Bytes of a control request's body, before and after decompression.
    static let controlBodyBytesMax = 256 << 10
    /// Bytes of the larger bodies of all control requests at once, each as long as it may be.
    static let controlBytesMax = 32 << 20
    /// Bodies up to this size count as requests only.
    static let smallBodyBytesMax = 4_096
    /// Control requests at once, beyond which a request is refused.
    static let controlRequestsMax = 8_192

    private let world: FrontendWorld
    private let authorization: Authorization
    private let cell: Cell
    private let records: RecordsEndpoint
    private let basins: BasinEndpoint
    private let streams: StreamEndpoint
    private let later = LaterEndpoints()
    private let codec = Codec()
    private let requestCounters: [Counter]
    private let controlSeconds: Histogram
    private let checkTailSeconds: Histogram

    private var isStarted = false
    private var drained: Signal<Bool>?
    private var requestsInFlight = 0
    private var controlRequests = 0
    private var controlBytes = 0

    package init(world: FrontendWorld, limits: FrontendLimits) {
        self.world = world
        authorization = Authorization(rootToken: limits.rootToken)
        let cell = Cell(world: world, limits: limits)
        self.cell = cell
        records = RecordsEndpoint(world: world, limits: limits, cell: cell)
        basins = BasinEndpoint(world: world)
        streams = StreamEndpoint(world: world) { await cell.refresh($0, deleted: $1) }
        requestCounters = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"].map {
            world.metrics.counter(
                "requests_total", labels: "status=\"\($0)\"", help: "Requests that are over.")
        }
        (controlSeconds, checkTailSeconds) = Self.histograms(world.metrics)
        world.metrics.gauge("requests", help: "Requests in flight.") { [weak self] in
            Double(self?.requestsInFlight ?? 0)
        }
    }

    private static func histograms(
        _ metrics: Metrics
    ) -> (control: Histogram, checkTail: Histogram) {
        let help = "Time of a request, from its arrival to the end of its response."
        return (
            metrics.histogram("request_seconds", labels: "kind=\"control\"", help: help),
            metrics.histogram("request_seconds", labels: "kind=\"check_tail\"", help: help)
        )
    }

    /// Begins to watch the cell. Call once, before the first request.
    package func start() {
        isStarted = true
        cell.start()
        records.start()
    }

    /// Whether new requests are taken.
    package var isReady: Bool { isStarted && drained == nil }

    /// Refuses new requests and returns once all that is in flight is over, or after `limit`; true
    /// if nothing is left.
    @discardableResult
    package func drain(within limit: Nanoseconds) async -> Bool {
        if let drained { return await drained.wait() }
        let drained = Signal<Bool>()
        self.drained = drained
        records.drain()
        if requestsInFlight == 0 { drained.set(true) }
        let timer = world.loop.after(limit) { drained.set(false) }
        let isEmpty = await drained.wait()
        timer.cancel()
        return isEmpty
    }

    // MARK: Serving

    package func serve(_ exchange: any HTTPExchange) {
        requestsInFlight += 1
        let exchange = ServedExchange(exchange, arrived: world.loop.now) { [self] in over($0) }
        do throws(APIError) {
            try route(exchange)
        } catch {
            BodyReader.refuse(exchange, error, loop: world.loop)
        }
    }

    private func over(_ exchange: ServedExchange) {
        requestsInFlight -= 1
        exchange.seconds?.record(world.loop.now - exchange.arrived)
        let index = exchange.status.map { $0 / 100 - 1 } ?? requestCounters.count - 1
        requestCounters[min(max(index, 0), requestCounters.count - 1)].add()
        if requestsInFlight == 0 { drained?.set(true) }
    }

    private func route(_ exchange: ServedExchange) throws(APIError) {
        let request = exchange.request
        if request.method == "OPTIONS" {
            exchange.send(CrossOrigin.preflight(request))
            return
        }
        guard let resource = Resource(path: request.path) else {
            throw APIError(.notFound, "there is nothing at this path")
        }
        guard resource.methods.contains(request.method) else {
            let allowed = resource.methods.joined(separator: ", ")
            let error = APIError(.methodNotAllowed, "the method must be one of: \(allowed)")
            exchange.send(.json(error.status, error.body, [("allow", allowed)]))
            return
        }
        if resource.isOpen {
            exchange.send(openReply(resource))
            return
        }
        guard isReady else { throw APIError(.serverDraining, "the server takes no new requests") }
        try authorization.check(request)
        switch resource {
        case .records(let stream):
            try serveRecords(exchange, stream, request.method == "POST" ? .append : .read)
        case .tail(let stream):
            exchange.seconds = checkTailSeconds
            try serveRecords(exchange, stream, .checkTail)
        default: try serveControl(exchange, resource)
        }
    }

    private func openReply(_ resource: Resource) -> Reply {
        if resource == .metricsPage {
            return .text(
                200, world.metrics.render(), contentType: "text/plain; version=0.0.4")
        }
        return isReady ? .text(200, "OK") : .text(503, isStarted ? "draining" : "starting")
    }

    private func serveRecords(
        _ exchange: ServedExchange, _ stream: String, _ operation: RecordsOperation
    ) throws(APIError) {
        let basin = try exchange.request.basin()
        records.serve(
            exchange, basin: basin, stream: try Resource.streamName(stream), operation: operation)
    }

    private func serveControl(
        _ exchange: ServedExchange, _ resource: Resource
    ) throws(APIError) {
        let bytesMax = Self.bodyBytesMax(exchange.request)
        let bytes = bytesMax > Self.smallBodyBytesMax ? bytesMax : 0
        guard controlRequests < Self.controlRequestsMax,
            controlBytes + bytes <= Self.controlBytesMax
        else { throw APIError(.rateLimited, "too many requests at once") }
        controlRequests += 1
        controlBytes += bytes
        exchange.seconds = controlSeconds
        BodyReader.read(
            exchange, bytesMax: bytesMax, codec: codec, loop: world.loop
        ) { [self] body in
            let request = ControlRequest(head: exchange.request, body: body)
            world.loop.spawn { [self] in
                do throws(APIError) {
                    exchange.send(try await answer(request, resource))
                } catch {
                    exchange.fail(error)
                }
                controlRequests -= 1
                controlBytes -= bytes
            }
        }
    }

    /// How long a request's body may be.
    private static func bodyBytesMax(_ request: HTTPRequest) -> Int {
        if request.header("content-encoding") == nil, let length = request.contentLength {
            return length <= smallBodyBytesMax ? smallBodyBytesMax : controlBodyBytesMax
        }
        // Nobody sends a body with other methods, but nothing forbids it.
        let hasBody = ["POST", "PUT", "PATCH"].contains(request.method)
        return hasBody ? controlBodyBytesMax : smallBodyBytesMax
    }

    private func answer(
        _ request: ControlRequest, _ resource: Resource
    ) async throws(APIError) -> Reply {
        // Whoever left before the request was complete did not ask for anything.
        if case .failure(let error) = request.body, error.code == .clientHangup { throw error }
        return switch resource {
        case .basins: try await basins.serveAll(request)
        case .basin(let name): try await basins.serve(request, name)
        case .streams: try await streams.serveAll(request)
        case .stream(let name): try await streams.serve(request, name)
        default: try later.serve(request, resource)
        }
    }
}
