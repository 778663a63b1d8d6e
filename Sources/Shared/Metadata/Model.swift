// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

/// A namespace of streams.
package struct Basin: Sendable, Equatable {
    package var name: String
    package var config: BasinConfig
    /// Counts the changes of `config`, from 1.
    package var version: UInt64
    package var location: String?
    package var createdMilliseconds: UInt64
    package var deletedMilliseconds: UInt64?

    package init(
        name: String, config: BasinConfig, version: UInt64, location: String?,
        createdMilliseconds: UInt64, deletedMilliseconds: UInt64?
    ) {
        self.name = name
        self.config = config
        self.version = version
        self.location = location
        self.createdMilliseconds = createdMilliseconds
        self.deletedMilliseconds = deletedMilliseconds
    }
}

/// A stream's row: what is known without asking a channel.
package struct Stream: Sendable, Equatable {
    package var id: StreamID
    package var basin: String
    package var name: String
    package var config: StreamConfig
    /// Counts the changes of `config`, from 1.
    package var version: UInt64
    package var cipher: Cipher?
    /// As of the flushed end.
    package var state: StreamState
    package var createdMilliseconds: UInt64
    package var deletedMilliseconds: UInt64?

    package init(
        id: StreamID, basin: String, name: String, config: StreamConfig, version: UInt64,
        cipher: Cipher?, state: StreamState, createdMilliseconds: UInt64,
        deletedMilliseconds: UInt64?
    ) {
        self.id = id
        self.basin = basin
        self.name = name
        self.config = config
        self.version = version
        self.cipher = cipher
        self.state = state
        self.createdMilliseconds = createdMilliseconds
        self.deletedMilliseconds = deletedMilliseconds
    }
}

/// A stream's open tenure, and where its channel is.
package struct Owner: Sendable, Hashable {
    package var streamlet: StreamletNumber
    package var channel: ChannelID
    /// `host:port` or `unix:/path` of the channel's RPC server.
    package var address: String
    /// False once the channel is dead or gone: its streamlet waits for recovery.
    package var channelIsActive: Bool

    package init(
        streamlet: StreamletNumber, channel: ChannelID, address: String, channelIsActive: Bool
    ) {
        self.streamlet = streamlet
        self.channel = channel
        self.address = address
        self.channelIsActive = channelIsActive
    }
}

package struct StreamLookup: Sendable, Equatable {
    package var stream: Stream
    /// Nil while the stream is dormant.
    package var owner: Owner?

    package init(stream: Stream, owner: Owner?) {
        self.stream = stream
        self.owner = owner
    }
}

package enum StreamletState: String, Sendable, Hashable, CaseIterable {
    /// A migration's target, until its outcome is known.
    case prepared
    case open
    case closed
    /// A migration that came to nothing.
    case aborted
}

/// One stream's tenure on one channel.
package struct Streamlet: Sendable, Equatable {
    package var stream: StreamID
    package var number: StreamletNumber
    package var channel: ChannelID
    package var start: SeqNum
    /// Known once closed.
    package var end: SeqNum?
    package var state: StreamletState

    package init(
        stream: StreamID, number: StreamletNumber, channel: ChannelID, start: SeqNum, end: SeqNum?,
        state: StreamletState
    ) {
        self.stream = stream
        self.number = number
        self.channel = channel
        self.start = start
        self.end = end
        self.state = state
    }
}

package enum ChannelState: String, Sendable, Hashable, CaseIterable {
    case active
    /// Its lease has certainly passed; its log awaits its seal and recovery.
    case dead
    /// Its log has ended (`sealedAt`) and awaits recovery.
    case sealed
    /// Nothing of its log is needed any more but its objects' deletion.
    case retired
}

/// One incarnation of a channel process.
package struct ChannelRow: Sendable, Equatable {
    package var id: ChannelID
    package var storageClass: String
    package var zone: String
    package var address: String
    package var state: ChannelState
    /// Counts the renewals of the lease.
    package var renewals: UInt64
    package var load: ChannelLoad
    /// Chunks with an index below this one are flushed: their records are in segments.
    package var flushedEnd: ChunkIndex
    /// Where the log ends: the first index that holds no acknowledged chunk. Nil until published.
    package var sealedAt: ChunkIndex?
    package var startedMilliseconds: UInt64

    package init(
        id: ChannelID, storageClass: String, zone: String, address: String, state: ChannelState,
        renewals: UInt64, load: ChannelLoad, flushedEnd: ChunkIndex, sealedAt: ChunkIndex?,
        startedMilliseconds: UInt64
    ) {
        self.id = id
        self.storageClass = storageClass
        self.zone = zone
        self.address = address
        self.state = state
        self.renewals = renewals
        self.load = load
        self.flushedEnd = flushedEnd
        self.sealedAt = sealedAt
        self.startedMilliseconds = startedMilliseconds
    }
}

package struct ChannelLoad: Sendable, Hashable {
    package var bytesPerSecond: UInt64
    /// How long an append waits before its chunk's PUT begins, recently.
    package var queueDelayMicroseconds: UInt64
    package var openStreamlets: UInt64

    package static let idle = ChannelLoad(
        bytesPerSecond: 0, queueDelayMicroseconds: 0, openStreamlets: 0)

    package init(bytesPerSecond: UInt64, queueDelayMicroseconds: UInt64, openStreamlets: UInt64) {
        self.bytesPerSecond = bytesPerSecond
        self.queueDelayMicroseconds = queueDelayMicroseconds
        self.openStreamlets = openStreamlets
    }
}

/// Where one stream's records `start.seqNum ..< endSeqNum` are, in one object.
package struct SegmentRow: Sendable, Hashable {
    package var stream: StreamID
    /// The first record's position.
    package var start: StreamPosition
    /// Exclusive.
    package var endSeqNum: SeqNum
    package var lastTimestamp: TimestampMillis
    package var bucket: String
    package var object: String
    /// Where the segment (records and sparse index) stands in the object, in bytes.
    package var offset: UInt64
    package var length: UInt64
    package var meteredBytes: UInt64
    package var checksum: UInt32

    package init(
        stream: StreamID, start: StreamPosition, endSeqNum: SeqNum, lastTimestamp: TimestampMillis,
        bucket: String, object: String, offset: UInt64, length: UInt64, meteredBytes: UInt64,
        checksum: UInt32
    ) {
        self.stream = stream
        self.start = start
        self.endSeqNum = endSeqNum
        self.lastTimestamp = lastTimestamp
        self.bucket = bucket
        self.object = object
        self.offset = offset
        self.length = length
        self.meteredBytes = meteredBytes
        self.checksum = checksum
    }
}
