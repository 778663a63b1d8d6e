// SPDX-License-Identifier: Apache-2.0

/// One HTTP/2 connection in the clear, with prior knowledge: as much of the protocol as a load
/// generator needs, at little cost.
///
/// Requests' headers are literals. The server is told to keep no dynamic table, so that of a
/// response's headers only `:status`, the first, has to be understood.
package final class Connection: Pollable {
    private enum Kind {
        static let data: UInt8 = 0
        static let headers: UInt8 = 1
        static let reset: UInt8 = 3
        static let settings: UInt8 = 4
        static let ping: UInt8 = 6
        static let goAway: UInt8 = 7
        static let windowUpdate: UInt8 = 8
    }

    private let socket: Socket
    private let authority: String
    private let token: String
    private var exchanges: [UInt32: Exchange] = [:]
    private var nextID: UInt32 = 1
    private let inbox = UnsafeMutableRawBufferPointer.allocate(
        byteCount: Connection.inboxBytes, alignment: 16)
    private var filled = 0
    private var sendWindow = 65_535
    private var streamWindow = 65_535
    private var frameBytesMax = 16_384
    private var received = 0
    private(set) package var failure: ClientError?
    /// The server has said what it allows. Until then, it may refuse more than 100 streams.
    private(set) package var isReady = false

    private static let inboxBytes = 1 << 20
    private static let receiveFrameBytesMax = 256 << 10
    private static let connectionWindow = 256 << 20
    fileprivate static let receiveStreamWindow = 16 << 20

    package init(host: String, port: UInt16, token: String) throws(ClientError) {
        socket = try Socket(host: host, port: port)
        authority = "\(host):\(port)"
        self.token = token
        socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        let settings: [(UInt16, Int)] = [
            (1, 0), (2, 0), (4, Self.receiveStreamWindow), (5, Self.receiveFrameBytesMax),
        ]
        var payload: [UInt8] = []
        for (name, value) in settings {
            payload += [UInt8(name >> 8), UInt8(name & 0xFF)] + bigEndian(UInt32(value))
        }
        writeFrame(Kind.settings, 0, 0, payload)
        grant(0, Self.connectionWindow - 65_535)
    }

    deinit { inbox.deallocate() }

    package var descriptor: Int32 { socket.descriptor }
    package var wantsToWrite: Bool { socket.wantsToWrite }

    /// Sends a request's head. With `ends`, there is no body.
    package func open(
        _ method: String, _ path: String, headers: [(String, String)], ends: Bool
    ) -> Exchange {
        let id = nextID
        nextID += 2
        var block: [UInt8] = []
        let fields =
            [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]
            + [("authorization", "Bearer \(token)")] + headers
        for (name, value) in fields {
            block.append(0)
            block.appendHPACK(name)
            block.appendHPACK(value)
        }
        writeFrame(Kind.headers, ends ? 0x5 : 0x4, id, block)
        let exchange = Exchange(id, self, window: streamWindow)
        exchanges[id] = exchange
        return exchange
    }

    package func flush() {
        guard failure == nil else { return }
        if !socket.flush() { fail("the connection broke while writing") }
    }

    package func readable() {
        guard failure == nil else { return }
        let room = UnsafeMutableRawBufferPointer(rebasing: inbox[filled...])
        guard let count = socket.read(into: room) else { return fail("the server hung up") }
        filled += count
        var start = 0
        while filled - start >= 9 {
            let head = UnsafeRawBufferPointer(rebasing: inbox[start..<start + 9])
            let length = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
            guard length <= Self.receiveFrameBytesMax else { return fail("a frame is too long") }
            guard filled - start >= 9 + length else { break }
            let id = head.uint32(5) & 0x7FFF_FFFF
            let payload = UnsafeRawBufferPointer(
                rebasing: inbox[start + 9..<start + 9 + length])
            take(head[3], head[4], id, payload)
            start += 9 + length
        }
        if start > 0, filled > start {
            inbox.baseAddress!.copyMemory(
                from: inbox.baseAddress! + start, byteCount: filled - start)
        }
        filled -= start
    }

    // MARK: What comes

    private func take(
        _ kind: UInt8, _ flags: UInt8, _ id: UInt32, _ payload: UnsafeRawBufferPointer
    ) {
        switch kind {
        case Kind.data:
            received += payload.count
            if received >= Self.connectionWindow / 2 {
                grant(0, received)
                received = 0
            }
            guard let exchange = exchanges[id] else { return }
            exchange.take(payload)
            if flags & 1 != 0 { end(exchange, nil) }
        case Kind.headers:
            guard let exchange = exchanges[id] else { return }
            if exchange.status == nil { exchange.head(HPACK.status(payload)) }
            if flags & 1 != 0 { end(exchange, nil) }
        case Kind.reset:
            guard let exchange = exchanges[id] else { return }
            end(exchange, ClientError("the server reset the stream: \(payload.uint32(0))"))
        case Kind.settings where flags & 1 == 0: takeSettings(payload)
        case Kind.ping where flags & 1 == 0: writeFrame(Kind.ping, 1, 0, payload)
        case Kind.goAway:
            let why = String(decoding: payload.dropFirst(8), as: UTF8.self)
            fail("the server says goodbye: \(payload.uint32(4)) \(why)")
        case Kind.windowUpdate:
            let increment = Int(payload.uint32(0))
            if id == 0 {
                sendWindow += increment
                for exchange in exchanges.values where exchange.isHeld { exchange.sendHeld() }
            } else if let exchange = exchanges[id] {
                exchange.window += increment
                exchange.sendHeld()
            }
        default: break
        }
    }

    private func takeSettings(_ payload: UnsafeRawBufferPointer) {
        for i in stride(from: 0, to: payload.count - 5, by: 6) {
            let value = Int(payload.uint32(i + 2))
            switch payload[i + 1] {
            case 4:
                for exchange in exchanges.values { exchange.window += value - streamWindow }
                streamWindow = value
            case 5: frameBytesMax = value
            default: break
            }
        }
        writeFrame(Kind.settings, 1, 0, [])
        isReady = true
        for exchange in exchanges.values where exchange.isHeld { exchange.sendHeld() }
    }

    private func end(_ exchange: Exchange, _ error: ClientError?) {
        exchanges[exchange.id] = nil
        exchange.ended(error)
    }

    private func fail(_ why: String) {
        guard failure == nil else { return }
        let error = ClientError(why)
        failure = error
        let all = exchanges.values
        exchanges = [:]
        for exchange in all { exchange.ended(error) }
    }

    // MARK: What goes

    /// Sends as much as the windows allow and returns how much that was.
    fileprivate func writeData(
        _ id: UInt32, _ bytes: UnsafeRawBufferPointer, window: Int, ends: Bool
    ) -> Int {
        var done = 0
        repeat {
            let count = min(
                bytes.count - done, min(window - done, min(sendWindow, frameBytesMax)))
            if count <= 0, done < bytes.count || !ends { return done }
            let isLast = ends && done + count == bytes.count
            writeHead(Kind.data, isLast ? 1 : 0, id, count)
            socket.write(UnsafeRawBufferPointer(rebasing: bytes[done..<done + count]))
            done += count
            sendWindow -= count
        } while done < bytes.count
        return done
    }

    fileprivate func grant(_ id: UInt32, _ count: Int) {
        writeFrame(Kind.windowUpdate, 0, id, bigEndian(UInt32(count)))
    }

    fileprivate func reset(_ exchange: Exchange) {
        exchanges[exchange.id] = nil
        writeFrame(Kind.reset, 0, exchange.id, bigEndian(8))
    }

    private func writeFrame(
        _ kind: UInt8, _ flags: UInt8, _ id: UInt32, _ payload: some Collection<UInt8>
    ) {
        writeHead(kind, flags, id, payload.count)
        socket.write(payload)
    }

    private func writeHead(_ kind: UInt8, _ flags: UInt8, _ id: UInt32, _ count: Int) {
        socket.write(
            [UInt8(count >> 16 & 0xFF), UInt8(count >> 8 & 0xFF), UInt8(count & 0xFF), kind, flags]
                + bigEndian(id))
    }
}

