// SPDX-License-Identifier: Apache-2.0

internal import CopRole
internal import Shared

/// Prints what commands find: data on stdout, everything else on stderr.
enum ConsoleProgram {
    /// Returns the exit code.
    static func answer(_ command: ConsoleCommand, _ host: Host) async -> Int32 {
        do {
            let console = Console(
                loop: host.loop, metadata: host.metadata, buckets: try host.openBuckets(),
                random: host.random)
            let reports = try await console.answer(command)
            let isJSON = host.settings[.output] == "json"
            Program.print(
                isJSON
                    ? reports.map(\.json).joined()
                    : reports.map(\.text).joined(separator: "\n"))
            for report in reports { if let note = report.note { Program.say(note) } }
            if command == .doctor { Program.succeed("the store and the database are fit for use") }
            return 0
        } catch {
            Program.say("cop: \(error)")
            return (error as? CommandError)?.exitCode ?? 1
        }
    }
}
