// SPDX-License-Identifier: Apache-2.0

internal import HTTP
package import Primitives

/// A whole response, as a simulated client got it.
package struct SimResponse: Sendable {
    package let status: Int
    package let body: Bytes
}

/// Requests of simulated clients to simulated frontends, over wires that delay both ways. A client
/// whose frontend crashes gets no response; what it sent may have had its effect.
final class SimClients {
    private let scheduler: Scheduler
    private var open: [SimStream] = []

    init(scheduler: Scheduler) { self.scheduler = scheduler }

    /// Sends a whole request and gathers its response; nil if the connection breaks.
    func request(
        from client: SimLoop, to frontend: SimLoop, _ service: any HTTPService,
        _ request: HTTPRequest, body: Bytes
    ) async -> SimResponse? {
        guard frontend.isAlive else { return nil }
        return await withUnsafeContinuation { (waiter: UnsafeContinuation<SimResponse?, Never>) in
            let stream = self.open(from: client, to: frontend, service, request)
            var parts: [Bytes] = []
            stream.onBody = { parts.append($0) }
            stream.onEnd = { isComplete in
                let response = SimResponse(status: stream.status, body: parts.joined())
                waiter.resume(returning: isComplete ? response : nil)
            }
            if !body.isEmpty { stream.send(body) }
            stream.finishSending()
        }
    }

    func open(
        from client: SimLoop, to frontend: SimLoop, _ service: any HTTPService,
        _ request: HTTPRequest
    ) -> SimStream {
        let exchange = SimExchange(request)
        let stream = SimStream(scheduler, client: client, frontend: frontend, exchange)
        exchange.stream = stream
        open.removeAll { $0.isOver }
        open.append(stream)
        stream.toFrontend { service.serve(exchange) }
        return stream
    }

    /// A frontend crashed: its clients learn that their connections broke.
    func crashed(_ loop: SimLoop) {
        let broken = open.filter { $0.frontend === loop }
        open.removeAll { $0.frontend === loop }
        for one in broken { one.lose() }
    }
}

/// The client's end of one request and its response. Each direction keeps its order.
final class SimStream {
    private let scheduler: Scheduler
    private let client: SimLoop
    let frontend: SimLoop
    private let exchange: SimExchange
    private var thereUntil: Nanoseconds = 0
    private var backUntil: Nanoseconds = 0
    /// 0 until the head has come.
    private(set) var status = 0
    private(set) var isOver = false
    var onBody: (Bytes) -> Void = { _ in }
    /// The response is complete, or the connection broke.
    var onEnd: (_ isComplete: Bool) -> Void = { _ in }

    init(_ scheduler: Scheduler, client: SimLoop, frontend: SimLoop, _ exchange: SimExchange) {
        self.scheduler = scheduler
        self.client = client
        self.frontend = frontend
        self.exchange = exchange
    }

    func send(_ bytes: Bytes) { toFrontend { [exchange] in exchange.receive(bytes) } }
    func finishSending() { toFrontend { [exchange] in exchange.receiveEnd() } }

    /// The client leaves.
    func abort() {
        guard !isOver else { return }
        isOver = true
        toFrontend { [exchange] in exchange.clientLeft() }
    }

    func toFrontend(_ work: @escaping () -> Void) {
        thereUntil = max(thereUntil, scheduler.now + scheduler.random.within(20_000...500_000))
        frontend.run(after: thereUntil - scheduler.now, work)
    }

    private func toClient(_ work: @escaping () -> Void) {
        backUntil = max(backUntil, scheduler.now + scheduler.random.within(20_000...500_000))
        client.run(after: backUntil - scheduler.now) { [self] in if !isOver { work() } }
    }

    fileprivate func head(_ status: Int) { toClient { self.status = status } }
    fileprivate func body(_ bytes: Bytes) { toClient { self.onBody(bytes) } }
    fileprivate func end(isComplete: Bool) {
        toClient { [self] in
            isOver = true
            onEnd(isComplete)
        }
    }
    func lose() { end(isComplete: false) }
}

/// The frontend's end.
final class SimExchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)?
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?
    let unsentBytes = 0
    weak var stream: SimStream?
    private var hasHead = false
    private var isOver = false
    private var isReading = true
    private var waiting: [Bytes] = []
    private var isInputOver = false
    private var hasToldEnd = false

    init(_ request: HTTPRequest) { self.request = request }

    func receive(_ bytes: Bytes) {
        waiting.append(bytes)
        deliver()
    }

    func receiveEnd() {
        isInputOver = true
        deliver()
    }

    func clientLeft() {
        guard !isOver else { return }
        isOver = true
        onAbort?()
    }

    private func deliver() {
        while isReading, !isOver, !waiting.isEmpty { onBody?(waiting.removeFirst()) }
        guard isReading, !isOver, isInputOver, !hasToldEnd else { return }
        hasToldEnd = true
        onBodyEnd?()
    }

    func setReading(_ reading: Bool) {
        isReading = reading
        if reading { deliver() }
    }

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(!hasHead, "one head per response")
        hasHead = true
        if !isOver { stream?.head(status) }
    }

    func write(_ parts: [Bytes]) {
        precondition(hasHead && !isOver, "a body comes behind its head")
        stream?.body(parts.joined())
    }

    func finish() {
        precondition(hasHead && !isOver, "a response ends once")
        isOver = true
        stream?.end(isComplete: true)
    }

    func abort() {
        isOver = true
        stream?.lose()
    }
}
