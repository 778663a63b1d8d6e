// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import Primitives
internal import RPC
internal import Records

/// One stream while this channel has it: its sequencer, and where its recent records are.
///
/// Two ends move through it. *Assigned* is what the next batch builds on; *stable* is what anybody
/// may know. Between them lie the batches whose chunks are open or in flight.
///
/// There may be hundreds of thousands, most of them idle, so this object holds only what every
/// streamlet has at all times. Records belong to the chunk that they are in (`ChunkRecords`), which
/// leads from each fragment to the one before: of them a streamlet knows its newest. What few have
/// at any one time, followers and waiters, is in `guests`.
final class OpenStreamlet: Identifiable {
    enum Phase: UInt8 {
        case open
        /// Takes no more batches: it is being flushed and closed in the metadata.
        case closing
        /// The metadata say so; whoever still holds the streamlet must look anew.
        case closed
    }

    let id: StreamID
    let basin: String
    let name: String
    private(set) var version: UInt64
    /// What the next batch builds on.
    @exclusivity(unchecked) private(set) var assigned: SequencerState
    /// What anybody may know.
    @exclusivity(unchecked) private(set) var stable: SequencerState
    /// Records below this are in segments.
    var flushedEnd: SeqNum
    @exclusivity(unchecked) var touchedAt: Nanoseconds
    /// Its newest records, if this log holds any; the log may have let go of them since.
    @exclusivity(unchecked) private(set) var newest: FragmentPlace?
    let number: StreamletNumber
    @exclusivity(unchecked) var phase = Phase.open
    /// The metadata were asked to close it: from then on somebody else may have the stream,
    /// whatever we hear, so nothing of its state is shown any more.
    var isCloseIssued = false
    @exclusivity(unchecked) var isDeleted = false
    /// Whether this log holds the OPEN of the streamlet.
    @exclusivity(unchecked) var isAnnounced = false
    private var timestampingMode: TimestampingMode
    private var timestampingUncapped: Bool
    private var guests: Guests?

    /// What most streamlets do without.
    private final class Guests {
        var followers: [Follower] = []
        var onClosed: [() -> Void] = []
        /// The chunk of the fence that set the token in force; nil if it was set before this log.
        var tokenChunk: ChunkIndex?
        var dependency: Dependency?
        var paces = Paces()
    }

    /// How far it is ahead of the rates that a stream has.
    struct Paces {
        var bytes = Pace()
        /// Of single appends, which have no session to count them.
        var batches = Pace()
    }

    init(_ number: StreamletNumber, _ stream: Stream, basin: String, now: Nanoseconds) {
        id = stream.id
        self.number = number
        self.basin = basin
        name = stream.name
        version = stream.version
        timestampingMode = stream.config.timestampingMode
        timestampingUncapped = stream.config.timestampingUncapped
        assigned = SequencerState(stream.state)
        stable = assigned
        flushedEnd = stream.state.tail.seqNum
        touchedAt = now
    }

    /// Nothing of it waits to become stable.
    var isSettled: Bool { assigned.tail.seqNum == stable.tail.seqNum }

    /// The chunk of the last assigned batch; nil while there is none in this log.
    var lastChunk: ChunkIndex? { newest?.chunk }

    // MARK: Configuration

    func reconfigure(_ config: StreamConfig, version: UInt64) {
        timestampingMode = config.timestampingMode
        timestampingUncapped = config.timestampingUncapped
        self.version = version
    }

    /// What stamps the next batch, at wall clock `now`.
    func timestamps(now: TimestampMillis) -> TimestampAssigner {
        TimestampAssigner(
            mode: timestampingMode, isUncapped: timestampingUncapped, now: now,
            previous: assigned.tail.timestamp)
    }

    // MARK: Sequencing

