// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives
internal import RPC

/// The channels that take new streamlets, as far as this frontend knows.
///
/// The list is read from metadata each second. In between it is kept honest by what happens here:
/// an assignment counts against its channel until the next load report can show it, and a channel
/// that could not be reached, or refused, is left alone for a while. It only ever guides a choice:
/// who owns a stream is decided by the channel's claim.
final class ChannelDirectory {
    private let world: FrontendWorld
    private let limits: FrontendLimits
    private var rows: [ChannelRow] = []
    /// Assignments of ours since the channel's row last changed.
    private var assigned: [ChannelID: Assigned] = [:]
    private var avoidedUntil: [ChannelID: Nanoseconds] = [:]
    private var isPolling = false
    /// Hears of each list which channels were active, and when it was asked for.
    var onList: ((_ active: Set<ChannelID>, _ askedAt: Nanoseconds) -> Void)?
    private var timer: Timer?

    private struct Assigned {
        var renewals: UInt64
        var count: UInt64
    }

    /// How long a channel that failed us gets nothing new.
    private static let avoidanceNanoseconds: Nanoseconds = .seconds(3)

    init(world: FrontendWorld, limits: FrontendLimits) {
        self.world = world
        self.limits = limits
    }

    /// Begins to poll; once.
    func start() {
        guard timer == nil else { return }
        schedule()
        world.loop.spawn { await self.poll() }
    }

    func stop() {
        timer?.cancel()
        timer = nil
    }

    private func schedule() {
        timer = world.loop.after(limits.channelPollNanoseconds) { [weak self] in
            guard let self else { return }
            self.schedule()
            self.world.loop.spawn { await self.poll() }
        }
    }

    /// Reads the list now, unless it is being read.
    func poll() async {
        guard !isPolling else { return }
        isPolling = true
        defer { isPolling = false }
        let askedAt = world.loop.now
        do throws(MetadataError) {
            adopt(try await world.metadata.channels([.active]))
            onList?(Set(rows.map(\.id)), askedAt)
        } catch {
            world.log.warning("channel_poll_failed", [("error", "\(error)")])
        }
    }

    private func adopt(_ rows: [ChannelRow]) {
        self.rows = rows
        var kept: [ChannelID: Assigned] = [:]
        for row in rows {
            // Two renewals later the row's own load shows what was assigned before.
            if let own = assigned[row.id], row.renewals < own.renewals + 2 { kept[row.id] = own }
        }
        assigned = kept
        let now = world.loop.now
        avoidedUntil = avoidedUntil.filter { $0.value > now }
    }

    /// The less loaded of two random channels; nil if there is none. Channels of the class come
    /// before others, and channels that failed lately come last.
    func pick(storageClass: String, excluding tried: Set<ChannelID>) async -> ChannelRow? {
        if rows.isEmpty { await poll() }
        let now = world.loop.now
        let fresh = rows.filter { !tried.contains($0.id) && (avoidedUntil[$0.id] ?? 0) <= now }
        let untried = fresh.isEmpty ? rows.filter { !tried.contains($0.id) } : fresh
        let ofClass = untried.filter { $0.storageClass == storageClass }
        let candidates = ofClass.isEmpty ? untried : ofClass
        guard !candidates.isEmpty else { return nil }
        let chosen = lessLoaded(candidates)
        var own = assigned[chosen.id] ?? Assigned(renewals: chosen.renewals, count: 0)
        own.count += 1
        own.renewals = chosen.renewals
        assigned[chosen.id] = own
        return chosen
    }

    private func lessLoaded(_ candidates: [ChannelRow]) -> ChannelRow {
        let count = UInt64(candidates.count)
        let first = Int(world.random.below(count))
        guard count > 1 else { return candidates[first] }
        // Another one than the first: an offset of 1 ..< count.
        let second = (first + 1 + Int(world.random.below(count - 1))) % Int(count)
        let a = candidates[first]
        let b = candidates[second]
        return weight(a) <= weight(b) ? a : b
    }

    /// What a channel bears, in open streamlets: its bytes and its queue count as streamlets too.
    private func weight(_ row: ChannelRow) -> UInt64 {
        let own = assigned[row.id]?.count ?? 0
        return row.load.openStreamlets + own + row.load.bytesPerSecond >> 18
            + row.load.queueDelayMicroseconds >> 10
    }

    /// The channel could not be reached, or refuses new work.
    func avoid(_ channel: ChannelID) {
        avoidedUntil[channel] = world.loop.now + Self.avoidanceNanoseconds
    }
}
