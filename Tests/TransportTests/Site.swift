// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import RPC
import Testing
import Transport

/// A service with one path per behaviour.
final class Site: HTTPService {
    private(set) var requests: [HTTPRequest] = []
    private(set) var aborts = 0
    private(set) var bodyBytes = 0
    private(set) var bodyPieces = 0
    private(set) var lastBody = Bytes()
    private(set) var unsentMost = 0
    private(set) var writables = 0
    private(set) var held: [any HTTPExchange] = []

    func serve(_ exchange: any HTTPExchange) {
        requests.append(exchange.request)
        exchange.onAbort = { self.aborts += 1 }
        switch exchange.request.path {
        case "/hello": reply(exchange, "hello")
        case "/echo": echo(exchange)
        case "/count": count(exchange)
        case "/big": big(exchange)
        case "/page": page(exchange)
        case "/trailers": trailers(exchange)
        case "/empty":
            exchange.respond(204, [])
            exchange.finish()
        case "/early":
            exchange.respond(413, [("content-length", "0")])
            exchange.finish()
        case "/stall":
            exchange.setReading(false)
            held.append(exchange)
            exchange.onBody = {
                self.bodyBytes += $0.count
                self.bodyPieces += 1
                self.lastBody = $0
            }
            exchange.respond(200, [])
        case "/abort":
            exchange.respond(200, [])
            exchange.write([Bytes(utf8: "partial")])
            exchange.abort()
        default: held.append(exchange)
        }
    }

    /// Answers the one request that waits for a test, at once: with so many bytes.
    func respond(_ loop: NIOLoop, bytes count: Int) async throws -> any HTTPExchange {
        try #require(await eventually(loop) { held.count == 1 })
        held[0].respond(200, [])
        held[0].write([Bytes([UInt8](repeating: 0x61, count: count))])
        held[0].finish()
        return held[0]
    }

    func reply(_ exchange: any HTTPExchange, _ text: String) {
        exchange.respond(200, [("content-length", "\(text.utf8.count)")])
        exchange.write([Bytes(utf8: text)])
        exchange.finish()
    }

    /// `?n` bytes at once, whether the client takes them or not.
    private func page(_ exchange: any HTTPExchange) {
        let count = Int(exchange.request.query) ?? 0
        exchange.respond(200, [("content-length", "\(count)")])
        exchange.write([Bytes([UInt8](repeating: 0x61, count: count))])
        unsentMost = max(unsentMost, exchange.unsentBytes)
        exchange.finish()
    }

    /// A body of `?n` bytes, maybe none, and two trailers of one name.
    private func trailers(_ exchange: any HTTPExchange) {
        let count = Int(exchange.request.query) ?? 0
        exchange.respond(200, [("trailer", "x-a")])
        exchange.write([Bytes([UInt8](repeating: 0x61, count: count))])
        let evil = exchange.request.isHTTP2 ? "" : "\r\nx-evil: 1"
        exchange.finish(trailers: [("x-a", "1; b" + evil), ("x-a", "2")])
    }

    private func echo(_ exchange: any HTTPExchange) {
        exchange.respond(200, [("content-type", "s2s/proto")])
        exchange.onBody = { [unowned exchange] bytes in
            self.bodyBytes += bytes.count
            self.lastBody = bytes
            exchange.write([bytes])
        }
        exchange.onBodyEnd = { [unowned exchange] in exchange.finish() }
    }

    private func count(_ exchange: any HTTPExchange) {
        var count = 0
        exchange.onBody = { count += $0.count }
        exchange.onBodyEnd = { [unowned exchange] in self.reply(exchange, "\(count)") }
    }

    /// `?n` bytes, or without end, as the client takes them.
    private func big(_ exchange: any HTTPExchange) {
        var left = Int(exchange.request.query) ?? .max
        let piece = Bytes([UInt8](repeating: 0x61, count: 100_000))
        exchange.respond(200, [])
        func fill() {
            while left > 0, exchange.unsentBytes <= 1 << 20 {
                let part = piece.prefix(left)
                left -= part.count
                exchange.write([part])
                unsentMost = max(unsentMost, exchange.unsentBytes)
            }
            if left == 0 { exchange.finish() }
        }
        exchange.onWritable = {
            self.writables += 1
            fill()
        }
        fill()
    }
}

/// A socket that a test speaks HTTP on, byte by byte.
final class RawClient: LinkHandler {
    let link: any Link
    private(set) var bytes = 0
    private(set) var text = ""
    private(set) var isClosed = false
    private(set) var closeReason = ""
    var onBytes: ((Bytes) -> Void)?

    init(_ loop: NIOLoop, _ address: String) async throws {
        link = try await NIONetwork(loop: loop).connect(address, timeout: .seconds(60))
        link.handler = self
    }

    func send(_ text: String) { send(Bytes(utf8: text)) }

    func send(_ bytes: Bytes) {
        link.write([bytes])
        link.flush()
    }

    /// What came since the last call, once it ends as told.
    func receive(_ loop: NIOLoop, until end: String) async -> String {
        _ = await eventually(loop) { text.hasSuffix(end) || isClosed }
        defer { text = "" }
        return text
    }

    func linkReceived(_ bytes: Bytes) {
        self.bytes += bytes.count
        if let onBytes { onBytes(bytes) } else if bytes.count < 10_000 { text += bytes.lossyText }
    }

    func linkBurstEnded() {}
    func linkClosed(_ reason: String) {
        isClosed = true
        closeReason = reason
    }
}

/// A server of a `Site` on its own loop.
func withSite(
    _ settings: HTTPSettings = HTTPSettings(), tls: TLSFiles? = nil,
    _ body: @escaping @Sendable (NIOLoop, Site, String, HTTPServer) async throws -> Void
) async throws {
    try await onLoop { loop in
        let site = Site()
        let server = HTTPServer(loop: loop, service: site, settings: settings)
        let address = try await server.listen("127.0.0.1:0", tls: tls)
        try await body(loop, site, address, server)
        await server.stop(within: .milliseconds(1))
    }
}
