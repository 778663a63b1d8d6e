// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// Asks for a stream's tail and for plans: its channel while it has one, the metadata else.
///
/// A channel that refuses, or cannot be reached, leads to a fresh look at the metadata; that a
/// stream is dormant is believed of a fresh look only. While a dead channel awaits its recovery
/// nobody knows the tail, and the reader waits, as long as one call may take.
struct ReadPlanning {
    let path: DataPath
    let stream: Stream

    static let pointersMax = 512
    private static let segmentsMax = 64

    /// The stable tail, as of now. `known` was looked up for this request, or is nil.
    func tail(_ known: StreamLookup?) async throws(APIError) -> StreamPosition {
        try await asking(known) { lookup, deadline throws(APIError) in
            guard let owner = lookup.owner else { return lookup.stream.state.tail }
            let answer = await path.tails.ask(owner, stream.id, deadline: deadline)
            try refuseDeleted(answer.status)
            guard answer.status == .ok else { return nil }
            do throws(DecodeError) {
                return try TailReply(answer.payload).tail
            } catch {
                throw unreadable(.tail, error)
            }
        }
    }

    /// Where the records from `start` on are, as of now.
    func plan(_ known: StreamLookup?, from start: ReadStart) async throws(APIError) -> ReadPlan {
        path.metrics.readPlans.add()
        return try await asking(known) { lookup, deadline throws(APIError) in
            let askedAt = path.world.loop.now
            var reply: PlanReply?
            if let owner = lookup.owner {
                reply = try await ask(owner, start, deadline)
                if reply == nil { return nil }
            }
            let page = needsMetadata(start, reply) ? try await segments(start) : nil
            if reply == nil, let page, page.lookup?.owner != nil {
                // Not dormant any more: what it got since is with its channel.
                return nil
            }
            do throws(ReadPlan.Gap) {
                var plan = try ReadPlan(
                    from: start, channel: reply, pointersMax: Self.pointersMax, metadata: page)
                plan.askedAt = askedAt
                return plan
            } catch {
                path.world.log.warning(
                    "plan_gap", [("stream", "\(stream.id)"), ("seq_num", "\(error.at)")])
                return nil
            }
        }
    }

    /// Asks until there is an answer (nil is none), first by what is known, then by fresh looks.
    private func asking<Answer>(
        _ known: StreamLookup?,
        _ ask: (StreamLookup, Nanoseconds) async throws(APIError) -> Answer?
    ) async throws(APIError) -> Answer {
        let start = path.world.loop.now
        let backoff = Backoff(
            first: .milliseconds(10), delayMax: .milliseconds(500), triesMax: .max,
            budget: path.limits.callNanoseconds)
        // What the caller has just read, or a cached owner, which would refuse if it is none. (A
        // plan that rests on an old "dormant" sees in its snapshot whether that is still true.)
        var believed = known?.owner?.channelIsActive ?? true ? known : nil
        var tries = 0
        while true {
            let lookup: StreamLookup
            if let believed {
                lookup = believed
            } else {
                lookup = try await path.cell.reread(stream)
            }
            let left = path.limits.callNanoseconds - (path.world.loop.now - start)
            if left > 0, lookup.owner?.channelIsActive ?? true,
                let answer = try await ask(lookup, left)
            {
                return answer
            }
            // The first fresh look follows at once.
            let wasBelieved = believed != nil
            believed = nil
            if wasBelieved { continue }
            tries += 1
            guard
                let delay = backoff.delay(
                    afterTries: tries, elapsed: path.world.loop.now - start,
                    random: path.world.random.next())
            else { throw APIError(.unavailable, "the stream's channel cannot be reached now") }
            await path.world.loop.sleep(delay)
        }
    }

    private func ask(
        _ owner: Owner, _ start: ReadStart, _ deadline: Nanoseconds
    ) async throws(APIError) -> PlanReply? {
        let wanted: PlanRequest.Start =
            switch start {
            case .seqNum(let seqNum): .seqNum(seqNum)
            case .timestamp(let timestamp): .timestamp(timestamp)
            }
        let request = PlanRequest(
            stream: stream.id, streamlet: owner.streamlet, start: wanted,
            limit: UInt32(Self.pointersMax))
        let (status, payload) = await path.world.calls.unary(
            owner.address, .plan, request.encoded(), deadline: deadline)
        try refuseDeleted(status)
        guard status == .ok else { return nil }
        do throws(DecodeError) {
            return try PlanReply(payload)
        } catch {
            throw unreadable(.plan, error)
        }
    }

    /// Whether records of interest may lie below what the channel still points to.
    private func needsMetadata(_ start: ReadStart, _ reply: PlanReply?) -> Bool {
        guard let reply else { return true }
        guard reply.flushedEnd > reply.trimPoint else { return false }
        if case .seqNum(let seqNum) = start {
            return max(seqNum, reply.trimPoint) < reply.flushedEnd
        }
        return true
    }

    private func segments(_ start: ReadStart) async throws(APIError) -> SegmentPage {
        let page: SegmentPage
        do throws(MetadataError) {
            page = try await path.world.metadata.segments(
                of: stream.id, from: start, limit: Self.segmentsMax)
        } catch {
            throw APIError(error, about: .stream)
        }
        guard let found = page.lookup else { throw Cell.notFound(stream.name) }
        if found.stream.deletedMilliseconds != nil { throw Cell.deletionPending(stream.name) }
        return page
    }

    private func refuseDeleted(_ status: Status) throws(APIError) {
        if status == .streamDeleted { throw Cell.deletionPending(stream.name) }
    }

    private func unreadable(_ method: Method, _ error: DecodeError) -> APIError {
        path.world.log.error("bad_reply", [("method", "\(method)"), ("error", "\(error)")])
        return APIError(.other, "the channel's answer cannot be read")
    }
}
