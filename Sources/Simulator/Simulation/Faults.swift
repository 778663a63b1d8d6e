// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// How often what goes wrong, in one simulation. 0 is never; n is once in n, or the mean time
/// between two of them.
package struct Faults: Sendable {
    /// A request to the store or the metadata is refused, without effect.
    package var refusedOneIn: UInt64 = 200
    /// The effect happens; its reply is lost.
    package var lostReplyOneIn: UInt64 = 100
    /// The same, of so many flushes in a hundred.
    package var lostFlushRepliesPercent: UInt64 = 0
    /// The caller is told that it failed; the effect happens later.
    package var lateEffectOneIn: UInt64 = 400
    /// The whole request takes a hundred times as long.
    package var slowOneIn: UInt64 = 100
    /// A process ends, as by kill -9.
    package var crashNanoseconds: Nanoseconds = .seconds(4)
    /// A frontend ends, in the same way.
    package var frontendCrashNanoseconds: Nanoseconds = 0
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
    /// A worker of background tasks is frozen for up to 50 minutes.
    package var sleepNanoseconds: Nanoseconds = 0
    /// A channel's flushes, and nothing else of it, fail for up to 40 minutes.
    package var stuckNanoseconds: Nanoseconds = 0
    /// An effect that a worker asked for, or a segment stored, is the last that whoever asked does:
    /// it ends, or is frozen for a while.
    package var stopOneIn: UInt64 = 0
    /// An access to a cachey's disk fails, takes seconds, or writes other bytes than it was given.
    package var diskOneIn: UInt64 = 20
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
        faults.diskOneIn = 0
        return faults
    }()

    /// What goes on going wrong while little is done, over hours: everything, seldom.
    package static func evening(seed: UInt64) -> Faults {
        let random = RandomSource.seeded(seed ^ 0x5EED_0E7E)
        var faults = Faults()
        faults.refusedOneIn = 300
        faults.lostReplyOneIn = 150
        faults.lateEffectOneIn = 400
        faults.slowOneIn = 200
        func mean(_ often: Nanoseconds, _ rarely: Nanoseconds) -> Nanoseconds {
            random.oneIn(3) ? 0 : random.within(often...rarely)
        }
        faults.crashNanoseconds = mean(.seconds(40), .seconds(120))
        faults.pauseNanoseconds = mean(.seconds(60), .seconds(180))
        faults.partitionNanoseconds = mean(.seconds(60), .seconds(180))
        faults.outageNanoseconds = mean(.seconds(120), .seconds(300))
        faults.isolationNanoseconds = mean(.seconds(90), .seconds(240))
        faults.splitNanoseconds = mean(.seconds(90), .seconds(240))
        faults.drainNanoseconds = mean(.seconds(60), .seconds(180))
        faults.clockNanoseconds = mean(.seconds(90), .seconds(240))
        faults.sleepNanoseconds = mean(.seconds(300), .seconds(900))
        faults.stopOneIn = random.oneIn(3) ? 0 : 20 + random.below(60)
        faults.diskOneIn = 8
        return faults
    }

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

    /// The same, and mostly a close is long done before its channel hears of it, and frontends come
    /// that never heard of that channel.
    package static let lateCloses: Faults = {
        var faults = Faults.none
        faults.drainNanoseconds = .seconds(2)
        faults.lostFlushRepliesPercent = 75
        faults.frontendCrashNanoseconds = .milliseconds(1_500)
        return faults
    }()

    /// Flushes that fail for half an hour and longer.
    package static let stuck: Faults = {
        var faults = Faults.none
        faults.stuckNanoseconds = .seconds(60)
        return faults
    }()

    /// By name: `swarm`, `splits`, `grey`, `closes`, `lateCloses`, `stuck` or `none`.
    package static func named(_ name: String, seed: UInt64) -> Faults? {
        switch name {
        case "swarm": swarm(seed: seed)
        case "splits": splits
        case "grey": greySplits
        case "closes": closes
        case "lateCloses": lateCloses
        case "stuck": stuck
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
        faults.stopOneIn = rate(20, 100)
        faults.diskOneIn = rate(3, 30)
        return faults
    }
}
