// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import NIOCore
internal import NIOHTTP1
internal import Primitives

/// One HTTP/1.1 connection: exchanges one after the other, each full duplex.
///
/// Parts of requests stand in `inbox` until the present exchange takes them: a pipelined request
/// until the exchange before it is over, and most of its response taken; a body while the service
/// does not read. The socket is not read while anything stands there, so the inbox holds at most
/// what one wake-up has read.
final class HTTP1Connection: ChannelInboundHandler, HTTPConnection {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = ByteBuffer

    private let channel: any Channel
    private let service: any HTTPService
    let loop: NIOLoop
    let settings: HTTPSettings
    let outlet: Outlet
    private var onClosed: ((any HTTPConnection) -> Void)?

    private var context: ChannelHandlerContext?
    private var inbox = CircularBuffer<HTTPServerRequestPart>()
    /// Heads in the inbox, each of which takes many times the bytes that it came in.
    private var heldHeads = 0
    /// More came than is held: what came behind is lost, and told so by closing the connection.
    private var isOverfull = false
    private static let heldHeadsMax = 1_024
    private var exchange: HTTP1Exchange?
    /// Whether the socket is read; the sniffer began it.
    private var isReading = true
    private var isInBurst = false
    private var isDelivering = false
    private var isFlushPlanned = false
    private(set) var isDraining = false
    /// The last response is written: nothing more is taken, the socket closes once it is sent.
    private var isEnding = false
    private var isGone = false
    private var timer: Timer?
    /// When the present head's first byte came; nil between requests and within exchanges.
    private var headSince: Nanoseconds?
    private var idleSince: Nanoseconds
    private static let tickInterval: Nanoseconds = .seconds(1)
    private static let linger: Nanoseconds = .seconds(1)

    static func install(
        on channel: any Channel, loop: NIOLoop, service: any HTTPService, settings: HTTPSettings,
        onClosed: @escaping (any HTTPConnection) -> Void
    ) throws -> HTTP1Connection {
        let connection = HTTP1Connection(channel, loop, service, settings, onClosed)
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = settings.headBytesMax
        limits.maxHeaderListSize = settings.headBytesMax
        limits.maxHeaderFieldCount = settings.headersMax
        let decoder = HTTPRequestDecoder(
            leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(ArrivalWatch(connection))
        try pipeline.addHandler(ByteToMessageHandler(decoder))
        try pipeline.addHandler(connection)
        return connection
    }

    private init(
        _ channel: any Channel, _ loop: NIOLoop, _ service: any HTTPService,
        _ settings: HTTPSettings, _ onClosed: @escaping (any HTTPConnection) -> Void
    ) {
        self.channel = channel
        self.loop = loop
        self.service = service
        self.settings = settings
        self.onClosed = onClosed
        outlet = Outlet(channel, loop)
        idleSince = loop.now
        outlet.onTaken = { [weak self] in self?.taken() }
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        tick()
    }

    // MARK: What comes

    /// Bytes came, before they are decoded.
    fileprivate func arrived() {
        isInBurst = true
        if exchange == nil, headSince == nil { headSince = loop.now }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isEnding, !isGone, !isOverfull else { return }
        let part = unwrapInboundIn(data)
        if case .head = part {
            guard heldHeads < Self.heldHeadsMax else {
                isOverfull = true
                isDraining = true
                return
            }
            heldHeads += 1
        }
        inbox.append(part)
        deliver()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isInBurst = false
        flush()
    }

    /// Hands on what stands in the inbox, as far as it is wanted.
    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        while !isGone, !isEnding, let part = inbox.first {
            switch part {
            case .head(let head):
                guard exchange == nil, outlet.unsentBytes <= settings.unsentBytesLow else {
                    break
                }
                inbox.removeFirst()
                heldHeads -= 1
                begin(head)
                continue
            case .body(let buffer):
                guard let exchange, exchange.isReading else { break }
                inbox.removeFirst()
                exchange.take(Bytes(sharing: buffer))
                continue
            case .end:
                guard let exchange, exchange.isReading else { break }
                inbox.removeFirst()
                exchange.takeEnd()
                continue
            }
            break
        }
        isDelivering = false
        updateReading()
    }

    private func begin(_ head: HTTPRequestHead) {
        headSince = nil
        let exchange = HTTP1Exchange(head, on: self)
        self.exchange = exchange
        service.serve(exchange)
        exchange.expectBody()
    }

