// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives

/// A cachey's place in the registry: how readers come to know of it.
///
/// Losing it loses readers and nothing else, so a cachey whose metadata is away goes on, and comes
/// back to the list when it can. It also strikes from the list those who left without a word.
final class Enrolment {
    private let world: CacheyWorld
    private let limits: CacheyLimits
    private let load: () -> CacheyLoad
    private var id: CacheyID?
    private var timer: Timer?
    private var isOver = false
    /// Of other cacheys: their renewals, and since when they are that many.
    private var seen: [CacheyID: (renewals: UInt64, since: Nanoseconds)] = [:]
    private var sweptAt: Nanoseconds

    init(world: CacheyWorld, limits: CacheyLimits, load: @escaping () -> CacheyLoad) {
        self.world = world
        self.limits = limits
        self.load = load
        sweptAt = world.loop.now
    }

    /// Enters the list; returns the cell's id.
    func start() async throws(MetadataError) -> ID128 {
        let tenure = try await register()
        schedule()
        return tenure.cell
    }

    /// Leaves the list.
    func stop() async {
        isOver = true
        timer?.cancel()
        await leave()
    }

    private func leave() async {
        guard let id else { return }
        self.id = nil
        do throws(MetadataError) {
            try await world.registry.removeCachey(id, renewals: nil)
        } catch {
            world.log.warning("resign_failed", [("error", error.description)])
        }
    }

    private func register() async throws(MetadataError) -> CacheyTenure {
        let tenure = try await world.registry.registerCachey(
            CacheyRegistration(zone: limits.zone, address: limits.address))
        id = tenure.id
        world.log.notice("enrolled", [("cachey", tenure.id.description)])
        // It left while it was being entered.
        if isOver { await leave() }
        return tenure
    }

    private func schedule() {
        guard !isOver else { return }
        timer = world.loop.after(limits.renewNanoseconds) { [weak self] in
            guard let self, !isOver else { return }
            world.loop.spawn {
                await self.renew()
                self.schedule()
            }
        }
    }

    private func renew() async {
        guard !isOver else { return }
        do throws(MetadataError) {
            guard let id else {
                _ = try await register()
                return
            }
            let isKnown = try await world.registry.renewCachey(id, load: load())
            if !isKnown && !isOver {
                self.id = nil
                _ = try await register()
            }
            let now = world.loop.now
            let interval = limits.forgetNanoseconds / 4
            guard now - sweptAt >= interval else { return }
            if now - sweptAt >= 2 * interval { seen = [:] }
            sweptAt = now
            try await sweep(now)
        } catch {
            // Whatever keeps this one from renewing may keep the others from it.
            seen = [:]
            world.log.warning("renewal_failed", [("error", error.description)])
        }
    }

    private func sweep(_ now: Nanoseconds) async throws(MetadataError) {
        let rows = try await world.registry.cacheys(zone: nil)
        var still: [CacheyID: (renewals: UInt64, since: Nanoseconds)] = [:]
        for row in rows where row.id != id {
            let entry = seen[row.id].flatMap { $0.renewals == row.renewals ? $0 : nil }
            let since = entry?.since ?? now
            still[row.id] = (row.renewals, since)
            guard now - since >= limits.forgetNanoseconds else { continue }
            world.log.notice("struck_from_the_list", [("cachey", row.id.description)])
            try await world.registry.removeCachey(row.id, renewals: row.renewals)
        }
        seen = still
    }
}
