// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Metadata
internal import Observability
internal import Primitives
internal import Records
internal import RPC

/// The way of one client's appends to their channel, in order, and of the answers back.
///
/// Batches are sent on as they come; each is kept until it is answered. When the channel says it
/// has the stream no more, everything below the first unanswered batch is answered and nothing of
/// the rest was done, so the rest is sent again, in order, to whoever has it now, before anything
/// new. When the connection breaks with batches on the way, nobody knows what became of them, and
/// sending them again might apply them twice: the pipe fails as indefinite. The first failure ends
/// it. A batch that stays unanswered for the time of one call fails it as well.
final class AppendPipe {
    /// A batch became durable; in order.
    var onAck: ((AppendReply) -> Void)?
    /// The first batch that is not acknowledged will never be; nothing follows.
    var onFailure: ((APIError) -> Void)?

    private let path: DataPath
    private let lookup: StreamLookup
    private let share: AppendBudget.Share
    /// Whether a refusal for lack of room is waited out, or told the client.
    private let waitsOut: Bool

    private struct Batch {
        let message: Bytes
        let count: Int
        let meteredBytes: Int
        let submitted: Nanoseconds

        /// What it counts for in the budgets: the least batches take far more than their bytes.
        var budgetBytes: Int { message.count + 256 }
    }
    /// Not answered yet, in order; the first `issued` of them were sent over `call`.
    private var batches: Deque<Batch> = []
    private var issued = 0
    private var call: (any Call)?
    private var isResolving = false
    /// What is known of the owner was refused.
    private var isOwnerDoubtful = false
    private var isClosing = false
    private var isEnded = false
    private(set) var bytesInFlight = 0
    private var refusals = 0
    private var firstRefusal: Nanoseconds = 0
    private var watchdog: Timer?

    init(_ path: DataPath, lookup: StreamLookup, waitsOut: Bool) {
        self.path = path
        self.lookup = lookup
        self.waitsOut = waitsOut
        share = path.budget.share(of: lookup.stream.id)
    }

    var isIdle: Bool { batches.isEmpty }
    /// Whether a budget says to read no more for now.
    var isFull: Bool {
        bytesInFlight >= path.limits.sessionInFlightBytesMax || share.isSpent
            || path.budget.isSpent
    }

    /// Throws unless a unary request may go on.
    func admit() throws(APIError) { try path.budget.admit(share) }

    /// Calls `resume` once, when a budget other than the session's own may have room again.
    func whenFree(_ resume: @escaping () -> Void) { path.budget.whenFree(share, resume) }

    /// Whether only the session's own budget is spent: its next acknowledgement frees it.
    var isHeldBySession: Bool { !share.isSpent && !path.budget.isSpent }

    /// Passes on a batch: the message for the channel, and what its head says.
    func submit(_ message: Bytes, count: Int, meteredBytes: Int) {
        guard !isEnded, !isClosing else { return }
        let batch = Batch(
            message: message, count: count, meteredBytes: meteredBytes,
            submitted: path.world.loop.now)
        batches.append(batch)
        bytesInFlight += batch.budgetBytes
        share.take(batch.budgetBytes)
        if watchdog == nil { watch() }
        if let call {
            issued += 1
            call.send(message)
        } else {
            resolve()
        }
    }

    /// No more batches will come. What is on the way still arrives, and holds its budget till then.
    func close() {
        guard !isEnded else { return }
        isClosing = true
        if batches.isEmpty { end() }
    }

    private func end() {
        // An answer may lead its holder to close the pipe, which is then over already.
        guard !isEnded else { return }
        isEnded = true
        watchdog?.cancel()
        let call = call
        self.call = nil
        call?.onMessage = nil
        call?.onEnd = nil
        if batches.isEmpty { call?.finishSending() } else { call?.cancel() }
        if bytesInFlight > 0 { share.giveBack(bytesInFlight) }
        bytesInFlight = 0
        batches = []
        share.leave()
        // The closures refer to whoever holds this pipe.
        onAck = nil
        onFailure = nil
    }

    private func fail(_ error: APIError) {
        guard !isEnded else { return }
        path.metrics.appendFailures.add()
        let report = onFailure
        end()
        report?(error)
    }

    // MARK: The channel

    /// Finds the owner, then sends it what waits.
    private func resolve() {
        guard !isResolving, !isEnded else { return }
        isResolving = true
        path.world.loop.spawn { [self] in
            let found: Result<Owner, APIError>
            do throws(APIError) {
                if isOwnerDoubtful {
                    found = .success(try await path.cell.freshOwner(of: lookup.stream))
                } else {
                    found = .success(try await path.cell.owner(for: lookup))
                }
            } catch {
                found = .failure(error)
            }
            isResolving = false
            guard !isEnded else { return }
            switch found {
            case .success(let owner): open(owner)
            case .failure(let error): fail(error)
            }
        }
    }

