// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Observability
package import Primitives
package import RPC

/// All that a frontend reaches of the outside, everything confined to one loop.
package struct FrontendWorld {
    package let loop: any Loop
    package let metadata: any MetadataStore
    package let calls: any CallClient
    package let buckets: [Bucket]
    package let random: RandomSource
    package let log: EventLog
    package let metrics: Metrics
    /// Where the cacheys of the zone are found; nil to read the buckets directly.
    package let cacheys: (any CacheyRegistry)?
    /// Where the cell's waits are found; nil for the standard ones.
    package let terms: (any CellTerms)?

    package init(
        loop: any Loop, metadata: any MetadataStore, calls: any CallClient, buckets: [Bucket],
        random: RandomSource, log: EventLog, metrics: Metrics,
        cacheys: (any CacheyRegistry)? = nil, terms: (any CellTerms)? = nil
    ) {
        self.loop = loop
        self.metadata = metadata
        self.calls = calls
        self.buckets = buckets
        self.random = random
        self.log = log
        self.metrics = metrics
        self.cacheys = cacheys
        self.terms = terms
    }
}

/// A frontend's settings, each with its default.
package struct FrontendLimits: Sendable {
    /// The bearer token that may do everything; nil only where an open cell was asked for.
    package var rootToken: String?
    /// Only cacheys of this zone are asked.
    package var zone = "local"
    /// How long a cachey may take for a page before the next one is asked.
    package var cacheyNanoseconds: Nanoseconds = .seconds(3)
    /// The grain in which cacheys keep objects.
    package var pageBytes = FetchRequest.pageBytesDefault
    /// Bytes of append batches in flight: of the process, of one stream, of one session.
    package var processInFlightBytesMax = 128 << 20
    package var basinInFlightBytesMax = 64 << 20
    package var streamInFlightBytesMax = 8 << 20
    package var sessionInFlightBytesMax = 5 << 20
    /// Bytes of what is remembered of streams and their owners.
    package var streamCacheBytesMax = 64 << 20
    /// Bytes of one unary request's body, before and after decompression.
    package var bodyBytesMax = 16 << 20
    /// How long a call to a channel or to metadata may take.
    package var callNanoseconds: Nanoseconds = .seconds(10)
    /// How often the list of channels is read.
    package var channelPollNanoseconds: Nanoseconds = .seconds(1)
    /// Silence after which a reader gets a heartbeat: drawn from this range.
    package var heartbeatNanoseconds: ClosedRange<Nanoseconds> = .seconds(5)...(.seconds(15))
    /// Bytes that a reader may lag behind a shared follow before it goes back to catching up.
    package var followerBufferBytesMax = 4 << 20
    /// Bytes of a response that wait for the client before reading on stops.
    package var responseBufferBytesMax = 2 << 20
    /// Bytes of all responses to readers: not taken by their clients yet, fetched, or queued.
    package var processResponseBytesMax = 256 << 20

    package init(rootToken: String?) { self.rootToken = rootToken }
}
