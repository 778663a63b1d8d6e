// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import NIOCore
internal import NIOHPACK
internal import NIOHTTP2
internal import Primitives

/// One HTTP/2 connection: a handler on the connection's frames, without a channel per stream.
///
/// NIO's handler keeps the protocol's rules, answers pings, and holds outbound frames back for the
/// client's flow control. This one maps streams to exchanges and grants the client windows: a
/// stream's as its service takes the body, the connection's as bytes arrive, unless services have
/// left more than `heldBytesMax` of them lying. So one stalled exchange holds back its own stream
/// only, and all of them together hold a bounded number of bytes. A stream more than the client may
/// have is refused, in a way that lets the client try it again; the others go on.
final class HTTP2Connection: ChannelInboundHandler, HTTPConnection {
    typealias InboundIn = HTTP2Frame
    typealias OutboundOut = HTTP2Frame

    let loop: NIOLoop
    let settings: HTTPSettings
    private let channel: any Channel
    private let service: any HTTPService
    private var onClosed: ((any HTTPConnection) -> Void)?
    private var context: ChannelHandlerContext?
    private var exchanges: [HTTP2StreamID: HTTP2Exchange] = [:]
    private var written: [HTTP2Exchange] = []
    private var lastStream: HTTP2StreamID = .rootStream
    /// What the client may still send on all streams, as NIO counts it.
    private var connectionWindow = 65_535
    /// A grant is on its way, which NIO may count already or not.
    private var isGranting = false
    /// Bytes of bodies that came and were not taken.
    private var heldBytes = 0
    private var isInBurst = false
    /// When the present, or else the last, burst of frames came.
    private(set) var burstBegan: Nanoseconds
    private lazy var flushing = Errand(on: loop) { [weak self] in self?.flush() }
    /// The client has been told that the connection ends.
    private var isWarned = false
    private var isDraining = false
    /// The last stream is over: nothing more is taken, the socket closes once all is sent.
    private var endingSince: Nanoseconds?
    private var isGone = false
    private var wrote = false
    private let goAways = GoAwayWatch()
    private let opening: HTTP2Opening
    /// Since when the socket has taken too little.
    private var stuckSince: Nanoseconds?
    /// A reset waits for the socket, and with it what its stream has to send.
    private var owesReset = false
    private var timer: Timer?
    /// When the last stream came or went.
    private var idleSince: Nanoseconds
    private static let tickInterval: Nanoseconds = .seconds(1)
    /// A socket that takes nothing for so long does not take the reset of a stream either.
    private static let stuckMax: Nanoseconds = .seconds(1)
    /// How long a client is listened to after all was said: a socket that closes with unread bytes
    /// resets, and what was sent last may be lost.
    private static let linger: Nanoseconds = .seconds(1)
    /// Between the announcement of the end and the last stream's number.
    private static let drainNotice: Nanoseconds = .milliseconds(500)

    static func install(
        on channel: any Channel, loop: NIOLoop, service: any HTTPService, settings: HTTPSettings,
        scratch: HTTP2Scratch, onClosed: @escaping (any HTTPConnection) -> Void
    ) throws -> HTTP2Connection {
        let opening = HTTP2Opening(HTTP2Terms(settings), scratch)
        let connection = HTTP2Connection(channel, loop, service, settings, opening, onClosed)
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(opening)
        try pipeline.addHandler(
            NIOHTTP2Handler(
                mode: .server, frameDelegate: connection.goAways,
                connectionConfiguration: configuration(settings),
                streamConfiguration: streamConfiguration()))
        try pipeline.addHandler(connection)
        return connection
    }

    private static func configuration(
        _ settings: HTTPSettings
    ) -> NIOHTTP2Handler.ConnectionConfiguration {
        var configuration = NIOHTTP2Handler.ConnectionConfiguration()
        configuration.initialSettings = HTTP2Terms(settings).enforced
        // Clients that open and reset many streams, or write one small frame per record, are at
        // work, not attacking; still, each kind of frame has its bound.
        configuration.maximumSequentialEmptyDataFrames = 64
        configuration.maximumRecentlyResetStreams = 4_096
        configuration.maximumConnectionGlitches = 10_000
        configuration.controlFrameRateLimit.maximumCount = 10_000
        return configuration
    }

    private static func streamConfiguration() -> NIOHTTP2Handler.StreamConfiguration {
        var configuration = NIOHTTP2Handler.StreamConfiguration()
        configuration.streamResetFrameRateLimit.maximumCount = 20_000
        configuration.streamErrorRateLimit.maximumCount = 10_000
        return configuration
    }

