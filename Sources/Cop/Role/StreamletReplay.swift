// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import Primitives
internal import Records

/// Rebuilds one streamlet from what its channel's log still holds of it, above what is flushed.
///
/// Takes the fragments in the log's order. The state after a fragment is what the channel's
/// sequencer had: tail, fencing token and trim point follow from the records alone.
struct StreamletReplay {
    /// Records that are to become segments, with consecutive sequence numbers.
    struct Run {
        var endSeqNum: SeqNum
        var bytes: Bytes
    }

    let stream: Stream
    let streamlet: StreamletNumber
    /// As of the end of what was taken.
    private(set) var state: StreamState
    /// Where the next flush begins.
    private(set) var flushedEnd: SeqNum
    private(set) var runs: [Run] = []
    /// Bytes of `runs`.
    private(set) var byteCount = 0
    /// Why nothing more can be taken, if so: the rest waits, the other streams do not.
    private(set) var blocked: String?

    /// `stream` is its row, as of the flushed end.
    init(stream: Stream, streamlet: StreamletNumber) {
        self.stream = stream
        self.streamlet = streamlet
        state = stream.state
        flushedEnd = stream.state.tail.seqNum
    }

    var id: StreamID { stream.id }

    func segmentState(closes: Bool) -> SegmentState {
        SegmentState(
            basin: stream.basin, name: stream.name, configVersion: stream.version, state: state,
            closes: closes)
    }

    /// Takes a fragment of this streamlet; one that is flushed already adds nothing.
    mutating func take(_ entry: FragmentEntry, _ bytes: Bytes) {
        precondition(entry.stream == id && entry.streamlet == streamlet)
        if blocked != nil { return }
        if let dependency = entry.dependency {
            blocked =
                "waits for chunk \(dependency.index) of channel \(dependency.channel):"
                + " speculative records are not supported"
            return
        }
        switch entry.kind {
        case .open, .close: break
        case .handoff: blocked = "was handed off: migration is not supported"
        case .records:
            do throws(DecodeError) {
                try takeRecords(entry, bytes)
            } catch {
                blocked = "is damaged at \(entry.firstSeqNum): \(error)"
            }
        }
    }

    /// Takes all of the fragment's new records, or none.
    private mutating func takeRecords(
        _ entry: FragmentEntry, _ bytes: Bytes
    ) throws(DecodeError) {
        var state = state
        try entry.checkRecords(bytes)
        if entry.endSeqNum <= state.tail.seqNum { return }
        guard entry.firstSeqNum <= state.tail.seqNum else {
            throw DecodeError(
                .malformed("records \(state.tail.seqNum)..<\(entry.firstSeqNum) are missing"), at: 0
            )
        }
        var run: Run?
        var walk = StoredRecords(bytes)
        while let record = try walk.next() {
            guard record.seqNum == state.tail.seqNum else { continue }
            if run == nil {
                run = Run(
                    endSeqNum: entry.endSeqNum,
                    bytes: bytes[record.element.lowerBound..<bytes.count])
            }
            if record.isCommand {
                state.apply(try Command(storedFields: bytes[record.fields]), at: record.seqNum)
            }
            state.tail = StreamPosition(
                seqNum: record.seqNum + 1, timestamp: record.timestamp)
        }
        guard let run, state.tail.seqNum == entry.endSeqNum else {
            preconditionFailure("a checked fragment holds what its entry promises")
        }
        self.state = state
        runs.append(run)
        byteCount += run.bytes.count
    }

    /// Forgets the runs of which nothing is above the trim point, at the front.
    mutating func dropTrimmed() {
        let dropped = runs.prefix { $0.endSeqNum <= state.trimPoint }
        byteCount -= dropped.reduce(0) { $0 + $1.bytes.count }
        runs.removeFirst(dropped.count)
    }

    /// What was taken so far is in segments.
    mutating func flushed() {
        flushedEnd = state.tail.seqNum
        runs = []
        byteCount = 0
    }
}

extension StreamState {
    /// The command of the record at `seqNum` takes effect.
    fileprivate mutating func apply(_ command: Command, at seqNum: SeqNum) {
        switch command {
        case .fence(let token):
            fencingToken = token
            fencingTokenPosition = seqNum + 1
        case .trim(let below): trimPoint = max(trimPoint, min(below, seqNum + 1))
        }
    }
}
