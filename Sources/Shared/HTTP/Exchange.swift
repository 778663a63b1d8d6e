// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// The head of a request, as it came over HTTP/1.1 or HTTP/2.
package struct HTTPRequest: Sendable {
    package var method: String
    /// Raw: percent-encoded, without the query.
    package var path: String
    /// Raw, without the question mark; empty where there is none.
    package var query: String
    /// Names in lower case, in order of arrival. `host` also for HTTP/2's `:authority`.
    package var headers: [(name: String, value: String)]
    package var isHTTP2: Bool

    package init(
        method: String, path: String, query: String, headers: [(name: String, value: String)],
        isHTTP2: Bool
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.isHTTP2 = isHTTP2
    }

    /// The first value of a header; `name` in lower case.
    package func header(_ name: String) -> String? {
        headers.first { $0.name == name }?.value
    }
}

/// One request and its response, both of which may stream at once. Confined to one loop.
package protocol HTTPExchange: AnyObject {
    var request: HTTPRequest { get }
    /// The next bytes of the request's body. Set in `serve`, before control returns to the loop.
    /// They may be few in a large read buffer: what is kept of them for longer than the call, keep
    /// `detached()`.
    var onBody: ((Bytes) -> Void)? { get set }
    /// The request's body is complete.
    var onBodyEnd: (() -> Void)? { get set }
    /// The client is gone before the response was complete. Called once; nothing follows.
    var onAbort: (() -> Void)? { get set }
    /// `unsentBytes` fell below the low mark after it had passed the high one.
    var onWritable: (() -> Void)? { get set }
    /// Bytes of the response that the client has not taken yet.
    var unsentBytes: Int { get }
    /// Whether the body is taken from the client, who is held back while not (HTTP/2: this stream
    /// alone).
    func setReading(_ reading: Bool)
    /// The response's head. Call once. Without a `content-length` the body is chunked.
    func respond(_ status: Int, _ headers: [(name: String, value: String)])
    /// More of the response's body: sent at once, together with what else this turn of the loop
    /// writes.
    func write(_ parts: [Bytes])
    /// As `write([part])`.
    func write(_ part: Bytes)
    /// The response is complete. If the request's body is not, HTTP/1.1 closes the connection.
    func finish()
    /// `finish`, with trailers behind the body where the response can carry any: HTTP/2, and a
    /// chunked body of HTTP/1.1. Elsewhere they are dropped. Names in lower case.
    func finish(trailers: [(name: String, value: String)])
    /// Ends the exchange without a complete response, or with a complete one that its client has
    /// not taken: what it has not taken is let go of. Does nothing where there is no such.
    func abort()
}

extension HTTPExchange {
    package func write(_ part: Bytes) { write([part]) }
    package func finish(trailers: [(name: String, value: String)]) { finish() }
}

/// Where requests arrive. Confined to one loop.
package protocol HTTPService: AnyObject {
    /// The head of a request has come. The service sets the exchange's closures before it returns.
    func serve(_ exchange: any HTTPExchange)
}
