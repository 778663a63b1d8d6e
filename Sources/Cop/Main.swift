// SPDX-License-Identifier: Apache-2.0

internal import CopRole
internal import Shared

@main
enum Main {
    static func main() { CopProgram.run() }
}

/// Runs a cell, or asks about one. Not part of `Main`, whose closures belong to the main actor.
private enum CopProgram {
    static func run() {
        let settings = Program.settings(.cop)
        do throws(CommandError) {
            let command = try ConsoleCommand(
                parsing: settings.arguments, after: settings[.after])
            switch command {
            case .serve:
                try check(settings)
                let sockets = settings[.rpcSockets]
                if !sockets.isEmpty { try SocketFolder.prepare(sockets) }
                Host.run(.cop, settings) { host in try await serve(host) }
            case .migrateSchema:
                Host.runOnce(.cop, settings) { host in await SchemaMigration.runOnce(on: host) }
            case .tasks(let words): TaskProgram.become(words, settings)
            default:
                Host.runOnce(.cop, settings) { host in await ConsoleProgram.answer(command, host) }
            }
        } catch {
            let hint = error.kind == .usage ? "; see cop --help" : ""
            Program.fail("cop: \(error)\(hint)", code: error.exitCode)
        }
    }

    /// What would only keep the processes from starting, again and again.
    private static func check(_ settings: Settings) throws(CommandError) {
        do throws(UsageError) {
            try CellLayout(settings).check()
        } catch {
            throw CommandError(.usage, error.description)
        }
    }

    private static func serve(_ host: Host) async throws -> Host.Running {
        let settings = host.settings
        try await SchemaMigration.run(on: host)
        try await host.metadata.setPlanWait(UInt64(settings[.planWait] / 1_000_000))
        _ = try RootToken.load(path: settings[.rootTokenFile])
        var limits = CopLimits()
        limits.channels = settings[.channels]
        limits.frontends = settings[.frontends]
        limits.cacheys = settings[.cacheys]
        limits.bgtasks = settings[.bgtasks]
        limits.leaseNanoseconds = settings[.leaseTTL]
        limits.leaseMarginNanoseconds = settings[.leaseMargin]
        limits.drainNanoseconds = settings[.drainTimeout] + .seconds(2)
        let role = CopRole(
            world: CopWorld(
                loop: host.loop, metadata: host.metadata,
                buckets: try await host.checkedBuckets(), random: host.random, log: host.log,
                metrics: host.metrics,
                provisioner: ChildProcesses(settings: settings, loop: host.loop)),
            limits: limits)
        role.start()
        return Host.Running(
            isReady: { role.isWatching }, drainNanosecondsMax: limits.drainAllNanoseconds
        ) { await role.drain() }
    }
}
