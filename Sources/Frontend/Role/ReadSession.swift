// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import HTTP
internal import Metadata
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// One read, from its start to its end: catch-up from objects, then the live tail.
///
/// It always knows the one record that it needs next, `position`, and never delivers anything else.
/// While records are at rest it plans and fetches; once it has reached the tail it joins the
/// stream's follow at that position, and whenever it falls out (too slow a client, a channel lost)
/// it plans again from there. Limits are subtracted by what was delivered, and survive all of that.
final class ReadSession: FollowReader {
    enum Phase {
        case planning
        case catchingUp(ReadCatchUp)
        /// Fell behind the follow, and the client has yet to take what it was sent.
        case stalled
        case joining
        case following
        case over
    }
    let path: DataPath
    let exchange: any HTTPExchange
    let sink: any ReadSink
    let query: ReadQuery
    private(set) var lookup: StreamLookup
    private var planning: ReadPlanning
    private let arrived: Nanoseconds
    let share: ResponseBudget.Share
    private var session: UInt64 = 0
    var phase = Phase.planning
    var limits: ReadLimits
    var position: SeqNum = 0
    /// The stable tail, where it is right at `position`.
    var reached: StreamPosition?
    var deliveredCount = 0
    /// The first record of a start by timestamp was not found yet.
    var isSeeking = false
    /// What `lookup` says of the owner was refused.
    var isOwnerDoubtful = false

    // Catching up.
    private var open = ReadDelivery()
    private var rest: Bytes?
    /// What a unary sink gathers until the end.
    private var gatheredBytes = 0
    private var openTimer: Timer?
    private var isOpenOverdue = false
    var plansWithoutProgress = 0
    var stuckSince: Nanoseconds?

    // At the tail.
    var lagging: Deque<FollowPush> = []
    var laggingBytes = 0
    let timers: ReadTimers

    private static let plansWithoutProgressMax = 8
    /// How long a batch that could be sent waits for the records behind it.
    private static let gatherNanoseconds: Nanoseconds = .milliseconds(100)

    init(
        _ path: DataPath, _ exchange: any HTTPExchange, _ named: NamedStream,
        lookup: StreamLookup, query: ReadQuery, sink: any ReadSink, arrived: Nanoseconds
    ) {
        self.path = path
        self.exchange = exchange
        self.lookup = lookup
        self.query = query
        self.sink = sink
        self.arrived = arrived
        limits = query.limits
        planning = ReadPlanning(path: path, stream: lookup.stream)
        share = ResponseBudget.Share(path.responses, exchange)
        timers = ReadTimers(
            world: path.world, silence: path.limits.heartbeatNanoseconds,
            waitSeconds: query.waitSeconds)
        timers.onWaitOver = { [weak self] in self?.waitEnded() }
        timers.onSilence = { [weak self] in self?.beat() }
        share.resume = { [weak self] in self?.advance() }
        share.shrink = { [weak self] in self?.shrink() }
        share.onEviction = { [weak self] in self?.evict() }
        exchange.onAbort = { [self] in
            leave()
            share.end(isGone: true)
        }
        exchange.onWritable = { [self] in advance() }
        path.metrics.readSessions += 1
        session = path.opened { [self] in
            fail(APIError(.serverDraining, "this server is about to stop"))
        }
        path.world.loop.spawn { [self] in await begin(named) }
    }

    var isOver: Bool { if case .over = phase { true } else { false } }

    // MARK: The start

    private func begin(_ named: NamedStream) async {
        do throws(APIError) {
            do throws(APIError) {
                try await begin()
            } catch {
                lookup = try await named.findAgain(after: error)
                planning = ReadPlanning(path: path, stream: lookup.stream)
                try await begin()
            }
        } catch {
            fail(error)
        }
    }

