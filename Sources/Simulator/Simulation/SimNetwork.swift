// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import RPC

/// The wires between simulated processes. Bytes arrive whole and in order, after a delay, in pieces
/// of any size; the links of a crashed process break.
package final class SimWires {
    private var listeners: [String: SimListener] = [:]
    fileprivate let scheduler: Scheduler
    private var links: [SimLink] = []
    private var nextPort = 40_000
    private var cuts: [Cut] = []

    /// Two processes that cannot reach each other for a while. What they send meanwhile arrives
    /// when the cut heals; or never, and then their connections break.
    private struct Cut {
        let ends: [SimLoop]
        let until: Nanoseconds
        let breaks: Bool
    }

    package init(scheduler: Scheduler) { self.scheduler = scheduler }

    fileprivate func delay() -> Nanoseconds {
        // Mostly a tenth of a millisecond; once in a while a hundred times that.
        scheduler.random.oneIn(200)
            ? scheduler.random.within(.milliseconds(1)...(.milliseconds(20)))
            : scheduler.random.within(20_000...300_000)
    }

    fileprivate func bind(
        _ address: String, _ loop: SimLoop, _ accept: @escaping (any Link) -> Void
    ) throws(NetworkError) -> SimListener {
        var address = address
        if address.hasSuffix(":0") {
            nextPort += 1
            address = "sim:\(nextPort)"
        }
        if let other = listeners[address], other.loop.isAlive {
            throw NetworkError("\(address) is in use")
        }
        let listener = SimListener(address: address, loop: loop, accept: accept, wires: self)
        listeners[address] = listener
        return listener
    }

    fileprivate func unbind(_ listener: SimListener) {
        if listeners[listener.address] === listener { listeners[listener.address] = nil }
    }

    /// Cuts two processes off from each other for `duration`.
    package func cut(_ a: SimLoop, _ b: SimLoop, for duration: Nanoseconds, breaks: Bool) {
        cuts.removeAll { $0.until <= scheduler.now }
        cuts.append(Cut(ends: [a, b], until: scheduler.now + duration, breaks: breaks))
        guard breaks else { return }
        for link in links {
            guard let other = link.other else { continue }
            if link.loop === a && other.loop === b || link.loop === b && other.loop === a {
                link.sever(after: duration)
            }
        }
    }

    /// How much longer nothing gets from one to the other.
    fileprivate func stall(_ a: SimLoop, _ b: SimLoop) -> Nanoseconds {
        let until = cuts.filter { cut in
            cut.ends.contains { $0 === a } && cut.ends.contains { $0 === b }
        }.map(\.until).max()
        return max(0, (until ?? 0) - scheduler.now)
    }

    fileprivate func stall(_ loop: SimLoop, to address: String) -> Nanoseconds {
        listeners[address].map { stall(loop, $0.loop) } ?? 0
    }

    package func heal() { cuts = [] }

    fileprivate func connect(from loop: SimLoop, to address: String) -> SimLink? {
        guard let listener = listeners[address], listener.loop.isAlive else { return nil }
        let near = SimLink(loop: loop, peer: address, wires: self)
        let far = SimLink(loop: listener.loop, peer: loop.name, wires: self)
        near.other = far
        far.other = near
        links.append(near)
        links.append(far)
        listener.loop.run { listener.accept(far) }
        return near
    }

    /// A process crashed: the other ends of its links notice, some time.
    package func crashed(_ loop: SimLoop) {
        for link in links where link.loop === loop { link.breakOther("the peer crashed") }
        links.removeAll { $0.loop === loop }
        for (address, listener) in listeners where listener.loop === loop {
            listeners[address] = nil
        }
    }

    fileprivate func forget(_ link: SimLink) { links.removeAll { $0 === link } }
}

