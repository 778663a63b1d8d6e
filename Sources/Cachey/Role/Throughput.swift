// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Bytes per second over the last ten seconds that are complete.
struct Throughput {
    private static let seconds = 10
    /// By second, the present one included.
    private var counts = [Int](repeating: 0, count: seconds + 1)
    private var present: Int64 = 0

    mutating func add(_ bytes: Int, at now: Nanoseconds) {
        advance(now)
        counts[slot(present)] += bytes
    }

    mutating func bytesPerSecond(at now: Nanoseconds) -> Double {
        advance(now)
        let complete = counts.reduce(0, +) - counts[slot(present)]
        return Double(complete) / Double(Self.seconds)
    }

    private mutating func advance(_ now: Nanoseconds) {
        let second = now / .seconds(1)
        guard second > present else { return }
        let passed = min(second - present, Int64(counts.count))
        for step in 0..<passed { counts[slot(second - step)] = 0 }
        present = second
    }

    private func slot(_ second: Int64) -> Int { Int(second % Int64(counts.count)) }
}
