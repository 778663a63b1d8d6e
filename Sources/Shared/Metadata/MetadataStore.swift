// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

/// The cell's metadata: Postgres in production, memory in simulation.
///
/// Every operation is one atomic statement and reads the primary. Every call ends within the
/// store's deadline. An error whose `outcomeUnknown` is set may have taken effect; operations that
/// are guarded (a version, a count, a position) are safe to call again, and say what they found.
package protocol MetadataStore: Sendable {
    // MARK: Basins

    /// Creates a basin. The same `creationKey` and name again is `.noop` and answers the original.
    /// Errors: `.alreadyExists`, `.deletionPending`.
    func createBasin(_ request: BasinCreation) async throws(MetadataError) -> Provisioned<Basin>
    /// Creates the basin, or replaces its configuration; the creation key of an existing one stays.
    /// Errors: `.deletionPending`, `.conflict` (another location).
    func ensureBasin(_ request: BasinCreation) async throws(MetadataError) -> Provisioned<Basin>
    func basin(_ name: String) async throws(MetadataError) -> Basin?
    /// Byte order of names; those being deleted included. `limit` is 1 to 1,000.
    func listBasins(
        prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Basin>
    /// Replaces the configuration if the version is still `version`; nil if not (or gone).
    /// Errors: `.deletionPending`.
    func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) async throws(MetadataError) -> Basin?
    /// Marks the basin, once; false if there is none. Its streams follow in the background.
    func deleteBasin(_ name: String) async throws(MetadataError) -> Bool

    // MARK: Streams

    /// Errors: `.basinNotFound`, `.basinDeletionPending`, `.alreadyExists`, `.deletionPending`.
    func createStream(_ request: StreamCreation) async throws(MetadataError) -> Provisioned<Stream>
    /// Creates the stream, or replaces its configuration. Errors as for `createStream`, without
    /// `.alreadyExists`.
    func ensureStream(_ request: StreamCreation) async throws(MetadataError) -> Provisioned<Stream>
    /// The stream and its owner, in one snapshot. Errors: `.basinNotFound`; nil for no such stream.
    func stream(basin: String, name: String) async throws(MetadataError) -> StreamLookup?
    func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup?
    /// As `listBasins`. Errors: `.basinNotFound`.
    func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Stream>
    /// Replaces the configuration if the version is still `version`; nil if not (or gone).
    /// Errors: `.deletionPending`, `.basinDeletionPending`.
    func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) async throws(MetadataError) -> StreamLookup?
    /// Marks the stream, once, under the lock that a claim takes; answers it and its owner as of
    /// the mark, or nil if there is none. Errors: `.basinNotFound`.
    func deleteStream(basin: String, name: String) async throws(MetadataError) -> StreamLookup?

    // MARK: Channels and their leases

    /// Registers a new incarnation: `active`, 0 renewals, nothing flushed. Ids grow and are never
    /// used again.
    func registerChannel(_ registration: ChannelRegistration) async throws(MetadataError)
        -> ChannelID
    /// Adds one to the renewals of an active channel and stores its load; false if it is not
    /// active.
    func renewChannel(_ id: ChannelID, load: ChannelLoad) async throws(MetadataError) -> Bool
    /// All channels in any of `states`, by id.
    func channels(_ states: Set<ChannelState>) async throws(MetadataError) -> [ChannelRow]
    func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow?
    /// `active` becomes `dead` iff its renewals still number `renewals`; true also if it is dead,
    /// sealed or retired already.
    func declareDead(_ id: ChannelID, renewals: UInt64) async throws(MetadataError) -> Bool
    /// The channel gives up its own lease: `active` becomes `dead`, whatever its renewals.
    func resignChannel(_ id: ChannelID) async throws(MetadataError)
    /// `dead` becomes `sealed` with its end, iff `flushedEnd` is unchanged. True also if the same
    /// end was published before.
    func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool
    /// `sealed` becomes `retired` iff everything is flushed and no streamlet of it is open or
    /// prepared; false if not.
    func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool

    // MARK: Streamlets

    /// Opens the next streamlet of the stream on the channel, iff the stream is alive, none is open
    /// or prepared, and the channel is active. Claiming what the channel already owns answers the
    /// same claim again.
    func claim(_ stream: StreamID, channel: ChannelID) async throws(MetadataError) -> ClaimResult
    /// Moves records from the log to segments, in metadata. See `Flush`. Safe to call again.
    func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult
    /// The streamlets of a channel in any of `states`, by stream.
    func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet]
    /// The latest `limit` streamlets of a stream, by number, the highest first: of those below
    /// number `before`, if that is given. Closed ones are forgotten after a while.
    func streamlets(
        of stream: StreamID, before: StreamletNumber?, limit: Int
    ) async throws(MetadataError) -> [Streamlet]

    // MARK: Reading

    /// In one snapshot: the stream with its owner, and up to `limit` segments in order: those that
    /// hold records from `start` on.
    func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage

    // MARK: Leases of the cell's singletons

    /// Takes or renews the lease `name` for `holder` (a random id of this process). Whoever holds
    /// it with `renewals` unchanged for a whole time to live, by the challenger's own clock, has
    /// lost it: the challenger passes those `renewals` as `stale`.
    func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease
    /// Gives the lease up, if `holder` still has it.
    func releaseLease(_ name: String, holder: String) async throws(MetadataError)
}

