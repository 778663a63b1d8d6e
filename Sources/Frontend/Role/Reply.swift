// SPDX-License-Identifier: Apache-2.0

package import HTTP
package import Primitives

/// A whole response, made before any of it is sent.
package struct Reply {
    package var status: Int
    package var headers: [(name: String, value: String)]
    package var body: Bytes

    private init(status: Int, headers: [(name: String, value: String)], body: Bytes) {
        self.status = status
        self.body = body
        self.headers = headers
        self.headers.append(("content-length", "\(body.count)"))
    }

    package static func json(
        _ status: Int, _ body: Bytes, _ headers: [(name: String, value: String)] = []
    ) -> Reply {
        Reply(
            status: status, headers: headers + [("content-type", "application/json")], body: body)
    }

    /// Without a body, and without a content type that would make a client parse one.
    package static func empty(
        _ status: Int, _ headers: [(name: String, value: String)] = []
    ) -> Reply {
        Reply(status: status, headers: headers, body: Bytes())
    }

    package static func text(
        _ status: Int, _ text: String, contentType: String = "text/plain; charset=utf-8"
    ) -> Reply {
        Reply(status: status, headers: [("content-type", contentType)], body: Bytes(utf8: text))
    }

    package static func failure(_ error: APIError) -> Reply {
        .json(error.status, error.body)
    }
}

extension HTTPExchange {
    /// Sends `reply` and ends the exchange.
    package func send(_ reply: Reply) {
        respond(reply.status, reply.headers)
        if !reply.body.isEmpty { write([reply.body]) }
        finish()
    }

    /// Ends an exchange whose response has not begun.
    package func fail(_ error: APIError) { send(.failure(error)) }
}
