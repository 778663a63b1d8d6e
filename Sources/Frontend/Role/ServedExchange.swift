// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Observability
internal import Primitives

/// An exchange as the frontend's parts see it: it reports its end once, adds what browsers need to
/// every response, and ignores what is said to a client that is gone.
final class ServedExchange: HTTPExchange {
    let request: HTTPRequest
    var onAbort: (() -> Void)?
    private let transport: any HTTPExchange
    /// Called once, when the exchange is over.
    private var onOver: ((ServedExchange) -> Void)?
    /// Of the response, if there was one.
    private(set) var status: Int?
    /// When it came.
    let arrived: Nanoseconds
    /// Where the time until its end counts, if anywhere.
    var seconds: Histogram?

    init(
        _ transport: any HTTPExchange, arrived: Nanoseconds,
        onOver: @escaping (ServedExchange) -> Void
    ) {
        self.transport = transport
        self.arrived = arrived
        self.onOver = onOver
        request = transport.request
        transport.onAbort = { self.aborted() }
    }

    var isOver: Bool { onOver == nil }

    var onBody: ((Bytes) -> Void)? {
        get { transport.onBody }
        set { if !isOver { transport.onBody = newValue } }
    }
    var onBodyEnd: (() -> Void)? {
        get { transport.onBodyEnd }
        set { if !isOver { transport.onBodyEnd = newValue } }
    }
    var onWritable: (() -> Void)? {
        get { transport.onWritable }
        set { if !isOver { transport.onWritable = newValue } }
    }
    var unsentBytes: Int { transport.unsentBytes }

    func setReading(_ reading: Bool) {
        if !isOver { transport.setReading(reading) }
    }

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        guard !isOver else { return }
        self.status = status
        transport.respond(status, CrossOrigin.grant(request, headers))
    }

    func write(_ parts: [Bytes]) {
        if !isOver { transport.write(parts) }
    }

    func write(_ part: Bytes) {
        if !isOver { transport.write(part) }
    }

    func finish() {
        guard !isOver else { return }
        transport.finish()
        end()
    }

    func abort() {
        transport.abort()
        if !isOver { end() }
    }

    private func aborted() {
        guard !isOver else { return }
        let onAbort = onAbort
        end()
        onAbort?()
    }

    /// Lets go of everything, so that nobody holds anybody.
    private func end() {
        let onOver = onOver
        transport.onBody = nil
        transport.onBodyEnd = nil
        transport.onWritable = nil
        transport.onAbort = nil
        onAbort = nil
        self.onOver = nil
        onOver?(self)
    }
}

/// What lets a page of any origin use the API: it mirrors what the browser asks for.
enum CrossOrigin {
    static func grant(
        _ request: HTTPRequest, _ headers: [(name: String, value: String)]
    ) -> [(name: String, value: String)] {
        guard let origin = request.header("origin") else { return headers }
        return headers + [
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "s2-provision-result, retry-after-ms"),
            ("vary", "origin"),
        ]
    }

    /// The answer to a preflight; `grant` adds the rest.
    static func preflight(_ request: HTTPRequest) -> Reply {
        var headers: [(name: String, value: String)] = [("access-control-max-age", "600")]
        if let method = request.header("access-control-request-method") {
            headers.append(("access-control-allow-methods", method))
        }
        if let names = request.header("access-control-request-headers") {
            headers.append(("access-control-allow-headers", names))
        }
        return .empty(200, headers)
    }
}
