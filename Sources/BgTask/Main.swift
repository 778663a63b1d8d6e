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
        BgTaskLimits.check(settings)
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

    private static func serve(_ host: Host) async throws -> Host.Running {
        try await host.awaitMetadata()
        let calls = try host.taskCalls()
        let role = host.worker(try await host.checkedBuckets(), calls)
        role.start()
        return Host.Running(isReady: { role.isReady }) {
            await role.drain()
            calls.close()
        }
    }

    private static func list(_ kind: TaskKind?, _ host: Host) async -> Int32 {
        await answer(host) { role in
            let report = try await role.list(kind)
            Program.print(host.settings[.output] == "json" ? report.json : report.text)
            return 0
        }
    }

    private static func run(_ kind: TaskKind, _ host: Host) async -> Int32 {
        await answer(host) { role in
            let isDryRun = host.settings[.isDryRun]
            let tally = try await role.run(kind, isDryRun: isDryRun)
            let hasFailed = tally.counts[.failed] != nil
            if host.settings[.output] == "json" {
                Program.print(tally.json(isDryRun: isDryRun))
                return hasFailed ? 1 : 0
            }
            Program.print(tally.text)
            let summary = tally.summary(isDryRun: isDryRun)
            if isDryRun || hasFailed { Program.say(summary) } else { Program.succeed(summary) }
            return hasFailed ? 1 : 0
        }
    }

    private static func answer(
        _ host: Host, _ work: (BgTaskRole) async throws -> Int32
    ) async -> Int32 {
        do {
            try await host.metadata.checkSchema()
            let calls = try host.taskCalls()
            defer { calls.close() }
            return try await work(host.worker(try host.openBuckets(), calls))
        } catch {
            Program.say("bgtask: \(error)")
            return 1
        }
    }
}
