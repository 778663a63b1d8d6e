// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Simulation

/// Runs simulated cells: one seed, or many in a row. Says which seeds broke a promise, and how to
/// run them again.
@main struct Main {
    static func main() {
        guard let options = Options(Array(CommandLine.arguments.dropFirst())) else {
            _ = Options.usage.withCString { write(STDERR_FILENO, $0, strlen($0)) }
            exit(2)
        }
        var broken: [UInt64] = []
        for seed in options.seed..<options.seed + options.count {
            var run = Run(seed: seed)
            run.duration = options.seconds * 1_000_000_000
            run.keepsTrace = options.keepsTrace
            run.mutant = options.mutant
            run.stopsAtViolation = options.mutant != nil
            run.faults = Faults.named(options.faults, seed: seed) ?? run.faults
            run.evening = options.evening * 60_000_000_000
            if ["none", "stuck"].contains(options.faults) { run.eveningFaults = run.faults }
            let outcome = run()
            report(outcome)
            if !outcome.violations.isEmpty { broken.append(seed) }
            if let file = options.history, let first = outcome.histories.first {
                save(first.lines, to: file)
            }
        }
        guard broken.isEmpty else {
            print("broken: \(broken.map(String.init).joined(separator: " "))")
            exit(1)
        }
    }

    private static func report(_ outcome: Run.Outcome) {
        let seed = outcome.seed
        for line in outcome.trace { print(line) }
        for violation in outcome.violations { print("seed \(seed): \(violation)") }
        print(
            "seed \(seed): \(outcome.violations.count) violations,"
                + " \(outcome.acknowledged) records acknowledged, \(outcome.crashes) crashes,"
                + " \(outcome.linearizable) streams linearizable,"
                + " \(outcome.steps) steps, trace \(String(outcome.traceHash, radix: 16))")
        let fetches = outcome.fetches
        print(
            "  \(outcome.balance); \(fetches.fromCacheys) ranges of cacheys"
                + " (\(fetches.pagesInMemory) pages in memory, \(fetches.pagesOnDisk) on disk,"
                + " \(fetches.damagedPages) damaged, \(fetches.hedges) hedges),"
                + " \(fetches.fromBucket) of the bucket")
        for (task, actions) in outcome.work.sorted(by: { $0.key < $1.key }) {
            let counts = actions.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
            print("  \(task): \(counts.joined(separator: ", "))")
        }
    }

    private static func save(_ lines: [String], to path: String) {
        guard let file = fopen(path, "w") else {
            perror(path)
            exit(2)
        }
        for line in lines { fputs(line + "\n", file) }
        fclose(file)
    }
}
