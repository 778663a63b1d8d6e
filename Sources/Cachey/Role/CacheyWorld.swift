// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Observability
package import Primitives
internal import RPC

/// All that a cachey reaches of the outside, everything confined to one loop.
package struct CacheyWorld {
    package let loop: any Loop
    package let registry: any CacheyRegistry
    package let buckets: [Bucket]
    /// Nil for a cachey without a disk tier.
    package let disk: (any PageDisk)?
    package let log: EventLog
    package let metrics: Metrics

    package init(
        loop: any Loop, registry: any CacheyRegistry, buckets: [Bucket], disk: (any PageDisk)?,
        log: EventLog, metrics: Metrics
    ) {
        precondition(!buckets.isEmpty, "a cachey has a bucket to read")
        precondition(!buckets.contains { $0.name.contains(",") }, "names are joined by commas")
        self.loop = loop
        self.registry = registry
        self.buckets = buckets
        self.disk = disk
        self.log = log
        self.metrics = metrics
    }
}

/// A cachey's settings, each with its default.
package struct CacheyLimits: Sendable {
    package var zone = "local"
    /// `host:port` or `unix:/path` where readers reach this cachey.
    package var address: String

    /// The grain of everything. Readers of streams want parts of objects, at most 2 MiB in one step
    /// and often much less, and a page is what they wait for and what a miss costs; much smaller
    /// ones would pay S3's first-byte latency, and its price per request, too often.
    package var pageBytes = FetchRequest.pageBytesDefault
    package var memoryBytesMax = 1 << 30
    package var diskBytesMax = 16 << 30
    /// Pages on disk, of which each takes some 300 bytes of memory.
    package var diskPagesMax = 1 << 20
    /// Pages on their way to the disk; what comes beyond is not kept there.
    package var diskQueueBytesMax = 64 << 20
    package var diskReadsMax = 64
    /// A disk that takes longer is asked no more for this page.
    package var diskReadNanoseconds: Nanoseconds = .seconds(2)
    /// A disk that refused is left alone for so long.
    package var diskPauseNanoseconds: Nanoseconds = .seconds(30)

    /// Requests to buckets in flight, hedges and those given up included. Each bucket has an equal
    /// share of them, of at least one.
    package var getsMax = 128
    /// Pages being fetched, or waiting to be.
    package var flightsMax = 4_096
    package var waitersMax = 32_768
    /// Requests being served at once; one more is refused.
    package var sessionsMax = 8_192
    /// Pages that sessions hold: beyond it, they wait before they ask for more.
    package var servedBytesMax = 512 << 20
    /// Pages that one session asks for ahead.
    package var lookaheadPages = 2
    /// Bytes of a response that wait for the client before the next page is handed out.
    package var responseBufferBytesMax = 2 << 20

    /// One request to a bucket; then the next bucket is asked.
    package var attemptNanoseconds: Nanoseconds = .seconds(8)
    /// A session in which nothing moves for so long ends.
    package var stallNanoseconds: Nanoseconds = .seconds(30)
    /// 1 to 99; 0 for no hedges.
    package var hedgePercentile = 98
    /// Hedges, per cent of first requests.
    package var hedgeBudgetPercent = 3

    package var renewNanoseconds: Nanoseconds = .seconds(1)
    /// A registered cachey that did not renew for so long is struck from the list.
    package var forgetNanoseconds: Nanoseconds = .seconds(60)
    @MutantSetting package var mutant: CacheyMutant?

    package init(address: String) { self.address = address }
}