    private init(
        _ channel: any Channel, _ loop: NIOLoop, _ service: any HTTPService,
        _ settings: HTTPSettings, _ opening: HTTP2Opening,
        _ onClosed: @escaping (any HTTPConnection) -> Void
    ) {
        self.channel = channel
        self.loop = loop
        self.service = service
        self.settings = settings
        self.onClosed = onClosed
        self.opening = opening
        burstBegan = loop.now
        idleSince = burstBegan
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        grantConnection()
        tick()
    }

    // MARK: What comes

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard endingSince == nil else { return }
        if !isInBurst {
            isInBurst = true
            burstBegan = loop.now
        }
        let frame = unwrapInboundIn(data)
        switch frame.payload {
        case .headers(let headers): takeHeaders(frame.streamID, headers)
        case .data(let data): takeData(frame.streamID, data)
        default: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isInBurst = false
        flush()
    }

    private func takeHeaders(_ id: HTTP2StreamID, _ frame: HTTP2Frame.FramePayload.Headers) {
        if let exchange = exchanges[id] {
            // Trailers.
            if frame.endStream { exchange.takeEnd() }
            return
        }
        guard exchanges.count < settings.streamsMax else {
            write(id, .rstStream(.refusedStream))
            return planFlush()
        }
        lastStream = max(lastStream, id)
        idleSince = loop.now
        let exchange = HTTP2Exchange(id, HTTP2Head.request(frame.headers), on: self)
        exchanges[id] = exchange
        if frame.headers.count > settings.headersMax {
            exchange.respond(431, [("content-length", "0")])
            exchange.finish()
        } else {
            service.serve(exchange)
        }
        if frame.endStream { exchange.takeEnd() }
    }

