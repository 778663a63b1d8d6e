// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// The bytes of append batches that are in flight: taken when a batch is complete, given back when
/// its channel has answered, whoever still waits for the answer.
///
/// They count three times: for the process, for the basin and for the stream. A session that finds
/// one of these spent stops reading from its client and waits its turn; a unary request is refused
/// before anything was issued for it. What arrived is always taken, so a limit is overshot by what
/// one session was sent before it could stop.
final class AppendBudget {
    fileprivate enum Holder: Hashable {
        case process
        case basin(String)
        case stream(StreamID)
    }

    private let limits: FrontendLimits
    private let process: Share
    /// Of the basins and streams that have appenders.
    private var shares: [Holder: Share] = [:]
    /// Bodies of unary requests that are on their way, as announced.
    private var bodyBytes = 0

    init(limits: FrontendLimits) {
        self.limits = limits
        process = Share(.process, bytesMax: limits.processInFlightBytesMax, of: nil)
    }

    var bytes: Int { process.bytes }

    /// The part of one stream, which all its appenders share. Call `leave` when done with it.
    func share(of stream: StreamID, in basin: String) -> Share {
        if let share = shares[.stream(stream)] {
            share.users += 1
            return share
        }
        let whole =
            shares[.basin(basin)]
            ?? add(Share(.basin(basin), bytesMax: limits.basinInFlightBytesMax, of: process))
        whole.users += 1
        let share = add(
            Share(.stream(stream), bytesMax: limits.streamInFlightBytesMax, of: whole))
        share.users += 1
        return share
    }

    private func add(_ share: Share) -> Share {
        share.onUnused = { [weak self] in self?.shares[$0] = nil }
        shares[share.holder] = share
        return share
    }

    /// Throws unless a unary request may be read and issued.
    func admit(_ share: Share) throws(APIError) {
        switch share.spent?.holder {
        case nil: return
        case .process: throw APIError(.hotServer, "too many appends are in flight")
        case .basin:
            throw APIError(.rateLimited, "too many appends to this basin are in flight")
        case .stream:
            throw APIError(.rateLimited, "too many appends to this stream are in flight")
        }
    }

    /// Admits a body of so many bytes, which is not a batch yet. Bodies have a budget of their own:
    /// slow ones must not hold up the sessions.
    func takeBody(_ count: Int) throws(APIError) {
        guard process.spent == nil, bodyBytes + count <= limits.processInFlightBytesMax else {
            throw APIError(.hotServer, "too many appends are in flight")
        }
        bodyBytes += count
    }

    func giveBackBody(_ count: Int) { bodyBytes -= count }

    /// What one holder may have in flight, as part of what a larger one may.
    final class Share {
        fileprivate let holder: Holder
        private let bytesMax: Int
        private let whole: Share?
        fileprivate var users = 0
        fileprivate var onUnused: ((Holder) -> Void)?
        private(set) var bytes = 0
        private let waiters = AppendWaiters()

        fileprivate init(_ holder: Holder, bytesMax: Int, of whole: Share?) {
            self.holder = holder
            self.bytesMax = bytesMax
            self.whole = whole
        }

        /// It, or what it is part of, has no room.
        var isSpent: Bool { spent != nil }

        /// The largest that has no room.
        fileprivate var spent: Share? { whole?.spent ?? (bytes >= bytesMax ? self : nil) }

        func take(_ count: Int) {
            bytes += count
            whole?.take(count)
        }

        func giveBack(_ count: Int) {
            precondition(count <= bytes, "more given back than taken")
            bytes -= count
            whole?.giveBack(count)
            waiters.wake(bytes: bytes, bytesMax: bytesMax)
        }

        /// Calls `resume` once, when there may be room again.
        func whenFree(_ resume: @escaping () -> Void) { (spent ?? self).waiters.add(resume) }

        func leave() {
            users -= 1
            guard users == 0 else { return }
            onUnused?(holder)
            whole?.leave()
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
