// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import HTTP
internal import Metadata
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// A read at the tail: it follows, and falls out where its client is too slow.
extension ReadSession {
    func atTail(_ tail: StreamPosition) {
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
        let small = ResponseBudget.smallBatchBytes
        let bytes = push.records.count
        if lagging.isEmpty, hasRoom, !isTight || bytes <= small && share.hasRoom(bytes) {
            return deliver(push)
        }
        lagging.append(push)
        laggingBytes += bytes
        let bytesMax = path.limits.followerBufferBytesMax
        if path.responses.isSpent || laggingBytes > (isTight ? min(bytesMax, small) : bytesMax) {
            fallBehind()
        } else {
            holdBack()
        }
        countQueued()
    }

    /// The client is too slow: what it still needs is read from objects once it takes more.
    func fallBehind() {
        path.metrics.readFallbacks.add()
        leaveFollow()
        phase = .stalled
        advance()
    }

    func leaveFollow() {
        path.hub.leave(self, lookup.stream.id)
        timers.endSilence()
        lagging = []
        laggingBytes = 0
        reached = nil
    }

    func deliverLagging() {
        while hasRoom, case .following = phase, let push = lagging.popFirst() {
            laggingBytes -= push.records.count
            deliver(push)
        }
        if !lagging.isEmpty { holdBack() }
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
    func waitEnded() {
        switch phase {
        case .joining, .following: if lagging.isEmpty { end() }
        case .planning, .catchingUp, .stalled, .over: break
        }
    }

    /// There was silence for long: the client hears that nothing is new, if that is certain.
    func beat() {
        guard isQuiet else { return }
        let count = deliveredCount
        path.hub.askTail(lookup.stream.id) { [weak self] tail in
            guard let self, self.isQuiet, self.deliveredCount == count,
                tail.seqNum == self.position
            else { return }
            self.sink.heartbeat(tail)
        }
    }

    private var isQuiet: Bool {
        guard case .following = phase, lagging.isEmpty, share.isReady, let reached else {
            return false
        }
        return reached.seqNum == position
    }
}
