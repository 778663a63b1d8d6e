// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Observability
internal import Primitives
internal import RPC

/// A reply that shows state, and what to say instead where the channel stays unsure of itself.
struct GuardedReply {
    let send: () -> Void
    let refuse: () -> Void
}

/// Keeps the channel's lease, and lets replies out that the lease, a stable chunk or a probe of the
/// log proves. The rules are `LeaseGuard`'s.
final class ReplyGuard {
    private let world: ChannelWorld
    private let limits: ChannelLimits
    private let log: LogWriter
    private var lease: LeaseGuard<GuardedReply>
    private var isOver = false
    private var patrolledAt: Nanoseconds = .min
    /// What the channel tells of its load with each renewal.
    var load: () -> ChannelLoad = { .idle }
    /// The channel learned that it was declared dead, or that its log is sealed.
    var onLost: (String) -> Void = { _ in }

    init(world: ChannelWorld, limits: ChannelLimits, log: LogWriter) {
        self.world = world
        self.limits = limits
        self.log = log
        lease = LeaseGuard(
            waitNanosecondsMax: limits.guardNanoseconds, countMax: limits.guardedRepliesMax,
            unsureNanosecondsMax: limits.unsureNanoseconds, isStrict: limits.hasStrictTails)
        world.metrics.gauge("lease_sure", help: "1 while the lease certainly holds.") {
            [unowned self] in isSure ? 1 : 0
        }
        world.metrics.gauge("guarded_replies", help: "Replies that wait for certainty.") {
            [unowned self] in Double(lease.count)
        }
    }

    /// Whether the lease certainly holds.
    var isSure: Bool { lease.isSure(at: world.loop.now) }

    /// The registration was sent at `sentAt`: the lease holds from then.
    func start(registeredAt sentAt: Nanoseconds) {
        renewed(sentAt)
        scheduleRenewal()
    }

    func stop() {
        isOver = true
        lease.lose()
        lease.fail { $0.refuse() }
    }

    /// Sends a reply once it is certainly true; refuses it after a while.
    func send(_ send: @escaping () -> Void, orRefuse refuse: @escaping () -> Void) {
        if isOver { return refuse() }
        if limits.mutant == .zombieTail { return send() }
        let reply = GuardedReply(send: send, refuse: refuse)
        switch lease.ask(reply, at: world.loop.now, nextIndex: log.nextIndex) {
        case .now: send()
        case .refused: refuse()
        case .later: probeIfNeeded()
        }
    }

    /// Chunks below `stableEnd` are stable.
    func stable(_ stableEnd: ChunkIndex) { lease.stable(stableEnd) { $0.send() } }

    /// Whether a seal in the log would surely still be there.
    var mayTrustTheStore: Bool {
        !lease.isUnsureTooLong(at: world.loop.now, wallMilliseconds: world.loop.wallMilliseconds)
    }

    /// Time passes: what waited too long is refused, and an unsure channel looks whether its log
    /// was sealed, so that whoever follows an idle stream does not wait here for ever.
    func tick() {
        let now = world.loop.now
        lease.expire(at: now) { $0.refuse() }
        guard !isOver, !lease.isSure(at: now) else { return }
        guard mayTrustTheStore else { return onLost(LogWriter.unsureTooLong) }
        if now - limits.renewNanoseconds >= patrolledAt {
            patrolledAt = now
            send({}, orRefuse: {})
        }
    }

    // MARK: Renewal

    private func scheduleRenewal() {
        world.loop.after(limits.renewNanoseconds) { [weak self] in
            guard let self, !isOver else { return }
            world.loop.spawn { await self.renew() }
        }
    }

    private func renew() async {
        let sentAt = world.loop.now
        do throws(MetadataError) {
            let isActive = try await world.metadata.renewChannel(log.channel, load: load())
            guard !isOver else { return }
            guard isActive else { return onLost("the channel was declared dead") }
            renewed(sentAt)
        } catch {
            // Unsure is a state, not a failure: appends go on, other replies are probed for.
            world.log.warning("lease not renewed", [("error", error.description)])
        }
        scheduleRenewal()
    }

    private func renewed(_ sentAt: Nanoseconds) {
        lease.renewed(
            sentAt: sentAt, duration: limits.leaseNanoseconds, at: world.loop.now,
            wallMilliseconds: world.loop.wallMilliseconds
        ) { $0.send() }
    }

    // MARK: Probing

    private func probeIfNeeded() {
        guard lease.beginProbe() else { return }
        world.loop.spawn { [weak self] in
            guard let self else { return }
            let absent = await probe()
            guard !isOver else { return }
            lease.endProbe(absent: absent) { $0.send() }
            if absent {
                probeIfNeeded()
            } else if lease.count > 0 {
                world.loop.after(.milliseconds(100)) { [weak self] in self?.probeIfNeeded() }
            }
        }
    }

    /// Looks for the first open slot of the log: from the lowest index not known to be durable over
    /// our own chunks. True if it is absent; false if the store cannot tell.
    private func probe() async -> Bool {
        var index = limits.mutant == .probeAtNextUnassigned ? log.nextIndex : log.stableEnd
        while !isOver {
            do {
                let head = try await world.buckets[0].store.get(
                    LogKeys.chunk(log.channel, index), range: 0..<ChunkHeader.identity.prefixBytes)
                if index < log.stableEnd {
                    index = log.stableEnd
                    continue
                }
                // Its PUT may have begun since we asked.
                guard let expected = log.putIDs[index], try isOwn(head.bytes, expected) else {
                    onLost("slot \(index) of the log holds a seal")
                    return false
                }
                index += 1
            } catch let error as StoreError where error.kind == .notFound {
                return true
            } catch {
                world.log.warning("slot probe failed", [("error", "\(error)")])
                return false
            }
        }
        return false
    }

    private func isOwn(_ prefix: Bytes, _ putID: ID128) throws(DecodeError) -> Bool {
        let header = try ChunkHeader(prefix)
        return header.kind == .chunk && header.putID == putID
    }
}
