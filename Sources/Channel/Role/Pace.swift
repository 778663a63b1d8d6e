// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// How far something is ahead of a rate, as a virtual schedule: the generic cell rate algorithm
/// (ITU-T I.371). What passes moves the schedule on by the time that it may take; the next may pass
/// unless the schedule is ahead of the clock by more than the slack.
struct Pace {
    /// A rate may be exceeded by what comes in so long a time, once.
    static let slack: Nanoseconds = .milliseconds(250)

    /// Who waits does so for at least as long: much passes at once then, and the rate is the same.
    private static let grain: Nanoseconds = .milliseconds(5)

    private var end: Nanoseconds = 0

    /// How long the next has to wait; 0 if it may pass at `now`.
    func delay(at now: Nanoseconds) -> Nanoseconds {
        let ahead = end - now - Self.slack
        return ahead > 0 ? max(ahead, Self.grain) : 0
    }

    /// Lets `units` pass, at a rate of `perSecond`.
    mutating func pass(_ units: Int, perSecond: Int, at now: Nanoseconds) {
        end = max(end, now) + Nanoseconds(units) * 1_000_000_000 / Nanoseconds(perSecond)
    }
}
