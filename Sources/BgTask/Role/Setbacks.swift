// SPDX-License-Identifier: Apache-2.0

/// What a task could not deal with, over one partition: it is passed over, so that what stands
/// behind it gets its turn, and comes back.
///
/// Items have a source: what all of them need, as a bucket. A source that fails a few times in a
/// row, or often, is left alone for the rest of the pass, and the other sources go on. The next
/// pass takes up where this one left the source: what has failed is tried again once a pass came to
/// the end of everything. So however many items fail for good, each of the others has its turn.
final class Setbacks {
    private struct Source {
        /// Items that failed since a pass came to the end.
        var failed: Set<String> = []
        /// Of the pass under way.
        var streak = 0
        var count = 0

        var isLeftAlone: Bool { streak >= Setbacks.streakMax || count >= Setbacks.countMax }
    }

    /// Failures of a source in one pass, in a row and in all.
    static let streakMax = 8
    static let countMax = 100
    /// Names that are remembered for each source. With more, they are tried again too soon.
    private static let failedMax = 4_096
    private var sources: [String: Source] = [:]

    /// A pass begins.
    func begin() {
        for source in sources.keys {
            sources[source]?.streak = 0
            sources[source]?.count = 0
        }
    }

    /// A pass has seen everything there is: what failed before comes back with the next.
    func end() {
        sources = sources.filter { $0.value.isLeftAlone }
    }

    /// Whether the item has its turn in this pass.
    func mayTry(_ item: String, of source: String) -> Bool {
        guard let known = sources[source] else { return true }
        return !known.isLeftAlone && !known.failed.contains(item)
    }

    func succeeded(of source: String) { sources[source]?.streak = 0 }

    /// Returns whether the source is left alone from now on.
    func failed(_ item: String, of source: String) -> Bool {
        var known = sources[source] ?? Source()
        if known.failed.count >= Self.failedMax { known.failed = [] }
        known.failed.insert(item)
        known.streak += 1
        known.count += 1
        sources[source] = known
        return known.isLeftAlone
    }
}
