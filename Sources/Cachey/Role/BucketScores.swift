// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// How well each bucket has done lately, and therefore in which order to ask them.
///
/// Lower is better: a bucket's place in the client's list counts 2,000 points, its latency a point
/// per 100 µs, its share of failures up to 100,000. One that failed five times in a row is put
/// behind all others until nothing was heard of it for 30 seconds. Everything fades with time, so
/// that a bucket nobody asks any more gets another chance. An answer that says "no such object" is
/// an answer.
///
/// There are as many entries as buckets are configured: what clients name adds none.
struct BucketScores {
    struct Entry {
        /// 0 to 1, as of `updated`.
        fileprivate var errorRate = 0.0
        /// In nanoseconds, as of `updated`; 0 while unknown.
        fileprivate var latency = 0.0
        fileprivate var streak = 0
        fileprivate var lastFailure: Nanoseconds = 0
        fileprivate var updated: Nanoseconds = 0
    }

    private var entries: [Entry]
    /// The weight of one observation.
    private static let weight = 0.015
    /// What is left of a value after a second: half after 46.
    private static let fading = 0.985_11
    private static let streakMax = 5
    private static let streakNanoseconds: Nanoseconds = .seconds(30)

    init(bucketCount: Int) { entries = Array(repeating: Entry(), count: bucketCount) }

    /// `buckets`, the best first; ties by their order. Indexes of the configuration.
    func order(_ buckets: [Int], at now: Nanoseconds) -> [Int] {
        buckets.enumerated()
            .map { (score: score($1, place: $0, at: now), place: $0, bucket: $1) }
            .sorted { ($0.score, $0.place) < ($1.score, $1.place) }
            .map(\.bucket)
    }

    func score(_ bucket: Int, place: Int, at now: Nanoseconds) -> Int {
        let errors = isOpen(bucket, at: now) ? 1_000_000 : Int(errorRate(bucket, at: now) * 100_000)
        return place * 2_000 + errors + Int(latency(bucket, at: now)) / 100_000
    }

    /// 0 to 1.
    func errorRate(_ bucket: Int, at now: Nanoseconds) -> Double {
        faded(entries[bucket].errorRate, since: entries[bucket].updated, now)
    }

    /// The mean of whole pages, fading towards 0, in nanoseconds.
    func latency(_ bucket: Int, at now: Nanoseconds) -> Nanoseconds {
        Nanoseconds(faded(entries[bucket].latency, since: entries[bucket].updated, now))
    }

    /// Whether the bucket is left alone as far as another one can serve.
    func isOpen(_ bucket: Int, at now: Nanoseconds) -> Bool {
        failures(bucket, at: now) >= Self.streakMax
    }

    /// Failures in a row.
    func failures(_ bucket: Int, at now: Nanoseconds) -> Int {
        now - entries[bucket].lastFailure < Self.streakNanoseconds ? entries[bucket].streak : 0
    }

    /// The bucket answered; with a whole page after `latency`, else nil.
    mutating func answered(_ bucket: Int, latency: Nanoseconds?, at now: Nanoseconds) {
        observe(bucket, failed: 0, at: now)
        entries[bucket].streak = 0
        guard let latency else { return }
        let mean = entries[bucket].latency
        let isFirst = mean < 1
        entries[bucket].latency =
            isFirst ? Double(latency) : mean + (Double(latency) - mean) * Self.weight * 4
    }

    /// The bucket gave no answer, or a wrong one.
    mutating func failed(_ bucket: Int, at now: Nanoseconds) {
        observe(bucket, failed: 1, at: now)
        entries[bucket].streak = failures(bucket, at: now) + 1
        entries[bucket].lastFailure = now
    }

    private mutating func observe(_ bucket: Int, failed: Double, at now: Nanoseconds) {
        let rate = errorRate(bucket, at: now)
        entries[bucket].latency = Double(latency(bucket, at: now))
        entries[bucket].errorRate = rate + (failed - rate) * Self.weight
        entries[bucket].updated = now
    }

    private func faded(_ value: Double, since: Nanoseconds, _ now: Nanoseconds) -> Double {
        let seconds = max(now - since, 0) / .seconds(1)
        // Nothing is left of it after ten minutes.
        guard seconds < 600 else { return 0 }
        var (result, power, left) = (value, Self.fading, seconds)
        while left > 0 {
            if left & 1 == 1 { result *= power }
            power *= power
            left >>= 1
        }
        return result
    }
}
