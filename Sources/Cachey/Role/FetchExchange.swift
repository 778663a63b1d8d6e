// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Observability
internal import Primitives
internal import RPC

/// A range on its way to an HTTP client.
///
/// The first page is there before the status line is written, so its errors are real statuses; a
/// later page's end the body where it stands. How each page was found is told in `C0-Status`: of
/// the first in the head, of the others in trailers, where the client said that it takes them.
final class FetchExchange: PageSink {
    private let exchange: any HTTPExchange
    private let world: CacheyWorld
    private let limits: CacheyLimits
    private let metrics: CacheyMetrics
    private let begunAt: Nanoseconds
    private var wanted: Range<Int>?
    private var session: FetchSession?
    private var hasBegun = false
    private var isOver = false
    private var trailers: [(name: String, value: String)] = []

    init(
        _ exchange: any HTTPExchange, world: CacheyWorld, limits: CacheyLimits,
        metrics: CacheyMetrics
    ) {
        self.exchange = exchange
        self.world = world
        self.limits = limits
        self.metrics = metrics
        begunAt = world.loop.now
    }

    /// Serves the exchange to its end.
    func serve(_ sessions: FetchSessions) {
        exchange.onBody = { _ in }
        let headers: FetchHeaders
        do throws(FetchHeaders.Problem) {
            headers = try FetchHeaders(exchange.request)
        } catch {
            switch error {
            case .badRequest(let message): refuse(400, message, .refused)
            case .badRange(let message): refuse(416, message, .rangeNotSatisfiable)
            }
            return
        }
        wanted = headers.request.range
        exchange.onAbort = { [self] in leave() }
        exchange.onWritable = { [self] in session?.resume() }
        sessions.begin(headers.request, self) { session = $0 }
    }

    private var isHead: Bool { exchange.request.method == "HEAD" }

    private var takesTrailers: Bool {
        exchange.request.headers.contains { name, value in
            name == "te" && value.lowercased().contains("trailers")
        }
    }

    private func leave() {
        guard !isOver else { return }
        isOver = true
        metrics.over(.http, .abandoned)
        session?.cancel()
        session = nil
    }

    // MARK: Pages

    var canTake: Bool { exchange.unsentBytes <= limits.responseBufferBytesMax }

    func take(_ piece: Bytes, _ info: PieceInfo) {
        let cachedAt = info.source.isHit ? info.page.fetchedSeconds : 0
        let (first, last) = (info.range.lowerBound, info.range.upperBound - 1)
        let status = "\(first)-\(last); \(info.page.bucket); \(cachedAt)"
        if info.isFirst {
            begin(info, status)
        } else {
            trailers.append(("c0-status", status))
        }
        guard !isHead else {
            session?.cancel()
            return finish(objectSize: info.page.objectSize)
        }
        metrics.sent(piece.count, at: world.loop.now)
        exchange.write([piece])
    }

    private func begin(_ info: PieceInfo, _ status: String) {
        hasBegun = true
        metrics.firstPageSeconds.record(world.loop.now - begunAt)
        let size = info.page.objectSize
        guard let wanted else { preconditionFailure("a page comes after the request") }
        let range = wanted.lowerBound..<min(wanted.upperBound, size)
        var headers: [(name: String, value: String)] = [
            ("content-type", "application/octet-stream"),
            ("content-range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)"),
            ("c0-status", status),
        ]
        // HTTP/1.1 has trailers behind a chunked body only.
        let isWhole = info.range.upperBound == range.upperBound
        if isHead || isWhole || exchange.request.isHTTP2 || !takesTrailers {
            headers.append(("content-length", "\(range.count)"))
        } else {
            headers.append(("trailer", "c0-status"))
        }
        exchange.respond(206, headers)
    }

    func finish(objectSize: Int) {
        guard !isOver else { return }
        isOver = true
        metrics.over(.http, .done)
        session = nil
        exchange.finish(trailers: takesTrailers ? trailers : [])
    }

    func fail(_ failure: FetchFailure, objectSize: Int?) {
        guard !isOver else { return }
        if hasBegun {
            isOver = true
            metrics.over(.http, CacheyMetrics.Outcome(failure))
            session = nil
            return exchange.abort()
        }
        let status =
            switch failure {
            case .notFound: 404
            case .rangeNotSatisfiable: 416
            case .sizesDiffer: 409
            case .unknownBucket: 400
            case .overloaded: 503
            case .timedOut, .storeFailed: 500
            }
        refuse(
            status, failure.description, CacheyMetrics.Outcome(failure),
            status == 416 ? objectSize.map { [("content-range", "bytes */\($0)")] } ?? [] : [])
    }

    private func refuse(
        _ status: Int, _ message: String, _ outcome: CacheyMetrics.Outcome,
        _ headers: [(name: String, value: String)] = []
    ) {
        guard !isOver else { return }
        isOver = true
        metrics.over(.http, outcome)
        session = nil
        exchange.sendText(status, message + "\n", headers)
    }
}

extension HTTPExchange {
    /// A whole response of text.
    func sendText(
        _ status: Int, _ text: String, _ headers: [(name: String, value: String)] = [],
        contentType: String = "text/plain; charset=utf-8"
    ) {
        let body = Bytes(utf8: text)
        respond(
            status,
            headers + [("content-type", contentType), ("content-length", "\(body.count)")])
        if request.method != "HEAD" { write([body]) }
        finish()
    }
}
