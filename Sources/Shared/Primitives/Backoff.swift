// SPDX-License-Identifier: Apache-2.0

/// How long to wait before another try: exponential with full jitter, within a budget.
///
/// Source: M. Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
package struct Backoff: Sendable {
    package var firstNanoseconds: Nanoseconds
    package var delayNanosecondsMax: Nanoseconds
    /// Tries in all, the first one included.
    package var triesMax: Int
    /// From the first try to the last wait's end.
    package var budgetNanoseconds: Nanoseconds

    package init(
        first: Nanoseconds = .milliseconds(20), delayMax: Nanoseconds = .seconds(1),
        triesMax: Int = 10, budget: Nanoseconds = .seconds(30)
    ) {
        precondition(first > 0 && delayMax >= first && triesMax >= 1 && budget >= 0)
        firstNanoseconds = first
        delayNanosecondsMax = delayMax
        self.triesMax = triesMax
        budgetNanoseconds = budget
    }

    /// The wait after `tries` failures, `elapsed` after the first try; nil to give up.
    package func delay(
        afterTries tries: Int, elapsed: Nanoseconds, random: UInt64
    ) -> Nanoseconds? {
        guard tries < triesMax, elapsed < budgetNanoseconds else { return nil }
        let ceiling = min(delayNanosecondsMax, firstNanoseconds << Int64(min(tries - 1, 20)))
        // At least half the ceiling, so that two tries never follow at once.
        let jitter = Int64(random.multipliedFullWidth(by: UInt64(ceiling / 2 + 1)).high)
        return min(ceiling / 2 + jitter, budgetNanoseconds - elapsed)
    }
}