// MARK: Requests and answers

package struct BasinCreation: Sendable, Equatable {
    package var name: String
    package var config: BasinConfig
    package var location: String?
    /// Request token and request, hashed; nil where the client sent no token.
    package var creationKey: String?

    package init(name: String, config: BasinConfig, location: String?, creationKey: String?) {
        self.name = name
        self.config = config
        self.location = location
        self.creationKey = creationKey
    }
}

package struct StreamCreation: Sendable, Equatable {
    /// The id that the stream gets if this request creates it.
    package var id: StreamID
    package var basin: String
    package var name: String
    /// Resolved against the basin's defaults as of the creation, in the same statement.
    package var wish: StreamConfigWish
    /// As `BasinCreation.creationKey`.
    package var creationKey: String?

    package init(
        id: StreamID, basin: String, name: String, wish: StreamConfigWish, creationKey: String?
    ) {
        self.id = id
        self.basin = basin
        self.name = name
        self.wish = wish
        self.creationKey = creationKey
    }
}

package enum ProvisionResult: String, Sendable {
    case created, updated, noop
}

package struct Provisioned<Resource: Sendable & Equatable>: Sendable, Equatable {
    package var resource: Resource
    package var result: ProvisionResult

    package init(_ resource: Resource, _ result: ProvisionResult) {
        self.resource = resource
        self.result = result
    }
}

package struct Page<Item: Sendable & Equatable>: Sendable, Equatable {
    package var items: [Item]
    package var hasMore: Bool

    package init(_ items: [Item], hasMore: Bool) {
        self.items = items
        self.hasMore = hasMore
    }
}

package struct ChannelRegistration: Sendable, Equatable {
    package var storageClass: String
    package var zone: String
    package var address: String
    /// For how long it trusts its log while it is unsure of its lease: its seal stays far longer.
    package var unsureMilliseconds: UInt64
    package static let unsureMillisecondsDefault: UInt64 = 86_400_000

    package init(
        storageClass: String, zone: String, address: String,
        unsureMilliseconds: UInt64 = unsureMillisecondsDefault
    ) {
        self.storageClass = storageClass
        self.zone = zone
        self.address = address
        self.unsureMilliseconds = unsureMilliseconds
    }
}

package enum ClaimResult: Sendable, Equatable {
    /// The streamlet is this channel's, from `stream.state` on.
    case claimed(StreamletNumber, Stream)
    /// Another channel has it (or had it, and recovery has yet to close it).
    case owned(Owner)
    case streamNotFound
    case streamDeletionPending
    case channelNotActive
}

