// SPDX-License-Identifier: Apache-2.0

internal import BgTaskRole
internal import Shared

@main
enum Main {
    static func main() { BgTaskProgram.run() }
}

/// Runs one worker, or one task. Not part of `Main`, whose closures belong to the main actor.
private enum BgTaskProgram {
    static func run() {
        let settings = Program.settings(.bgtask)
        check(settings)
        do throws(TaskError) {
            switch try TaskCommand(parsing: settings.arguments) {
            case .serve: Host.run(.bgtask, settings) { host in try await serve(host) }
            case .list(let kind):
                Host.runOnce(.bgtask, settings) { host in await list(kind, host) }
            case .run(let kind):
                Host.runOnce(.bgtask, settings) { host in await run(kind, host) }
            }
        } catch {
            Program.fail("bgtask: \(error); see bgtask --help", code: 2)
        }
    }

    /// Settings that make no sense together.
    private static func check(_ settings: Settings) {
        let orphanWaitMin = BgTaskLimits.orphanNanosecondsMin(putting: settings[.storeTimeout])
        guard settings[.orphanWait] < orphanWaitMin else { return }
        Program.fail(
            "bgtask: \(Setting.orphanWait.option) must be at least ten times "
                + "\(Setting.storeTimeout.option), which is \(settings[.storeTimeout] / 1_000_000)"
                + " ms: a flush may take as long before it makes its objects known",
            code: 2)
    }

    private static func serve(_ host: Host) async throws -> Host.Running {
        try await host.awaitMetadata()
        let calls = try client(host)
        let role = role(host, try await host.checkedBuckets(), calls)
        role.start()
        return Host.Running(isReady: { role.isReady }) {
            await role.drain()
            calls.close()
        }
    }

    private static func list(_ kind: TaskKind?, _ host: Host) async -> Int32 {
        await answer(host) { role in
            (try await role.list(kind, asJSON: host.settings[.output] == "json"), 0)
        }
    }

    private static func run(_ kind: TaskKind, _ host: Host) async -> Int32 {
        await answer(host) { role in
            let isDryRun = host.settings[.isDryRun]
            let tally = try await role.run(kind, isDryRun: isDryRun)
            let text =
                host.settings[.output] == "json"
                ? tally.json(isDryRun: isDryRun) : tally.text(isDryRun: isDryRun)
            return (text, tally.counts[.failed] == nil ? 0 : 1)
        }
    }

    private static func answer(
        _ host: Host, _ work: (BgTaskRole) async throws -> (text: String, code: Int32)
    ) async -> Int32 {
        do {
            try await host.metadata.checkSchema()
            let calls = try client(host)
            defer { calls.close() }
            let (text, code) = try await work(role(host, try host.openBuckets(), calls))
            Program.print(text)
            return code
        } catch {
            Program.say("bgtask: \(error)")
            return 1
        }
    }

    private static func client(_ host: Host) throws -> RPCClient {
        RPCClient(
            network: try host.network(), loop: host.loop,
            identity: PeerIdentity(role: .bgtask, id: host.random.next()), random: host.random)
    }

    private static func role(
        _ host: Host, _ buckets: [Bucket], _ calls: RPCClient
    ) -> BgTaskRole {
        let settings = host.settings
        var limits = BgTaskLimits()
        limits.condemnedNanoseconds = settings[.condemnedWait]
        limits.orphanNanoseconds = settings[.orphanWait]
        limits.sealNanoseconds = settings[.sealWait]
        limits.passNanoseconds = settings[.taskInterval]
        limits.sweepNanoseconds = settings[.sweepInterval]
        limits.leaseNanoseconds = settings[.taskLease]
        limits.leaseMarginNanoseconds = settings[.taskLease] / 6
        limits.partitions = settings[.taskPartitions]
        limits.requestsPerSecond = settings[.taskRequests]
        limits.bytesPerSecond = settings[.taskBytes]
        return BgTaskRole(
            world: BgTaskWorld(
                loop: host.loop, metadata: host.metadata, buckets: buckets, calls: calls,
                random: host.random, log: host.log, metrics: host.metrics,
                terms: host.metadata),
            limits: limits)
    }
}
