// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Calls to other processes over one connection per address, made when first needed.
///
/// Calls wait while a connection is made, up to `waitingCallsMax`; if it fails they end
/// `.notConnected`, and so does, at once, every call until the next attempt is due (exponential
/// backoff, at most a second). A connection whose server drains gets no new calls: the next call
/// connects anew. One without calls is closed after `idleTimeout`. Confined to its loop.
package final class RPCClient: CallClient {
    private let network: any Network
    private let loop: any Loop
    private let identity: PeerIdentity
    private let random: RandomSource
    private let settings: RPCSettings
    private var lines: [String: PeerLine] = [:]
    private var connections: [RPCConnection] = []
    private var isClosed = false
    package let meter: CallMeter

    package init(
        network: any Network, loop: any Loop, identity: PeerIdentity, random: RandomSource,
        settings: RPCSettings = RPCSettings()
    ) {
        self.network = network
        self.loop = loop
        self.identity = identity
        self.random = random
        self.settings = settings
        meter = CallMeter(loop: loop)
    }

    /// Connections that are up, draining ones included.
    package var connectionCount: Int { connections.count }

    package func call(
        _ address: String, _ method: Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call {
        let call = ConnectionCall(
            to: method, payload, deadline: deadline, on: loop, meter: meter)
        guard !isClosed else {
            call.finishSoon(.notConnected, on: loop)
            return call
        }
        let line = lines[address] ?? PeerLine(address, client: self)
        lines[address] = line
        line.take(call)
        return call
    }

    /// Closes every connection; every call ends, and later ones end `.notConnected`.
    package func close() {
        isClosed = true
        for connection in connections { connection.close("this process closed it") }
        for address in lines.keys.sorted() { lines[address]?.close() }
        lines = [:]
    }

    /// What calls to one address wait for, and go over.
    private final class PeerLine: CallOwner {
        private enum State {
            case idle
            case connecting
            case ready(RPCConnection)
            /// The last attempt failed; there is none before this time.
            case resting(until: Nanoseconds)
            case closed
        }

        private let address: String
        private unowned let client: RPCClient
        private var state = State.idle
        private var waiting: [ConnectionCall] = []
        private var heldBytes = 0
        private var failures = 0
        private static let backoff = Backoff(triesMax: .max, budget: .max)

        init(_ address: String, client: RPCClient) {
            self.address = address
            self.client = client
        }

        func take(_ call: ConnectionCall) {
            switch state {
            case .ready(let connection): return connection.adopt(call)
            case .connecting: break
            case .resting(let until) where client.loop.now < until:
                return call.finishSoon(.notConnected, on: client.loop)
            case .idle, .resting: connect()
            case .closed: return call.finishSoon(.notConnected, on: client.loop)
            }
            guard waiting.count < client.settings.waitingCallsMax else {
                return call.finishSoon(.overloaded, on: client.loop)
            }
            call.attach(self, id: 0, credit: 0)
            waiting.append(call)
            callHeld(call, call.heldCost)
        }

        private func connect() {
            state = .connecting
            let client = self.client
            client.loop.spawn { [self] in
                do throws(NetworkError) {
                    let link = try await client.network.connect(
                        address, timeout: client.settings.connectTimeout)
                    greet(link)
                } catch {
                    failed()
                }
            }
        }

        private func greet(_ link: any Link) {
            if case .closed = state { return link.close() }
            let connection = RPCConnection(
                link: link, loop: client.loop, identity: client.identity, isInitiator: true,
                settings: client.settings)
            client.connections.append(connection)
            connection.onReady = { [unowned self, unowned connection] _ in ready(connection) }
            connection.onDraining = { [weak self] in self?.leave(connection) }
            // The client lives as long as its connections.
            connection.onClosed = { [self, client] _ in
                withExtendedLifetime(client) { lost(connection) }
            }
            connection.start()
        }

        private func ready(_ connection: RPCConnection) {
            failures = 0
            state = .ready(connection)
            for call in takeWaiting() {
                connection.adopt(call)
                call.noteSendable()
            }
        }

        /// New calls go over another connection.
        private func leave(_ connection: RPCConnection) {
            guard case .ready(let present) = state, present === connection else { return }
            state = .idle
            client.lines[address] = nil
        }

        private func lost(_ connection: RPCConnection) {
            client.connections.removeAll { $0 === connection }
            switch state {
            case .ready: leave(connection)
            case .connecting: failed()
            case .idle, .resting, .closed: break
            }
        }

        private func failed() {
            guard case .connecting = state else { return }
            failures += 1
            let delay =
                Self.backoff.delay(
                    afterTries: failures, elapsed: 0, random: client.random.next()) ?? 0
            let until = client.loop.now + delay
            state = .resting(until: until)
            for call in takeWaiting() { call.finish(.notConnected) }
            // An address that nobody asks for is forgotten.
            client.loop.after(delay + client.settings.idleTimeout) { [weak self] in
                guard let self, case .resting(until) = state else { return }
                client.lines[address] = nil
            }
        }

        func close() {
            state = .closed
            for call in takeWaiting() { call.finish(.notConnected) }
        }

        private func takeWaiting() -> [ConnectionCall] {
            let calls = waiting
            waiting = []
            heldBytes = 0
            return calls
        }

        func callHeld(_ call: ConnectionCall, _ cost: Int) {
            heldBytes += cost
            guard heldBytes > client.settings.heldBytesMax else { return }
            remove(call)
            call.finishSoon(.overloaded, on: client.loop)
        }

        func callSends(
            _ call: ConnectionCall, _ count: Int, body: Bytes,
            _ write: (UnsafeMutableRawPointer) -> Void
        ) -> Bool { false }

        func callConsumed(_ call: ConnectionCall, _ count: Int) {}

        func callCancelled(_ call: ConnectionCall, _ status: Status) {
            remove(call)
            call.finish(status == .cancelled ? nil : status)
        }

        private func remove(_ call: ConnectionCall) {
            heldBytes -= call.heldCost
            waiting.removeAll { $0 === call }
        }
    }
}
