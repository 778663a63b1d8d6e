// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// How often what goes wrong, in one simulation. 0 is never; n is once in n, or the mean time
/// between two of them.
package struct Faults: Sendable {
    /// A request to the store or the metadata is refused, without effect.
    package var refusedOneIn: UInt64 = 200
    /// The effect happens; its reply is lost.
    package var lostReplyOneIn: UInt64 = 100
    /// The caller is told that it failed; the effect happens later.
    package var lateEffectOneIn: UInt64 = 400
    /// The whole request takes a hundred times as long.
    package var slowOneIn: UInt64 = 100
    /// A process ends, as by kill -9.
    package var crashNanoseconds: Nanoseconds = .seconds(4)
    /// A process freezes for up to 20 s, and goes on.
    package var pauseNanoseconds: Nanoseconds = 0
    /// Two processes cannot reach each other for up to 12 s.
    package var partitionNanoseconds: Nanoseconds = 0
    /// The store, or the metadata, is away for up to 10 s.
    package var outageNanoseconds: Nanoseconds = 0
    /// One process cannot reach the metadata for up to 15 s, and the store hardly.
    package var isolationNanoseconds: Nanoseconds = 0
    /// A channel and a frontend are on the wrong side of a partition for up to 14 s.
    package var splitNanoseconds: Nanoseconds = 0
    /// A channel that is split off reaches every other key of the store; else that, or less.
    package var splitsAreGrey = false
    /// A channel is told to drain.
    package var drainNanoseconds: Nanoseconds = 0
    /// A process's wall clock jumps by up to an hour.
    package var clockNanoseconds: Nanoseconds = 0

    package init() {}

    package static let none: Faults = {
        var faults = Faults()
        faults.refusedOneIn = 0
        faults.lostReplyOneIn = 0
        faults.lateEffectOneIn = 0
        faults.slowOneIn = 0
        faults.crashNanoseconds = 0
        return faults
    }()

    /// Partitions that leave a channel alive on the wrong side, with a store that often fails.
    package static let splits: Faults = {
        var faults = Faults.none
        faults.splitNanoseconds = .seconds(4)
        faults.slowOneIn = 20
        return faults
    }()

    /// The same, with some slots of the log out of reach and others not.
    package static let greySplits: Faults = {
        var faults = splits
        faults.splitNanoseconds = .seconds(3)
        faults.splitsAreGrey = true
        return faults
    }()

    /// Streamlets are closed all the time, and what came of it is often unknown.
    package static let closes: Faults = {
        var faults = Faults.none
        faults.drainNanoseconds = .seconds(4)
        faults.crashNanoseconds = .seconds(8)
        faults.lostReplyOneIn = 8
        faults.slowOneIn = 10
        return faults
    }()

    /// By name: `swarm`, `splits`, `grey`, `closes` or `none`.
    package static func named(_ name: String, seed: UInt64) -> Faults? {
        switch name {
        case "swarm": swarm(seed: seed)
        case "splits": splits
        case "grey": greySplits
        case "closes": closes
        case "none": none
        default: nil
        }
    }

    /// Some faults of a seed, each at some rate. A run in which everything fails all the time sees
    /// less than many in which a few things do.
    package static func swarm(seed: UInt64) -> Faults {
        let random = RandomSource.seeded(seed ^ 0x5EED_FA17)
        var faults = Faults.none
        func rate(_ often: UInt64, _ rarely: UInt64) -> UInt64 {
            random.oneIn(3) ? 0 : often + random.below(rarely - often)
        }
        func mean(_ often: Nanoseconds, _ rarely: Nanoseconds) -> Nanoseconds {
            random.oneIn(2) ? 0 : random.within(often...rarely)
        }
        faults.refusedOneIn = rate(20, 400)
        faults.lostReplyOneIn = rate(20, 400)
        faults.lateEffectOneIn = rate(50, 800)
        faults.slowOneIn = rate(10, 200)
        faults.crashNanoseconds = mean(.seconds(2), .seconds(10))
        faults.pauseNanoseconds = mean(.seconds(2), .seconds(10))
        faults.partitionNanoseconds = mean(.seconds(2), .seconds(10))
        faults.outageNanoseconds = mean(.seconds(8), .seconds(20))
        faults.isolationNanoseconds = mean(.seconds(3), .seconds(12))
        faults.splitNanoseconds = mean(.seconds(4), .seconds(12))
        faults.drainNanoseconds = mean(.seconds(3), .seconds(12))
        faults.clockNanoseconds = mean(.seconds(4), .seconds(12))
        return faults
    }
}
