// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import Primitives
internal import RPC

/// How every socket of ours is set up.
enum SocketOptions {
    static let writeMarks = ChannelOptions.Types.WriteBufferWaterMark(
        low: 256 << 10, high: 1 << 20)
    /// Reads per wake-up, so that one busy socket does not starve the others.
    static let readsMax: UInt = 4

    /// `isTCP` is false for sockets to whom the options of TCP mean nothing.
    static func server(_ loop: NIOLoop, isTCP: Bool = true) -> ServerBootstrap {
        let server = ServerBootstrap(group: loop.eventLoop)
            .serverChannelOption(.maxMessagesPerRead, value: 16)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptPause())
                }
            }
            .childChannelOption(.recvAllocator, value: receiving)
            .childChannelOption(.maxMessagesPerRead, value: readsMax)
            .childChannelOption(.writeBufferWaterMark, value: writeMarks)
            .childChannelOption(.autoRead, value: false)
        guard isTCP else { return server }
        return
            server
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(.tcpOption(keepIdle), value: 60)
            .childChannelOption(.tcpOption(keepInterval), value: 15)
            .childChannelOption(.tcpOption(keepCount), value: 4)
    }

    static func client(_ loop: NIOLoop, isTCP: Bool = true) -> ClientBootstrap {
        let client = ClientBootstrap(group: loop.eventLoop)
            .channelOption(.recvAllocator, value: receiving)
            .channelOption(.maxMessagesPerRead, value: readsMax)
            .channelOption(.writeBufferWaterMark, value: writeMarks)
            .channelOption(.autoRead, value: false)
        return isTCP ? client.channelOption(.tcpOption(.tcp_nodelay), value: 1) : client
    }

    // Of tcp.h: a peer that vanished is noticed after two minutes of silence.
    private static let keepIdle = NIOBSDSocket.Option(rawValue: TCP_KEEPIDLE)
    private static let keepInterval = NIOBSDSocket.Option(rawValue: TCP_KEEPINTVL)
    private static let keepCount = NIOBSDSocket.Option(rawValue: TCP_KEEPCNT)

    private static var receiving: AdaptiveRecvByteBufferAllocator {
        AdaptiveRecvByteBufferAllocator(minimum: 4_096, initial: 64 << 10, maximum: 1 << 20)
    }

    /// `host:port`; an IPv6 host stands in brackets.
    static func split(_ address: String) throws(NetworkError) -> (host: String, port: Int) {
        guard let colon = address.lastIndex(of: ":"),
            let port = Int(address[address.index(after: colon)...]), (0...65_535).contains(port)
        else { throw NetworkError("\(address) is not host:port") }
        var host = address[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { throw NetworkError("\(address) has no host") }
        return (String(host), port)
    }

    /// `host:port` of a bound channel.
    static func address(of channel: any Channel, host: String) -> String {
        let name = host.contains(":") ? "[\(host)]" : host
        return "\(name):\(channel.localAddress?.port ?? 0)"
    }
}

/// Lets a listener rest for a moment when the system has nothing left to accept a connection with:
/// the selector would report that connection again at once, and the loop do nothing else. (NIO's
/// own handler delays the next read, but a failed accept leaves the present one pending.)
private final class AcceptPause: ChannelInboundHandler {
    typealias InboundIn = any Channel
    private var isResting = false
    private static let pause = TimeAmount.milliseconds(250)

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let code = (error as? IOError)?.errnoCode ?? 0
        guard [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(code), !isResting else {
            return context.fireErrorCaught(error)
        }
        isResting = true
        let channel = context.channel
        channel.setReading(false)
        let me = LoopBound(self)
        channel.eventLoop.scheduleTask(in: Self.pause) {
            me.value.isResting = false
            channel.setReading(true)
        }
    }
}

extension EventLoopFuture where Value: Sendable {
    /// The value, or an error that says what was tried.
    func value(_ what: String) async throws(NetworkError) -> Value {
        let result = await withUnsafeContinuation {
            (waiter: UnsafeContinuation<Result<Value, any Error>, Never>) in
            whenComplete { waiter.resume(returning: $0) }
        }
        switch result {
        case .success(let value): return value
        case .failure(let error): throw NetworkError("\(what): \(error)")
        }
    }
}
