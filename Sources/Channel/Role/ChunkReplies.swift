// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives
internal import RPC
internal import Records

/// The replies to the batches of one chunk, until the chunk is stable.
///
/// What a session gets of one chunk is a *run*: its replies, in the order of its batches, which
/// leave together. A run has a place in the gate from its first batch on; that later ones join it
/// delays nothing, for all of them wait for the same chunk. Replies are plain numbers, in an array
/// that belongs to the chunk: one more allocates nothing and counts no references.
struct ChunkReplies {
    struct Run {
        let session: AppendSession
        fileprivate(set) var count: UInt32 = 0
        /// Of the messages that the batches came in.
        fileprivate(set) var messageBytes = 0
        fileprivate var first = ChunkReplies.none
        fileprivate var last = ChunkReplies.none

        /// Reply `added` joins; returns the one before it, if any.
        fileprivate mutating func join(_ added: UInt32, _ messageBytes: Int) -> UInt32 {
            defer { last = added }
            if count == 0 { first = added }
            count += 1
            self.messageBytes += messageBytes
            return last
        }
    }

    private struct Reply {
        let start: StreamPosition
        let end: StreamPosition
        var next: UInt32
    }

    fileprivate static let none = UInt32.max
    /// Arrays with more room than that are not kept.
    private static let keptMax = 16_384

    private(set) var runs = ContiguousArray<Run>()
    /// Runs that have not left.
    private(set) var heldCount = 0
    private var replies = ContiguousArray<Reply>()

    /// A new run; its number.
    mutating func begin(for session: AppendSession) -> UInt32 {
        runs.append(Run(session: session))
        heldCount += 1
        return UInt32(runs.count - 1)
    }

    /// The session of `run` had another batch sequenced.
    mutating func add(
        start: StreamPosition, end: StreamPosition, messageBytes: Int, to run: UInt32
    ) {
        let added = UInt32(replies.count)
        replies.append(Reply(start: start, end: end, next: Self.none))
        let previous = runs[Int(run)].join(added, messageBytes)
        if previous != Self.none { replies[Int(previous)].next = added }
    }

    /// A run has left.
    mutating func left() { heldCount -= 1 }

    /// Calls `send` with up to `countMax` of a run's replies at a time, in order: how many they
    /// are, and what writes them where there is room for them, all with the same `tail`.
    func forEachMessage(
        of run: Run, countMax: Int, tail: StreamPosition,
        _ send: (_ count: Int, _ write: (UnsafeMutableRawPointer) -> Void) -> Void
    ) {
        var at = run.first
        var left = Int(run.count)
        while left > 0 {
            let count = min(left, countMax)
            send(count) { target in
                for place in 0..<count {
                    let reply = replies[Int(at)]
                    AppendReply(start: reply.start, end: reply.end, tail: tail)
                        .write(to: target + place * AppendReply.byteCount)
                    at = reply.next
                }
            }
            left -= count
        }
    }

    /// Forgets everything, and keeps room for as much.
    mutating func reset() {
        if replies.capacity > Self.keptMax {
            self = ChunkReplies()
            return
        }
        heldCount = 0
        runs.removeAll(keepingCapacity: true)
        replies.removeAll(keepingCapacity: true)
    }
}

/// The replies that have not left: of the open chunk, of those in flight, and of those that are
/// stable where some depend on another log.
struct PendingReplies {
    /// Of the open chunk.
    var open = ChunkReplies()
    /// Of closed chunks, from chunk `start` on.
    private var closed: Deque<ChunkReplies> = []
    private var start: ChunkIndex = 0
    /// What was used before, for its room: no more than were ever pending at once.
    private var spare: [ChunkReplies] = []

    subscript(chunk: ChunkIndex) -> ChunkReplies {
        let at = Int(chunk - start)
        return at == closed.count ? open : closed[at]
    }

    /// The open chunk is in flight now, and there is another one.
    mutating func close() {
        closed.append(open)
        open = spare.popLast() ?? ChunkReplies()
    }

    /// A run of `chunk` has left.
    mutating func left(_ chunk: ChunkIndex) {
        let at = Int(chunk - start)
        if at == closed.count { open.left() } else { closed[at].left() }
    }

    /// Forgets the oldest chunks below `end` as far as all of them has left.
    mutating func forget(below end: ChunkIndex) {
        while start < end, let oldest = closed.first, oldest.heldCount == 0 {
            var first = closed.removeFirst()
            start += 1
            first.reset()
            spare.append(first)
        }
    }
}
