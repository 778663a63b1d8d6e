// SPDX-License-Identifier: Apache-2.0

internal import CacheyRole
internal import Shared

@main
enum Main {
    static func main() { CacheyProgram.run() }
}

/// Runs one cachey. Not part of `Main`, whose closures belong to the main actor.
private enum CacheyProgram {
    static func run() {
        let settings = Program.settings(.cachey)
        Host.run(.cachey, settings) { host in try await serve(host) }
    }

    private static func serve(_ host: Host) async throws -> Host.Running {
        let settings = host.settings
        let disk = settings[.diskPath].isEmpty ? nil : try FolderDisk(path: settings[.diskPath])
        try await host.awaitMetadata()
        // The address must be known before the cachey registers; calls that come sooner are
        // refused.
        let door = Door()
        let server = RPCServer(
            network: try host.network(), loop: host.loop,
            identity: PeerIdentity(role: .cachey, id: host.random.next()), service: door)
        host.count(server)
        let bound = try await server.listen(settings[.cacheyRPCListen])
        var limits = CacheyLimits(
            address: settings[.rpcAddress].isEmpty ? bound : settings[.rpcAddress])
        limits.zone = settings[.zone]
        limits.pageBytes = settings[.pageBytes]
        limits.memoryBytesMax = settings[.memoryBytes]
        limits.diskBytesMax = settings[.diskBytes]
        limits.hedgePercentile = settings[.hedgePercentile]
        limits.hedgeBudgetPercent = settings[.hedgeBudgetPercent]
        limits.renewNanoseconds = settings[.leaseTTL] / 3
        let role = CacheyRole(
            world: CacheyWorld(
                loop: host.loop, registry: host.metadata, buckets: try host.openBuckets(),
                disk: disk, log: host.log, metrics: host.metrics),
            limits: limits)
        let http = HTTPServer(loop: host.loop, service: role)
        let address = try await http.listen(settings[.cacheyListen])
        try await role.start()
        door.service = role
        host.log.notice("listening", [("address", address), ("rpc", bound)])
        return Host.Running(isReady: { role.isReady }) {
            await role.drain(within: settings[.drainTimeout])
            await http.stop(within: .seconds(2))
            await server.drain(within: .seconds(1))
        }
    }
}
