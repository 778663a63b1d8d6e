// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Observability
package import Primitives

/// All that a channel reaches of the outside, everything confined to one loop.
package struct ChannelWorld {
    package let loop: any Loop
    package let metadata: any MetadataStore
    /// The buckets of the channel's storage class; the log is written to the first.
    package let buckets: [Bucket]
    package let random: RandomSource
    package let log: EventLog
    package let metrics: Metrics
    /// Ends the process, saying why. Called once; the role does nothing more.
    package let exit: (String) -> Void

    package init(
        loop: any Loop, metadata: any MetadataStore, buckets: [Bucket], random: RandomSource,
        log: EventLog, metrics: Metrics, exit: @escaping (String) -> Void
    ) {
        precondition(!buckets.isEmpty, "a channel has a bucket to write to")
        self.loop = loop
        self.metadata = metadata
        self.buckets = buckets
        self.random = random
        self.log = log
        self.metrics = metrics
        self.exit = exit
    }
}

/// A channel's settings, each with its default.
package struct ChannelLimits: Sendable {
    package var storageClass = "express"
    package var zone = "local"
    /// `host:port` or `unix:/path` where other processes reach this channel.
    package var address: String

    /// A chunk is closed before it would grow beyond these.
    package var chunkBytesMax = 8 << 20
    package var chunkFragmentsMax = 4_096
    /// In a chunk of so many bytes batches may lie as they came, for the store to take them from
    /// there, even if that leaves a streamlet's in several pieces.
    package var asAddedBytesMin = DirectPart.objectBytesMin
    /// But they do only if they come to two pieces for each streamlet, or if a piece has so many
    /// bytes on average.
    package var stretchBytesMin = 64 << 10
    /// A chunk that reached this size is closed without waiting for its linger.
    package var chunkBytesTarget = 4 << 20
    /// Chunks whose PUT is under way at once.
    package var inFlightChunksMax = 4
    /// How long an append may wait for company while other chunks are in flight.
    package var lingerNanoseconds: ClosedRange<Nanoseconds> = 0...(.milliseconds(50))

    /// Bytes in the log that are in no segment yet: beyond it, appends wait.
    package var unflushedBytesMax = 256 << 20
    /// A flush begins at so many unflushed bytes, or once the oldest are so old.
    package var flushBytes = 64 << 20
    package var flushNanoseconds: Nanoseconds = .seconds(30)
    package var segmentObjectBytesMax = 32 << 20
    /// Recent records, kept in memory for followers.
    package var windowBytesMax = 64 << 20
    /// A streamlet without appends or followers for so long is closed.
    package var dormancyNanoseconds: Nanoseconds = .seconds(60)
    package var windowChunksMax = 16_384
    package var openStreamletsMax = 500_000

    /// Stored bytes per second that one stream takes; nil for as many as there is room for. Single
    /// appends beyond it are refused, sessions wait.
    package var streamBytesPerSecondMax: Int?
    /// Batches per second of one session, and of a stream's single appends together.
    package var batchesPerSecondMax: Int?
    /// How long a single append may wait for room in the log before it is refused.
    package var shedNanoseconds: Nanoseconds = .seconds(2)

    package var leaseNanoseconds: Nanoseconds = .seconds(3)
    package var renewNanoseconds: Nanoseconds = .seconds(1)
    /// How long the channel trusts its log while it is unsure of its lease; then it exits.
    package var unsureNanoseconds: Nanoseconds = .seconds(24 * 3_600)
    /// Whether the log is probed before every reply that shows state, the lease or not.
    package var hasStrictTails = false
    /// How long a reply may wait for the channel to be sure of itself again.
    package var guardNanoseconds: Nanoseconds = .seconds(5)
    package var guardedRepliesMax = 65_536
    /// Bytes on their way to one follower, beyond which it is sent back to catch up.
    package var followerBytesMax = 4 << 20

    /// How a PUT of a chunk is tried again; when it gives up, the channel exits.
    package var putBackoff = Backoff(
        first: .milliseconds(20), delayMax: .seconds(1), triesMax: 1_000, budget: .seconds(600))
    /// How a flush is tried again. Metadata may be away for long: meanwhile appends go on, until
    /// the unflushed bytes are too many.
    package var flushBackoff = Backoff(
        first: .milliseconds(100), delayMax: .seconds(2), triesMax: .max, budget: .seconds(86_400))

    @MutantSetting package var mutant: ChannelMutant?

    package init(address: String) { self.address = address }
}
