// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import HTTP
internal import Primitives

/// The bytes of responses that this process holds for readers: what their clients have not taken,
/// and what their reads have fetched or queued.
///
/// While there is plenty, reads run ahead as they like. Once it is tight, a read sends only while
/// its client has nothing left to take, and then a small batch; it fetches no more than the range
/// that it needs next, in turn; and one that is stuck lets go of what it fetched. So every client
/// that takes its bytes still makes progress, and one that does not costs a small batch.
///
/// An eighth is kept for those next ranges. Beyond the limit a single read at a time may hold one,
/// so that the largest range can be had under the smallest limit.
///
/// What clients take is not told but measured: by the read whenever it sends, and by `sweep`, which
/// whoever owns the budget calls from time to time while `hasWork`.
final class ResponseBudget {
    private let bytesMax: Int
    /// From here on it is tight.
    private let plenty: Int
    private(set) var bytes = 0
    /// Those with unsent bytes.
    private var sending: [Share] = []
    /// Those that were held back, each once, in order of arrival.
    private var waiting: Deque<Share> = []
    private var isWaking = false
    /// Whose turn it is to fetch its next range.
    private var turn: Share?
    /// Who holds a range beyond the limit.
    private var borrower: Share?
    /// There is something to sweep.
    var onWork: (() -> Void)?
    /// Bytes were given back while somebody waits: call `wake` soon.
    var onRelease: (() -> Void)?

    /// Stored bytes of a batch while it is tight, unless its only record is larger.
    static let smallBatchBytes = 64 << 10
    /// How long a response that is complete may be stuck before its client must be gone: longer
    /// than any transport waits for one.
    static let patienceNanoseconds: Nanoseconds = .seconds(120)

    init(limits: FrontendLimits) {
        bytesMax = limits.processResponseBytesMax
        plenty = bytesMax - bytesMax / 8
    }

    var isTight: Bool { bytes >= plenty }
    var hasWork: Bool { !sending.isEmpty || hasWaiters }
    var isUrgent: Bool { isTight || hasWaiters }
    private var hasWaiters: Bool { !waiting.isEmpty || isWaking }

    fileprivate func change(by count: Int) {
        bytes += count
        precondition(bytes >= 0, "more given back than taken")
        if count < 0, !waiting.isEmpty { onRelease?() }
    }

    fileprivate func returned(by share: Share) {
        guard borrower === share else { return }
        borrower = nil
        if !waiting.isEmpty { onRelease?() }
    }

    fileprivate func isSending(_ share: Share) {
        sending.append(share)
        onWork?()
    }

    fileprivate func isWaiting(_ share: Share) {
        waiting.append(share)
        onWork?()
    }

    private func hasRoom(_ count: Int, for share: Share) -> Bool {
        bytes + count <= bytesMax || borrower == nil || borrower === share
    }

    /// Whether `share` may fetch a range of so many bytes, which it is to take at once.
    fileprivate func grants(_ count: Int, isNext: Bool, to share: Share) -> Bool {
        if bytes + count < plenty { return true }
        guard isNext, !isTight || share.unsent == 0 else { return false }
        guard !hasWaiters || turn === share, hasRoom(count, for: share) else { return false }
        if turn === share { turn = nil }
        if bytes + count > bytesMax { borrower = share }
        return true
    }

    private func mayGoOn(_ share: Share) -> Bool {
        guard share.wanted == 0 || hasRoom(share.wanted, for: share) else { return false }
        return !isTight || share.unsent == 0
    }

    /// Resumes those who may go on, in order. Who waits again has then had its turn.
    func wake() {
        guard !isWaking else { return }
        isWaking = true
        let round = waiting
        waiting = []
        var kept: Deque<Share> = []
        for share in round where share.resume != nil {
            share.measure()
            guard mayGoOn(share) else {
                kept.append(share)
                continue
            }
            if share.wanted > 0 { turn = share }
            share.wanted = 0
            share.isWaiting = false
            share.resume?()
            turn = nil
        }
        isWaking = false
        kept.append(contentsOf: waiting)
        waiting = kept
    }

    /// Measures what clients have taken, then wakes who may go on.
    func sweep(now: Nanoseconds) {
        let round = sending
        sending = []
        var stuck: [Share] = []
        for share in round {
            share.measure()
            if share.sweep(now) { stuck.append(share) }
        }
        // Nothing above can have listed one of them again.
        sending = round.filter(\.isSending)
        for share in stuck where isTight { share.shrink?() }
        wake()
    }

    /// The part of one read, which may outlive it while its client still has bytes to take.
    final class Share {
        private let budget: ResponseBudget
        private let exchange: any HTTPExchange
        /// Goes on: there is room, or a turn. Called once for every `wait`, never within it.
        var resume: (() -> Void)?
        /// It is tight, and the client takes nothing: lets go of what can be had again.
        var shrink: (() -> Void)?
        /// Of ranges on their way or in hand.
        var fetched = 0 {
            didSet {
                budget.change(by: fetched - oldValue)
                if fetched == 0 { budget.returned(by: self) }
            }
        }
        /// Of what waits to be sent.
        var queued = 0 { didSet { budget.change(by: queued - oldValue) } }
        /// Of what was sent and is not taken, when last measured.
        private(set) var unsent = 0 { didSet { budget.change(by: unsent - oldValue) } }
        private var sweptUnsent = 0
        private var stuckSince: Nanoseconds?
        private var isOver = false
        fileprivate private(set) var isSending = false
        fileprivate var isWaiting = false
        /// Bytes of the range that it waits for.
        fileprivate var wanted = 0

        init(_ budget: ResponseBudget, _ exchange: any HTTPExchange) {
            self.budget = budget
            self.exchange = exchange
        }

        var bytes: Int { fetched + queued + unsent }

        /// Call after every write.
        func measure() {
            let count = exchange.unsentBytes
            // Behind the end of a response the same connection may carry others.
            let now = isOver ? min(count, unsent) : count
            if now != unsent { unsent = now }
            guard unsent > 0, !isSending else { return }
            isSending = true
            sweptUnsent = 0
            budget.isSending(self)
        }

        /// Takes `count` bytes for a range, if they are granted; else waits, if it `isNext`.
        func fetch(_ count: Int, isNext: Bool) -> Bool {
            measure()
            if budget.grants(count, isNext: isNext, to: self) {
                fetched += count
                return true
            }
            if isNext { wait(for: count) }
            return false
        }

        /// Waits in line, for a range of `wanted` bytes if there are any.
        func wait(for wanted: Int = 0) {
            if wanted > 0 { self.wanted = wanted }
            guard !isWaiting, resume != nil else { return }
            isWaiting = true
            budget.isWaiting(self)
        }

        /// Whether the client took nothing since the last time.
        fileprivate func sweep(_ now: Nanoseconds) -> Bool {
            let isStuck = sweptUnsent > 0 && unsent >= sweptUnsent
            sweptUnsent = unsent
            if isStuck, isOver {
                let since = stuckSince ?? now
                stuckSince = since
                if now - since >= ResponseBudget.patienceNanoseconds { unsent = 0 }
            } else {
                stuckSince = nil
            }
            isSending = unsent > 0
            return isStuck
        }

        /// The read is over. What its client has yet to take stays counted unless it `isGone`.
        func end(isGone: Bool) {
            resume = nil
            shrink = nil
            queued = 0
            measure()
            isOver = true
            if isGone { unsent = 0 }
        }
    }
}
