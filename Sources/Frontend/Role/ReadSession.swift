// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import HTTP
internal import Metadata
internal import Observability
internal import Primitives
internal import Records
internal import RPC

/// One read, from its start to its end: catch-up from objects, then the live tail.
///
/// It always knows the one record that it needs next, `position`, and never delivers anything else.
/// While records are at rest it plans and fetches; once it has reached the tail it joins the
/// stream's follow at that position, and whenever it falls out (too slow a client, a channel lost)
/// it plans again from there. Limits are subtracted by what was delivered, and survive all of that.
final class ReadSession: FollowReader {
    private enum Phase {
        case planning
        case catchingUp(ReadCatchUp)
        /// Fell behind the follow, and the client has yet to take what it was sent.
        case stalled
        case joining
        case following
        case over
    }
    private let path: DataPath
    private let exchange: any HTTPExchange
    private let sink: any ReadSink
    private let query: ReadQuery
    private let lookup: StreamLookup
    private let planning: ReadPlanning
    private let arrived: Nanoseconds
    private var session: UInt64 = 0
    private var phase = Phase.planning
    private var limits: ReadLimits
    private(set) var position: SeqNum = 0
    /// The stable tail, where it is right at `position`.
    private var reached: StreamPosition?
    private var deliveredCount = 0
    /// The first record of a start by timestamp was not found yet.
    private var isSeeking = false
    /// What `lookup` says of the owner was refused.
    private var isOwnerDoubtful = false

    // Catching up.
    private var open = ReadDelivery()
    private var rest: Bytes?
    private var openTimer: Timer?
    private var isOpenOverdue = false
    private var plansWithoutProgress = 0
    private var stuckSince: Nanoseconds?

    // At the tail.
    private var lagging: Deque<FollowPush> = []
    private var laggingBytes = 0
    private let timers: ReadTimers

    private static let plansWithoutProgressMax = 8
    /// How long a batch that could be sent waits for the records behind it.
    private static let gatherNanoseconds: Nanoseconds = .milliseconds(100)

    init(
        _ path: DataPath, _ exchange: any HTTPExchange, lookup: StreamLookup, query: ReadQuery,
        sink: any ReadSink, arrived: Nanoseconds
    ) {
        self.path = path
        self.exchange = exchange
        self.lookup = lookup
        self.query = query
        self.sink = sink
        self.arrived = arrived
        limits = query.limits
        planning = ReadPlanning(path: path, stream: lookup.stream)
        timers = ReadTimers(
            world: path.world, silence: path.limits.heartbeatNanoseconds,
            waitSeconds: query.waitSeconds)
        timers.onWaitOver = { [weak self] in self?.waitEnded() }
        timers.onSilence = { [weak self] in self?.beat() }
        exchange.onAbort = { [self] in leave() }
        exchange.onWritable = { [self] in advance() }
        path.metrics.readSessions += 1
        session = path.opened { [self] in
            fail(APIError(.serverDraining, "this server is about to stop"))
        }
        path.world.loop.spawn { [self] in await begin() }
    }

    private var isOver: Bool { if case .over = phase { true } else { false } }

    // MARK: The start

    private func begin() async {
        do throws(APIError) {
            let start: ReadStart
            switch query.origin {
            case .seqNum(let seqNum): start = .seqNum(seqNum)
            case .timestamp(let timestamp): start = .timestamp(timestamp)
            case .tailOffset:
                let tail = try await planning.tail(lookup)
                guard case .seqNum(let seqNum) = query.place(tail: tail) else {
                    throw APIError.beyondTail(tail)
                }
                if seqNum == tail.seqNum { return began(at: tail) }
                start = .seqNum(seqNum)
            }
            let plan = try await planning.plan(lookup, from: start)
            // An offset was resolved before: the plan may know a later tail, which changes nothing.
            if case .tailOffset = query.origin { return began(plan, from: start) }
            switch query.place(tail: plan.tail) {
            case .beyondTail: throw APIError.beyondTail(plan.tail)
            case .seqNum(plan.tail.seqNum): began(at: plan.tail)
            case .seqNum, .timestamp: began(plan, from: start)
            }
        } catch {
            fail(error)
        }
    }

