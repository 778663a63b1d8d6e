// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Observability
package import Primitives
package import RPC
internal import Records

/// A channel: it sequences the streams whose streamlets it has opened, makes their records durable
/// in its own log, and tells of them only then.
///
/// One incarnation, one log: the id that `start` registers is new, and when the log can go on no
/// more (somebody sealed it, the store refuses) the channel answers what is pending as indefinite
/// and exits. Recovery then decides what was durable. It never guesses and never continues past a
/// hole.
package final class ChannelRole: CallService {
    private let world: ChannelWorld
    private let limits: ChannelLimits
    private(set) var parts: Parts?
    private var isOver = false
    private var isDraining = false
    private var whenDrained: Signal<Void> = Signal()

    /// What exists once the channel has its id.
    struct Parts {
        let log: LogWriter
        let sequencer: Sequencer
        let replies: ReplyGuard
        let flusher: Flusher
        let streamlets: StreamletTable
        let reads: ReadService
    }

    package init(world: ChannelWorld, limits: ChannelLimits) {
        self.world = world
        self.limits = limits
    }

    /// This incarnation's id, once started.
    package var channel: ChannelID? { parts?.log.channel }
    /// Started, and neither draining nor over.
    package var isReady: Bool { parts != nil && !isOver && !isDraining }

    /// Registers a new incarnation, and begins to serve. Throws if metadata is away, or if the log
    /// is not empty: then the metadata is older than the store, and somebody must look.
    package func start() async throws {
        let sentAt = world.loop.now
        let channel = try await world.metadata.registerChannel(
            ChannelRegistration(
                storageClass: limits.storageClass, zone: limits.zone, address: limits.address,
                unsureMilliseconds: UInt64(limits.unsureNanoseconds / 1_000_000)))
        let found = try await world.buckets[0].store.list(
            prefix: LogKeys.logPrefix(channel), after: "", limit: 1)
        guard found.objects.isEmpty else { throw ReopenedLog(channel: channel) }
        let parts = makeParts(channel)
        self.parts = parts
        parts.replies.start(registeredAt: sentAt)
        world.log.notice("channel started", [("channel", channel.description)])
        tick()
    }

    private func makeParts(_ channel: ChannelID) -> Parts {
        let log = LogWriter(channel: channel, world: world, limits: limits)
        let sequencer = Sequencer(log: log, world: world, limits: limits)
        let replies = ReplyGuard(world: world, limits: limits, log: log)
        let flusher = Flusher(world: world, limits: limits, log: log)
        let streamlets = StreamletTable(channel: channel, world: world, limits: limits)
        let reads = ReadService(world: world, limits: limits, log: log, replies: replies)
        log.onEnd = { [unowned replies] in Self.end($0, $1, $2, replies) }
        log.onStable = { [unowned replies, unowned sequencer] end in
            replies.stable(end)
            sequencer.unblock()
        }
        log.onRecords = { [unowned reads] in reads.push($0, $1) }
        log.mayTrustTheStore = { [unowned replies] in replies.mayTrustTheStore }
        log.onFailure = { [weak self] in self?.stop($0) }
        replies.onLost = { [unowned log] in log.fail($0) }
        replies.load = { [unowned log, unowned streamlets, loop = world.loop] in
            ChannelLoad(
                bytesPerSecond: log.takeBytesPerSecond(at: loop.now),
                queueDelayMicroseconds: UInt64(log.takeQueueNanoseconds() / 1_000),
                openStreamlets: UInt64(streamlets.count))
        }
        flusher.onUnknownClose = { [unowned streamlets] in streamlets.resume($0) }
        flusher.onClosed = { [unowned streamlets] in streamlets.closed($0) }
        flusher.onFlushed = { [unowned sequencer] in sequencer.unblock() }
        flusher.onFailure = { [unowned log] in log.fail($0) }
        return Parts(
            log: log, sequencer: sequencer, replies: replies, flusher: flusher,
            streamlets: streamlets, reads: reads)
    }

    private static func end(
        _ session: AppendSession, _ status: Status, _ payload: Bytes, _ replies: ReplyGuard
    ) {
        // A rejection shows state without a new stable PUT behind it; so does one that rests on
        // the configuration, which may have changed since somebody else has the stream.
        guard status == .rejected || status == .timestampMissing else {
            return session.end(status, payload)
        }
        replies.send(
            { session.end(status, payload) }, orRefuse: { session.end(.unavailable, Bytes()) })
    }

    // MARK: Calls

    package func serve(
        _ call: any Call, method: Method, payload: Bytes, deadline: Nanoseconds?
    ) {
        guard let parts, !isOver else { return call.end(.unavailable, Bytes()) }
        do throws(DecodeError) {
            switch method {
            case .append: append(call, try AppendOpen(payload), parts)
            case .tail: tail(call, try TailRequest(payload), parts)
            case .plan: plan(call, try PlanRequest(payload), parts)
            case .follow: follow(call, try FollowRequest(payload), parts)
            case .activate: activate(call, try ActivateRequest(payload), parts)
            case .refresh: refresh(call, try RefreshRequest(payload), parts)
            case .drain:
                world.loop.spawn {
                    await self.drain()
                    call.end(.ok, Bytes())
                }
            case .fetch: call.end(.unknownMethod, Bytes())
            }
        } catch {
            call.end(.malformed, Bytes(utf8: error.description))
        }
    }

    private func append(_ call: any Call, _ open: AppendOpen, _ parts: Parts) {
        if let streamlet = parts.streamlets.find(open.stream, open.streamlet) {
            _ = AppendSession(call, streamlet, parts.sequencer, isPatient: open.isPatient)
            return
        }
        // An unknown streamlet may be ours all the same: a claim whose reply was lost.
        let early = EarlyMessages(call)
        adopt(call, open.stream, open.streamlet, parts) { streamlet in
            early.replay(
                to: AppendSession(call, streamlet, parts.sequencer, isPatient: open.isPatient))
        }
    }

    private func tail(_ call: any Call, _ request: TailRequest, _ parts: Parts) {
        adopt(call, request.stream, request.streamlet, parts) { parts.reads.tail(call, $0) }
    }

    private func plan(_ call: any Call, _ request: PlanRequest, _ parts: Parts) {
        adopt(call, request.stream, request.streamlet, parts) {
            parts.reads.plan(call, request, $0)
        }
    }

    private func follow(_ call: any Call, _ request: FollowRequest, _ parts: Parts) {
        adopt(call, request.stream, request.streamlet, parts) {
            parts.reads.follow(call, request, $0)
        }
    }

    /// Calls `body` with the streamlet, if it is ours; re-reads the metadata before it says no.
    private func adopt(
        _ call: any Call, _ stream: StreamID, _ number: StreamletNumber, _ parts: Parts,
        _ body: @escaping (OpenStreamlet) -> Void
    ) {
        if let streamlet = parts.streamlets.find(stream, number) { return body(streamlet) }
        if isDraining { return call.end(.notOwner, Bytes()) }
        world.loop.spawn {
            let status = await parts.streamlets.adopt(stream)
            if let streamlet = parts.streamlets.find(stream, number) { return body(streamlet) }
            call.end(status, Bytes())
        }
    }

    private func activate(_ call: any Call, _ request: ActivateRequest, _ parts: Parts) {
        if isDraining { return call.end(.draining, Bytes()) }
        world.loop.spawn { [limits] in
            switch await parts.streamlets.activate(request.stream) {
            case .open(let streamlet):
                let reply = ActivateReply(
                    streamlet: streamlet.number, channel: parts.log.channel,
                    address: limits.address)
                call.end(.ok, reply.encoded())
            case .elsewhere(let owner):
                let reply = ActivateReply(
                    streamlet: owner.streamlet, channel: owner.channel, address: owner.address)
                call.end(.ok, reply.encoded())
            case .refused(let status):
                call.end(status, Bytes())
            }
        }
    }

    private func refresh(_ call: any Call, _ request: RefreshRequest, _ parts: Parts) {
        world.loop.spawn {
            let status = await parts.streamlets.refresh(request)
            guard request.deleted, status == .ok,
                let streamlet = parts.streamlets.find(request.stream)
            else { return call.end(status, Bytes()) }
            // Deleted means that nothing of it is sequenced here any more: closed, that is.
            streamlet.whenClosed { call.end(.ok, Bytes()) }
            parts.streamlets.close(streamlet)
            self.flushIfDue()
        }
    }

    // MARK: Time

    private static let tickNanoseconds: Nanoseconds = .milliseconds(100)

    private func tick() {
        guard let parts, !isOver else { return }
        parts.replies.tick()
        parts.sequencer.shed()
        // A close that the metadata cannot hear of would only keep appends out.
        if parts.replies.isSure {
            parts.streamlets.closeDormant(interval: Self.tickNanoseconds)
        }
        flushIfDue()
        if isDraining { finishDrain(parts) }
        world.loop.after(Self.tickNanoseconds) { [weak self] in self?.tick() }
    }

    private func flushIfDue() {
        guard let parts, !isOver else { return }
        let closing = parts.streamlets.closing
        if closing.contains(where: \.isSettled) || parts.flusher.isDue(at: world.loop.now) {
            parts.flusher.flush(closing: closing)
        }
    }

    // MARK: The end

    /// Closes every streamlet, flushed, and gives the lease up; then the process may exit. Returns
    /// once that is done, or once the channel is over in another way.
    package func drain() async {
        guard let parts, !isOver else { return }
        if !isDraining {
            isDraining = true
            world.log.notice("draining", [("streamlets", "\(parts.streamlets.count)")])
            parts.streamlets.closeAll()
            flushIfDue()
        }
        await whenDrained.wait()
    }

    private func finishDrain(_ parts: Parts) {
        parts.streamlets.closeAll()
        guard parts.streamlets.count == 0, !parts.flusher.isFlushing,
            parts.log.flushedEnd == parts.log.nextIndex, !parts.log.hasOpenRecords
        else { return }
        isOver = true
        parts.replies.stop()
        leave(parts, "drained")
    }

    /// The log is over: everything pending is answered, and the process exits.
    private func stop(_ reason: String) {
        guard let parts, !isOver else { return }
        isOver = true
        world.log.error("the channel stops", [("reason", reason)])
        parts.replies.stop()
        parts.streamlets.abandon()
        leave(parts, reason)
    }

    /// Gives the lease up, after the last answer, so that recovery need not wait for it to run out;
    /// then the process may exit.
    private func leave(_ parts: Parts, _ reason: String) {
        world.loop.spawn {
            do {
                try await self.world.metadata.resignChannel(parts.log.channel)
            } catch {
                // The lease then runs out by itself.
                self.world.log.warning("not resigned", [("error", "\(error)")])
            }
            self.whenDrained.set(())
            self.world.exit(reason)
        }
    }
}

/// The channel's new id names a log that is not empty.
package struct ReopenedLog: Error, CustomStringConvertible {
    package let channel: ChannelID
    package var description: String {
        "the log of channel \(channel) has objects already: the metadata was restored from an "
            + "older state, or another cell writes to the same bucket"
    }
}

/// Keeps the messages of a call that came before its streamlet was found.
private final class EarlyMessages {
    private var messages: [Bytes] = []
    private var finished = false
    private let call: any Call

    init(_ call: any Call) {
        self.call = call
        call.onMessage = { self.messages.append($0) }
        call.onFinishedSending = { self.finished = true }
    }

    func replay(to session: AppendSession) {
        for message in messages { call.onMessage?(message) }
        if finished { call.onFinishedSending?() }
        messages = []
    }
}
