// SPDX-License-Identifier: Apache-2.0

package import HTTP
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
    private var open: [(exchange: SimExchange, loop: SimLoop)] = []

    init(scheduler: Scheduler) { self.scheduler = scheduler }

    func request(
        from client: SimLoop, to frontend: SimLoop, _ service: any HTTPService,
        _ request: HTTPRequest, body: Bytes
    ) async -> SimResponse? {
        guard frontend.isAlive else { return nil }
        let response = await withUnsafeContinuation {
            (waiter: UnsafeContinuation<SimResponse?, Never>) in
            let exchange = SimExchange(request) { [self] response in
                let delay = scheduler.random.within(20_000...500_000)
                client.run(after: delay) { waiter.resume(returning: response) }
            }
            open.append((exchange, frontend))
            let there = scheduler.random.within(20_000...500_000)
            frontend.run(after: there) {
                service.serve(exchange)
                exchange.feed(body, on: frontend)
            }
        }
        open.removeAll { $0.exchange.isOver }
        return response
    }

    /// A frontend crashed: its clients learn that their connections broke.
    func crashed(_ loop: SimLoop) {
        let broken = open.filter { $0.loop === loop }
        open.removeAll { $0.loop === loop }
        for one in broken { one.exchange.lose() }
    }
}

/// One exchange, whose response is gathered whole.
private final class SimExchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)?
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?
    let unsentBytes = 0
    private var status = 0
    private var parts: [Bytes] = []
    private var waiting: Bytes?
    private var isReading = true
    private let done: (SimResponse?) -> Void
    private(set) var isOver = false

    init(_ request: HTTPRequest, done: @escaping (SimResponse?) -> Void) {
        self.request = request
        self.done = done
    }

    func feed(_ body: Bytes, on loop: SimLoop) {
        waiting = body
        loop.run { self.deliver() }
    }

    private func deliver() {
        guard isReading, !isOver, let body = waiting else { return }
        waiting = nil
        if !body.isEmpty { onBody?(body) }
        if !isOver { onBodyEnd?() }
    }

    func setReading(_ reading: Bool) {
        isReading = reading
        deliver()
    }

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(self.status == 0, "one head per response")
        self.status = status
    }

    func write(_ parts: [Bytes]) {
        precondition(status != 0 && !isOver, "a body comes behind its head")
        self.parts += parts
    }

    func finish() {
        precondition(status != 0 && !isOver, "a response ends once")
        isOver = true
        done(SimResponse(status: status, body: parts.joined()))
    }

    func abort() { lose() }

    func lose() {
        guard !isOver else { return }
        isOver = true
        done(nil)
    }
}