    private func began(at tail: StreamPosition) {
        guard !isOver else { return }
        answer()
        position = tail.seqNum
        atTail(tail)
    }

    private func began(_ plan: ReadPlan, from start: ReadStart) {
        guard !isOver else { return }
        answer()
        if case .timestamp = start { isSeeking = true }
        catchUp(plan, start)
    }

    private func answer() {
        path.metrics.readFirstByteSeconds.record(path.world.loop.now - arrived)
        sink.begin()
    }

    // MARK: Catching up

    private func catchUp(_ plan: ReadPlan, _ start: ReadStart) {
        position = plan.position
        let source = ReadCatchUp(path, plan, begin: start)
        phase = .catchingUp(source)
        source.onReady = { [weak self] in self?.advance() }
        advance()
    }

    private func planAgain(at start: ReadStart) {
        closeSource()
        phase = .planning
        plansWithoutProgress += 1
        guard plansWithoutProgress <= Self.plansWithoutProgressMax else {
            return fail(APIError(.unavailable, "the records cannot be read now"))
        }
        path.world.loop.spawn { [self] in
            // The first new plan is made at once.
            if plansWithoutProgress > 1 {
                await path.world.loop.sleep(.milliseconds(20 << Int64(plansWithoutProgress)))
            }
            guard !isOver else { return }
            do throws(APIError) {
                let known = isOwnerDoubtful || plansWithoutProgress > 1 ? nil : lookup
                let plan = try await planning.plan(known, from: start)
                if !isOver { catchUp(plan, start) }
            } catch {
                fail(error)
            }
        }
    }

    private func closeSource() {
        if case .catchingUp(let source) = phase { source.close() }
        openTimer?.cancel()
        openTimer = nil
        isOpenOverdue = false
        rest = nil
        open = ReadDelivery()
    }

    /// Does what can be done now: the client, or what was waited for, is ready.
    private func advance() {
        switch phase {
        case .catchingUp(let source): deliver(from: source)
        case .following: deliverLagging()
        case .stalled: if hasRoom { planAgain(at: .seqNum(position)) }
        case .planning, .joining, .over: break
        }
    }

    /// Once this is false the exchange has passed its own high mark, so `onWritable` will follow.
    private var hasRoom: Bool {
        exchange.unsentBytes < path.limits.responseBufferBytesMax
    }

    private func deliver(from source: ReadCatchUp) {
        while hasRoom || sink.isUnary {
            guard case .catchingUp(let current) = phase, current === source else { return }
            if let run = rest {
                rest = nil
                take(run, source)
                continue
            }
            switch source.next() {
            case .run(let run): take(run, source)
            case .wait:
                if open.count > 0, isOpenOverdue { send(source) } else { awaitMore() }
                return
            case .done:
                if open.count > 0 { send(source) }
                if !isOver { finished(source) }
                return
            case .planAgain:
                if open.count > 0 { send(source) }
                if !isOver { planAgain(at: restart) }
                return
            case .failed(let error): return fail(error)
            }
        }
    }

    /// Where the next plan begins: a timestamp is looked for until something was found.
    private var restart: ReadStart {
        if isSeeking, case .timestamp(let timestamp) = query.origin { return .timestamp(timestamp) }
        return .seqNum(position)
    }

    private func finished(_ source: ReadCatchUp) {
        let tail = source.plan.tail
        // No record is as young as the wanted timestamp any more: the tail it is.
        if isSeeking, source.plan.reachesTail { position = max(position, tail.seqNum) }
        guard source.plan.reachesTail, position >= tail.seqNum else {
            return planAgain(at: restart)
        }
        closeSource()
        atTail(tail)
    }

