// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Observability
package import Primitives
package import RPC

/// All that a worker reaches of the outside, everything confined to one loop.
package struct BgTaskWorld {
    package let loop: any Loop
    package let metadata: any HousekeepingStore
    package let buckets: [Bucket]
    package let calls: any CallClient
    package let random: RandomSource
    package let log: EventLog
    package let metrics: Metrics

    package init(
        loop: any Loop, metadata: any HousekeepingStore, buckets: [Bucket],
        calls: any CallClient, random: RandomSource, log: EventLog, metrics: Metrics
    ) {
        precondition(!buckets.isEmpty, "a cell has at least one bucket")
        self.loop = loop
        self.metadata = metadata
        self.buckets = buckets
        self.calls = calls
        self.random = random
        self.log = log
        self.metrics = metrics
    }
}

/// A worker's settings, each with its default. The waits have floors below which reads would fail
/// or records be lost.
package struct BgTaskLimits: Sendable {
    /// How long objects stay once nothing refers to them: longer than any read plan is used.
    package var planNanoseconds: Nanoseconds = .seconds(600)
    /// Readers drop a plan after five minutes.
    package static let planNanosecondsMin: Nanoseconds = .seconds(360)
    /// How long a condemned object stays: longer than any transaction that began before.
    package var condemnedNanoseconds: Nanoseconds = .seconds(60)
    package static let condemnedNanosecondsMin: Nanoseconds = .seconds(30)
    /// An object that nothing refers to is left alone for so long: a flush may be about to.
    package var orphanNanoseconds: Nanoseconds = .seconds(3_600)
    /// A flush tries for ten minutes.
    package static let orphanNanosecondsMin: Nanoseconds = .seconds(1_200)
    /// How long a seal stays once its log is recovered.
    package var sealNanoseconds: Nanoseconds = .seconds(30 * 86_400)
    /// Until then a writer that was paused may come back.
    package static let sealNanosecondsMin: Nanoseconds = .seconds(30 * 86_400)

    /// How often each task looks at its part of the cell; sweeps go through the whole store.
    package var passNanoseconds: Nanoseconds = .seconds(60)
    package var sweepNanoseconds: Nanoseconds = .seconds(3_600)
    package var leaseNanoseconds: Nanoseconds = .seconds(30)
    package var leaseMarginNanoseconds: Nanoseconds = .seconds(5)
    /// Into how many parts each task's keys are cut: a power of two up to 256, the same in the
    /// whole cell, or work is done twice.
    package var partitions = 4

    /// Requests to the store, and bytes of it, that this worker causes each second.
    package var requestsPerSecond = 200
    package var bytesPerSecond = 32 << 20
    /// Objects that one pass deletes or rewrites at most; the next goes on.
    package var itemsPerPassMax = 20_000
    /// Rows that one statement looks at, and changes.
    package var scanRows = 1_000
    package var changeRows = 500
    /// Bytes of records that one compacted segment holds at most.
    package var compactedBytesMax = 30 << 20
    package var callNanoseconds: Nanoseconds = .seconds(10)
    package var storeBackoff = Backoff(budget: .seconds(20))

    package init() {}

    func check() {
        precondition(planNanoseconds >= Self.planNanosecondsMin, "plans live longer")
        precondition(condemnedNanoseconds >= Self.condemnedNanosecondsMin, "so do transactions")
        precondition(orphanNanoseconds >= Self.orphanNanosecondsMin, "flushes take longer")
        precondition(sealNanoseconds >= Self.sealNanosecondsMin, "seals stay for 30 days")
        precondition(
            (1...256).contains(partitions) && partitions.nonzeroBitCount == 1,
            "partitions are a power of two up to 256")
        precondition(compactedBytesMax <= 30 << 20, "a segment fits its object")
        precondition(scanRows >= 1 && changeRows >= 1 && itemsPerPassMax >= 1)
    }
}
