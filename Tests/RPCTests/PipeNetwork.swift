// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport

/// One end of a link in memory. What is flushed arrives at the other end in the next turn, in
/// pieces of `pieceBytes`.
final class PipeLink: Link {
    private let loop: ManualLoop
    fileprivate var other: PipeLink?
    var handler: (any LinkHandler)? { didSet { other?.deliver() } }
    let peer = "pipe"
    private var written: [Bytes] = []
    private var flushed: [Bytes] = []
    private(set) var isClosed = false
    private var isReading = true
    /// The network takes nothing from this end.
    var isStalled = false { didSet { deliver() } }
    var pieceBytes = Int.max
    private(set) var bytesSent = 0
    private(set) var flushes = 0

    init(_ loop: ManualLoop) { self.loop = loop }

    static func pair(_ loop: ManualLoop) -> (PipeLink, PipeLink) {
        let a = PipeLink(loop)
        let b = PipeLink(loop)
        a.other = b
        b.other = a
        return (a, b)
    }

    var unsentBytes: Int { byteCount(written) + byteCount(flushed) }

    func write(_ parts: [Bytes]) {
        guard !isClosed else { return }
        written += parts
    }

    func flush() {
        flushes += 1
        flushed += written
        written = []
        deliver()
    }

    func setReading(_ reading: Bool) {
        isReading = reading
        if reading { other?.deliver() }
    }

    func close() { end("closed here") }

    private func deliver() {
        loop.soon { self.deliverNow() }
    }

    private func deliverNow() {
        guard let other, let handler = other.handler, other.isReading, !isStalled,
            !flushed.isEmpty, !other.isClosed
        else { return }
        let parts = flushed
        flushed = []
        bytesSent += byteCount(parts)
        var bytes = parts.joined()
        while !bytes.isEmpty {
            handler.linkReceived(bytes.prefix(pieceBytes))
            bytes = bytes.dropFirst(pieceBytes)
        }
        handler.linkBurstEnded()
    }

    private func end(_ reason: String) {
        guard !isClosed else { return }
        deliverNow()
        isClosed = true
        let handler = self.handler
        let other = self.other
        self.other = nil
        loop.soon {
            handler?.linkClosed(reason)
            other?.end("closed by the peer")
        }
    }
}

/// A network of pipes within one loop.
final class PipeNetwork: Network {
    private let loop: ManualLoop
    private var listeners: [String: (any Link) -> Void] = [:]
    private(set) var attempts = 0
    /// Connecting takes this long.
    var delay: Nanoseconds = 0
    private(set) var links: [PipeLink] = []

    init(_ loop: ManualLoop) { self.loop = loop }

    func listen(
        _ address: String, accept: @escaping (any Link) -> Void
    ) async throws(NetworkError) -> any Listener {
        listeners[address] = accept
        return PipeListener(address: address) { [weak self] in self?.listeners[address] = nil }
    }

    func connect(_ address: String, timeout: Nanoseconds) async throws(NetworkError) -> any Link {
        attempts += 1
        if delay > 0 { await loop.sleep(min(delay, timeout)) }
        guard delay <= timeout, let accept = listeners[address] else {
            throw NetworkError("nobody listens at \(address)")
        }
        let (near, far) = PipeLink.pair(loop)
        links += [near, far]
        accept(far)
        return near
    }

    private final class PipeListener: Listener {
        let address: String
        private let onClose: () -> Void

        init(address: String, onClose: @escaping () -> Void) {
            self.address = address
            self.onClose = onClose
        }

        func close() { onClose() }
    }
}

/// The far end of a link whose bytes the test writes and reads itself.
final class RawPeer: LinkHandler {
    let link: PipeLink
    private var parser = FrameParser(frameBytesMax: RPCLimits.frameBytesMax)
    private(set) var frames: [Frame] = []
    private(set) var closeReason: String?

    init(_ link: PipeLink) {
        self.link = link
        link.handler = self
    }

    func linkReceived(_ bytes: Bytes) {
        parser.push(bytes)
        while let frame = try? parser.next() { frames.append(frame) }
    }

    func linkBurstEnded() {}
    func linkClosed(_ reason: String) { closeReason = reason }

    func send(_ frames: Frame...) {
        var writer = FrameWriter()
        for frame in frames { writer.write(frame) }
        send(writer.take().joined())
    }

    func open(_ call: UInt64, _ payload: Bytes, method: UInt8 = Method.tail.rawValue) {
        var writer = FrameWriter()
        writer.write(
            Frame(.open, method: method, call: call, payload: payload), prefix: UInt32.max)
        send(writer.take().joined())
    }

    func send(_ bytes: Bytes) {
        link.write([bytes])
        link.flush()
    }

    func hello(
        version: UInt16 = Hello.currentVersion, callWindow: Int = 4 << 20,
        connectionWindow: Int = 32 << 20
    ) {
        let hello = Hello(
            version: version, identity: PeerIdentity(role: .other, id: 9),
            callWindowBytes: UInt32(callWindow), connectionWindowBytes: UInt32(connectionWindow))
        send(Frame(.hello, payload: hello.encoded()))
    }

    /// The frames since the last call, without the hello.
    func taken(_ kinds: FrameKind...) -> [Frame] {
        defer { frames = [] }
        return frames.filter { kinds.isEmpty ? $0.kind != .hello : kinds.contains($0.kind) }
    }
}