    /// Sends what is there if nothing joins it in time.
    private func awaitMore() {
        guard open.count > 0, openTimer == nil, !sink.isUnary else { return }
        openTimer = path.world.loop.after(Self.gatherNanoseconds) { [weak self] in
            self?.openTimer = nil
            self?.isOpenOverdue = true
            self?.advance()
        }
    }

    /// Adds as much of `run` to the open batch as fits, and keeps the rest for the next one.
    private func take(_ run: Bytes, _ source: ReadCatchUp) {
        do throws(DecodeError) {
            var bounds = ReadBatchBounds.standard
            bounds.recordsMax -= open.count
            bounds.meteredBytesMax -= open.meteredBytes
            bounds.storedBytesMax -= open.storedBytes
            guard bounds.recordsMax > 0 else {
                rest = run
                return send(source)
            }
            let cut = try limits.cut(run, within: bounds)
            // A single record is never too large for a batch of its own, but may be for this one.
            let fits = cut.meteredBytes <= bounds.meteredBytesMax
                && cut.records.count <= bounds.storedBytesMax
            guard open.count == 0 || fits else {
                rest = run
                return send(source)
            }
            if let last = cut.last {
                let first = try check(cut, last)
                open.add(cut, first: first, last: last)
                limits.subtract(cut)
                position = last.seqNum + 1
                isSeeking = false
            }
            switch cut.stop {
            case .limitReached:
                if open.count > 0 { send(source) }
                if !isOver { end() }
            case .batchFull:
                rest = run.dropFirst(cut.records.count)
                send(source)
            case .runEnded: break
            }
        } catch {
            path.world.log.error("bad_records", [("error", "\(error)")])
            fail(APIError(.storage, "stored records cannot be read"))
        }
    }

    /// The first sequence number; throws unless the records are those that are due.
    private func check(_ cut: RecordCut, _ last: StreamPosition) throws(DecodeError) -> SeqNum {
        var walk = StoredRecords(cut.records)
        let first = try walk.nextHead()?.position.seqNum ?? 0
        // A timestamp may begin anywhere behind the plan's position.
        let isDue = first == position || (isSeeking && first > position)
        guard isDue, last.seqNum &- first == UInt64(cut.count - 1) else {
            throw DecodeError(
                .malformed("records \(first)...\(last.seqNum) where \(position) is due"), at: 0)
        }
        return first
    }

    private func send(_ source: ReadCatchUp) {
        openTimer?.cancel()
        openTimer = nil
        isOpenOverdue = false
        var delivery = open
        open = ReadDelivery()
        if position == source.plan.tail.seqNum { delivery.tail = source.plan.tail }
        emit(delivery)
    }

    private func emit(_ delivery: ReadDelivery) {
        guard delivery.count > 0, !isOver else { return }
        plansWithoutProgress = 0
        stuckSince = nil
        deliveredCount += delivery.count
        path.metrics.delivered(records: delivery.count, bytes: delivery.meteredBytes)
        timers.delivered()
        do throws(APIError) {
            try sink.deliver(delivery)
        } catch {
            fail(error)
        }
    }

    // MARK: At the tail

    private func atTail(_ tail: StreamPosition) {
        if limits.isExhausted || !query.mayFollow { return end() }
        if sink.isUnary, deliveredCount > 0 { return end() }
        guard timers.beginWait() else { return end() }
        reached = tail.seqNum == position ? tail : nil
        join()
    }

    private func join() {
        phase = .joining
        isSeeking = false
        path.hub.join(self, lookup, isOwnerDoubtful: isOwnerDoubtful)
    }

    func followBegan() {
        guard case .joining = phase else { return }
        phase = .following
        isOwnerDoubtful = false
        stuckSince = nil
        plansWithoutProgress = 0
        if let reached, reached.seqNum == position, lagging.isEmpty { sink.heartbeat(reached) }
        if !sink.isUnary { timers.beginSilence() }
    }

