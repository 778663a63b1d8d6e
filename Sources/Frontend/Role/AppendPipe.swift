// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Metadata
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// The way of one client's appends to their channel, in order, and of the answers back.
///
/// Batches are sent on as they come, those of one turn of the loop together, as a *run*: one
/// message, which holds them back to back. Each is kept until it is answered. When the channel says
/// it has the stream no more, everything below the first unanswered batch is answered and nothing
/// of the rest was done, so the rest is sent again, in order, to whoever has it now, before
/// anything new. When the connection breaks with batches on the way, nobody knows what became of
/// them, and sending them again might apply them twice: the pipe fails as indefinite. The first
/// failure ends it. A batch that stays unanswered for the time of one call fails it as well.
///
/// Answers of one turn are told, and accounted for, together as well.
final class AppendPipe {
    /// Batches became durable; in order.
    var onAcks: (([AppendReply]) -> Void)?
    /// The first batch that is not acknowledged will never be; nothing follows.
    var onFailure: ((APIError) -> Void)?

    private let path: DataPath
    private let named: NamedStream
    private var lookup: StreamLookup
    private let share: AppendBudget.Share
    /// Whether a refusal for lack of room is waited out, or told the client.
    private let waitsOut: Bool

    private struct Batch {
        /// Of its part of the message.
        let bytes: Int
        let count: Int
        let meteredBytes: Int

        /// What it counts for in the budgets: the least batches take far more than their bytes.
        var budgetBytes: Int { bytes + 256 }
    }
    private struct Run {
        let message: Bytes
        let submitted: Nanoseconds
        /// Batches without an answer; those before them took `answeredBytes`.
        var unanswered: Int
        var answeredBytes = 0

        /// Whether that was the last one.
        mutating func hasAnswered(_ batch: Batch) -> Bool {
            answeredBytes += batch.bytes
            unanswered -= 1
            return unanswered == 0
        }
    }
    // Of what every batch touches, each access is over before anything else is called.
    @exclusivity(unchecked) private var unanswered = Unanswered()
    /// The run of this turn, the batches in it, and for how many bytes it was made.
    @exclusivity(unchecked) private var openRun = ByteWriter(capacity: 0)
    @exclusivity(unchecked) private var openCount = 0
    @exclusivity(unchecked) private var openCapacity = 0
    /// Answers of this turn, and what they settle.
    @exclusivity(unchecked) private var replies: [AppendReply] = []
    @exclusivity(unchecked) private var settled = Settlement()
    @exclusivity(unchecked) private var isListed = false

    private var call: (any Call)?
    private var isResolving = false
    /// What is known of the owner was refused.
    private var isOwnerDoubtful = false
    /// Something was appended to this very stream.
    private var hasAnswered = false
    @exclusivity(unchecked) private var isClosing = false
    @exclusivity(unchecked) private var isEnded = false
    @exclusivity(unchecked) private(set) var bytesInFlight = 0
    /// Of `bytesInFlight`: not taken from the budgets yet.
    @exclusivity(unchecked) private var untakenBytes = 0
    private var refusals = 0
    private var firstRefusal: Nanoseconds = 0
    private var watchdog: Timer?

    private struct Settlement {
        var budgetBytes = 0
        var messageBytes = 0
        var records = 0
        var meteredBytes = 0

        mutating func add(_ batch: Batch) {
            budgetBytes += batch.budgetBytes
            records += batch.count
            meteredBytes += batch.meteredBytes
        }
    }

    /// What is not answered yet, in order.
    private struct Unanswered {
        /// Those of `runs`, then those of the open run; the first `issued` were sent over `call`.
        var batches: Deque<Batch> = []
        var issued = 0
        var runs: Deque<Run> = []

        /// Removes the first batch and tells when it was sent; nil unless the reply fits it.
        mutating func take(_ reply: AppendReply) -> (batch: Batch, submitted: Nanoseconds)? {
            guard issued > 0, let batch = batches.first,
                reply.end.seqNum &- reply.start.seqNum == UInt64(batch.count)
            else { return nil }
            batches.removeFirst()
            issued -= 1
            let submitted = runs[0].submitted
            if runs[0].hasAnswered(batch) { runs.removeFirst() }
            return (batch, submitted)
        }
    }