    /// Why a batch may not be appended, against the assigned state; nil if it may.
    func refusal(_ conditions: AppendConditions) -> (AppendRejection, seenIn: ChunkIndex?)? {
        // By bytes: to `String`, texts are equal whose bytes are not.
        if let token = conditions.fencingToken,
            !token.utf8.elementsEqual(assigned.fencingToken.utf8)
        {
            return (
                .fencingTokenMismatch(current: assigned.fencingToken), guests?.tokenChunk
            )
        }
        if let match = conditions.matchSeqNum, match != assigned.tail.seqNum {
            return (.seqNumMismatch(next: assigned.tail.seqNum), lastChunk)
        }
        return nil
    }

    /// A batch that begins at the assigned tail is in the fragment at `place` now.
    func advance(to tail: StreamPosition, at place: FragmentPlace) {
        precondition(tail.timestamp >= assigned.tail.timestamp, "timestamps never go back")
        assigned.tail = tail
        newest = place
    }

    /// Applies a command of a batch that was added, in order. `own` is the command's number.
    func apply(_ command: Command, own: SeqNum) {
        switch command {
        case .fence(let token):
            assigned.fence = SequencerState.Fence(token: token, position: own + 1)
            makeGuests().tokenChunk = lastChunk
        case .trim(let below):
            assigned.trimPoint = max(assigned.trimPoint, min(below, own + 1))
        }
    }

    /// Its records in one chunk became stable: they begin at `start`. `state` is that behind them
    /// where they hold commands.
    func becameStable(from start: SeqNum, to tail: StreamPosition, state: SequencerState?) {
        precondition(start == stable.tail.seqNum, "records become stable in order")
        if let state { stable = state }
        stable.tail = tail
    }

    /// Forgets where its records are.
    func dropRecords() { newest = nil }

    // MARK: Guests

    var followers: [Follower] {
        get { guests?.followers ?? [] }
        set {
            if guests == nil && newValue.isEmpty { return }
            makeGuests().followers = newValue
        }
    }
    var hasFollowers: Bool { guests.map { !$0.followers.isEmpty } ?? false }

    /// The handoff in another log that all of it rests on, until that is known to be durable:
    /// nothing of it is shown before.
    var dependency: Dependency? {
        get { guests?.dependency }
        set {
            if guests == nil && newValue == nil { return }
            makeGuests().dependency = newValue
        }
    }

    /// Kept only where there are such limits.
    var paces: Paces {
        get { guests?.paces ?? Paces() }
        set { makeGuests().paces = newValue }
    }

    /// Calls `resume` once the streamlet is closed.
    func whenClosed(_ resume: @escaping () -> Void) { makeGuests().onClosed.append(resume) }

    var waitingCount: Int { guests?.onClosed.count ?? 0 }

    /// Who waits for the streamlet to be closed, each handed out once.
    func takeWaiting() -> [() -> Void] {
        guard let guests else { return [] }
        defer { guests.onClosed = [] }
        return guests.onClosed
    }

    private func makeGuests() -> Guests {
        if let guests { return guests }
        let made = Guests()
        guests = made
        return made
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
}

/// A stream's state as a sequencer keeps it. Most streams were never fenced: the token is
/// elsewhere, so that looking at a tail copies no text.
struct SequencerState {
    final class Fence {
        let token: String
        /// As in `StreamState`.
        let position: SeqNum

        init(token: String, position: SeqNum) {
            self.token = token
            self.position = position
        }
    }

    var tail: StreamPosition
    var trimPoint: SeqNum
    var fence: Fence?

    init(_ state: StreamState) {
        tail = state.tail
        trimPoint = state.trimPoint
        if state.fencingTokenPosition > 0 || !state.fencingToken.isEmpty {
            fence = Fence(token: state.fencingToken, position: state.fencingTokenPosition)
        }
    }

    var fencingToken: String { fence?.token ?? "" }

    /// The state as it is stored and sent.
    var streamState: StreamState {
        StreamState(
            tail: tail, fencingToken: fencingToken, fencingTokenPosition: fence?.position ?? 0,
            trimPoint: trimPoint)
    }
}

extension StreamID: TableKey {
    /// Ids of streams are random.
    package var tableBits: UInt64 { id.high ^ id.low }
}