    func followPushed(_ push: FollowPush) {
        switch phase {
        case .joining, .following: break
        case .planning, .catchingUp, .stalled, .over: return
        }
        let end = push.firstSeqNum + UInt64(push.count)
        guard end > (lagging.last.map { $0.firstSeqNum + UInt64($0.count) } ?? position) else {
            return
        }
        if lagging.isEmpty, hasRoom { return deliver(push) }
        lagging.append(push)
        laggingBytes += push.records.count
        if laggingBytes > path.limits.followerBufferBytesMax { fallBehind() }
    }

    /// The client is too slow: what it still needs is read from objects once it takes more.
    private func fallBehind() {
        path.metrics.readFallbacks.add()
        leaveFollow()
        phase = .stalled
        advance()
    }

    private func leaveFollow() {
        path.hub.leave(self, lookup.stream.id)
        timers.endSilence()
        lagging = []
        laggingBytes = 0
        reached = nil
    }

    private func deliverLagging() {
        while hasRoom, case .following = phase, let push = lagging.popFirst() {
            laggingBytes -= push.records.count
            deliver(push)
        }
    }

    private func deliver(_ push: FollowPush) {
        do throws(DecodeError) {
            if let whole = ReadDelivery(push, at: position, limits) {
                position = push.tail.seqNum
                reached = push.tail
                emit(whole)
                if sink.isUnary { end() }
                return
            }
            guard push.firstSeqNum <= position else {
                throw DecodeError(.malformed("a push beyond the position"), at: 0)
            }
            var run = push.records
            if push.firstSeqNum < position {
                run = run.dropFirst(try StoredRecords.offset(in: run, seqNum: position))
            }
            while !run.isEmpty, !isOver {
                let cut = try limits.cut(run)
                run = run.dropFirst(cut.records.count)
                if let last = cut.last {
                    let first = try check(cut, last)
                    var delivery = ReadDelivery()
                    delivery.add(cut, first: first, last: last)
                    limits.subtract(cut)
                    position = last.seqNum + 1
                    if position == push.tail.seqNum { delivery.tail = push.tail }
                    emit(delivery)
                }
                if cut.stop == .limitReached, !isOver { return end() }
            }
            if isOver { return }
            reached = push.tail.seqNum == position ? push.tail : nil
            if sink.isUnary { end() }
        } catch {
            path.world.log.error("bad_push", [("error", "\(error)")])
            fail(APIError(.other, "the stream's channel sent what cannot be read"))
        }
    }

    func followEnded(_ end: FollowEnd) {
        guard !isOver else { return }
        if case .failed(let error) = end { return fail(error) }
        leaveFollow()
        let now = path.world.loop.now
        let since = stuckSince ?? now
        stuckSince = since
        if now - since > path.limits.callNanoseconds {
            return fail(APIError(.unavailable, "the stream's channel was lost"))
        }
        if end == .lost { isOwnerDoubtful = true }
        planAgain(at: .seqNum(position))
    }

    /// The wait is over. While something is on its way from objects it counts again at the tail.
    private func waitEnded() {
        switch phase {
        case .joining, .following: if lagging.isEmpty { end() }
        case .planning, .catchingUp, .stalled, .over: break
        }
    }

    private func beat() {
        guard case .following = phase, lagging.isEmpty, hasRoom, let reached,
            reached.seqNum == position
        else { return }
        sink.heartbeat(reached)
    }

    // MARK: The end

    private func end() {
        guard !isOver else { return }
        leave()
        sink.end()
    }

    private func fail(_ error: APIError) {
        guard !isOver else { return }
        path.metrics.readFailures.add()
        leave()
        sink.fail(error)
    }

    private func leave() {
        guard !isOver else { return }
        closeSource()
        leaveFollow()
        phase = .over
        timers.stop()
        exchange.onAbort = nil
        exchange.onWritable = nil
        path.metrics.readSessions -= 1
        path.closed(session)
    }
}