    /// The exchange's reading has changed.
    func readingChanged() {
        if isInBurst { deliver() } else { loop.soon { self.deliver() } }
    }

    private func updateReading() {
        guard !isGone else { return }
        let reads = isEnding || (inbox.isEmpty && (exchange?.isReading ?? true))
        guard reads != isReading else { return }
        isReading = reads
        channel.setReading(reads)
    }

    // MARK: What goes

    /// Bytes of a response; sent at the end of this turn.
    func send(_ parts: [Bytes]) {
        guard !isGone else { return }
        outlet.add(parts)
        planFlush()
    }

    func planFlush() {
        guard !isInBurst, !isFlushPlanned else { return }
        isFlushPlanned = true
        loop.soon { self.flush() }
    }

    private func flush() {
        isFlushPlanned = false
        if let exchange, exchange.isResponseOver {
            // Its request may have ended in what has come already; else nobody waits for it.
            deliver()
            over(exchange, keepsAlive: false)
        }
        guard let context, !isGone else { return }
        outlet.flush(context)
        if isEnding { closeWhenSent() }
    }

    private func taken() {
        exchange?.taken()
        if isEnding { return closeWhenSent() }
        if isRequestHeld, outlet.unsentBytes <= settings.unsentBytesLow { readingChanged() }
    }

    /// Whether a request waits for the client to take what it was answered before.
    private var isRequestHeld: Bool { exchange == nil && !inbox.isEmpty }

    /// The exchange is over at both ends, or its response is and its request will not be.
    func over(_ exchange: HTTP1Exchange, keepsAlive: Bool) {
        guard self.exchange === exchange else { return }
        self.exchange = nil
        idleSince = loop.now
        if keepsAlive && !isDraining {
            if !isDelivering { readingChanged() }
        } else {
            end()
        }
    }

    /// Sends what is to be sent, then closes.
    private func end() {
        guard !isEnding else { return }
        isEnding = true
        inbox.removeAll()
        planFlush()
    }

    private func closeWhenSent() {
        guard outlet.unsentBytes == 0, let context, !isGone else { return }
        // A socket that closes with unread bytes resets, and the response with it may be lost:
        // say that nothing more comes, and take what still arrives for a moment.
        channel.setReading(true)
        context.close(mode: .output, promise: nil)
        timer?.cancel()
        timer = loop.after(Self.linger) { [weak self] in self?.cut() }
        outlet.onTaken = nil
        self.context = nil
    }

    // MARK: Ends

    func drain() {
        isDraining = true
        if exchange == nil { end() }
    }

    func cut() { channel.close(promise: nil) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let parserError = error as? HTTPParserError else { return cut() }
        refuse(parserError == .headerOverflow ? 431 : 400)
    }

    /// Answers what is no request that can be served, if nothing else is being answered.
    private func refuse(_ status: Int) {
        guard !isGone, !isEnding else { return }
        if let exchange {
            if exchange.isResponding { return cut() }
            self.exchange = nil
            exchange.gone()
        }
        let head = HTTP1Head.encode(status, [("content-length", "0")], keepsAlive: false)
        send([head])
        end()
    }

    func channelInactive(context: ChannelHandlerContext) {
        isGone = true
        self.context = nil
        timer?.cancel()
        inbox.removeAll()
        exchange?.gone()
        exchange = nil
        onClosed?(self)
        onClosed = nil
        outlet.onTaken = nil
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    /// Once a second: is anybody waited for in vain?
    private func tick() {
        guard !isGone else { return }
        if outlet.isStalled(settings.writeTimeout) { return cut() }
        let now = loop.now
        if let exchange {
            if exchange.isBodyLate(now) { refuse(408) }
        } else if isRequestHeld {
            // The client is neither idle nor late; how long it may take nothing is bounded above.
            idleSince = now
            headSince = nil
        } else if let headSince {
            if now - headSince >= settings.headTimeout { refuse(408) }
        } else if now - idleSince >= settings.keepAliveTimeout {
            end()
        }
        // What ends has set the timer that closes it.
        if context != nil {
            timer = loop.after(Self.tickInterval) { [weak self] in self?.tick() }
        }
    }

    /// Sees bytes before the decoder does, which keeps an incomplete head to itself.
    private final class ArrivalWatch: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let connection: HTTP1Connection

        init(_ connection: HTTP1Connection) { self.connection = connection }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            connection.arrived()
            context.fireChannelRead(data)
        }
    }
}
