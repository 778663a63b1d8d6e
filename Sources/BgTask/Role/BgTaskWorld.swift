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
    /// Where the cell's waits are found; nil for those of the limits.
    package let terms: (any CellTerms)?
    package let buckets: [Bucket]
    package let calls: any CallClient
    package let random: RandomSource
    package let log: EventLog
    package let metrics: Metrics

    package init(
        loop: any Loop, metadata: any HousekeepingStore, buckets: [Bucket],
        calls: any CallClient, random: RandomSource, log: EventLog, metrics: Metrics,
        terms: (any CellTerms)? = nil
    ) {
        precondition(!buckets.isEmpty, "a cell has at least one bucket")
        self.loop = loop
        self.metadata = metadata
        self.terms = terms
        self.buckets = buckets
        self.calls = calls
        self.random = random
        self.log = log
        self.metrics = metrics
    }
}

/// A worker's settings, each with its default.
///
/// None of the waits is all that stands between a record and its loss. Readers learn from the
/// metadata how long objects stay; the metadata knows which transactions are over, and refuses the
/// names of orphans for good; and each channel has told it for how long it may trust its log.
package struct BgTaskLimits: Sendable {
    /// How long objects stay once nothing refers to them, where the metadata has no such term: at
    /// least twice as long as a read plan is used.
    package var planNanoseconds: Nanoseconds = .seconds(600)
    /// How long a condemned object stays at least.
    package var condemnedNanoseconds: Nanoseconds = .seconds(60)
    /// An object that nothing refers to is left alone for so long: a flush may be about to. One
    /// that comes later is refused, and its channel replaced.
    package var orphanNanoseconds: Nanoseconds = .seconds(3_600)
    /// A flush stores up to ten objects, one after the other, before it makes them known.
    package static func orphanNanosecondsMin(putting limit: Nanoseconds) -> Nanoseconds {
        limit * 10
    }
    /// How long a seal stays at least once its log is recovered. Until then a writer that was
    /// paused may come back.
    package var sealNanoseconds: Nanoseconds = .seconds(30 * 86_400)
    /// And at least so many times as long as its channel would have trusted its log: clocks stand
    /// still in a machine that is suspended.
    static let sealTimesUnsure: UInt64 = 30

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
    /// Objects that one pass deletes at once, and streams that it changes at once.
    package var objectsAtOnce = 16
    package var streamsAtOnce = 4
    package var callNanoseconds: Nanoseconds = .seconds(10)
    package var storeBackoff = Backoff(budget: .seconds(20))
    /// Chunks of a log that are deleted before any of the next.
    package var chunkStride = 64
    @MutantSetting package var mutant: BgTaskMutant?

    package init() {}

    func check() {
        precondition(planNanoseconds >= 0 && condemnedNanoseconds >= 0)
        precondition(orphanNanoseconds >= 0 && sealNanoseconds >= 0)
        precondition(
            (1...256).contains(partitions) && partitions.nonzeroBitCount == 1,
            "partitions are a power of two up to 256")
        precondition(compactedBytesMax <= 30 << 20, "a segment fits its object")
        precondition(objectsAtOnce >= 1 && streamsAtOnce >= 1 && chunkStride >= 1)
        precondition(scanRows >= 1 && changeRows >= 1 && itemsPerPassMax >= 1)
    }
}
