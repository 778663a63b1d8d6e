// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives
internal import RPC
internal import Records

/// One frontend that follows a streamlet: it gets every stable batch, in order, each once.
///
/// The channel owns the hand-over: a follow is granted iff its start is the stable tail or lies in
/// the recent window, and from then on every batch that becomes stable is pushed. A follower whose
/// bytes are not taken is let go, and comes back after it has caught up from objects.
final class Follower {
    private let call: any Call
    private let bytesMax: Int
    private let onEnd: () -> Void
    /// The next sequence number that it gets.
    private(set) var next: SeqNum

    /// `onEnd` is called when it is ended from here.
    init(_ call: any Call, start: SeqNum, bytesMax: Int, onEnd: @escaping () -> Void) {
        self.call = call
        next = start
        self.bytesMax = bytesMax
        self.onEnd = onEnd
    }

    func end(_ status: Status) {
        call.end(status, Bytes())
        onEnd()
    }

    /// Pushes what the streamlet holds in memory from `next` on, up to its stable tail; then, if
    /// that was nothing, a heartbeat that says that the follow is granted. False if the window does
    /// not reach back to `next`, or holds more than the follower takes.
    func grant(
        from streamlet: OpenStreamlet, _ log: LogWriter
    ) throws(DecodeError) -> Bool {
        let tail = streamlet.stable.tail
        guard next <= tail.seqNum else { return false }
        if next == tail.seqNum {
            heartbeat(tail)
            return true
        }
        let places = log.places(of: streamlet) { $0.endSeqNum > next }
        guard let first = places.first, let oldest = log.fragment(first),
            oldest.start.seqNum <= next
        else { return false }
        for place in places {
            var hasFallenBehind = false
            try log.forEachBatch(place) { batch throws(DecodeError) in
                guard !hasFallenBehind, batch.tail.seqNum > next, batch.tail.seqNum <= tail.seqNum
                else { return }
                try push(batch)
                hasFallenBehind = !keepsUp
            }
            if hasFallenBehind { return false }
        }
        precondition(next == tail.seqNum, "the window is contiguous up to the stable tail")
        return true
    }

    func heartbeat(_ tail: StreamPosition) {
        call.send(
            FollowPush(
                firstSeqNum: tail.seqNum, count: 0, meteredBytes: 0, tail: tail, records: Bytes()
            ).encoded())
    }

    /// Pushes a batch that became stable. One that holds `next` in its middle is cut there.
    func push(_ batch: OpenStreamlet.Batch) throws(DecodeError) {
        precondition(batch.firstSeqNum <= next, "a follower misses no batch")
        var push = FollowPush(
            firstSeqNum: batch.firstSeqNum, count: batch.count, meteredBytes: batch.meteredBytes,
            tail: batch.tail, records: batch.bytes)
        if batch.firstSeqNum < next { try push.dropRecords(below: next) }
        call.send(FollowPush.headBytes, body: push.records) { push.writeHead(to: $0) }
        next = batch.tail.seqNum
    }

    /// Whether it takes its bytes fast enough to go on.
    var keepsUp: Bool { call.unsentBytes <= bytesMax }
}

extension FollowPush {
    /// Drops the records below `seqNum`, which lies within the batch.
    fileprivate mutating func dropRecords(below seqNum: SeqNum) throws(DecodeError) {
        records = records.dropFirst(try StoredRecords.offset(in: records, seqNum: seqNum))
        let rest = try ReadLimits().cut(records, within: .unbounded)
        firstSeqNum = seqNum
        count = UInt32(rest.count)
        meteredBytes = UInt32(rest.meteredBytes)
    }
}

extension ReadBatchBounds {
    fileprivate static let unbounded = ReadBatchBounds(
        recordsMax: .max, meteredBytesMax: .max, storedBytesMax: .max)
}
