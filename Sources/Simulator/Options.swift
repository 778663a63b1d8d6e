// SPDX-License-Identifier: Apache-2.0

internal import Simulation

/// What the command line asks for.
struct Options {
    static let usage = """
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
