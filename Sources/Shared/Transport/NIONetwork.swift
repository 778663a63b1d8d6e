// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import NIOSSL
package import Primitives
package import RPC

/// TCP and unix domain sockets on one loop, with mutual TLS where files are given.
package final class NIONetwork: Network {
    private let loop: NIOLoop
    private let tls: NIOSSLContext?

    /// Reads the TLS files now.
    package init(loop: NIOLoop, tls: TLSFiles? = nil) throws(NetworkError) {
        self.loop = loop
        self.tls = if let tls { try tls.mutual() } else { nil }
    }

    package func listen(
        _ address: String, accept: @escaping (any Link) -> Void
    ) async throws(NetworkError) -> any Listener {
        guard let path = try SocketFile.path(of: address) else {
            let (host, port) = try SocketOptions.split(address)
            let channel = try await server(accept, SocketOptions.server(loop))
                .bind(host: host, port: port).value("listening at \(address)")
            return NIOListener(channel, SocketOptions.address(of: channel, host: host))
        }
        let (file, descriptor) = try await SocketFile.listen(path, loop)
        do throws(NetworkError) {
            let channel = try await server(accept, SocketOptions.server(loop, isTCP: false))
                .withBoundSocket(descriptor).value("listening at \(address)")
            return NIOListener(channel, address, file)
        } catch {
            file.remove()
            throw error
        }
    }

    private func server(
        _ accept: @escaping (any Link) -> Void, _ bootstrap: ServerBootstrap
    ) -> ServerBootstrap {
        let loop = self.loop
        let tls = self.tls
        let accept = LoopBound(accept)
        return bootstrap.childChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                let pipeline = channel.pipeline.syncOperations
                if let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
                // A server's memory may be wanted again, as the slabs of a channel are.
                let link = NIOLink(channel, loop, copiesAll: true)
                try pipeline.addHandler(link)
                link.onActive = { [unowned link] in accept.value(link) }
            }
        }
    }

    package func connect(
        _ address: String, timeout: Nanoseconds
    ) async throws(NetworkError) -> any Link {
        let link = Box<NIOLink>()
        let what = "connecting to \(address)"
        if let path = try SocketFile.path(of: address) {
            _ = try await client(link, timeout, SocketOptions.client(loop, isTCP: false))
                .connect(to: SocketAddress(SocketFile.address(path))).value(what)
        } else {
            let (host, port) = try SocketOptions.split(address)
            _ = try await client(link, timeout, SocketOptions.client(loop))
                .connect(host: host, port: port).value(what)
        }
        guard let made = link.value else { throw NetworkError("no channel for \(address)") }
        return made
    }

    private func client(
        _ link: Box<NIOLink>, _ timeout: Nanoseconds, _ bootstrap: ClientBootstrap
    ) -> ClientBootstrap {
        let loop = self.loop
        let tls = self.tls
        let bound = LoopBound(link)
        return bootstrap.connectTimeout(.nanoseconds(timeout))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls {
                        try pipeline.addHandler(
                            NIOSSLClientHandler(context: tls, serverHostname: nil))
                    }
                    let link = NIOLink(channel, loop, copiesAll: false)
                    bound.value.value = link
                    try pipeline.addHandler(link)
                }
            }
    }

    private final class Box<Value> {
        var value: Value?
    }
}

final class NIOListener: Listener {
    let address: String
    private let channel: any Channel
    /// Until it is removed.
    private var file: SocketFile?

    init(_ channel: any Channel, _ address: String, _ file: SocketFile? = nil) {
        self.channel = channel
        self.address = address
        self.file = file
    }

    func close() {
        file?.remove()
        file = nil
        channel.close(promise: nil)
    }
}

/// A connection, as the last handler of its channel. Reads begin once somebody listens.
final class NIOLink: ChannelInboundHandler, Link {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    var handler: (any LinkHandler)? {
        didSet { if handler != nil, oldValue == nil { begin() } }
    }
    let peer: String
    var onActive: (() -> Void)?
    private let channel: any Channel
    private let loop: NIOLoop
    private let outlet: Outlet
    private var context: ChannelHandlerContext?
    private var closeReason: String?
    private var isOver = false

    /// With `copiesAll`, what was written is not kept beyond the flush.
    init(_ channel: any Channel, _ loop: NIOLoop, copiesAll: Bool) {
        self.channel = channel
        self.loop = loop
        peer = channel.remoteAddress?.description ?? "unknown"
        outlet = Outlet(channel, loop, copiesAll: copiesAll)
    }

    var unsentBytes: Int { outlet.unsentBytes }

    func write(_ parts: [Bytes]) { outlet.add(parts) }

    func flush() {
        guard let context else { return }
        outlet.flush(context)
    }

    func setReading(_ reading: Bool) {
        guard !isOver else { return }
        channel.setReading(reading)
    }

    func close() {
        if closeReason == nil { closeReason = "closed here" }
        channel.close(promise: nil)
    }

    private func begin() {
        guard isOver else { return setReading(true) }
        // The link was lost before anybody listened: they hear of it in a turn of its own.
        loop.soon { self.tellClosed() }
    }

    private func tellClosed() {
        guard let handler else { return }
        handler.linkClosed(closeReason ?? "closed by the peer")
        self.handler = nil
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { active() }
    }

    func channelActive(context: ChannelHandlerContext) { active() }

    private func active() {
        let onActive = self.onActive
        self.onActive = nil
        onActive?()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        handler?.linkReceived(Bytes(unwrapInboundIn(data)))
    }

    func channelReadComplete(context: ChannelHandlerContext) { handler?.linkBurstEnded() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if closeReason == nil { closeReason = "\(error)" }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        isOver = true
        self.context = nil
        tellClosed()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }
}

extension Channel {
    /// Whether the channel reads by itself. From its loop.
    func setReading(_ reading: Bool) {
        do {
            try syncOptions?.setOption(.autoRead, value: reading)
        } catch {
            // A closed channel has no options any more, and nothing to read.
            close(promise: nil)
        }
    }
}