/// A request and its response.
package final class Exchange {
    package let id: UInt32
    package private(set) var status: Int?
    package private(set) var isOver = false
    package var onData: ((UnsafeRawBufferPointer) -> Void)?
    package var onEnd: ((ClientError?) -> Void)?
    fileprivate var window: Int
    private unowned let connection: Connection
    private var held: [UInt8] = []
    private var endIsHeld = false
    private var received = 0

    fileprivate init(_ id: UInt32, _ connection: Connection, window: Int) {
        self.id = id
        self.connection = connection
        self.window = window
    }

    fileprivate var isHeld: Bool { !held.isEmpty || endIsHeld }

    /// Sends a part of the body, or keeps it until the server has room.
    package func send(_ bytes: UnsafeRawBufferPointer, ends: Bool = false) {
        guard !isOver else { return }
        var sent = 0
        if !isHeld {
            sent = connection.writeData(id, bytes, window: window, ends: ends)
            window -= sent
            if sent == bytes.count { return }
        }
        held.append(contentsOf: bytes[sent...])
        endIsHeld = ends
    }

    fileprivate func sendHeld() {
        guard isHeld else { return }
        let bytes = held
        let sent = bytes.withUnsafeBytes {
            connection.writeData(id, $0, window: window, ends: endIsHeld)
        }
        window -= sent
        held.removeFirst(sent)
        if held.isEmpty { endIsHeld = false }
    }

    /// Gives the response up.
    package func cancel() {
        guard !isOver else { return }
        isOver = true
        onData = nil
        onEnd = nil
        connection.reset(self)
    }

    fileprivate func head(_ status: Int) { self.status = status }

    fileprivate func take(_ bytes: UnsafeRawBufferPointer) {
        received += bytes.count
        if received >= Connection.receiveStreamWindow / 2 {
            connection.grant(id, received)
            received = 0
        }
        onData?(bytes)
    }

    fileprivate func ended(_ error: ClientError?) {
        isOver = true
        let onEnd = self.onEnd
        self.onEnd = nil
        onData = nil
        onEnd?(error)
    }
}
