// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import ObjectStorage
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// Answers what readers ask: tails, plans of unflushed records, follows. Everything here shows
/// stable state, and leaves through the reply guard.
final class ReadService {
    private let world: ChannelWorld
    private let limits: ChannelLimits
    private let log: LogWriter
    private let replies: ReplyGuard
    private let pushes: Counter
    private let lagging: Counter
    private var followerCount = 0
    /// Requests that wait for one streamlet to be closed.
    private static let waitingMax = 1_024

    init(world: ChannelWorld, limits: ChannelLimits, log: LogWriter, replies: ReplyGuard) {
        self.world = world
        self.limits = limits
        self.log = log
        self.replies = replies
        pushes = world.metrics.counter("follow_pushes_total", help: "Batches pushed to followers.")
        lagging = world.metrics.counter(
            "follow_lagging_total", help: "Followers let go because they did not keep up.")
        world.metrics.gauge("followers", help: "Follows that are granted now.") {
            [unowned self] in Double(followerCount)
        }
    }

    func tail(_ call: any Call, _ streamlet: OpenStreamlet) {
        guarded(call, streamlet) {
            call.end(.ok, TailReply(tail: streamlet.stable.tail).encoded())
        }
    }

    func plan(_ call: any Call, _ request: PlanRequest, _ streamlet: OpenStreamlet) {
        guarded(call, streamlet) { [self] in
            let tail = streamlet.stable.tail
            let pointers = self.pointers(to: streamlet, request)
            let trimPoint =
                limits.mutant == .gapReadAsTrimmed
                ? streamlet.flushedEnd : streamlet.stable.trimPoint
            let reply = PlanReply(
                tail: tail, flushedEnd: streamlet.flushedEnd, trimPoint: trimPoint,
                pointers: pointers)
            call.end(.ok, reply.encoded())
        }
    }

    /// To what is stable and not flushed, from where the request starts.
    private func pointers(to streamlet: OpenStreamlet, _ request: PlanRequest) -> [ChunkPointer] {
        let places = log.places(of: streamlet) {
            $0.endSeqNum > streamlet.flushedEnd && request.start.reaches($0.whole)
        }
        var pointers: [ChunkPointer] = []
        for place in places
        where place.chunk < log.stableEnd && pointers.count < request.limit {
            log.forEachExtent(place) { extent in
                if request.start.reaches(extent) {
                    pointers.append(
                        ChunkPointer(
                            object: LogKeys.chunk(log.channel, place.chunk),
                            bucket: world.buckets[0].name, start: extent.start,
                            count: extent.count, lastTimestamp: extent.lastTimestamp,
                            offset: extent.offset, length: extent.length))
                }
                return pointers.count < request.limit
            }
        }
        return pointers
    }

    func follow(_ call: any Call, _ request: FollowRequest, _ streamlet: OpenStreamlet) {
        guarded(call, streamlet) { [self] in
            guard streamlet.phase == .open else { return call.end(.notOwner, Bytes()) }
            let follower = Follower(
                call, start: request.start, bytesMax: limits.followerBytesMax
            ) { [weak self] in self?.followerCount -= 1 }
            do throws(DecodeError) {
                guard try follower.grant(from: streamlet, log) else {
                    return call.end(.notInWindow, Bytes())
                }
            } catch {
                world.log.error("a window does not decode", [("error", error.description)])
                return call.end(.notInWindow, Bytes())
            }
            streamlet.followers.append(follower)
            streamlet.touchedAt = world.loop.now
            followerCount += 1
            call.onEnd = { [weak self, weak streamlet, weak follower] _, _ in
                streamlet?.followers.removeAll { $0 === follower }
                streamlet?.touchedAt = self?.world.loop.now ?? 0
                self?.followerCount -= 1
            }
        }
    }

    /// The records at `place` became stable: every follower gets them, batch by batch.
    func push(_ streamlet: OpenStreamlet, _ place: FragmentPlace) {
        for follower in streamlet.followers {
            do throws(DecodeError) {
                try log.forEachBatch(place) { batch throws(DecodeError) in
                    guard batch.tail.seqNum > follower.next else { return }
                    try follower.push(batch)
                    pushes.add()
                }
            } catch {
                preconditionFailure("stamped records decode: \(error)")
            }
        }
        letGo(streamlet) { !$0.keepsUp }
    }

    private func letGo(_ streamlet: OpenStreamlet, where condition: (Follower) -> Bool) {
        guard streamlet.followers.contains(where: condition) else { return }
        let leaving = streamlet.followers.filter(condition)
        streamlet.followers.removeAll(where: condition)
        for follower in leaving {
            lagging.add()
            follower.end(.notInWindow)
        }
    }

    /// Sends once the channel is sure of itself; nothing, if the caller has left by then.
    private func guarded(
        _ call: any Call, _ streamlet: OpenStreamlet, _ send: @escaping () -> Void
    ) {
        var hasLeft = false
        call.onEnd = { _, _ in hasLeft = true }
        let end: (Status) -> Void = { status in
            guard !hasLeft else { return }
            hasLeft = true
            call.end(status, Bytes())
        }
        replies.send(
            { [world, limits] in
                // The lease says nothing of a streamlet whose close may have happened already.
                if streamlet.phase == .closed { return end(.notOwner) }
                guard streamlet.isCloseIssued, limits.mutant != .tailWhileClosing else {
                    if !hasLeft { send() }
                    return
                }
                // So many wait already that more would only take memory.
                guard streamlet.waitingCount < Self.waitingMax else { return end(.unavailable) }
                streamlet.whenClosed { end(.notOwner) }
                world.loop.after(limits.guardNanoseconds) { end(.unavailable) }
            },
            orRefuse: { end(.unavailable) })
    }
}

extension PlanRequest.Start {
    /// Whether a reader that starts here needs something of the extent.
    fileprivate func reaches(_ extent: ChunkRecords.Extent) -> Bool {
        switch self {
        case .seqNum(let start): extent.endSeqNum > start
        case .timestamp(let start): extent.lastTimestamp >= start
        }
    }
}
