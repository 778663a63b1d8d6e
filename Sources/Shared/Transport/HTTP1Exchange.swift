// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import NIOHTTP1
internal import Primitives

/// One request and response over HTTP/1.1.
final class HTTP1Exchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)?
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?

    private(set) var isReading = true
    private(set) var isResponding = false
    private var isRequestOver = false
    private(set) var isResponseOver = false
    private var keepsAlive: Bool
    private let isHead: Bool
    private let isOld: Bool
    private var expectsContinue: Bool
    private var framing = Framing.none
    private var passedHighMark = false
    private var heardAt: Nanoseconds
    private let connection: HTTP1Connection

    private enum Framing {
        case none
        case chunked
        case length(Int)
        case untilClose
    }

    /// A target without the scheme and the authority that it may begin with.
    private static func originForm(_ target: String) -> Substring {
        for scheme in ["http://", "https://"] where target.hasPrefix(scheme) {
            let rest = target.dropFirst(scheme.count)
            return rest.firstIndex(of: "/").map { rest[$0...] } ?? "/"
        }
        return target[...]
    }

    init(_ head: HTTPRequestHead, on connection: HTTP1Connection) {
        self.connection = connection
        let uri = Self.originForm(head.uri)
        let mark = uri.firstIndex(of: "?")
        request = HTTPRequest(
            method: head.method.rawValue, path: String(uri[..<(mark ?? uri.endIndex)]),
            query: mark.map { String(uri[uri.index(after: $0)...]) } ?? "",
            headers: head.headers.map { ($0.name.lowercased(), $0.value) }, isHTTP2: false)
        isHead = head.method == .HEAD
        isOld = head.version != .http1_1
        keepsAlive = head.isKeepAlive && !isOld
        expectsContinue = request.header("expect")?.lowercased() == "100-continue"
        heardAt = connection.loop.now
    }

    var unsentBytes: Int { connection.outlet.unsentBytes }

    /// The service has seen the head: a client that asks whether to send its body hears yes.
    func expectBody() {
        guard expectsContinue, isReading, !isResponding, !isRequestOver else { return }
        expectsContinue = false
        connection.send([Bytes(utf8: "HTTP/1.1 100 Continue\r\n\r\n")])
    }

    func take(_ bytes: Bytes) {
        heardAt = connection.loop.now
        onBody?(bytes)
    }

    func takeEnd() {
        isRequestOver = true
        let onBodyEnd = self.onBodyEnd
        onBody = nil
        self.onBodyEnd = nil
        onBodyEnd?()
        overIfDone()
    }

    /// Whether the request's body stopped coming although nobody holds it back or was answered.
    func isBodyLate(_ now: Nanoseconds) -> Bool {
        !isRequestOver && !isResponding && isReading
            && now - heardAt >= connection.settings.bodyTimeout
    }

    func setReading(_ reading: Bool) {
        guard reading != isReading, !isResponseOver else { return }
        isReading = reading
        heardAt = connection.loop.now
        expectBody()
        connection.readingChanged()
    }

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(!isResponding, "a request is answered once")
        guard !isResponseOver else { return }
        isResponding = true
        let length = headers.first { $0.name == "content-length" }.flatMap { Int($0.value) }
        if connection.isDraining || expectsContinue { keepsAlive = false }
        var headers = headers
        if isHead || status == 204 || status == 304 || status < 200 {
            framing = .length(0)
        } else if let length {
            framing = .length(length)
        } else if isOld {
            framing = .untilClose
            keepsAlive = false
        } else {
            framing = .chunked
            headers.append(("transfer-encoding", "chunked"))
        }
        connection.send([HTTP1Head.encode(status, headers, keepsAlive: keepsAlive)])
    }

    func write(_ parts: [Bytes]) {
        precondition(isResponding, "the head of a response comes first")
        let count = byteCount(parts)
        guard !isResponseOver, count > 0 else { return }
        switch framing {
        case .none: return
        case .untilClose: connection.send(parts)
        case .chunked:
            let head = Bytes(utf8: String(count, radix: 16) + "\r\n")
            connection.send([head] + parts + [HTTP1Head.lineEnd])
        case .length(let left):
            // More than was announced would be taken for the next response.
            guard left > 0 else { return }
            framing = .length(max(left - count, 0))
            connection.send(count <= left ? parts : [parts.joined().prefix(left)])
        }
        if unsentBytes > connection.settings.unsentBytesHigh { passedHighMark = true }
    }

    func finish() { finish(trailers: []) }

    func finish(trailers: [(name: String, value: String)]) {
        precondition(isResponding, "the head of a response comes first")
        guard !isResponseOver else { return }
        isResponseOver = true
        if case .chunked = framing { connection.send([HTTP1Head.lastChunk(trailers)]) }
        if case .length(let left) = framing, left > 0 { keepsAlive = false }
        release()
        isReading = true
        overIfDone()
        connection.planFlush()
    }

    func abort() {
        guard !isResponseOver || unsentBytes > 0 else { return }
        isResponseOver = true
        release()
        connection.cut()
    }

    private func overIfDone() {
        guard isResponseOver, isRequestOver else { return }
        connection.over(self, keepsAlive: keepsAlive)
    }

    /// The network took something.
    func taken() {
        guard passedHighMark, unsentBytes < connection.settings.unsentBytesLow else { return }
        passedHighMark = false
        onWritable?()
    }

    /// The client is gone.
    func gone() {
        guard !isResponseOver else { return }
        isResponseOver = true
        let onAbort = self.onAbort
        release()
        onAbort?()
    }

    private func release() {
        onBody = nil
        onBodyEnd = nil
        onAbort = nil
        onWritable = nil
    }
}

/// Heads of HTTP/1.1 responses.
enum HTTP1Head {
    static let lineEnd = Bytes(utf8: "\r\n")
    private static let plainLastChunk = Bytes(utf8: "0\r\n\r\n")

    static func lastChunk(_ trailers: [(name: String, value: String)]) -> Bytes {
        if trailers.isEmpty { return plainLastChunk }
        var writer = ByteWriter(capacity: 256)
        writer.write(utf8: "0\r\n")
        writeFields(trailers, into: &writer)
        writer.write(utf8: "\r\n")
        return writer.finish()
    }

    static func encode(
        _ status: Int, _ headers: [(name: String, value: String)], keepsAlive: Bool
    ) -> Bytes {
        var writer = ByteWriter(capacity: 256)
        let reason = HTTPResponseStatus(statusCode: status).reasonPhrase
        writer.write(utf8: "HTTP/1.1 \(status) \(reason)\r\n")
        writeFields(headers, into: &writer)
        if !keepsAlive { writer.write(utf8: "connection: close\r\n") }
        writer.write(utf8: "\r\n")
        return writer.finish()
    }

    private static func writeFields(
        _ fields: [(name: String, value: String)], into writer: inout ByteWriter
    ) {
        for (name, value) in fields {
            writer.write(utf8: name)
            writer.write(utf8: ": ")
            writeValue(value, into: &writer)
            writer.write(utf8: "\r\n")
        }
    }

    /// A value that came from elsewhere must not begin a header of its own.
    private static func writeValue(_ value: String, into writer: inout ByteWriter) {
        if value.utf8.allSatisfy({ $0 != 13 && $0 != 10 && $0 != 0 }) {
            writer.write(utf8: value)
        } else {
            writer.write(value.utf8.map { $0 == 13 || $0 == 10 || $0 == 0 ? 32 : $0 })
        }
    }
}