    private func takeData(_ id: HTTP2StreamID, _ frame: HTTP2Frame.FramePayload.Data) {
        guard case .byteBuffer(let buffer) = frame.data else { return }
        let padding = frame.paddingBytes.map { $0 + 1 } ?? 0
        guard let exchange = exchanges[id] else { return }
        heldBytes += buffer.readableBytes
        exchange.take(buffer, padding: padding, ends: frame.endStream)
        if frame.endStream { exchange.takeEnd() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let updated = event as? NIOHTTP2WindowUpdatedEvent {
            if updated.streamID == .rootStream, let window = updated.inboundWindowSize {
                connectionWindow = window
                grantConnection()
            }
        } else if let closed = event as? StreamClosedEvent {
            streamClosed(closed.streamID)
        }
        context.fireUserInboundEventTriggered(event)
    }

    private func streamClosed(_ id: HTTP2StreamID) {
        guard let exchange = exchanges.removeValue(forKey: id) else { return }
        idleSince = loop.now
        exchange.gone()
        if isDraining && exchanges.isEmpty { planFlush() }
    }

    // MARK: Windows

    /// A service took, or dropped, `count` bytes of what was held.
    func released(_ count: Int) {
        heldBytes -= count
        grantConnection()
    }

    /// Fills the connection's window up. It shrinks by what is sent on streams that are no more,
    /// too, which nobody sees but NIO.
    private func grantConnection() {
        let due = settings.connectionWindowBytes - connectionWindow
        guard due >= settings.connectionWindowBytes / 4, heldBytes <= settings.heldBytesMax,
            !isGranting
        else { return }
        isGranting = true
        let bound = LoopBound(self)
        write(.rootStream, .windowUpdate(windowSizeIncrement: due)) { _ in
            bound.value.granted(due)
        }
        planFlush()
    }

    private func granted(_ count: Int) {
        isGranting = false
        // If NIO has told its count meanwhile this is too much, until it tells the next.
        connectionWindow = min(connectionWindow + count, settings.connectionWindowBytes)
    }

    func grantStream(_ id: HTTP2StreamID, _ count: Int) {
        guard !isGone, exchanges[id] != nil else { return }
        write(id, .windowUpdate(windowSizeIncrement: count))
        planFlush()
    }

    // MARK: What goes

    /// Writes a frame; it leaves with the next flush.
    func write(
        _ id: HTTP2StreamID, _ payload: HTTP2Frame.FramePayload,
        _ done: (@Sendable (Result<Void, any Error>) -> Void)? = nil
    ) {
        guard let context, !isGone else { return }
        var promise: EventLoopPromise<Void>?
        if let done {
            let made = channel.eventLoop.makePromise(of: Void.self)
            made.futureResult.whenComplete(done)
            promise = made
        }
        wrote = true
        context.write(wrapOutboundOut(HTTP2Frame(streamID: id, payload: payload)), promise: promise)
    }

    var allocator: ByteBufferAllocator { channel.allocator }

    /// The exchange has something to write at the end of this turn.
    func hasWritten(_ exchange: HTTP2Exchange) {
        written.append(exchange)
        planFlush()
    }

    func planFlush() {
        if !isInBurst { flushing.soon() }
    }

    private func flush() {
        guard let context, !isGone else { return }
        var written = self.written
        self.written = []
        for exchange in written { exchange.flush() }
        // Its memory serves the next turn.
        written.removeAll(keepingCapacity: true)
        if self.written.isEmpty { self.written = written }
        if wrote {
            wrote = false
            context.flush()
        }
        if isDraining && exchanges.isEmpty { end(context) }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        stuckSince = context.channel.isWritable ? nil : loop.now
        owesReset = false
        context.fireChannelWritabilityChanged()
    }

    // MARK: Ends

    func drain() {
        guard !isWarned, !isGone else { return }
        isWarned = true
        // Streams that are on their way are still served; those above the last number are not.
        goAway(.maxID)
        planFlush()
        loop.after(Self.drainNotice) { [weak self] in
            guard let self, !isGone else { return }
            isDraining = true
            goAway(lastStream)
            planFlush()
        }
    }

    private func goAway(_ last: HTTP2StreamID) {
        write(.rootStream, .goAway(lastStreamID: last, errorCode: .noError, opaqueData: nil))
    }

    /// Sends what is to be sent, then closes.
    private func end(_ context: ChannelHandlerContext) {
        guard endingSince == nil else { return }
        endingSince = loop.now
        let sent = channel.eventLoop.makePromise(of: Void.self)
        let me = LoopBound(self)
        sent.futureResult.whenSuccess { me.value.sentAll() }
        context.close(mode: .output, promise: sent)
    }

    private func sentAll() {
        guard !isGone else { return }
        timer?.cancel()
        timer = loop.after(Self.linger) { [weak self] in self?.cut() }
    }

    func cut() { channel.close(promise: nil) }

    /// A stream was reset so that what its client does not take is let go of, which NIO does once
    /// the reset is written: where the client reads nothing at all, only the end of the connection
    /// helps.
    func cutIfStuck() {
        guard let stuckSince else { return }
        owesReset = true
        if loop.now - stuckSince >= Self.stuckMax { cut() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Nothing that comes now can be answered, and nobody is served.
        if endingSince != nil { return }
        // What NIO found wrong with one stream has reset that stream; with the connection, it has
        // told the client so.
        guard error is any NIOHTTP2Error else { return context.close(promise: nil) }
        guard goAways.sawError, !isGone else { return }
        opening.close()
        context.close(mode: .output, promise: nil)
        abandon()
        timer = loop.after(Self.linger) { [weak self] in self?.cut() }
    }

    func channelInactive(context: ChannelHandlerContext) {
        abandon()
        onClosed?(self)
        onClosed = nil
        context.fireChannelInactive()
    }

    private func abandon() {
        isGone = true
        context = nil
        timer?.cancel()
        for id in exchanges.keys.sorted() { exchanges.removeValue(forKey: id)?.gone() }
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    /// Notices when NIO gives the connection up.
    private final class GoAwayWatch: NIOHTTP2FrameDelegate {
        private(set) var sawError = false

        func wroteFrame(_ frame: HTTP2Frame) {
            guard case .goAway(_, let code, _) = frame.payload, code != .noError else { return }
            sawError = true
        }
    }

    /// Once a second: is anybody waited for in vain?
    private func tick() {
        guard !isGone else { return }
        let now = loop.now
        if let endingSince, now - endingSince >= settings.writeTimeout { return cut() }
        // Who does not read at all takes no stream's reset either.
        if let stuckSince, now - stuckSince >= settings.writeTimeout { return cut() }
        if owesReset { cutIfStuck() }
        for id in exchanges.keys.sorted() { exchanges[id]?.tick(now) }
        if exchanges.isEmpty, now - idleSince >= settings.keepAliveTimeout { drain() }
        timer = loop.after(Self.tickInterval) { [weak self] in self?.tick() }
    }
}
