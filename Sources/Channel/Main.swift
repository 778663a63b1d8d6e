// SPDX-License-Identifier: Apache-2.0

internal import ChannelRole
internal import Shared

@main
enum Main {
    static func main() { ChannelProgram.run() }
}

/// Runs one channel. Not part of `Main`, whose closures belong to the main actor.
private enum ChannelProgram {
    static func run() {
        let settings = Program.settings(.channel)
        guard settings[.unsureLimit] >= settings[.leaseTTL] * 5 else {
            Program.fail(
                "channel: \(Setting.unsureLimit.option) must be at least five times "
                    + "\(Setting.leaseTTL.option): a renewal may come late",
                code: 2)
        }
        Host.run(.channel, settings) { host in try await serve(host) }
    }

    private static func serve(_ host: Host) async throws -> Host.Running {
        let settings = host.settings
        try await host.awaitMetadata()
        let buckets = try await host.checkedBuckets()
        // The address must be known before the channel registers; calls that come sooner are
        // refused.
        let door = Door()
        let server = RPCServer(
            network: try host.network(), loop: host.loop,
            identity: PeerIdentity(role: .channel, id: 0), service: door)
        host.count(server)
        let bound = try await server.listen(settings[.rpcListen])
        var limits = ChannelLimits(
            address: settings[.rpcAddress].isEmpty ? bound : settings[.rpcAddress])
        limits.storageClass = settings[.storageClass]
        limits.zone = settings[.zone]
        limits.leaseNanoseconds = settings[.leaseTTL]
        limits.renewNanoseconds = settings[.leaseTTL] / 3
        limits.unsureNanoseconds = settings[.unsureLimit]
        limits.hasStrictTails = settings[.strictTail]
        limits.lingerNanoseconds = 0...settings[.lingerMax]
        limits.flushNanoseconds = settings[.flushAge]
        limits.flushBytes = settings[.flushBytes]
        limits.windowBytesMax = settings[.windowBytes]
        limits.dormancyNanoseconds = settings[.dormancy]
        limits.streamBytesPerSecondMax = limit(settings[.streamBytesPerSecond])
        limits.batchesPerSecondMax = limit(settings[.batchesPerSecond])
        limits.shedNanoseconds = settings[.shedDelay]
        let role = ChannelRole(
            world: ChannelWorld(
                loop: host.loop, metadata: host.metadata, buckets: buckets, random: host.random,
                log: host.log, metrics: host.metrics,
                // Where the host was told to end, this comes second and changes nothing.
                exit: { why in host.end(why, code: why == "drained" ? 0 : 1) }),
            limits: limits)
        try await role.start()
        door.service = role
        host.log.notice("listening", [("address", bound)])
        return Host.Running(isReady: { role.isReady }) {
            await role.drain()
            await server.drain(within: .seconds(1))
        }
    }

    /// Where 0 stands for none.
    private static func limit(_ value: Int) -> Int? { value == 0 ? nil : value }
}
