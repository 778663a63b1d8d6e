// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Metadata
internal import Primitives
internal import RPC
internal import Records

/// One stream while this channel has it: its sequencer, and where its recent records are.
///
/// Two ends move through it. *Assigned* is what the next batch builds on; *stable* is what anybody
/// may know. Between them lie the batches whose chunks are open or in flight. An idle streamlet
/// whose records are flushed holds no more than this object.
final class OpenStreamlet {
    enum Phase {
        case open
        /// Takes no more batches: it is being flushed and closed in the metadata.
        case closing
        /// The metadata say so; whoever still holds the streamlet must look anew.
        case closed
    }

    let id: StreamID
    let number: StreamletNumber
    let basin: String
    let name: String
    var config: StreamConfig
    var version: UInt64

    var phase = Phase.open
    /// The metadata were asked to close it: from then on somebody else may have the stream,
    /// whatever we hear, so nothing of its state is shown any more.
    var isCloseIssued = false
    var isDeleted = false
    /// What the next batch builds on.
    var assigned: StreamState
    /// What anybody may know.
    private(set) var stable: StreamState
    /// Records below this are in segments.
    var flushedEnd: SeqNum
    /// The chunk of the last assigned batch; nil while there is none in this log.
    var lastChunk: ChunkIndex?
    /// The chunk of the fence that set the token in force; nil if it was set before this log.
    var tokenChunk: ChunkIndex?
    /// Whether this log holds the OPEN of the streamlet.
    var isAnnounced = false
    /// The records that are unflushed or in the recent window, oldest first. The last one may
    /// belong to the open chunk.
    var fragments: Deque<Fragment> = []
    var followers: [Follower] = []
    /// Who waits for the streamlet to be closed.
    var onClosed: [() -> Void] = []
    var touchedAt: Nanoseconds

    init(_ number: StreamletNumber, _ stream: Stream, now: Nanoseconds) {
        id = stream.id
        self.number = number
        basin = stream.basin
        name = stream.name
        config = stream.config
        version = stream.version
        assigned = stream.state
        stable = stream.state
        flushedEnd = stream.state.tail.seqNum
        touchedAt = now
    }

    /// Nothing of it waits to become stable.
    var isSettled: Bool { assigned.tail.seqNum == stable.tail.seqNum }

    /// Chunk `index`, which holds records of it, became stable. Returns its fragment there.
    func becameStable(_ index: ChunkIndex) -> Fragment? {
        guard let at = fragments.lastIndex(where: { $0.chunk == index }) else { return nil }
        precondition(
            fragments[at].start.seqNum == stable.tail.seqNum, "records become stable in order")
        stable = fragments[at].stateAfter
        return fragments[at]
    }

    /// A run of the streamlet's records in one chunk: what the chunk's index says of it, and the
    /// batches in memory.
    struct Fragment {
        let chunk: ChunkIndex
        let start: StreamPosition
        var count: UInt32 = 0
        var lastTimestamp: TimestampMillis = 0
        var meteredBytes = 0
        var length = 0
        /// In the chunk's object; known once the chunk is closed.
        var offset: UInt32 = 0
        var batches: [Batch] = []
        /// The state behind its last record.
        var stateAfter: StreamState

        var endSeqNum: SeqNum { start.seqNum + UInt64(count) }
    }

    /// One append batch as it is stored: the unit of acknowledgement and of a follower's push.
    struct Batch {
        let bytes: Bytes
        let firstSeqNum: SeqNum
        let count: UInt32
        let meteredBytes: UInt32
        /// The position right behind it.
        let tail: StreamPosition
    }

    /// Why a batch may not be appended, against the assigned state; nil if it may.
    func refusal(_ conditions: AppendConditions) -> (AppendRejection, seenIn: ChunkIndex?)? {
        // By bytes: to `String`, texts are equal whose bytes are not.
        if let token = conditions.fencingToken,
            !token.utf8.elementsEqual(assigned.fencingToken.utf8)
        {
            return (.fencingTokenMismatch(current: assigned.fencingToken), tokenChunk)
        }
        if let match = conditions.matchSeqNum, match != assigned.tail.seqNum {
            return (.seqNumMismatch(next: assigned.tail.seqNum), lastChunk)
        }
        return nil
    }

    /// Adds a batch that was stamped, to the fragment of chunk `index`. Returns true if that
    /// fragment is new.
    func add(_ batch: Batch, firstTimestamp: TimestampMillis, to index: ChunkIndex) -> Bool {
        precondition(batch.firstSeqNum == assigned.tail.seqNum, "batches are contiguous")
        precondition(batch.tail.timestamp >= assigned.tail.timestamp, "timestamps never go back")
        let isNew = fragments.last?.chunk != index
        if isNew {
            fragments.append(
                Fragment(
                    chunk: index,
                    start: StreamPosition(seqNum: batch.firstSeqNum, timestamp: firstTimestamp),
                    stateAfter: assigned))
        }
        assigned.tail = batch.tail
        lastChunk = index
        let last = fragments.count - 1
        fragments[last].count += batch.count
        fragments[last].lastTimestamp = batch.tail.timestamp
        fragments[last].meteredBytes += Int(batch.meteredBytes)
        fragments[last].length += batch.bytes.count
        fragments[last].batches.append(batch)
        fragments[last].stateAfter = assigned
        return isNew
    }

    /// Applies the commands of a batch that was added, in order. `own` is the command's number.
    func apply(_ command: Command, own: SeqNum) {
        switch command {
        case .fence(let token):
            assigned.fencingToken = token
            assigned.fencingTokenPosition = own + 1
            tokenChunk = lastChunk
        case .trim(let below):
            assigned.trimPoint = max(assigned.trimPoint, min(below, own + 1))
        }
        fragments[fragments.count - 1].stateAfter = assigned
    }
}
