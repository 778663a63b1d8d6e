// SPDX-License-Identifier: Apache-2.0

import Primitives
import Testing

@Suite struct DurationsTests {
    @Test func aBucketHoldsWhatIsAtMostItsBound() {
        var durations = Durations()
        for (nanoseconds, bucket) in [
            (-5, 0), (0, 0), (1_000, 0), (1_001, 1), (2_000, 1), (2_001, 2), (4_000, 2),
            (4_001, 3), (1_000_000, 10), (1_024_001, 11),
        ] as [(Nanoseconds, Int)] {
            let before = durations
            durations.record(nanoseconds)
            for upTo in 0..<Durations.bucketCount {
                let grown = durations.count(upTo: upTo) - before.count(upTo: upTo)
                #expect(grown == (upTo >= bucket ? 1 : 0), "\(nanoseconds) ns up to \(upTo)")
            }
        }
        #expect(durations.count == 10)
        #expect(durations.sum == 2_038_004)
    }

    @Test func whatIsLongerThanAllBoundsCountsAllTheSame() {
        var durations = Durations()
        durations.record(.seconds(67))
        durations.record(.seconds(68))
        durations.record(.max)
        #expect(durations.count == 3)
        #expect(durations.count(upTo: Durations.bucketCount - 1) == 1)
        #expect(durations.quantile(1) >= .seconds(67))
    }

    @Test func quantiles() {
        var durations = Durations()
        #expect(durations.quantile(0.5) == 0)
        for _ in 0..<99 { durations.record(3_000) }
        durations.record(.milliseconds(5))
        #expect(durations.quantile(0.5) == 4_000)
        #expect(durations.quantile(0.99) == 4_000)
        #expect(durations.quantile(1) == 8_192_000)
    }
}