    /// Throws before anything was answered.
    private func begin() async throws(APIError) {
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
        // What is behind it was trimmed meanwhile: an answer in one piece has no hole.
        if sink.isUnary, deliveredCount > 0, plan.position > position { return end() }
        position = plan.position
        let source = ReadCatchUp(path, plan, begin: start, share: share)
        phase = .catchingUp(source)
        source.onReady = { [weak self] in self?.advance() }
        advance()
    }

    func planAgain(at start: ReadStart) {
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
    func advance() {
        switch phase {
        case .catchingUp(let source): deliver(from: source)
        case .following: deliverLagging()
        case .stalled: if hasRoom { planAgain(at: .seqNum(position)) } else { holdBack() }
        case .planning, .joining, .over: break
        }
        countQueued()
    }

    /// Whether more is to be sent now. Once this is false, call `holdBack` in the same turn: it
    /// must find the budget as this did.
    var hasRoom: Bool {
        share.measure()
        return share.unsent < path.limits.responseBufferBytesMax && share.isReady
    }

    var isTight: Bool { path.responses.isTight }

    /// The exchange has passed its own high mark, so `onWritable` will follow; or the budget is
    /// tight, and calls.
    func holdBack() {
        if isTight { share.wait() }
    }

    func countQueued() {
        guard !isOver else { return }
        let queued = open.storedBytes + laggingBytes + gatheredBytes
        if queued != share.queued { share.queued = queued }
    }

    /// The budget is tight, and the client takes nothing: others need what is fetched more.
    private func shrink() {
        switch phase {
        case .catchingUp(let source):
            source.rewind(to: position, isUnread: rest != nil)
            rest = nil
            share.wait()
        case .following: if !lagging.isEmpty { fallBehind() }
        case .planning, .stalled, .joining, .over: break
        }
        countQueued()
    }

    private func deliver(from source: ReadCatchUp) {
        while hasRoom || sink.isUnary {
            guard case .catchingUp(let current) = phase, current === source else { return }
            if sink.isUnary, isTight, gatheredBytes >= ResponseBudget.smallBatchBytes {
                return end()
            }
            if let run = rest {
                rest = nil
                take(run, source)
                continue
            }
            // What was taken of the last run is counted before the source lets go of that.
            countQueued()
            switch source.next() {
            case .run(let run): take(run, source)
            case .wait:
                // While bytes are scarce nothing waits for company.
                let isDue = open.count > 0 && (isOpenOverdue || isTight)
                if isDue { send(source) } else { awaitMore() }
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
        holdBack()
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
            if isTight { bounds.storedBytesMax = ResponseBudget.smallBatchBytes }
            bounds.storedBytesMax -= open.storedBytes
            guard bounds.recordsMax > 0 else {
                rest = run
                return send(source)
            }
            let cut = try limits.cut(run, within: bounds)
            // A single record is never too large for a batch of its own, but may be for this one.
            let fits =
                cut.meteredBytes <= bounds.meteredBytesMax
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
    func check(_ cut: RecordCut, _ last: StreamPosition) throws(DecodeError) -> SeqNum {
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

    func emit(_ delivery: ReadDelivery) {
        guard delivery.count > 0, !isOver else { return }
        plansWithoutProgress = 0
        stuckSince = nil
        deliveredCount += delivery.count
        path.metrics.delivered(records: delivery.count, bytes: delivery.meteredBytes)
        timers.delivered()
        do throws(APIError) {
            try sink.deliver(delivery)
            if sink.isUnary { gatheredBytes += delivery.storedBytes }
            share.measure()
            countQueued()
        } catch {
            fail(error)
        }
    }

    // MARK: The end

    func end() {
        guard !isOver else { return }
        leave()
        sink.end()
        share.end(isGone: false)
    }

    func fail(_ error: APIError) {
        guard !isOver else { return }
        path.metrics.readFailures.add()
        leave()
        sink.fail(error)
        share.end(isGone: false)
    }

    /// The client takes next to nothing, and others wait for what it holds.
    private func evict() {
        guard !isOver else { return }
        path.metrics.readEvictions.add()
        leave()
        exchange.abort()
        share.end(isGone: true)
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
