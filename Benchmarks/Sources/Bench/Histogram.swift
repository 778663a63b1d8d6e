// SPDX-License-Identifier: Apache-2.0

/// Counts of durations in nanoseconds, in buckets no wider than 1/128 of their value, as in an HDR
/// histogram of two digits.
struct Histogram {
    private var counts = [UInt64](repeating: 0, count: 64 * 128)
    private(set) var count: UInt64 = 0
    private(set) var largest: Int64 = 0

    mutating func record(_ nanoseconds: Int64) {
        let value = max(0, nanoseconds)
        counts[Self.bucket(UInt64(value))] += 1
        count += 1
        largest = max(largest, value)
    }

    /// The value that a share of the recorded ones does not exceed, in nanoseconds.
    func percentile(_ share: Double) -> Int64 {
        guard count > 0 else { return 0 }
        let wanted = max(1, UInt64((share * Double(count)).rounded(.up)))
        var seen: UInt64 = 0
        for (i, n) in counts.enumerated() where n > 0 {
            seen += n
            if seen >= wanted { return min(Int64(Self.upperBound(i)), largest) }
        }
        return largest
    }

    func milliseconds(_ share: Double) -> Double { Double(percentile(share)) / 1e6 }

    /// Values below 256 have buckets of their own; above, each power of two has 128.
    private static func bucket(_ value: UInt64) -> Int {
        if value < 256 { return Int(value) }
        let shift = 56 - value.leadingZeroBitCount
        return shift * 128 + Int(value >> UInt64(shift))
    }

    private static func upperBound(_ bucket: Int) -> UInt64 {
        if bucket < 256 { return UInt64(bucket) }
        let shift = bucket / 128 - 1
        let top = UInt64(bucket - shift * 128)
        return (top + 1) << UInt64(shift) - 1
    }
}
