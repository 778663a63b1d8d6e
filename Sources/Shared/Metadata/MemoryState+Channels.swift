// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

extension MemoryState {
    // MARK: Channels

    mutating func registerChannel(_ registration: ChannelRegistration, now: UInt64) -> ChannelID {
        channelIDLast += 1
        let id = ChannelID(channelIDLast)
        channels[id] = ChannelRow(
            id: id, storageClass: registration.storageClass, zone: registration.zone,
            address: registration.address, state: .active, renewals: 0, load: .idle, flushedEnd: 0,
            sealedAt: nil, startedMilliseconds: now)
        unsureMilliseconds[id] = registration.unsureMilliseconds
        return id
    }

    mutating func renewChannel(_ id: ChannelID, load: ChannelLoad) -> Bool {
        guard let channel = channels[id], channel.state == .active else { return false }
        channels[id]?.renewals = channel.renewals + 1
        channels[id]?.load = load
        return true
    }

    mutating func declareDead(_ id: ChannelID, renewals: UInt64) -> Bool {
        guard let channel = channels[id] else { return false }
        guard channel.state == .active else { return true }
        guard channel.renewals == renewals else { return false }
        channels[id]?.state = .dead
        return true
    }

    mutating func resignChannel(_ id: ChannelID) {
        if channels[id]?.state == .active { channels[id]?.state = .dead }
    }

    mutating func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) throws(MetadataError) -> Bool {
        guard let channel = channels[id] else { return false }
        switch channel.state {
        case .active: return false
        case .sealed, .retired: return channel.sealedAt == sealedAt
        case .dead:
            guard channel.flushedEnd == flushedEnd else { return false }
            guard sealedAt >= flushedEnd else { throw sealBelowFlushedEnd() }
            channels[id]?.sealedAt = sealedAt
            channels[id]?.state = .sealed
            return true
        }
    }

    mutating func retireChannel(_ id: ChannelID) -> Bool {
        guard let channel = channels[id], let sealedAt = channel.sealedAt,
            channel.flushedEnd >= sealedAt, streamlets(of: id, [.open, .prepared]).isEmpty
        else { return false }
        channels[id]?.state = .retired
        return true
    }

    // MARK: Streamlets

    mutating func claim(_ id: StreamID, channel: ChannelID) -> ClaimResult {
        guard channels[channel]?.state == .active else { return .channelNotActive }
        guard let entry = streams[id] else { return .streamNotFound }
        if entry.stream.deletedMilliseconds != nil { return .streamDeletionPending }
        let live: Set<StreamletState> = [.open, .prepared]
        let held = entry.tenures.map(\.streamlet).first { live.contains($0.state) }
        if let held, held.state == .open, held.channel == channel {
            return .claimed(held.number, entry.stream)
        }
        if let owner = held.flatMap(owner) { return .owned(owner) }
        let tail = entry.stream.state.tail.seqNum
        let streamlet = Streamlet(
            stream: id, number: entry.streamletCount, channel: channel, start: tail,
            end: nil, state: .open)
        streams[id]?.streamletCount += 1
        streams[id]?.tenures.append(Tenure(streamlet: streamlet, flushedEnd: tail))
        return .claimed(streamlet.number, entry.stream)
    }

    mutating func flush(_ flush: Flush) throws(MetadataError) -> FlushResult {
        if let stream = flush.misshapenStream { return .notContiguous(stream) }
        let needed: ChannelState = flush.isRecovery ? .sealed : .active
        guard let channel = channels[flush.channel], channel.state == needed else {
            return .channelNotActive
        }
        let misfit = flush.parts.first { !applies($0, channel.id) }
        let bringsNothing = flush.parts.allSatisfy { isRepeated($0, channel.id) }
        if let misfit, !bringsNothing {
            return .notContiguous(misfit.stream)
        }
        if let sealedAt = channel.sealedAt, flush.flushedEnd > sealedAt {
            throw sealBelowFlushedEnd()
        }
        if misfit == nil {
            try refuseCondemned(flush.parts.flatMap(\.segments))
            if !flush.isRecovery && !bringsNothing {
                forgetStreamlets(of: channel.id, [.closed], limit: Flush.forgottenMax)
            }
            for part in flush.parts { apply(part) }
        }
        channels[channel.id]?.flushedEnd = max(channel.flushedEnd, flush.flushedEnd)
        return .done
    }

    func streamlets(of channel: ChannelID, _ states: Set<StreamletState>) -> [Streamlet] {
        let all = streams.values.flatMap { $0.tenures.map(\.streamlet) }
        return all.filter { $0.channel == channel && states.contains($0.state) }
            .sorted { ($0.stream, $0.number) < ($1.stream, $1.number) }
    }

    private func tenure(_ part: Flush.Part, _ channel: ChannelID) -> Tenure? {
        streams[part.stream]?.tenures.first {
            $0.streamlet.number == part.streamlet && $0.streamlet.channel == channel
        }
    }

    private func applies(_ part: Flush.Part, _ channel: ChannelID) -> Bool {
        guard let tenure = tenure(part, channel) else { return false }
        return tenure.streamlet.state == .open && tenure.flushedEnd == part.from
    }

    private func isRepeated(_ part: Flush.Part, _ channel: ChannelID) -> Bool {
        guard let tenure = tenure(part, channel) else { return false }
        let end = part.state.tail.seqNum
        return tenure.flushedEnd >= end && (!part.closes || tenure.streamlet.end == end)
    }

    private mutating func apply(_ part: Flush.Part) {
        guard var entry = streams[part.stream],
            let index = entry.tenures.firstIndex(where: { $0.streamlet.number == part.streamlet })
        else { return }
        entry.tenures[index].flushedEnd = part.state.tail.seqNum
        if part.closes {
            entry.tenures[index].streamlet.state = .closed
            entry.tenures[index].streamlet.end = part.state.tail.seqNum
        }
        entry.stream.state.moveForward(to: part.state)
        entry.segments.append(contentsOf: part.segments)
        entry.segments.sort { $0.start.seqNum < $1.start.seqNum }
        streams[part.stream] = entry
    }

    // MARK: Leases of the cell's singletons

    mutating func holdLease(_ name: String, holder: String, stale: UInt64?) -> Lease {
        let entry = leases[name] ?? LeaseEntry(holder: nil, renewals: 0)
        if let other = entry.holder, other != holder, entry.renewals != stale {
            return Lease(holder: other, renewals: entry.renewals)
        }
        leases[name] = LeaseEntry(holder: holder, renewals: entry.renewals + 1)
        return Lease(holder: holder, renewals: entry.renewals + 1)
    }

    mutating func releaseLease(_ name: String, holder: String) {
        if leases[name]?.holder == holder { leases[name]?.holder = nil }
    }
}

extension StreamState {
    /// Takes over each part of `other` that applies to a later position.
    fileprivate mutating func moveForward(to other: StreamState) {
        if other.tail.seqNum > tail.seqNum { tail = other.tail }
        if other.fencingTokenPosition > fencingTokenPosition {
            fencingToken = other.fencingToken
            fencingTokenPosition = other.fencingTokenPosition
        }
        trimPoint = max(trimPoint, other.trimPoint)
    }
}

private func sealBelowFlushedEnd() -> MetadataError {
    MetadataError(.failed, "the log would end below its flushed end")
}
