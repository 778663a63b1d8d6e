// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import Primitives

/// Many calls over one link: what `Frame` lists, in both directions alike.
///
/// **Credit.** Each end grants the other a window of bytes per call and per connection. A message
/// spends both, the payload of an end that of the connection; who has any credit left may send one
/// whole message, so a window is overshot by one message at most. Credit comes back as the
/// application calls `consumed` (for ends at once), batched to an eighth of a window. Opens are
/// small and free, so that questions get through where messages have taken all credit.
///
/// **Bounds.** Towards a peer that reads nothing or grants nothing, this end keeps: what credit
/// allows, the connection's window plus one message; besides, small frames, up to `linkBytesMax`
/// in all, beyond which the peer is cut off; and what applications insist on sending, up to
/// `heldBytesMax`, beyond which the call that holds the most ends. Of a peer that sends too much it
/// keeps one incomplete frame, and the windows; whoever passes a window is cut off. A peer that is
/// silent or takes nothing is given up after twice `pingInterval`.
///
/// **Writes** are collected and go out once per turn: when a burst of reads is over, else soon.
///
/// Confined to its loop. Applications are called from the link's callbacks and timers only, never
/// out of their own calls.
package final class RPCConnection: LinkHandler {
    /// The peer said hello; opens are sent from now on. Set before `start`.
    package var onReady: ((PeerIdentity) -> Void)?
    /// The peer wants no new calls.
    package var onDraining: (() -> Void)?
    /// The connection is gone, and every call with it.
    package var onClosed: ((String) -> Void)?
    package private(set) var peer: PeerIdentity?
    @exclusivity(unchecked) package private(set) var isClosed = false
    /// Either end has asked for no new calls.
    package var isDraining: Bool { drainSent || drainReceived }
    package var callCount: Int { calls.count }
    /// Bytes held for want of credit, by what they count as.
    package internal(set) var heldBytes = 0

    // What every frame touches is not checked for overlapping access: applications are called with
    // none under way but that to the parser, which only `linkReceived` uses.
    private let link: any Link
    let loop: any Loop
    let settings: RPCSettings
    private let identity: PeerIdentity
    private let isInitiator: Bool
    private let service: (any CallService)?

    @exclusivity(unchecked) private var parser = FrameParser(
        frameBytesMax: Frame.headBytes + Hello.frameBytesMax)
    @exclusivity(unchecked) var writer = FrameWriter()
    @exclusivity(unchecked) private var isInBurst = false
    @exclusivity(unchecked) private var isFlushing = false
    @exclusivity(unchecked) private var flushing: Errand?

    @exclusivity(unchecked) private(set) var calls = ObjectTable<ConnectionCall>()
    private var incomingCount = 0
    @exclusivity(unchecked) private var nextID: UInt64
    @exclusivity(unchecked) private var lastPeerID: UInt64 = 0

    private var peerCallWindow = 0
    @exclusivity(unchecked) var credit = 0
    private var blocked: Deque<ConnectionCall> = []
    /// Received and not granted again, and the part of it that is dealt with.
    @exclusivity(unchecked) private var received = 0
    @exclusivity(unchecked) private var grantDue = 0
    @exclusivity(unchecked) var grants: [ConnectionCall] = []

    private var drainSent = false
    private var drainReceived = false
    private var timer: Timer?
    private var liveness: Liveness
    private var lastCallAt: Nanoseconds
    private var pongDue: UInt64?

    /// Takes the link over. The initiator is the end that connected. Without a `service` every
    /// call of the peer ends `.unknownMethod`.
    package init(
        link: any Link, loop: any Loop, identity: PeerIdentity, isInitiator: Bool,
        service: (any CallService)? = nil, settings: RPCSettings = RPCSettings()
    ) {
        self.link = link
        self.loop = loop
        self.identity = identity
        self.isInitiator = isInitiator
        self.service = service
        self.settings = settings
        nextID = isInitiator ? 1 : 2
        lastCallAt = loop.now
        liveness = Liveness(interval: settings.pingInterval, now: loop.now)
        flushing = Errand(on: loop) { [weak self] in self?.flush() }
    }

    /// Says hello. In the same turn as the link came to be.
    package func start() {
        let hello = Hello(
            identity: identity, callWindowBytes: UInt32(settings.callWindowBytes),
            connectionWindowBytes: UInt32(settings.connectionWindowBytes))
        write(Frame(.hello, payload: hello.encoded()))
        timer = loop.after(settings.helloTimeout) { [weak self] in
            self?.fail("the peer did not say hello")
        }
        link.handler = self
    }

    /// Opens a call. The peer has said hello, and neither end drains.
    package func open(
        _ method: Method, _ payload: Bytes, deadline: Nanoseconds? = nil
    ) -> any Call {
        let call = ConnectionCall(to: method, payload, deadline: deadline, on: loop)
        adopt(call)
        return call
    }

    /// Takes over a call that was made before there was a connection.
    func adopt(_ call: ConnectionCall) {
        guard !isClosed, peer != nil, !isDraining else {
            return call.finishSoon(.notConnected, on: loop)
        }
        guard calls.count - incomingCount < settings.callsMax else {
            return call.finishSoon(.overloaded, on: loop)
        }
        call.attach(self, id: nextID, credit: peerCallWindow)
        calls.insert(call)
        nextID += 2
        lastCallAt = loop.now
        callHeld(call, call.heldCost)
    }

    /// Takes no new calls; the connection closes once the present ones are over.
    package func drain() {
        guard !isClosed, !drainSent else { return }
        drainSent = true
        write(Frame(.drain))
        closeIfDrained()
    }

    /// Ends the connection and every call on it.
    package func close(_ reason: String) { fail(reason) }

    // MARK: The link's events

    package func linkReceived(_ bytes: Bytes) {
        guard !isClosed else { return }
        isInBurst = true
        liveness.heardAt = loop.now
        parser.push(bytes)
        do throws(FrameError) {
            while !isClosed, let frame = try parser.next() { take(frame) }
        } catch {
            fail("the peer sent what is no frame: \(error)")
        }
    }

    package func linkBurstEnded() {
        isInBurst = false
        flush()
    }

    package func linkClosed(_ reason: String) { fail(reason) }

    private func take(_ frame: Frame) {
        guard peer != nil else { return takeHello(frame) }
        switch frame.kind {
        case .hello: fail("the peer said hello twice")
        case .open: takeOpen(frame)
        case .message: takeMessage(frame)
        case .finish, .end, .cancel: takeOfCall(frame)
        case .credit: takeCredit(frame)
        case .ping: answerPing(frame.call)
        case .pong: break
        case .drain: takeDrain()
        }
    }

    private func takeHello(_ frame: Frame) {
        guard frame.kind == .hello else { return fail("the peer did not say hello first") }
        let hello: Hello
        do { hello = try Hello(frame.payload) } catch {
            return fail("the peer's hello is malformed: \(error)")
        }
        guard hello.version == Hello.currentVersion else {
            return fail(
                "the peer speaks version \(hello.version) of the protocol, "
                    + "this process version \(Hello.currentVersion)")
        }
        peer = hello.identity
        parser.frameBytesMax = settings.frameBytesMax
        peerCallWindow = Int(hello.callWindowBytes)
        credit = Int(hello.connectionWindowBytes)
        timer?.cancel()
        tick()
        onReady?(hello.identity)
    }

    private func takeOpen(_ frame: Frame) {
        let isPeers = (frame.call % 2 == 1) != isInitiator
        guard isPeers, frame.call > lastPeerID, frame.payload.count >= 4,
            frame.payload.count <= 4 + RPCLimits.openBytesMax
        else { return fail("the peer opened call \(frame.call) wrongly") }
        lastPeerID = frame.call
        let payload = frame.payload.dropFirst(4)
        guard !drainSent else { return refuse(frame.call, .draining) }
        guard incomingCount < settings.callsMax, heldBytes < settings.heldBytesMax else {
            return refuse(frame.call, .overloaded)
        }
        guard let service, let method = Method(rawValue: frame.method) else {
            return refuse(frame.call, .unknownMethod)
        }
        let milliseconds = frame.payload.load(UInt32.self, at: 0)
        let deadline: Nanoseconds? =
            milliseconds == .max ? nil : .milliseconds(Int64(milliseconds))
        let call = ConnectionCall(from: method)
        call.attach(self, id: frame.call, credit: peerCallWindow)
        calls.insert(call)
        incomingCount += 1
        lastCallAt = loop.now
        service.serve(call, method: method, payload: payload, deadline: deadline)
    }

    func refuse(_ id: UInt64, _ status: Status) {
        write(Frame(.end, status: status.rawValue, call: id))
    }

    /// Whether the call was opened by this end; nil if it never was.
    @inline(__always)
    private func isOurs(_ id: UInt64) -> Bool? {
        let isOurs = (id % 2 == 1) == isInitiator
        guard id > 0, isOurs ? id < nextID : id <= lastPeerID else { return nil }
        return isOurs
    }

    private func neverOpened(_ frame: Frame) {
        fail("the peer sent \(frame.kind) for call \(frame.call), never opened")
    }

    private func takeOfCall(_ frame: Frame) {
        guard isOurs(frame.call) == (frame.kind == .end) else { return neverOpened(frame) }
        guard spend(frame.payload.count) else { return }
        // A call that ended here while this was on its way is known no more.
        guard let call = calls[frame.call] else { return dealtWith(frame.payload.count) }
        switch frame.kind {
        case .finish: call.onFinishedSending?()
        case .end: over(call, Status(rawValue: frame.status) ?? .malformed, frame.payload)
        default: over(call, Status(rawValue: frame.status) ?? .cancelled)
        }
        dealtWith(frame.payload.count)
    }

    private func takeMessage(_ frame: Frame) {
        guard isOurs(frame.call) != nil else { return neverOpened(frame) }
        let payload = frame.payload
        guard spend(payload.count) else { return }
        guard let call = calls[frame.call] else { return dealtWith(payload.count) }
        call.received += payload.count
        guard call.received <= settings.callWindowBytes + settings.frameBytesMax else {
            return fail("the peer passed the window of call \(call.id)")
        }
        guard let onMessage = call.onMessage else { return callConsumed(call, payload.count) }
        onMessage(payload)
    }

    private func takeDrain() {
        guard !drainReceived else { return }
        drainReceived = true
        onDraining?()
        closeIfDrained()
    }

    // MARK: Credit

    /// Counts bytes from the peer against the connection's window; false where it passed it.
    private func spend(_ count: Int) -> Bool {
        received += count
        if received <= settings.connectionWindowBytes + settings.frameBytesMax { return true }
        fail("the peer passed the connection's window")
        return false
    }

    /// The peer may send `count` bytes more over the connection.
    func dealtWith(_ count: Int) {
        guard count > 0 else { return }
        grantDue += count
        if grantDue >= settings.connectionWindowBytes / 8 { planFlush() }
    }

    private func writeGrants() {
        let grantsConnection = grantDue > 0 && grantDue >= settings.connectionWindowBytes / 8
        if grantsConnection {
            writer.write(.credit, call: 0, 12, body: Bytes()) {
                Self.writeGrant(to: 0, grantDue, at: $0)
            }
            received -= grantDue
            grantDue = 0
        }
        grants.removeAll { $0.isOver }
        var written = 0
        while written < grants.count {
            let count = min(grants.count - written, RPCLimits.writtenBytesMax / 12)
            writer.write(.credit, call: 0, 12 * count, body: Bytes()) { target in
                for n in 0..<count {
                    let call = grants[written + n]
                    Self.writeGrant(to: call.id, call.grantDue, at: target + 12 * n)
                }
            }
            written += count
        }
        for call in grants {
            call.received -= call.grantDue
            call.grantDue = 0
            call.isGrantListed = false
        }
        grants.removeAll(keepingCapacity: true)
    }

    private static func writeGrant(
        to call: UInt64, _ bytes: Int, at target: UnsafeMutableRawPointer
    ) {
        target.storeBytes(of: call.littleEndian, as: UInt64.self)
        target.storeBytes(of: UInt32(bytes).littleEndian, toByteOffset: 8, as: UInt32.self)
    }

    private func takeCredit(_ frame: Frame) {
        guard frame.payload.count % 12 == 0 else { return fail("the peer's credit is malformed") }
        for offset in stride(from: 0, to: frame.payload.count, by: 12) {
            let id = frame.payload.load(UInt64.self, at: offset)
            let bytes = Int(frame.payload.load(UInt32.self, at: offset + 8))
            if id == 0 {
                credit += bytes
            } else if let call = calls[id] {
                call.credit += bytes
                pump(call)
                call.noteSendable()
            }
            guard !isClosed else { return }
        }
        pumpBlocked()
    }

    /// Sends what of a call's held items credit allows.
    func pump(_ call: ConnectionCall) {
        while let item = call.held.first, !call.isBlocked {
            if case .message(let payload) = item, call.credit <= 0, !payload.isEmpty { return }
            let cost = item.creditBytes
            guard cost == 0 || credit > 0 else {
                call.isBlocked = true
                blocked.append(call)
                return
            }
            credit -= cost
            sendFirst(of: call, item)
        }
    }

    private func sendFirst(of call: ConnectionCall, _ item: ConnectionCall.Held) {
        heldBytes -= item.cost
        call.popHeld()
        switch item {
        case .open(let payload):
            call.isOpened = true
            write(
                Frame(.open, method: call.method.rawValue, call: call.id, payload: payload),
                prefix: call.remainingMilliseconds(at: loop.now))
        case .message(let payload):
            call.credit -= payload.count
            write(Frame(.message, call: call.id, payload: payload))
        case .finish: write(Frame(.finish, call: call.id))
        case .end(let status, let payload):
            write(Frame(.end, status: status.rawValue, call: call.id, payload: payload))
            over(call, nil)
        }
    }

    private func pumpBlocked() {
        // Who is stopped again stands in line again, behind the others.
        while credit > 0, !isClosed, let call = blocked.popFirst() {
            call.isBlocked = false
            guard !call.isOver else { continue }
            pump(call)
            call.noteSendable()
        }
    }

    // MARK: Ends

    /// Forgets a call; with a status, its application hears of it.
    func over(_ call: ConnectionCall, _ status: Status?, _ payload: Bytes = Bytes()) {
        forget(call)
        call.finish(status, payload)
        closeIfDrained()
    }

    func forget(_ call: ConnectionCall) {
        guard calls.remove(call.id) else { return }
        if !call.isCaller { incomingCount -= 1 }
        heldBytes -= call.heldCost
        lastCallAt = loop.now
        // What of it was never consumed weighs on the connection no longer.
        dealtWith(call.received - call.grantDue)
        call.received = 0
        call.grantDue = 0
    }

    private func closeIfDrained() {
        guard isDraining, calls.isEmpty, !isClosed else { return }
        // An end that serves may have answers under way still: the other closes, or time passes.
        let linger = service == nil ? 0 : settings.drainLinger
        timer?.cancel()
        timer = loop.after(linger) { [weak self] in
            if let self, calls.isEmpty { fail("drained") }
        }
    }

    private func fail(_ reason: String) {
        guard !isClosed else { return }
        isClosed = true
        timer?.cancel()
        link.close()
        // In order of their opening, so that a run can be repeated.
        for call in calls.all.sorted(by: { $0.id < $1.id }) where calls.remove(call.id) {
            let isUnsent = call.isCaller && !call.isOpened
            call.finish(isUnsent ? .notConnected : .connectionLost)
        }
        blocked = []
        grants = []
        heldBytes = 0
        _ = writer.take()
        let onClosed = self.onClosed
        self.onClosed = nil
        onReady = nil
        onDraining = nil
        onClosed?(reason)
    }

    // MARK: Liveness and writing

    private func answerPing(_ id: UInt64) {
        // The latest alone, so that pings cannot pile up answers.
        pongDue = id
        planFlush()
    }

    private func tick() {
        guard !isClosed else { return }
        switch liveness.judge(at: loop.now, unsentBytes: link.unsentBytes) {
        case .alive: break
        case .quiet: write(Frame(.ping))
        case .dead(let reason): return fail(reason)
        }
        if isInitiator, calls.isEmpty, loop.now - lastCallAt >= settings.idleTimeout {
            return fail("idle")
        }
        timer = loop.after(settings.pingInterval / 2) { [weak self] in self?.tick() }
    }

    func write(_ frame: Frame, prefix: UInt32? = nil) {
        guard !isClosed else { return }
        writer.write(frame, prefix: prefix)
        planFlush()
    }

    func planFlush() {
        guard !isInBurst, !isFlushing, !isClosed else { return }
        flushing?.soon()
    }

    private func flush() {
        guard !isClosed else { return }
        // What follows writes for this very flush.
        isFlushing = true
        writeGrants()
        if let id = pongDue {
            pongDue = nil
            write(Frame(.pong, call: id))
        }
        isFlushing = false
        guard writer.count > 0 else { return }
        liveness.written += writer.count
        let parts = writer.take()
        link.write(parts)
        link.flush()
        writer.reuse(parts)
        if link.unsentBytes > settings.linkBytesMax { fail("the peer does not read") }
    }
}
