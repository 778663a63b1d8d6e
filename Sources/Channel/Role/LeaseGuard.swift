// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// Guards every reply that shows state without a new stable PUT behind it: tails, reads, grants of
/// follows, rejections.
///
/// Such a reply is true only while no recovery has sealed this channel's log, and it is sure of
/// that in one of three ways: its lease holds, counted from before the renewal was sent, by a clock
/// that counts suspends; a chunk whose PUT began after the reply was asked for has become stable;
/// or a probe of the log that began after it found the first open slot still absent. (A channel
/// that was paused may be dead without knowing it, so nothing older counts.) Where tails are
/// strict, the lease proves nothing, and no clock has to be trusted.
///
/// Sans-I/O: says when to probe, and which replies may leave.
struct LeaseGuard<Reply> {
    private struct Waiting {
        let reply: Reply
        let since: Nanoseconds
        /// A stable chunk with at least this index proves the reply.
        let provenBy: ChunkIndex
        let probe: UInt64
    }

    private var validUntil: Nanoseconds
    /// The wall clock when `validUntil` was last set, in milliseconds.
    private var wallRenewed: UInt64 = 0
    private var waiting: Deque<Waiting> = []
    /// Counts the probes that have begun.
    private var probes: UInt64 = 0
    private(set) var isProbing = false
    let waitNanosecondsMax: Nanoseconds
    let countMax: Int
    /// Seals outlive this by far; a channel that was unsure for longer may miss the one in its log.
    let unsureNanosecondsMax: Nanoseconds
    private let isStrict: Bool

    init(
        waitNanosecondsMax: Nanoseconds, countMax: Int,
        unsureNanosecondsMax: Nanoseconds = .seconds(24 * 3_600), isStrict: Bool = false
    ) {
        self.isStrict = isStrict
        validUntil = .min
        self.unsureNanosecondsMax = unsureNanosecondsMax
        self.waitNanosecondsMax = waitNanosecondsMax
        self.countMax = countMax
    }

    var count: Int { waiting.count }

    func isSure(at now: Nanoseconds) -> Bool { now < validUntil }

    /// Whether the lease has been unsure for so long that not even the log can be trusted: by the
    /// clock that counts suspends, or by the wall clock, which a snapshot does not stop.
    func isUnsureTooLong(at now: Nanoseconds, wallMilliseconds: UInt64) -> Bool {
        guard !isSure(at: now), validUntil > .min else { return false }
        let wall = wallMilliseconds > wallRenewed ? wallMilliseconds - wallRenewed : 0
        return now - validUntil >= unsureNanosecondsMax
            || wall >= UInt64(unsureNanosecondsMax / 1_000_000)
    }

    enum Verdict: Equatable { case now, later, refused }

    /// Asks to send `reply`. `nextIndex` is the chunk whose PUT will begin next.
    mutating func ask(
        _ reply: Reply, at now: Nanoseconds, nextIndex: ChunkIndex
    ) -> Verdict {
        if isSure(at: now), !isStrict { return .now }
        guard waiting.count < countMax else { return .refused }
        waiting.append(Waiting(reply: reply, since: now, provenBy: nextIndex, probe: probes + 1))
        return .later
    }

    /// A renewal that was sent at `sentAt` succeeded: the lease holds for `duration` from then.
    mutating func renewed(
        sentAt: Nanoseconds, duration: Nanoseconds, at now: Nanoseconds,
        wallMilliseconds: UInt64 = 0, _ release: (Reply) -> Void
    ) {
        validUntil = max(validUntil, sentAt + duration)
        wallRenewed = wallMilliseconds
        if isSure(at: now), !isStrict { releaseAll(where: { _ in true }, release) }
    }

    /// The lease is gone for good.
    mutating func lose() { validUntil = .min }

    /// Chunks below `stableEnd` are stable.
    mutating func stable(_ stableEnd: ChunkIndex, _ release: (Reply) -> Void) {
        if !waiting.isEmpty { releaseAll(where: { $0.provenBy < stableEnd }, release) }
    }

    /// Whether a probe should begin now; it then has.
    mutating func beginProbe() -> Bool {
        guard !isProbing, waiting.contains(where: { $0.probe > probes }) else { return false }
        isProbing = true
        probes += 1
        return true
    }

    /// The probe ended; with `absent`, the first open slot was absent after it began.
    mutating func endProbe(absent: Bool, _ release: (Reply) -> Void) {
        precondition(isProbing, "a probe ends once")
        isProbing = false
        if absent {
            let probe = probes
            releaseAll(where: { $0.probe <= probe }, release)
        }
    }

    /// Hands back the replies that waited too long, to be refused.
    mutating func expire(at now: Nanoseconds, _ refuse: (Reply) -> Void) {
        while let first = waiting.first, now - first.since >= waitNanosecondsMax {
            waiting.removeFirst()
            refuse(first.reply)
        }
    }

    /// The channel is over: hands back everything, to be refused.
    mutating func fail(_ refuse: (Reply) -> Void) {
        let all = waiting
        waiting = []
        for one in all { refuse(one.reply) }
    }

    private mutating func releaseAll(where proven: (Waiting) -> Bool, _ release: (Reply) -> Void) {
        let all = waiting
        waiting = []
        for one in all where !proven(one) { waiting.append(one) }
        for one in all where proven(one) { release(one.reply) }
    }
}
