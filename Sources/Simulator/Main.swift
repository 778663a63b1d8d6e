// SPDX-License-Identifier: Apache-2.0

import ChannelRole
import Glibc
import Simulation

/// Runs simulated cells: one seed, or many in a row. Says which seeds broke a promise, and how to
/// run them again.
@main struct Main {
    private static let usage = """
        usage: simulator [--seed N] [--count N] [--seconds N] [--trace] [--mutant ungated]

          --seed N          the first seed (default 1)
          --count N         how many seeds, one after the other (default 1)
          --seconds N       virtual seconds of load and faults in each (default 30)
          --trace           print what happened
          --mutant ungated  let replies out before their records are durable: must be caught

        """

    private struct Options {
        var seed: UInt64 = 1
        var count: UInt64 = 1
        var seconds: Int64 = 30
        var keepsTrace = false
        var isUngated = false

        /// Nil if the words make no sense.
        init?(_ arguments: [String]) {
            var rest = arguments[...]
            while let word = rest.popFirst() {
                switch word {
                case "--trace": keepsTrace = true
                case "--seed", "--count", "--seconds":
                    guard let text = rest.popFirst(), let number = UInt64(text) else { return nil }
                    if word == "--seed" { seed = number }
                    if word == "--count" { count = number }
                    if word == "--seconds" { seconds = Int64(clamping: number) }
                case "--mutant":
                    guard rest.popFirst() == "ungated" else { return nil }
                    isUngated = true
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
            if options.isUngated { run.adjustChannel = { $0.holdsExposures = false } }
            let outcome = run()
            for line in outcome.trace { print(line) }
            for violation in outcome.violations { print("seed \(seed): \(violation)") }
            if !outcome.violations.isEmpty { broken.append(seed) }
            print(
                "seed \(seed): \(outcome.violations.count) violations,"
                    + " \(outcome.acknowledged) records acknowledged, \(outcome.crashes) crashes,"
                    + " \(outcome.steps) steps, trace \(String(outcome.traceHash, radix: 16))")
        }
        guard broken.isEmpty else {
            print("broken: \(broken.map(String.init).joined(separator: " "))")
            exit(1)
        }
    }
}