/// One flush: the segments of some streamlets, durable in the store, enter the metadata.
///
/// In one transaction, and only if the channel is `active` and the flush is its own, or the channel
/// is `sealed` and the flush is its recoverer's: every streamlet is contiguous (`from` equals the
/// stored flushed end), its segments are inserted, the stream's state moves forward by position,
/// closing streamlets close with their end, and the channel's `flushedEnd` moves forward.
///
/// A channel asks for a flush only once its last one is answered. So a flush of its own that brings
/// something takes the rows of streamlets away that earlier ones closed, `forgottenMax` at most:
/// nobody asks for those again.
package struct Flush: Sendable, Equatable {
    package struct Part: Sendable, Equatable {
        package var stream: StreamID
        package var streamlet: StreamletNumber
        /// The flushed end before: where this part's segments begin.
        package var from: SeqNum
        /// The state at the flushed end after; `state.tail.seqNum` is that end.
        package var state: StreamState
        package var closes: Bool
        /// In order, contiguous above the trim point, ending at `state.tail.seqNum`.
        package var segments: [SegmentRow]

        package init(
            stream: StreamID, streamlet: StreamletNumber, from: SeqNum, state: StreamState,
            closes: Bool, segments: [SegmentRow]
        ) {
            self.stream = stream
            self.streamlet = streamlet
            self.from = from
            self.state = state
            self.closes = closes
            self.segments = segments
        }
    }
    package var channel: ChannelID
    package var isRecovery: Bool
    package var parts: [Part]
    /// The channel's `flushedEnd` after; never less than before.
    package var flushedEnd: ChunkIndex
    package static let forgottenMax = 1_000

    package init(channel: ChannelID, isRecovery: Bool, parts: [Part], flushedEnd: ChunkIndex) {
        self.channel = channel
        self.isRecovery = isRecovery
        self.parts = parts
        self.flushedEnd = flushedEnd
    }
}

package enum FlushResult: Sendable, Equatable {
    /// It is in, now or since an earlier call of the same flush.
    case done
    /// The channel is not in the state that the flush needs.
    case channelNotActive
    /// A streamlet is not open, not this channel's, or not contiguous; nothing was changed.
    case notContiguous(StreamID)
}

package enum ReadStart: Sendable, Hashable {
    case seqNum(SeqNum)
    case timestamp(TimestampMillis)
}

package struct SegmentPage: Sendable, Equatable {
    /// Nil if there is no such stream.
    package var lookup: StreamLookup?
    package var segments: [SegmentRow]
    package var hasMore: Bool

    package init(lookup: StreamLookup?, segments: [SegmentRow], hasMore: Bool) {
        self.lookup = lookup
        self.segments = segments
        self.hasMore = hasMore
    }
}

package struct Lease: Sendable, Equatable {
    package var holder: String
    package var renewals: UInt64

    package init(holder: String, renewals: UInt64) {
        self.holder = holder
        self.renewals = renewals
    }
}

package struct MetadataError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        case alreadyExists
        case deletionPending
        case basinNotFound
        case basinDeletionPending
        /// The request contradicts what is stored.
        case conflict
        /// Postgres cannot be reached, is overloaded, or took too long.
        case unavailable
        /// A statement failed for good: a bug, or a schema that does not fit.
        case failed
    }
    package let kind: Kind
    /// Whether the operation may have taken effect all the same, now or later.
    package let outcomeUnknown: Bool
    package let message: String

    package init(_ kind: Kind, outcomeUnknown: Bool = false, _ message: String = "") {
        self.kind = kind
        self.outcomeUnknown = outcomeUnknown
        self.message = message
    }

    package var description: String {
        let doubt = outcomeUnknown ? " (outcome unknown)" : ""
        return "\(kind)\(message.isEmpty ? "" : ": ")\(message)\(doubt)"
    }
}
