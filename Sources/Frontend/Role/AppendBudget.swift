// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// The bytes of append batches that are in flight: taken when a batch is complete, given back when
/// its channel has answered, whoever still waits for the answer.
///
/// A session that finds its share spent stops reading from its client and waits its turn; a unary
/// request is refused before anything was issued for it. What arrived is always taken, so a limit
/// is overshot by what one session was sent before it could stop.
final class AppendBudget {
    private let processBytesMax: Int
    fileprivate let streamBytesMax: Int
    private(set) var bytes = 0
    /// Bodies of unary requests that are on their way, as announced.
    private var bodyBytes = 0
    private let waiters = AppendWaiters()
    private var shares: [StreamID: Share] = [:]

    init(limits: FrontendLimits) {
        processBytesMax = limits.processInFlightBytesMax
        streamBytesMax = limits.streamInFlightBytesMax
    }

    var isSpent: Bool { bytes >= processBytesMax }

    /// The part of one stream, which all its appenders share. Call `leave` when done with it.
    func share(of stream: StreamID) -> Share {
        let share = shares[stream] ?? Share(stream, self)
        shares[stream] = share
        share.users += 1
        return share
    }

    /// Throws unless a unary request may be read and issued.
    func admit(_ share: Share) throws(APIError) {
        if isSpent { throw APIError(.hotServer, "too many appends are in flight") }
        if share.isSpent {
            throw APIError(.rateLimited, "too many appends to this stream are in flight")
        }
    }

    /// Admits a body of so many bytes, which is not a batch yet. Bodies have a budget of their own:
    /// slow ones must not hold up the sessions.
    func takeBody(_ count: Int) throws(APIError) {
        guard !isSpent, bodyBytes + count <= processBytesMax else {
            throw APIError(.hotServer, "too many appends are in flight")
        }
        bodyBytes += count
    }

    func giveBackBody(_ count: Int) { bodyBytes -= count }

    fileprivate func change(by count: Int) {
        bytes += count
        precondition(bytes >= 0, "more given back than taken")
        if count < 0 { waiters.wake(bytes: bytes, bytesMax: processBytesMax) }
    }

    fileprivate func forget(_ share: Share) { shares[share.stream] = nil }

    /// Calls `resume` once, when there may be room again.
    func whenFree(_ share: Share, _ resume: @escaping () -> Void) {
        if isSpent { waiters.add(resume) } else { share.waiters.add(resume) }
    }

    final class Share {
        fileprivate let stream: StreamID
        private let budget: AppendBudget
        fileprivate var users = 0
        private(set) var bytes = 0
        fileprivate let waiters = AppendWaiters()

        fileprivate init(_ stream: StreamID, _ budget: AppendBudget) {
            self.stream = stream
            self.budget = budget
        }

        var isSpent: Bool { bytes >= budget.streamBytesMax }

        func take(_ count: Int) {
            bytes += count
            budget.change(by: count)
        }

        func giveBack(_ count: Int) {
            precondition(count <= bytes, "more given back than taken")
            bytes -= count
            waiters.wake(bytes: bytes, bytesMax: budget.streamBytesMax)
            budget.change(by: -count)
        }

        func leave() {
            users -= 1
            if users == 0 { budget.forget(self) }
        }
    }
}

/// Who waits for room, in order of arrival.
private final class AppendWaiters {
    private var queue: Deque<() -> Void> = []

    /// What one woken session is expected to bring: so many are woken as there is room for.
    private static let bytesPerWaiter = 65_536

    func add(_ resume: @escaping () -> Void) { queue.append(resume) }

    func wake(bytes: Int, bytesMax: Int) {
        guard bytes < bytesMax, !queue.isEmpty else { return }
        let count = bytes == 0 ? queue.count : 1 + (bytesMax - bytes) / Self.bytesPerWaiter
        let woken = queue.prefix(count)
        queue.removeFirst(min(count, queue.count))
        // They may wait again at once: they are no longer in the queue when they are called.
        for resume in Array(woken) { resume() }
    }
}

extension ByteWriter {
    /// What was written where `room` bytes were expected. An input may be large for what is dropped
    /// of it: what is kept of it, and counted, takes memory of about its own size.
    consuming func finish(room: Int) -> Bytes {
        let bytes = finish()
        return room > 4_096 && bytes.count < room / 2 ? bytes.detached() : bytes
    }
}
