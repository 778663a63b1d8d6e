// SPDX-License-Identifier: Apache-2.0

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
    /// Sessions that wait for room, first come first served.
    private var blocked: [AppendSession] = []

    var blockedCount: Int { blocked.count }

    init(log: LogWriter, loop: any Loop) {
        self.log = log
        self.loop = loop
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
            return .blocked
        }
        let placed = try SequencedBatch(
            batch, from: streamlet.assigned.tail.seqNum,
            timestamps: streamlet.timestamps(now: loop.wallMilliseconds))
        if batch.hasConditions, let (rejection, seenIn) = streamlet.refusal(batch.conditions) {
            return .refused(.rejected, rejection.encoded(), seenIn: seenIn)
        }
        guard placed.isComplete else { return .refused(.timestampMissing, Bytes(), seenIn: nil) }
        guard log.hasRoom(for: placed.storedBytes) else {
            blocked.append(session)
            return .blocked
        }
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

    /// Lets the sessions that wait for room try again.
    func unblock() {
        guard !blocked.isEmpty else { return }
        let sessions = blocked
        blocked = []
        for session in sessions { session.resume() }
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
