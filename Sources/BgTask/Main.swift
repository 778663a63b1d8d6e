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
            let calls = try host.taskCalls()
            defer { calls.close() }
            let (text, code) = try await work(host.worker(try host.openBuckets(), calls))
            Program.print(text)
            return code
        } catch {
            Program.say("bgtask: \(error)")
            return 1
        }
    }
}