    /// A run that is as long as this is sent at once.
    private static let runBytesMax = 256 << 10
    /// One that is shorter is copied into more memory where it does not suffice.
    private static let copiedBytesMax = 16 << 10
    /// Room for so many answers is kept from one turn to the next.
    private static let repliesKeptMax = 32

    init(_ path: DataPath, _ named: NamedStream, lookup: StreamLookup, waitsOut: Bool) {
        self.path = path
        self.named = named
        self.lookup = lookup
        self.waitsOut = waitsOut
        share = path.budget.share(of: lookup.stream.id, in: lookup.stream.basin)
    }

    /// Nothing waits for an answer, and all answers were told.
    var isIdle: Bool { unanswered.batches.isEmpty && replies.isEmpty }
    /// Whether a budget says to read no more for now. Call `account` before.
    var isFull: Bool {
        bytesInFlight >= path.limits.sessionInFlightBytesMax || share.isSpent
    }

    /// Throws unless a unary request may go on.
    func admit() throws(APIError) { try path.budget.admit(share) }

    /// Calls `resume` once, when a budget other than the session's own may have room again.
    func whenFree(_ resume: @escaping () -> Void) { share.whenFree(resume) }

    /// Whether only the session's own budget is spent: its next acknowledgement frees it.
    var isHeldBySession: Bool { !share.isSpent }

    // MARK: Batches

    /// Passes on a batch as its client wrote it; about `following` bytes of others come behind it
    /// at once. Call `account` behind the last one.
    func submit(_ input: Bytes, following: Int) throws(AppendInputError) {
        guard !isEnded, !isClosing else { return }
        makeRoom(for: input.count, following: following)
        let start = openRun.count
        do throws(AppendInputError) {
            let head = try AppendInputDecoder.decode(input, into: &openRun)
            add(head, bytes: openRun.count - start)
            openCount += 1
        } catch {
            if openCount == 0 { dropRun() }
            throw error
        }
        if openRun.count >= Self.runBytesMax { sendRun() } else { list() }
    }

    /// In the open run, or else in a new one.
    private func makeRoom(for count: Int, following: Int) {
        // The prefixes of the records take more room than the input's own framing, by little.
        let room = count + count / 4 + 64
        if openRun.count + room <= openCapacity { return }
        if openRun.count > Self.copiedBytesMax { sendRun() }
        let start = openRun.count
        let wanted = max(start + room + following + following / 8, 4 * start)
        openCapacity = min(wanted, start + room + Self.runBytesMax)
        var larger = ByteWriter(into: path.runMemory.take(openCapacity))
        larger.write(openRun.finish())
        openRun = larger
    }

    private func dropRun() {
        openRun = ByteWriter(capacity: 0)
        openCapacity = 0
        openCount = 0
    }

    /// Passes on a batch that is a message for the channel already.
    func submit(_ message: Bytes, _ head: PreparedBatch.Head) {
        guard !isEnded, !isClosing else { return }
        add(head, bytes: message.count)
        account()
        send(message, batches: 1)
    }

    private func add(_ head: PreparedBatch.Head, bytes: Int) {
        let batch = Batch(bytes: bytes, count: head.count, meteredBytes: head.meteredBytes)
        unanswered.batches.append(batch)
        bytesInFlight += batch.budgetBytes
        untakenBytes += batch.budgetBytes
    }

    /// Takes what was submitted from the budgets.
    func account() {
        guard untakenBytes > 0 else { return }
        share.take(untakenBytes)
        untakenBytes = 0
    }

    private func list() {
        guard !isListed else { return }
        isListed = true
        path.atTurnEnd(self)
    }

    /// The turn is over: tells its answers and sends its batches.
    func turnEnded() {
        isListed = false
        settle()
        sendRun()
    }

    private func sendRun() {
        guard openCount > 0, !isEnded else { return }
        let count = openCount
        let message = openRun.finish(room: openCapacity)
        dropRun()
        account()
        send(message, batches: count)
    }

    private func send(_ message: Bytes, batches count: Int) {
        unanswered.runs.append(
            Run(message: message, submitted: path.world.loop.now, unanswered: count))
        if watchdog == nil { watch() }
        if let call {
            unanswered.issued += count
            call.send(message)
        } else {
            resolve()
        }
    }

    // MARK: The end