    private func open(_ owner: Owner) {
        let call = path.world.calls.call(
            owner.address, .append,
            AppendOpen(stream: lookup.stream.id, streamlet: owner.streamlet).encoded(),
            deadline: nil)
        self.call = call
        call.onMessage = { [self] in answered($0) }
        call.onEnd = { [self] in ended($0, $1) }
        for batch in batches { call.send(batch.message) }
        issued = batches.count
    }

    private func answered(_ message: Bytes) {
        call?.consumed(message.count)
        let reply: AppendReply
        do throws(DecodeError) {
            reply = try AppendReply(message)
        } catch {
            return fail(.indefinite("the channel's answer cannot be read"))
        }
        guard issued > 0, let batch = batches.first,
            reply.end.seqNum &- reply.start.seqNum == UInt64(batch.count)
        else { return fail(.indefinite("the channel's answer does not fit the append")) }
        batches.removeFirst()
        issued -= 1
        refusals = 0
        bytesInFlight -= batch.budgetBytes
        share.giveBack(batch.budgetBytes)
        path.metrics.acknowledged(
            records: batch.count, bytes: batch.meteredBytes,
            latency: path.world.loop.now - batch.submitted)
        onAck?(reply)
        if isClosing, batches.isEmpty { end() }
    }

    private func ended(_ status: Status, _ payload: Bytes) {
        call = nil
        let wereIssued = issued
        issued = 0
        switch status {
        case .notOwner, .notConnected, .draining, .unavailable: tryAgain(status)
        case .overloaded where waitsOut: tryAgain(status)
        // With nothing on the way, nothing can be in doubt.
        case .ok, .cancelled, .connectionLost, .deadlineExceeded, .indefinite:
            if wereIssued == 0 { tryAgain(status) } else { fail(Self.failure(status, payload)) }
        default: fail(Self.failure(status, payload))
        }
    }

    /// Nothing was done for what is left: sends it again, to whoever has the stream now.
    private func tryAgain(_ status: Status) {
        path.cell.forget(lookup.stream)
        isOwnerDoubtful = true
        // The next batch, if one comes, asks anew.
        guard !batches.isEmpty else { return }
        refusals += 1
        if refusals == 1 { firstRefusal = path.world.loop.now }
        let backoff = Backoff(
            first: .milliseconds(10), delayMax: .milliseconds(500), triesMax: .max,
            budget: path.limits.callNanoseconds)
        let elapsed = path.world.loop.now - firstRefusal
        guard
            let delay = backoff.delay(
                afterTries: refusals, elapsed: elapsed, random: path.world.random.next())
        else { return fail(Self.failure(status, Bytes())) }
        // A stream that moved is asked for at once; only what fails again waits.
        let isFirstMove = status == .notOwner && refusals == 1
        path.metrics.appendResends.add()
        isResolving = true
        path.world.loop.after(isFirstMove ? 0 : delay) { [self] in
            isResolving = false
            resolve()
        }
    }

    // MARK: The watchdog

    private func watch() {
        guard let oldest = batches.first else { return }
        let due = oldest.submitted + path.limits.callNanoseconds
        watchdog = path.world.loop.after(due - path.world.loop.now) { [weak self] in
            guard let self, !self.isEnded else { return }
            self.watchdog = nil
            self.checkOldest()
        }
    }

    private func checkOldest() {
        guard let oldest = batches.first else { return }
        if path.world.loop.now - oldest.submitted >= path.limits.callNanoseconds {
            fail(.indefinite("the append was not acknowledged in time"))
        } else {
            watch()
        }
    }

    /// What the client is told when a call ends its first unanswered batch.
    private static func failure(_ status: Status, _ payload: Bytes) -> APIError {
        switch status {
        case .rejected:
            do throws(DecodeError) {
                switch try AppendRejection(payload) {
                case .seqNumMismatch(let next): return .seqNumMismatch(next: next)
                case .fencingTokenMismatch(let current):
                    return .fencingTokenMismatch(current: current)
                }
            } catch {
                return .indefinite("the channel's answer cannot be read")
            }
        case .timestampMissing:
            return APIError(.invalid, "the stream requires a timestamp on every record")
        case .streamDeleted: return APIError(.streamDeletionPending, "the stream is being deleted")
        case .overloaded: return APIError(.hotServer, "the stream's channel is overloaded")
        case .malformed, .unknownMethod:
            return APIError(.other, "the channel did not understand the append")
        default: return .indefinite("the stream's channel was lost (\(status))")
        }
    }
}
