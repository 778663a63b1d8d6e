// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import RPC
internal import Records

/// Where a stream's records are, from one position on: runs in segments, then runs in chunks.
///
/// It is put together from two answers: the channel's (the stable tail, and pointers to what is not
/// flushed yet), asked first, then the metadata's (the segments). A flush in between only moves
/// records from the first towards the second, so nothing falls between them; whatever both show is
/// taken from the segments. The runs must join without a hole. Only what lies below a stored trim
/// point may be passed over; anything else that is missing is a gap, and the caller plans again.
struct ReadPlan: Equatable {
    /// One run of records in one object.
    struct Piece: Equatable {
        /// The first record that is wanted; the run may begin before it.
        var from: SeqNum
        var start: SeqNum
        var end: SeqNum
        var place: Place
    }
    enum Place: Equatable {
        case chunk(bucket: String, object: String, range: Range<Int>)
        case segment(SegmentRow)
    }

    /// Where the pieces begin; the tail if there are none.
    var position: SeqNum
    var pieces: [Piece]
    /// Stable when the plan was made.
    var tail: StreamPosition
    /// Whether the pieces end at the tail; else the reader plans again behind them.
    var reachesTail: Bool
    /// When the first of the answers was asked for: how old the plan is.
    var askedAt: Nanoseconds = 0

    /// A record that should be somewhere is in none of the answers.
    struct Gap: Error, Equatable {
        var at: SeqNum
    }

    /// `pointersMax` is what the channel was asked for. At least one answer is given.
    init(
        from start: ReadStart, channel: PlanReply?, pointersMax: Int, metadata: SegmentPage?
    ) throws(Gap) {
        let stored = metadata?.lookup?.stream.state
        let tails = [channel?.tail, stored?.tail].compactMap { $0 }
        tail = tails.max { $0.seqNum < $1.seqNum } ?? .zero
        let trimPoint = min(max(channel?.trimPoint ?? 0, stored?.trimPoint ?? 0), tail.seqNum)
        var runs = metadata?.segments.map(Piece.init) ?? []
        var isCut = metadata?.hasMore ?? false
        if let channel, !isCut {
            runs += channel.pointers.map(Piece.init)
            isCut = channel.pointers.count >= pointersMax
        }
        pieces = []
        switch start {
        case .seqNum(let seqNum): position = max(seqNum, trimPoint)
        case .timestamp:
            // Both answers begin with the run that holds the first record that is not older.
            position = max(runs.first?.start ?? tail.seqNum, trimPoint)
        }
        var next = position
        for run in runs where run.end > next && next < tail.seqNum {
            guard run.start <= next else { throw Gap(at: next) }
            pieces.append(Piece(from: next, start: run.start, end: run.end, place: run.place))
            next = run.end
        }
        reachesTail = next >= tail.seqNum
        guard reachesTail || (isCut && !pieces.isEmpty) else { throw Gap(at: next) }
    }
}

extension ReadPlan.Piece {
    fileprivate init(_ row: SegmentRow) {
        self.init(
            from: row.start.seqNum, start: row.start.seqNum, end: row.endSeqNum,
            place: .segment(row))
    }

    fileprivate init(_ pointer: ChunkPointer) {
        let offset = Int(pointer.offset)
        self.init(
            from: pointer.start.seqNum, start: pointer.start.seqNum, end: pointer.endSeqNum,
            place: .chunk(
                bucket: pointer.bucket, object: pointer.object,
                range: offset..<offset + Int(pointer.length)))
    }
}
