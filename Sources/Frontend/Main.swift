// SPDX-License-Identifier: Apache-2.0

internal import FrontendRole
internal import Shared

@main
enum Main {
    static func main() { FrontendProgram.run() }
}

/// Runs one frontend. Not part of `Main`, whose closures belong to the main actor.
private enum FrontendProgram {
    static func run() {
        let settings = Program.settings(.frontend)
        Host.run(.frontend, settings) { host in try await serve(host) }
    }

    private static func serve(_ host: Host) async throws -> Host.Running {
        let settings = host.settings
        var limits = FrontendLimits(
            rootToken: settings[.isOpen]
                ? nil : try RootToken.load(path: settings[.rootTokenFile]))
        limits.processInFlightBytesMax = settings[.inFlightBytes]
        limits.basinInFlightBytesMax = settings[.basinInFlightBytes]
        limits.streamInFlightBytesMax = settings[.streamInFlightBytes]
        limits.processResponseBytesMax = settings[.responseBytes]
        limits.streamCacheBytesMax = settings[.streamCacheBytes]
        limits.zone = settings[.zone]
        limits.pageBytes = settings[.pageBytes]
        let tls = try tlsFiles(settings)
        try await host.awaitMetadata()
        var connections = RPCSettings()
        // Appends have a budget of their own, by which sessions wait: none is to end for it here.
        connections.heldBytesMax += limits.processInFlightBytesMax
        let calls = RPCClient(
            network: try host.network(), loop: host.loop,
            identity: PeerIdentity(role: .frontend, id: host.random.next()), random: host.random,
            settings: connections)
        host.count(calls, latencies: [.tail, .plan, .activate, .refresh, .fetch])
        let role = FrontendRole(
            world: FrontendWorld(
                loop: host.loop, metadata: host.metadata, calls: calls,
                buckets: try await host.checkedBuckets(), random: host.random, log: host.log,
                metrics: host.metrics, cacheys: host.metadata, terms: host.metadata),
            limits: limits)
        role.start()
        let server = HTTPServer(loop: host.loop, service: role)
        let address = try await server.listen(settings[.listen])
        host.log.notice("listening", [("address", address)])
        if let tls {
            let address = try await server.listen(settings[.tlsListen], tls: tls)
            host.log.notice("listening", [("address", address), ("tls", "true")])
        }
        return Host.Running(isReady: { role.isReady }) {
            await role.drain(within: settings[.drainTimeout])
            await server.stop(within: .seconds(2))
            calls.close()
        }
    }

    private static func tlsFiles(_ settings: Settings) throws -> TLSFiles? {
        guard !settings[.tlsListen].isEmpty else { return nil }
        guard !settings[.tlsCertificate].isEmpty, !settings[.tlsKey].isEmpty else {
            throw ProcessError("--tls-listen needs --tls-certificate and --tls-key")
        }
        return TLSFiles(certificate: settings[.tlsCertificate], key: settings[.tlsKey])
    }
}
