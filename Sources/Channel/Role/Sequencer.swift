// SPDX-License-Identifier: Apache-2.0

internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// Gives batches their place in a stream: checks their conditions against the assigned state,
/// numbers and stamps their records, copies them once into memory of the log, and applies their
/// commands.
final class Sequencer {
    enum Verdict {
        /// In the log; the reply follows once its chunk is stable.
        case sequenced
        /// No room now: the session is called again.
        case blocked
        /// Nothing was done, and the session is over. The verdict reveals what chunk `seenIn`
        /// holds.
        case refused(Status, Bytes, seenIn: ChunkIndex?)
    }

    private let log: LogWriter
    let loop: any Loop
    private let limits: ChannelLimits
    private let hasRates: Bool
    private let queue: AppendQueue
    private let refusedForRate: Counter
    private let refusedForDelay: Counter

    init(log: LogWriter, world: ChannelWorld, limits: ChannelLimits) {
        self.log = log
        loop = world.loop
        self.limits = limits
        hasRates = limits.streamBytesPerSecondMax != nil || limits.batchesPerSecondMax != nil
        queue = AppendQueue(log: log, world: world)
        refusedForRate = world.metrics.counter(
            "appends_rate_limited_total", help: "Single appends refused for a rate limit.")
        refusedForDelay = world.metrics.counter(
            "appends_shed_total", help: "Single appends refused after too long a wait for room.")
    }

    /// Sequences the next batch of a message.
    func append(
        from reader: inout ByteReader, to streamlet: OpenStreamlet, for session: AppendSession
    ) -> Verdict {
        let start = reader.offset
        do throws(DecodeError) {
            let batch = try PreparedBatch.next(of: &reader)
            return try append(
                batch, to: streamlet, for: session, messageBytes: reader.offset - start)
        } catch {
            return .refused(.malformed, Bytes(utf8: error.description), seenIn: nil)
        }
    }

    private func append(
        _ batch: PreparedBatch, to streamlet: OpenStreamlet, for session: AppendSession,
        messageBytes: Int
    ) throws(DecodeError) -> Verdict {
        if log.hasFailed { return .refused(.unavailable, Bytes(), seenIn: nil) }
        if streamlet.isDeleted { return .refused(.streamDeleted, Bytes(), seenIn: nil) }
        switch streamlet.phase {
        case .open: break
        case .closed: return .refused(.notOwner, Bytes(), seenIn: nil)
        case .closing:
            // The close may not come about for as long as metadata is away: nobody else can have
            // the stream before, so the session waits.
            streamlet.whenClosed { [weak session] in session?.resume() }
            if !session.isPatient {
                loop.after(limits.shedNanoseconds) { [weak self, weak session] in
                    guard let self, let session, session.isHeld else { return }
                    shed(session)
                }
            }
            return .blocked
        }
        let placed = try SequencedBatch(
            batch, from: streamlet.assigned.tail.seqNum,
            timestamps: streamlet.timestamps(now: loop.wallMilliseconds))
        if batch.hasConditions, let (rejection, seenIn) = streamlet.refusal(batch.conditions) {
            return .refused(.rejected, rejection.encoded(), seenIn: seenIn)
        }
        guard placed.isComplete else { return .refused(.timestampMissing, Bytes(), seenIn: nil) }
        if hasRates, let verdict = hold(session, streamlet, placed) { return verdict }
        guard queue.admit(placed.storedBytes, of: streamlet) else {
            queue.join(session, bytes: placed.storedBytes)
            return .blocked
        }
        if hasRates { pass(session, streamlet, placed) }
        log.append(placed, to: streamlet, for: session, messageBytes: messageBytes)
        if placed.hasCommands {
            applyCommands(batch, streamlet, from: placed.start.seqNum)
            log.noteCommands(of: streamlet)
        }
        return .sequenced
    }

    /// Ends `session` once chunk `index` is stable: at once, if it is (or if nil).
    func end(
        _ session: AppendSession, _ status: Status, _ payload: Bytes, until index: ChunkIndex?
    ) {
        log.end(session, status, payload, until: index)
    }

    /// There may be room again.
    func unblock() { queue.serve() }

    /// The session is over.
    func forget(_ session: AppendSession) { queue.leave(session) }

    /// Refuses the single appends that have waited for too long: their clients can do something
    /// better than wait, and know that nothing was done.
    func shed() {
        for session in queue.takeImpatient(since: loop.now - limits.shedNanoseconds) {
            shed(session)
        }
    }

    private func shed(_ session: AppendSession) {
        refusedForDelay.add()
        session.refuse(.overloaded)
    }

    // MARK: Rates

    /// Why a batch may not be taken yet; nil if the rates let it pass.
    private func hold(
        _ session: AppendSession, _ streamlet: OpenStreamlet, _ batch: SequencedBatch
    ) -> Verdict? {
        let now = loop.now
        let bytesDelay = streamlet.paces.bytes.delay(at: now)
        if session.isPatient {
            let batchesDelay = session.pace.delay(at: now)
            if batchesDelay > 0 {
                loop.after(batchesDelay) { [weak session] in session?.resume() }
                return .blocked
            }
            guard bytesDelay > 0 else { return nil }
            queue.join(session, bytes: batch.storedBytes, notBefore: now + bytesDelay)
            return .blocked
        }
        guard bytesDelay > 0 || streamlet.paces.batches.delay(at: now) > 0 else { return nil }
        refusedForRate.add()
        return .refused(.rateLimited, Bytes(), seenIn: nil)
    }

    private func pass(
        _ session: AppendSession, _ streamlet: OpenStreamlet, _ batch: SequencedBatch
    ) {
        let now = loop.now
        if let rate = limits.streamBytesPerSecondMax {
            streamlet.paces.bytes.pass(batch.storedBytes, perSecond: rate, at: now)
        }
        guard let rate = limits.batchesPerSecondMax else { return }
        if session.isPatient {
            session.pace.pass(1, perSecond: rate, at: now)
        } else {
            streamlet.paces.batches.pass(1, perSecond: rate, at: now)
        }
    }

    private func applyCommands(
        _ batch: PreparedBatch, _ streamlet: OpenStreamlet, from first: SeqNum
    ) {
        do throws(DecodeError) {
            let records = try PreparedRecords(batch)
            var own = first
            for record in records {
                if record.isCommand {
                    let command = try Command(storedFields: records.fields(of: record))
                    streamlet.apply(command, own: own)
                }
                own += 1
            }
        } catch {
            preconditionFailure("a checked command decodes: \(error)")
        }
    }
}
