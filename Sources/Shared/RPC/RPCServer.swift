// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Accepts connections and hands their calls to a service. Confined to its loop.
package final class RPCServer {
    private let network: any Network
    private let loop: any Loop
    private let identity: PeerIdentity
    private let service: any CallService
    private let settings: RPCSettings
    private var listeners: [any Listener] = []
    private var connections: [RPCConnection] = []
    private var isStopping = false
    private let stopped = Signal<Bool>()

    package init(
        network: any Network, loop: any Loop, identity: PeerIdentity, service: any CallService,
        settings: RPCSettings = RPCSettings()
    ) {
        self.network = network
        self.loop = loop
        self.identity = identity
        self.service = service
        self.settings = settings
    }

    package var connectionCount: Int { connections.count }
    /// Calls that are open, over all connections.
    package var callCount: Int { connections.reduce(0) { $0 + $1.callCount } }

    /// Accepts connections at `address` (`host:port`, port 0 for any, or `unix:/path`); returns
    /// what was bound.
    @discardableResult
    package func listen(_ address: String) async throws(NetworkError) -> String {
        let listener = try await network.listen(address) { [weak self] link in
            guard let self else { return link.close() }
            accept(link)
        }
        guard !isStopping else {
            listener.close()
            throw NetworkError("the server is stopping")
        }
        listeners.append(listener)
        return listener.address
    }

    private func accept(_ link: any Link) {
        guard !isStopping, connections.count < settings.connectionsMax else {
            return link.close()
        }
        let connection = RPCConnection(
            link: link, loop: loop, identity: identity, isInitiator: false, service: service,
            settings: settings)
        connections.append(connection)
        connection.onClosed = { [weak self] _ in self?.lost(connection) }
        connection.start()
    }

    private func lost(_ connection: RPCConnection) {
        connections.removeAll { $0 === connection }
        if isStopping && connections.isEmpty { stopped.set(true) }
    }

    /// Stops accepting, refuses new calls with `.draining`, lets the present ones end, and closes;
    /// what is not over after `limit` is cut off.
    package func drain(within limit: Nanoseconds) async {
        stopAccepting()
        for connection in connections { connection.drain() }
        if !connections.isEmpty {
            let stopped = self.stopped
            _ = await loop.withDeadline(limit) { await stopped.wait() }
        }
        close()
    }

    /// Cuts every connection off.
    package func close() {
        stopAccepting()
        for connection in connections { connection.close("this process closed it") }
    }

    private func stopAccepting() {
        isStopping = true
        for listener in listeners { listener.close() }
        listeners = []
    }
}
