// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// When a page that does not come is asked for a second time, and how often at most.
///
/// The time to wait is a quantile of how long whole pages took, and a whole page is what is waited
/// for: the same thing is measured and compared. Requests that lost the race are measured too. A
/// hedge costs a credit, of which every first request earns a small part, so that a store that
/// becomes slow as a whole is not asked for more.
struct HedgePolicy {
    struct Settings: Sendable {
        /// 1 to 99; 0 for no hedges.
        var percentile = 98
        /// Extra requests, per cent of first requests.
        var budgetPercent = 3
        /// Nobody waits less: what takes so little is not worth a request.
        var delayMin: Nanoseconds = .milliseconds(5)
        /// Pages of a bucket to be measured before it is hedged.
        var samplesMin = 32
    }

    private let settings: Settings
    private var windows: [LatencyWindow]
    /// In hundredths of a request.
    private var credit = 0
    /// As much as may be saved for a bad moment.
    private static let creditMax = 10 * 100

    init(_ settings: Settings, bucketCount: Int) {
        precondition((0...99).contains(settings.percentile) && settings.budgetPercent >= 0)
        self.settings = settings
        windows = Array(repeating: LatencyWindow(), count: bucketCount)
    }

    /// A first request goes out.
    mutating func began() { credit = min(credit + settings.budgetPercent, Self.creditMax) }

    /// How long to wait for a page of `bucket` before the hedge; nil for ever.
    mutating func delay(_ bucket: Int) -> Nanoseconds? {
        guard settings.percentile > 0, windows[bucket].count >= settings.samplesMin else {
            return nil
        }
        let usual = windows[bucket].quantile(percent: settings.percentile)
        // A little more, so that pages which all take the same time are not hedged.
        return max(usual + usual / 8, settings.delayMin)
    }

    /// Whether there is credit for a hedge, which is spent.
    mutating func spend() -> Bool {
        guard credit >= 100 else { return false }
        credit -= 100
        return true
    }

    /// A whole page came from `bucket`.
    mutating func record(_ bucket: Int, _ latency: Nanoseconds) { windows[bucket].add(latency) }
}

/// The latest latencies.
private struct LatencyWindow {
    private var samples: [Nanoseconds] = []
    private var next = 0
    private var sorted: [Nanoseconds] = []
    private var isSorted = false
    private var addedSinceSort = 0
    private static let countMax = 256
    /// Samples between two sortings.
    private static let staleMax = 16

    var count: Int { samples.count }

    mutating func add(_ latency: Nanoseconds) {
        if samples.count < Self.countMax {
            samples.append(latency)
        } else {
            samples[next] = latency
            next = (next + 1) % Self.countMax
        }
        addedSinceSort += 1
        if addedSinceSort >= Self.staleMax { isSorted = false }
    }

    /// At least one sample is there.
    mutating func quantile(percent: Int) -> Nanoseconds {
        if !isSorted {
            sorted = samples.sorted()
            isSorted = true
            addedSinceSort = 0
        }
        return sorted[min((sorted.count * percent + 99) / 100, sorted.count) - 1]
    }
}
