// SPDX-License-Identifier: Apache-2.0

import Glibc
import Simulation

/// Runs simulated cells: one seed, or many in a row. Says which seeds broke a promise, and how to
/// run them again.
@main struct Main {
    private static let usage = """
        usage: simulator [--seed N] [--count N] [--seconds N] [--evening N] [--trace]
                         [--mutant NAME] [--faults NAME] [--history FILE]

        Lets simulated cells live: by day under load and faults, then in an evening with little to
        do, in which background tasks clean up behind the day, and a night in which they finish.
        Says for each seed what was found, and what each background task did.

          --seed N        the first seed (default 1)
          --count N       how many seeds, one after the other (default 1)
          --seconds N     virtual seconds of load and faults in each (default 30)
          --evening N     virtual minutes of the evening; 0 for neither evening nor night
                          (default 40)
          --trace         print what happened
          --mutant NAME   a cell with a known bug, which must be caught (not in release builds,
                          except with MILLRACE_MUTANTS=1 when building); one of:
                          \(Mutant.allCases.map(\.description).joined(separator: " "))
          --faults NAME   what goes wrong: swarm (default: each seed draws its own), splits, grey,
                          closes, lateCloses, stuck, none; with none or stuck the evening's too
          --history FILE  write the first stream's history there, as JSON lines

        """

    private struct Options {
        var seed: UInt64 = 1
        var count: UInt64 = 1
        var seconds: Int64 = 30
        var keepsTrace = false
        var mutant: Mutant?
        var history: String?
        var faults = "swarm"
        var evening: Int64 = 40

        /// Nil if the words make no sense.
        init?(_ arguments: [String]) {
            var rest = arguments[...]
            while let word = rest.popFirst() {
                if word == "--trace" {
                    keepsTrace = true
                    continue
                }
                guard let value = rest.popFirst() else { return nil }
                switch word {
                case "--seed", "--count", "--seconds", "--evening":
                    guard let number = UInt64(value) else { return nil }
                    if word == "--seed" { seed = number }
                    if word == "--count" { count = number }
                    if word == "--seconds" { seconds = Int64(clamping: number) }
                    if word == "--evening" { evening = Int64(clamping: number) }
                case "--mutant":
                    guard Mutant.areBuilt, let named = Mutant(value) else { return nil }
                    mutant = named
                case "--history": history = value
                case "--faults":
                    guard Faults.named(value, seed: 0) != nil else { return nil }
                    faults = value
                default: return nil
                }
            }
        }
    }

    static func main() {
        guard let options = Options(Array(CommandLine.arguments.dropFirst())) else {
            _ = usage.withCString { write(STDERR_FILENO, $0, strlen($0)) }
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
                + " \(fetches.damagedPages) damaged), \(fetches.fromBucket) of the bucket")
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