package final class SimNetwork: Network {
    private let wires: SimWires
    private let loop: SimLoop

    package init(wires: SimWires, loop: SimLoop) {
        self.wires = wires
        self.loop = loop
    }

    package func listen(
        _ address: String, accept: @escaping (any Link) -> Void
    ) async throws(NetworkError) -> any Listener {
        try wires.bind(address, loop, accept)
    }

    package func connect(
        _ address: String, timeout: Nanoseconds
    ) async throws(NetworkError) -> any Link {
        let stall = wires.stall(loop, to: address)
        await loop.sleep(min(wires.delay() + stall, max(timeout, 0)))
        if stall > timeout { throw NetworkError("\(address): no answer") }
        guard let link = wires.connect(from: loop, to: address) else {
            throw NetworkError("\(address): connection refused")
        }
        return link
    }
}

private final class SimListener: Listener {
    let address: String
    let loop: SimLoop
    let accept: (any Link) -> Void
    private unowned let wires: SimWires

    init(
        address: String, loop: SimLoop, accept: @escaping (any Link) -> Void, wires: SimWires
    ) {
        self.address = address
        self.loop = loop
        self.accept = accept
        self.wires = wires
    }

    func close() { wires.unbind(self) }
}

private final class SimLink: Link {
    let loop: SimLoop
    let peer: String
    private unowned let wires: SimWires
    weak var other: SimLink?
    var handler: (any LinkHandler)? {
        didSet { deliver() }
    }
    private var outgoing: [Bytes] = []
    private var arrived: [Bytes] = []
    private var isReading = true
    private var isClosed = false
    /// What is sent is lost: a cut lies in between, and will break the connection.
    private var isSevered = false
    private(set) var unsentBytes = 0
    /// When the last piece arrives: nothing overtakes it.
    private var busyUntil: Nanoseconds = 0

    init(loop: SimLoop, peer: String, wires: SimWires) {
        self.loop = loop
        self.peer = peer
        self.wires = wires
    }

    func write(_ parts: [Bytes]) {
        guard !isClosed else { return }
        outgoing += parts
        unsentBytes += byteCount(parts)
    }

    func flush() {
        guard !isClosed, !outgoing.isEmpty, let other else { return }
        let bytes = outgoing.joined()
        outgoing = []
        unsentBytes = 0
        var pieces = [bytes]
        if wires.scheduler.random.oneIn(8), bytes.count > 1 {
            let cut = 1 + Int(wires.scheduler.random.below(UInt64(bytes.count - 1)))
            pieces = [bytes[0..<cut], bytes[cut..<bytes.count]]
        }
        for piece in pieces { send(to: other) { $0.receive(piece) } }
    }

    /// Does something at the other end, behind everything sent before.
    private func send(to other: SimLink, _ action: @escaping (SimLink) -> Void) {
        if isSevered { return }
        let now = wires.scheduler.now
        busyUntil = max(busyUntil, now + wires.stall(loop, other.loop) + wires.delay())
        other.loop.run(after: busyUntil - now) { action(other) }
    }

    func sever(after delay: Nanoseconds) {
        isSevered = true
        loop.run(after: delay) { self.end("the connection was reset") }
    }

    func setReading(_ reading: Bool) {
        isReading = reading
        deliver()
    }

    func close() {
        guard !isClosed else { return }
        breakOther("the peer closed the connection")
        end("closed")
    }

    func breakOther(_ reason: String) {
        guard let other else { return }
        send(to: other) { $0.end(reason) }
    }

    private func receive(_ bytes: Bytes) {
        guard !isClosed else { return }
        arrived.append(bytes)
        deliver()
    }

    private func deliver() {
        guard let handler, isReading, !isClosed, !arrived.isEmpty else { return }
        let pieces = arrived
        arrived = []
        loop.run { [weak self] in
            for piece in pieces where self?.isClosed == false { handler.linkReceived(piece) }
            handler.linkBurstEnded()
        }
    }

    private func end(_ reason: String) {
        guard !isClosed else { return }
        isClosed = true
        wires.forget(self)
        let last = handler
        handler = nil
        loop.run { last?.linkClosed(reason) }
    }
}
