// SPDX-License-Identifier: Apache-2.0

package import HTTP
internal import NIOCore
internal import NIOPosix
internal import NIOSSL
package import Primitives
package import RPC

/// The bounds and times of an HTTP server.
package struct HTTPSettings: Sendable {
    /// One connection more is closed.
    package var connectionsMax = 10_000
    /// Request line and headers; 431 beyond.
    package var headBytesMax = 64 << 10
    package var headersMax = 256
    /// From a head's first byte to its last, and from a connection to its first byte.
    package var headTimeout: Nanoseconds = .seconds(15)
    /// A connection without a request is closed.
    package var keepAliveTimeout: Nanoseconds = .seconds(120)
    /// A request body that stops coming while nothing was answered: 408.
    package var bodyTimeout: Nanoseconds = .seconds(30)
    /// A client that takes nothing of what it is sent is cut off: its stream, or its connection.
    package var writeTimeout: Nanoseconds = .seconds(60)
    /// `onWritable` follows once `unsentBytes` has passed the high mark and fallen below the low.
    package var unsentBytesHigh = 1 << 20
    package var unsentBytesLow = 256 << 10
    /// HTTP/2: streams at once on a connection.
    package var streamsMax = 1_000
    /// HTTP/2: what a client may send ahead of the service, per stream and per connection.
    package var streamWindowBytes = 4 << 20
    package var connectionWindowBytes = 32 << 20
    /// HTTP/2: bytes of bodies that services have not taken, per connection, beyond which the
    /// connection's window is not replenished.
    package var heldBytesMax = 64 << 20

    package init() {}
}

/// Accepts HTTP/1.1 and HTTP/2 on the same port and hands every request to one service.
///
/// The first bytes of a connection tell which protocol it speaks, over TLS too, where ALPN has
/// made the client choose. Confined to its loop.
package final class HTTPServer {
    private let loop: NIOLoop
    private let service: any HTTPService
    private let settings: HTTPSettings
    private let scratch = HTTP2Scratch()
    private var listeners: [NIOListener] = []
    private var connections: [ObjectIdentifier: any HTTPConnection] = [:]
    private var isStopping = false
    private let stopped = Signal<Bool>()

    package init(
        loop: NIOLoop, service: any HTTPService, settings: HTTPSettings = HTTPSettings()
    ) {
        self.loop = loop
        self.service = service
        self.settings = settings
    }

    package var connectionCount: Int { connections.count }

    /// Accepts connections at `address` (`host:port`, port 0 for any), over TLS where files are
    /// given; returns the address with the port that was bound.
    @discardableResult
    package func listen(
        _ address: String, tls: TLSFiles? = nil
    ) async throws(NetworkError) -> String {
        let (host, port) = try SocketOptions.split(address)
        let context: NIOSSLContext? = if let tls { try tls.publicServer() } else { nil }
        let loop = self.loop
        let server = LoopBound(self)
        let channel = try await SocketOptions.server(loop)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let context {
                        try pipeline.addHandler(NIOSSLServerHandler(context: context))
                    }
                    try pipeline.addHandler(ProtocolSniffer(server.value))
                }
            }
            .bind(host: host, port: port).value("listening at \(address)")
        let listener = NIOListener(channel, SocketOptions.address(of: channel, host: host))
        guard !isStopping else {
            listener.close()
            throw NetworkError("the server is stopping")
        }
        listeners.append(listener)
        return listener.address
    }

    /// Stops accepting, announces the end to clients (GOAWAY, `connection: close`), lets exchanges
    /// finish, and cuts off what is not finished after `limit`.
    package func stop(within limit: Nanoseconds) async {
        isStopping = true
        for listener in listeners { listener.close() }
        listeners = []
        for connection in connections.values { connection.drain() }
        if !connections.isEmpty {
            let stopped = self.stopped
            _ = await loop.withDeadline(limit) { await stopped.wait() }
        }
        for connection in connections.values { connection.cut() }
    }

    fileprivate func admit(_ connection: any HTTPConnection) -> Bool {
        guard !isStopping, connections.count < settings.connectionsMax else { return false }
        connections[ObjectIdentifier(connection)] = connection
        return true
    }

    private func forget(_ connection: any HTTPConnection) {
        connections[ObjectIdentifier(connection)] = nil
        if isStopping && connections.isEmpty { stopped.set(true) }
    }

    /// Puts the handlers of a protocol behind the sniffer.
    fileprivate func speak(
        _ isHTTP2: Bool, on channel: any Channel, insteadOf sniffer: any HTTPConnection
    ) throws {
        let onClosed: (any HTTPConnection) -> Void = { [weak self] in self?.forget($0) }
        let connection: any HTTPConnection
        if isHTTP2 {
            connection = try HTTP2Connection.install(
                on: channel, loop: loop, service: service, settings: settings, scratch: scratch,
                onClosed: onClosed)
        } else {
            connection = try HTTP1Connection.install(
                on: channel, loop: loop, service: service, settings: settings, onClosed: onClosed)
        }
        connections[ObjectIdentifier(sniffer)] = nil
        connections[ObjectIdentifier(connection)] = connection
        if isStopping { connection.drain() }
    }

    fileprivate func lost(_ connection: any HTTPConnection) { forget(connection) }

    fileprivate func watch(_ sniffer: ProtocolSniffer) -> Timer {
        loop.after(settings.headTimeout) { [weak sniffer] in sniffer?.cut() }
    }
}

/// What the server holds of a connection.
protocol HTTPConnection: AnyObject {
    /// Takes no new exchanges; closes once the present ones are over.
    func drain()
    /// Closes now.
    func cut()
}

/// Waits for a connection's first bytes, and hands it to HTTP/2 or HTTP/1.1.
private final class ProtocolSniffer: ChannelInboundHandler, RemovableChannelHandler,
    HTTPConnection
{
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let server: HTTPServer
    private var seen = ByteBuffer()
    private var channel: (any Channel)?
    private var timer: Timer?
    private var isDone = false
    /// Enough to tell: no HTTP/1.1 method begins like HTTP/2's preface.
    private static let preface = Array("PRI".utf8)

    init(_ server: HTTPServer) { self.server = server }

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        if context.channel.isActive { begin(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        begin(context)
        context.fireChannelActive()
    }

    private func begin(_ context: ChannelHandlerContext) {
        guard timer == nil else { return }
        guard server.admit(self) else { return context.close(promise: nil) }
        timer = server.watch(self)
        context.channel.setReading(true)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        guard !isDone else { return context.fireChannelRead(data) }
        seen.writeBuffer(&buffer)
        guard seen.readableBytes >= Self.preface.count else { return }
        isDone = true
        timer?.cancel()
        let isHTTP2 = seen.readableBytesView.prefix(Self.preface.count)
            .elementsEqual(Self.preface)
        do {
            try server.speak(isHTTP2, on: context.channel, insteadOf: self)
            let first = seen
            seen = ByteBuffer()
            context.fireChannelRead(wrapInboundOut(first))
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
        } catch {
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if isDone { context.fireErrorCaught(error) } else { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        if !isDone { server.lost(self) }
        context.fireChannelInactive()
    }

    func drain() { cut() }

    func cut() {
        if !isDone { channel?.close(promise: nil) }
    }
}
