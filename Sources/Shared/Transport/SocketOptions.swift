// SPDX-License-Identifier: Apache-2.0

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

    static func server(_ loop: NIOLoop) -> ServerBootstrap {
        ServerBootstrap(group: loop.eventLoop)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.maxMessagesPerRead, value: 16)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelOption(.recvAllocator, value: receiving)
            .childChannelOption(.maxMessagesPerRead, value: readsMax)
            .childChannelOption(.writeBufferWaterMark, value: writeMarks)
            .childChannelOption(.autoRead, value: false)
    }

    static func client(_ loop: NIOLoop) -> ClientBootstrap {
        ClientBootstrap(group: loop.eventLoop)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelOption(.recvAllocator, value: receiving)
            .channelOption(.maxMessagesPerRead, value: readsMax)
            .channelOption(.writeBufferWaterMark, value: writeMarks)
            .channelOption(.autoRead, value: false)
    }

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
