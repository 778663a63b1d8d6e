// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Observability
internal import Primitives

/// What operators ask a process over HTTP: whether it lives, whether it is ready, and its metrics.
final class AdminPages: HTTPService {
    private let isReady: () -> Bool
    private let metrics: [Metrics]

    init(isReady: @escaping () -> Bool, metrics: [Metrics]) {
        self.isReady = isReady
        self.metrics = metrics
    }

    func serve(_ exchange: any HTTPExchange) {
        exchange.onBody = { _ in }
        let (status, text) = page(exchange.request)
        let body = Bytes(utf8: text)
        exchange.respond(
            status,
            [
                ("content-type", "text/plain; version=0.0.4; charset=utf-8"),
                ("content-length", "\(body.count)"),
            ])
        if exchange.request.method != "HEAD" { exchange.write([body]) }
        exchange.finish()
    }

    private func page(_ request: HTTPRequest) -> (Int, String) {
        guard request.method == "GET" || request.method == "HEAD" else {
            return (405, "only GET and HEAD\n")
        }
        switch request.path {
        case "/health/live": return (200, "OK\n")
        case "/health", "/health/ready": return isReady() ? (200, "OK\n") : (503, "not ready\n")
        case "/metrics": return (200, metrics.map { $0.render() }.joined())
        default: return (404, "there are /health, /health/live, /health/ready and /metrics\n")
        }
    }
}
