// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import NIOCore
internal import NIOHPACK
internal import NIOHTTP2
internal import Primitives

/// One request and response: a stream of an HTTP/2 connection.
final class HTTP2Exchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)?
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?
    private(set) var unsentBytes = 0

    private let id: HTTP2StreamID
    private let isHead: Bool
    private let connection: HTTP2Connection
    private var isReading = true
    private var isDelivering = false
    /// Of the body, what waits for the service: not in read buffers that are far larger.
    private var inbox = CircularBuffer<Bytes>()
    private var endCame = false
    private var isRequestOver = false
    /// Taken by the service, and not yet granted to the client again.
    private var grantDue = 0

    private var head: HPACKHeaders?
    private var pending: [Bytes] = []
    private var trailers: [(name: String, value: String)] = []
    private var isListed = false
    private var isResponding = false
    private var isResponseOver = false
    private var isEndWritten = false
    private var isGone = false
    private var passedHighMark = false
    private var heardAt: Nanoseconds
    private var takenAt: Nanoseconds
    private var overSince: Nanoseconds?

    /// Bytes of one DATA frame that is handed to NIO, which splits it as windows allow.
    private static let frameBytesMax = 256 << 10
    /// Room for so many parts is kept from one turn to the next.
    private static let partsKeptMax = 8
    /// How long a client may go on sending after its response is complete.
    private static let linger: Nanoseconds = .seconds(5)

    init(_ id: HTTP2StreamID, _ request: HTTPRequest, on connection: HTTP2Connection) {
        self.id = id
        self.request = request
        isHead = request.method == "HEAD"
        self.connection = connection
        heardAt = connection.loop.now
        takenAt = heardAt
    }

    // MARK: The request

    func take(_ buffer: ByteBuffer, padding: Int, ends: Bool) {
        let count = buffer.readableBytes
        heardAt = connection.burstBegan
        endCame = ends
        grantDue += padding
        if isResponseOver || isGone {
            // Nobody wants it; the client may go on until it notices.
            connection.released(count)
            return grant(count)
        }
        guard isReading, inbox.isEmpty, !isDelivering else {
            inbox.append(Bytes(buffer))
            return deliver()
        }
        connection.released(count)
        grant(count)
        isDelivering = true
        onBody?(Bytes(sharing: buffer))
        isDelivering = false
    }

    func takeEnd() {
        endCame = true
        deliver()
    }

    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        while isReading, !isResponseOver, let bytes = inbox.popFirst() {
            connection.released(bytes.count)
            grant(bytes.count)
            onBody?(bytes)
        }
        isDelivering = false
        guard endCame, inbox.isEmpty, isReading, !isRequestOver, !isGone else { return }
        isRequestOver = true
        let onBodyEnd = self.onBodyEnd
        onBody = nil
        self.onBodyEnd = nil
        onBodyEnd?()
    }

    private func grant(_ count: Int) {
        grantDue += count
        guard grantDue >= connection.settings.streamWindowBytes / 4, !endCame else { return }
        connection.grantStream(id, grantDue)
        grantDue = 0
    }

    func setReading(_ reading: Bool) {
        guard reading != isReading, !isGone, !isResponseOver else { return }
        isReading = reading
        heardAt = connection.loop.now
        if reading { connection.loop.soon { self.deliver() } }
    }

    // MARK: The response

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(!isResponding, "a request is answered once")
        isResponding = true
        guard !isGone, !isResponseOver else { return }
        head = HTTP2Head.response(status, headers)
        list()
    }

    func write(_ parts: [Bytes]) {
        if willSend(byteCount(parts)) { pending += parts }
    }

    func write(_ part: Bytes) {
        if willSend(part.count) { pending.append(part) }
    }

    /// Counts what is to be sent; false where it is not.
    private func willSend(_ count: Int) -> Bool {
        precondition(isResponding, "the head of a response comes first")
        guard !isGone, !isResponseOver, !isHead, count > 0 else { return false }
        if unsentBytes == 0 { takenAt = connection.loop.now }
        unsentBytes += count
        if unsentBytes > connection.settings.unsentBytesHigh { passedHighMark = true }
        list()
        return true
    }

    func finish() { finish(trailers: []) }

    func finish(trailers: [(name: String, value: String)]) {
        precondition(isResponding, "the head of a response comes first")
        guard !isGone, !isResponseOver else { return }
        self.trailers = trailers
        end()
        list()
    }

    func abort() {
        guard !isGone, !isResponseOver || unsentBytes > 0 else { return }
        if !isResponseOver { end() }
        pending = []
        head = nil
        reset(.internalError)
        connection.cutIfStuck()
    }

    private func end() {
        isResponseOver = true
        overSince = connection.loop.now
        release()
        for bytes in inbox {
            connection.released(bytes.count)
            grant(bytes.count)
        }
        inbox.removeAll()
    }

    private func reset(_ code: HTTP2ErrorCode) {
        isEndWritten = true
        connection.write(id, .rstStream(code))
        connection.planFlush()
    }

    private func list() {
        guard !isListed else { return }
        isListed = true
        connection.hasWritten(self)
    }

    /// Writes what was collected in this turn.
    func flush() {
        isListed = false
        guard !isGone, !isEndWritten else { return }
        let ends = isResponseOver
        // Trailers end the stream; else the last piece of the body does, or the head.
        let bodyEnds = ends && trailers.isEmpty
        if let head {
            self.head = nil
            let endsHere = bodyEnds && pending.isEmpty
            isEndWritten = endsHere
            connection.write(id, .headers(.init(headers: head, endStream: endsHere)))
        }
        guard !isEndWritten, ends || !pending.isEmpty else { return }
        isEndWritten = ends
        var parts = pending
        pending = []
        if !parts.isEmpty || bodyEnds { writeData(parts, ends: bodyEnds) }
        if parts.capacity <= Self.partsKeptMax {
            parts.removeAll(keepingCapacity: true)
            pending = parts
        }
        guard ends, !bodyEnds else { return }
        connection.write(
            id, .headers(.init(headers: HTTP2Head.fields(trailers), endStream: true)))
    }

    private func writeData(_ parts: [Bytes], ends: Bool) {
        var left = byteCount(parts)
        if left == 0 { return send(ByteBuffer(), 0, ends: ends) }
        // Small frames are accounted for together, with the last of them.
        var untold = 0
        ByteBuffer.each(of: parts, bytesMax: Self.frameBytesMax, connection.allocator) { buffer in
            left -= buffer.readableBytes
            untold += buffer.readableBytes
            let isTold = left == 0 || untold >= Self.frameBytesMax
            send(buffer, isTold ? untold : 0, ends: ends && left == 0)
            if isTold { untold = 0 }
        }
    }

    /// Sends a frame; once it is taken, and with it all before it, `count` bytes are accounted for.
    private func send(_ buffer: ByteBuffer, _ count: Int, ends: Bool) {
        let frame = HTTP2Frame.FramePayload.data(.init(data: .byteBuffer(buffer), endStream: ends))
        guard count > 0 else { return connection.write(id, frame) }
        let bound = LoopBound(self)
        connection.write(id, frame) { _ in bound.value.taken(count) }
    }

    private func taken(_ count: Int) {
        unsentBytes -= count
        takenAt = connection.loop.now
        guard passedHighMark, unsentBytes < connection.settings.unsentBytesLow, !isGone else {
            return
        }
        passedHighMark = false
        onWritable?()
    }

    // MARK: Ends

    /// The stream is no more.
    func gone() {
        guard !isGone else { return }
        isGone = true
        for bytes in inbox { connection.released(bytes.count) }
        inbox.removeAll()
        pending = []
        let onAbort = isResponseOver ? nil : self.onAbort
        release()
        onAbort?()
    }

    private func release() {
        onBody = nil
        onBodyEnd = nil
        onAbort = nil
        onWritable = nil
    }

    func tick(_ now: Nanoseconds) {
        let settings = connection.settings
        if unsentBytes > 0, now - takenAt >= settings.writeTimeout {
            giveUp()
        } else if !endCame, !isResponding, isReading, now - heardAt >= settings.bodyTimeout {
            respond(408, [("content-length", "0")])
            let onAbort = self.onAbort
            finish()
            onAbort?()
        } else if let overSince, !endCame, unsentBytes == 0, now - overSince >= Self.linger {
            // The response is complete; the client is told to send no more.
            reset(.noError)
        }
    }

    private func giveUp() {
        let onAbort = isResponseOver ? nil : self.onAbort
        isResponseOver = true
        release()
        reset(.cancel)
        onAbort?()
    }
}

/// Heads of HTTP/2.
enum HTTP2Head {
    static func request(_ headers: HPACKHeaders) -> HTTPRequest {
        var request = HTTPRequest(method: "", path: "", query: "", headers: [], isHTTP2: true)
        request.headers.reserveCapacity(headers.count)
        for (name, value, _) in headers {
            switch name {
            case ":method": request.method = value
            case ":authority": request.headers.append(("host", value))
            case ":path":
                let mark = value.firstIndex(of: "?")
                request.path = String(value[..<(mark ?? value.endIndex)])
                if let mark { request.query = String(value[value.index(after: mark)...]) }
            case _ where name.hasPrefix(":"): break
            default: request.headers.append((name, value))
            }
        }
        return request
    }

    static func response(
        _ status: Int, _ headers: [(name: String, value: String)]
    ) -> HPACKHeaders {
        fields([(":status", String(status))] + headers)
    }

    static func fields(_ headers: [(name: String, value: String)]) -> HPACKHeaders {
        var fields = HPACKHeaders()
        fields.reserveCapacity(headers.count)
        for (name, value) in headers where name != "connection" && name != "transfer-encoding" {
            fields.add(name: name.lowercased(), value: value)
        }
        return fields
    }
}
