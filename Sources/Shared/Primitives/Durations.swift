// SPDX-License-Identifier: Apache-2.0

/// A distribution of durations: buckets that double, from 1 microsecond to about 67 seconds, and
/// one for all that is longer. Recording is two additions and no memory.
package struct Durations: Sendable, Equatable {
    /// Of those with an upper bound; there is one more.
    package static let bucketCount = 27

    private var counts = [UInt64](repeating: 0, count: bucketCount + 1)
    package private(set) var count: UInt64 = 0
    package private(set) var sum: Nanoseconds = 0

    package init() {}

    /// Records a duration that `times` of what is measured took; a negative one counts as none.
    package mutating func record(_ duration: Nanoseconds, count times: Int = 1) {
        let duration = max(duration, 0)
        let micros = (UInt64(duration) + 999) / 1_000
        let bucket = micros <= 1 ? 0 : 64 - (micros - 1).leadingZeroBitCount
        counts[min(bucket, Self.bucketCount)] += UInt64(times)
        count += UInt64(times)
        sum &+= duration &* Nanoseconds(times)
    }

    /// How many were at most 2 to the power of `bucket` microseconds; `bucket` in
    /// `0..<bucketCount`.
    package func count(upTo bucket: Int) -> UInt64 { counts[...bucket].reduce(0, +) }

    /// An upper bound of the quantile `q` (0 to 1), in nanoseconds; 0 while nothing was recorded.
    package func quantile(_ q: Double) -> Nanoseconds {
        let rank = UInt64((Double(count) * q).rounded(.up))
        var seen: UInt64 = 0
        for (bucket, n) in counts.enumerated() {
            seen += n
            if n > 0 && seen >= rank { return 1_000 << Int64(bucket) }
        }
        return 0
    }
}