    /// No more batches will come. What is on the way still arrives, and holds its budget till then.
    func close() {
        guard !isEnded else { return }
        isClosing = true
        if isIdle { end() }
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
        if unanswered.batches.isEmpty { call?.finishSending() } else { call?.cancel() }
        let taken = bytesInFlight - untakenBytes
        if taken > 0 { share.giveBack(taken) }
        bytesInFlight = 0
        untakenBytes = 0
        unanswered = Unanswered()
        dropRun()
        replies = []
        share.leave()
        // The closures refer to whoever holds this pipe.
        onAcks = nil
        onFailure = nil
    }

    private func fail(_ error: APIError) {
        guard !isEnded else { return }
        settle()
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
                found = .success(try await seekOwner())
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

    private func seekOwner() async throws(APIError) -> Owner {
        do throws(APIError) {
            return isOwnerDoubtful
                ? try await path.cell.freshOwner(of: lookup.stream)
                : try await path.cell.owner(for: lookup)
        } catch {
            if hasAnswered { throw error }
            lookup = try await named.findAgain(after: error)
            return try await path.cell.owner(for: lookup)
        }
    }

    private func open(_ owner: Owner) {
        let call = path.world.calls.call(
            owner.address, .append,
            AppendOpen(
                stream: lookup.stream.id, streamlet: owner.streamlet, isPatient: waitsOut
            ).encoded(), deadline: nil)
        self.call = call
        call.onMessage = { [self] in answered($0) }
        call.onEnd = { [self] in ended($0, $1) }
        for run in unanswered.runs { call.send(run.message.dropFirst(run.answeredBytes)) }
        unanswered.issued = unanswered.batches.count - openCount
    }

    /// One or more replies, back to back.
    private func answered(_ message: Bytes) {
        hasAnswered = true
        settled.messageBytes += message.count
        if replies.isEmpty { replies.reserveCapacity(message.count / AppendReply.byteCount) }
        let now = path.world.loop.now
        // Batches of one run took the same time: they are recorded together.
        var waits = (submitted: now, count: 0)
        defer { path.metrics.appendSeconds.record(now - waits.submitted, count: waits.count) }
        var reader = ByteReader(message)
        repeat {
            let reply: AppendReply
            do throws(DecodeError) {
                reply = try AppendReply(decoding: &reader)
            } catch {
                return fail(.indefinite("the channel's answer cannot be read"))
            }
            guard let (batch, submitted) = unanswered.take(reply) else {
                return fail(.indefinite("the channel's answer does not fit the append"))
            }
            settled.add(batch)
            replies.append(reply)
            if submitted != waits.submitted {
                path.metrics.appendSeconds.record(now - waits.submitted, count: waits.count)
                waits = (submitted, 0)
            }
            waits.count += 1
        } while !reader.isAtEnd
        list()
    }

    /// Tells the answers of this turn, and gives back what they held.
    private func settle() {
        guard !replies.isEmpty, !isEnded else { return }
        account()
        let settled = settled
        self.settled = Settlement()
        var replies = replies
        self.replies = []
        refusals = 0
        call?.consumed(settled.messageBytes)
        bytesInFlight -= settled.budgetBytes
        share.giveBack(settled.budgetBytes)
        path.metrics.acknowledged(
            batches: replies.count, records: settled.records, bytes: settled.meteredBytes)
        onAcks?(replies)
        // Their memory serves the next answers.
        if self.replies.isEmpty, !isEnded, replies.capacity <= Self.repliesKeptMax {
            replies.removeAll(keepingCapacity: true)
            self.replies = replies
        }
        if isClosing, isIdle, !isEnded { end() }
    }

    private func ended(_ status: Status, _ payload: Bytes) {
        call = nil
        settle()
        guard !isEnded else { return }
        let wereIssued = unanswered.issued
        unanswered.issued = 0
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
        guard !unanswered.batches.isEmpty else { return }
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
        guard let oldest = unanswered.runs.first else { return }
        let due = oldest.submitted + path.limits.callNanoseconds
        watchdog = path.world.loop.after(due - path.world.loop.now) { [weak self] in
            guard let self, !self.isEnded else { return }
            self.watchdog = nil
            self.checkOldest()
        }
    }

    private func checkOldest() {
        guard let oldest = unanswered.runs.first else { return }
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
        case .rateLimited: return APIError(.rateLimited, "appends to this stream come too fast")
        case .malformed, .unknownMethod:
            return APIError(.other, "the channel did not understand the append")
        default: return .indefinite("the stream's channel was lost (\(status))")
        }
    }
}
