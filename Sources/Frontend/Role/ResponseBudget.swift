// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import HTTP
internal import Primitives

/// The bytes of responses that this process holds for readers: what their clients have not taken,
/// and what their reads have fetched or queued.
///
/// While there is plenty, reads run ahead as they like. Once it is tight, a read sends only while
/// its client has nothing left to take, and then a small batch; it fetches no more than the range
/// that it needs next, in turn; and one that is stuck lets go of what it fetched. An eighth is kept
/// for those next ranges.
///
/// Who holds a range is charged for the batch that will be sent of it, too, so that what was
/// fetched can be sent however scarce bytes have become.
///
/// Invariant: beyond the limit goes a single read at a time, the borrower, until its client has
/// taken all that it was sent; so the largest range can be had under the smallest limit, which is
/// exceeded by that range, and what is made of it, alone. While others wait for what clients do not
/// take, those clients are cut off, the longest stuck first: they may come again, and go on where
/// they were. So every client that takes its bytes makes progress, however many do not.
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
    /// Who went beyond the limit, while it is exceeded.
    private var borrower: Share?
    /// There is something to sweep.
    var onWork: (() -> Void)?
    /// Bytes were given back while somebody waits: call `wake` soon.
    var onRelease: (() -> Void)?

    /// Stored bytes of a batch while it is tight, unless its only record is larger.
    static let smallBatchBytes = 64 << 10
    /// How long a client is borne with that takes next to nothing (see `isTakingEnough`) while
    /// others wait for what it holds.
    static let evictionNanoseconds: Nanoseconds = .seconds(1)
    /// How long a response that is complete may be stuck before its client must be gone: longer
    /// than any transport waits for one.
    static let patienceNanoseconds: Nanoseconds = .seconds(120)

    init(limits: FrontendLimits) {
        bytesMax = limits.processResponseBytesMax
        plenty = bytesMax - bytesMax / 8
    }

    var isTight: Bool { bytes >= plenty }
    var isSpent: Bool { bytes >= bytesMax }
    var hasWork: Bool { !sending.isEmpty || hasWaiters }
    var isUrgent: Bool { isTight || hasWaiters }
    private var hasWaiters: Bool { !waiting.isEmpty || isWaking }

    fileprivate func change(by count: Int, _ share: Share) {
        bytes += count
        precondition(bytes >= 0, "more given back than taken")
        if bytes <= bytesMax {
            borrower = nil
        } else if count > 0 {
            borrower = borrower ?? share
        } else if borrower === share, share.charge == 0 {
            borrower = nil
        }
        if count < 0, !waiting.isEmpty { onRelease?() }
    }

    fileprivate func isSending(_ share: Share) {
        sending.append(share)
        onWork?()
    }

    fileprivate func isWaiting(_ share: Share) {
        waiting.append(share)
        onWork?()
    }

    fileprivate func hasRoom(_ count: Int, for share: Share) -> Bool {
        bytes + count <= bytesMax || borrower == nil || borrower === share
    }

    private func hasRoom(forRange count: Int, of share: Share) -> Bool {
        hasRoom(count + Share.reserve(count), for: share)
    }

    /// Whether `share` may fetch a range of so many bytes, which it is to take at once.
    fileprivate func grants(_ count: Int, isNext: Bool, to share: Share) -> Bool {
        if bytes + count + Share.reserve(count) < plenty { return true }
        guard isNext, share.isReady else { return false }
        guard !hasWaiters || turn === share, hasRoom(forRange: count, of: share) else {
            return false
        }
        if turn === share { turn = nil }
        return true
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
            guard share.isReady, share.wanted == 0 || hasRoom(forRange: share.wanted, of: share)
            else {
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

    /// Measures what clients have taken, wakes who may go on, and cuts off who holds them up.
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
        if evict(now) { wake() }
    }

    /// Cuts off clients that are stuck, as many as those need who wait for bytes. True if any was.
    private func evict(_ now: Nanoseconds) -> Bool {
        var missing = 0
        for share in waiting where share.resume != nil && share.isReady && share.wanted > 0 {
            if hasRoom(forRange: share.wanted, of: share) { continue }
            missing += share.wanted + Share.reserve(share.wanted)
        }
        guard missing > 0 else { return false }
        missing += bytes - bytesMax
        let stuck = sending.compactMap { share in share.stuckSince.map { (share, since: $0) } }
            .filter { now - $0.since >= Self.evictionNanoseconds }
            .sorted { $0.since < $1.since }
        var isAny = false
        for (share, _) in stuck where missing > 0 {
            missing -= share.charge
            share.evict()
            isAny = true
        }
        sending.removeAll { !$0.isSending }
        return isAny
    }

    /// The part of one read, which may outlive it while its client still has bytes to take.
    final class Share {
        private let budget: ResponseBudget
        private let exchange: any HTTPExchange
        /// Of a batch, as long as bytes are scarce: a record of the largest size.
        private static let batchBytesMax = (1 << 20) + (64 << 10)
        /// Goes on: there is room, or a turn. Called once for every `wait`, never within it.
        var resume: (() -> Void)?
        /// It is tight, and the client takes nothing: lets go of what can be had again.
        var shrink: (() -> Void)?
        /// It is spent, and the client has taken next to nothing for long: cuts it off and calls
        /// `end`.
        var onEviction: (() -> Void)?
        /// Of ranges on their way or in hand.
        var fetched = 0 { didSet { recharge() } }
        /// Of what waits to be sent.
        var queued = 0 { didSet { recharge() } }
        /// Of what was sent and is not taken, when last measured.
        private(set) var unsent = 0 { didSet { recharge() } }
        /// What the budget counts for this one.
        fileprivate private(set) var charge = 0
        private var isOver = false
        fileprivate private(set) var isSending = false
        fileprivate var isWaiting = false
        /// Bytes of the range that it waits for.
        fileprivate var wanted = 0
        /// The client has taken nothing since.
        private var idleSince: Nanoseconds?
        /// It has not taken enough since.
        fileprivate private(set) var stuckSince: Nanoseconds?
        /// What it has taken since the last sweep, and since `stuckSince`.
        private var takenSinceSweep = 0
        private var taken = 0

        init(_ budget: ResponseBudget, _ exchange: any HTTPExchange) {
            self.budget = budget
            self.exchange = exchange
        }

        /// For the batch that is sent of a range of `count` bytes.
        fileprivate static func reserve(_ count: Int) -> Int { min(count, batchBytesMax) }

        private func recharge() {
            let count = fetched + max(queued + unsent, Self.reserve(fetched))
            guard count != charge else { return }
            let change = count - charge
            charge = count
            budget.change(by: change, self)
        }

        /// Whether its client is to be sent more.
        var isReady: Bool { unsent == 0 || !budget.isTight }

        /// Whether there is room for `count` bytes that are not counted yet.
        func hasRoom(_ count: Int) -> Bool { budget.hasRoom(count, for: self) }

        /// Call before and after every write: what is taken between is not seen else.
        func measure() {
            let count = exchange.unsentBytes
            // Behind the end of a response the same connection may carry others.
            let now = isOver ? min(count, unsent) : count
            takenSinceSweep += max(unsent - now, 0)
            if now != unsent { unsent = now }
            guard unsent > 0, !isSending else { return }
            isSending = true
            takenSinceSweep = 0
            idleSince = nil
            stuckSince = nil
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
            let isFirst = stuckSince == nil
            let isIdle = takenSinceSweep == 0 && !isFirst
            taken += takenSinceSweep
            takenSinceSweep = 0
            idleSince = isIdle ? idleSince ?? now : nil
            if isFirst || isTakingEnough {
                stuckSince = now
                taken = 0
            }
            if isOver, let idleSince, now - idleSince >= ResponseBudget.patienceNanoseconds {
                unsent = 0
            }
            isSending = unsent > 0
            return isIdle
        }

        /// A client that takes a byte now and then is stuck as well.
        private var isTakingEnough: Bool {
            taken >= min(ResponseBudget.smallBatchBytes, max(unsent / 8, 1))
        }

        fileprivate func evict() {
            if let onEviction { onEviction() } else { exchange.abort() }
            unsent = 0
            isSending = false
        }

        /// The read is over. What its client has yet to take stays counted unless it `isGone`.
        func end(isGone: Bool) {
            resume = nil
            shrink = nil
            onEviction = nil
            queued = 0
            measure()
            isOver = true
            if isGone { unsent = 0 }
        }
    }
}
