// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import ObjectStorage
internal import Observability
internal import Primitives

/// Watches over a cell: one cop is active, by a lease in the metadata, and the others stand by.
///
/// The active one keeps this host's processes running, declares channels dead whose lease has
/// certainly passed by its own clock, seals their logs, and brings what they acknowledged into
/// segments on their behalf, so that their streams can go on elsewhere. Nothing here is on the
/// path of an append or a read: while cop is away, only the streams of dead channels wait.
///
/// Every step is a compare-and-set that may be done twice, so a cop that dies in the middle of a
/// recovery, or two that recover the same channel at once, do no harm: the next starts at the top.
package final class CopRole {
    private let world: CopWorld
    private let limits: CopLimits
    private let supervisor: Supervisor
    private var tenure: Tenure
    private var watch: LeaseWatch<ChannelID>
    private var recoveries: [ChannelID: Attempt] = [:]
    private var isDraining = false
    private var poll: Timer?
    /// Set when the try to hold the lease under way has ended.
    private var holding: Signal<Void>?
    private var drained = Signal<Void>()
    private let deaths: Counter
    private let recovered: Counter
    private let failures: Counter
    private let recoverySeconds: Histogram

    /// Where the recovery of one channel stands.
    private struct Attempt {
        var isRunning: Bool
        var failures = 0
        /// When to try again.
        var dueAt: Nanoseconds
    }

    package init(world: CopWorld, limits: CopLimits) {
        self.world = world
        self.limits = limits
        supervisor = Supervisor(world: world, limits: limits)
        tenure = Tenure(
            holder: ID128(random: world.random).description, lease: limits.leaseNanoseconds,
            margin: limits.leaseMarginNanoseconds)
        watch = LeaseWatch(
            lease: limits.leaseNanoseconds, margin: limits.leaseMarginNanoseconds)
        let metrics = world.metrics
        deaths = metrics.counter("channel_deaths_total", help: "Channels declared dead.")
        recovered = metrics.counter("recoveries_total", help: "Channels recovered.")
        failures = metrics.counter("recovery_failures_total", help: "Recoveries that failed.")
        recoverySeconds = metrics.histogram("recovery_seconds", help: "Duration of recoveries.")
        metrics.gauge("active", help: "Whether this cop is the active one.") { [weak self] in
            self?.isActive == true ? 1 : 0
        }
        metrics.gauge("recoveries_running", help: "Recoveries under way.") {
            [weak self] in Double(self?.recoveries.values.count(where: \.isRunning) ?? 0)
        }
        metrics.gauge("recoveries_pending", help: "Dead channels not yet recovered.") {
            [weak self] in Double(self?.recoveries.count ?? 0)
        }
    }

    package var isActive: Bool { tenure.isActive }
    /// Whether the metadata told, once, who the active cop is, and this one is not draining.
    package private(set) var isWatching = false

    /// How many processes of a kind run on this host.
    package func running(_ kind: ProcessKind) -> Int { supervisor.running(kind) }

    package func start() {
        world.loop.spawn { await self.turn() }
    }

    /// Ends this host's processes, the frontends first, and gives the lease up.
    package func drain() async {
        if isDraining { return await drained.wait() }
        isDraining = true
        isWatching = false
        poll?.cancel()
        await supervisor.drain()
        // Else it might take back what is given up here.
        await holding?.wait()
        if tenure.isActive {
            do throws(MetadataError) {
                try await world.metadata.releaseLease(Tenure.name, holder: tenure.holder)
            } catch {
                // It passes by itself.
                world.log.warning("lease_not_released", [("error", error.description)])
            }
        }
        drained.set(())
    }

    /// One turn: hold the lease, and while it is ours, look at the channels.
    private func turn() async {
        await holdLease()
        if tenure.isActive && !isDraining { await lookAtChannels() }
        guard !isDraining else { return }
        poll = world.loop.after(limits.pollNanoseconds) { [weak self] in
            guard let self, !isDraining else { return }
            world.loop.spawn { await self.turn() }
        }
    }

    private func holdLease() async {
        guard !isDraining else { return }
        let holding = Signal<Void>()
        self.holding = holding
        defer {
            self.holding = nil
            holding.set(())
        }
        let began = world.loop.now
        do throws(MetadataError) {
            let lease = try await world.metadata.holdLease(
                Tenure.name, holder: tenure.holder, stale: tenure.stale)
            isWatching = !isDraining
            switch tenure.observe(lease, began: began, ended: world.loop.now) {
            case .none: break
            case .gained:
                world.log.notice("cop_active", [("holder", tenure.holder)])
                if !isDraining { supervisor.run() }
            case .lost:
                world.log.warning("cop_standing_by", [("active", lease.holder)])
                watch.lost()
                // Meanwhile this one stands by like any other.
                world.loop.spawn { if !self.isActive { await self.supervisor.drain() } }
            }
        } catch {
            tenure.lost()
            world.log.warning("lease_not_renewed", [("error", error.description)])
        }
    }

    private func lookAtChannels() async {
        let began = world.loop.now
        let rows: [ChannelRow]
        do throws(MetadataError) {
            rows = try await world.metadata.channels([.active, .dead, .sealed])
        } catch {
            watch.lost()
            world.log.warning("channels_not_read", [("error", error.description)])
            return
        }
        let stale = watch.observe(
            rows.filter { $0.state == .active }.map { ($0.id, $0.renewals) },
            began: began, ended: world.loop.now)
        for (channel, renewals) in stale { await declareDead(channel, renewals: renewals) }
        for row in rows where row.state != .active { recover(row.id) }
        for (id, attempt) in recoveries where !attempt.isRunning {
            if !rows.contains(where: { $0.id == id }) { recoveries[id] = nil }
        }
    }

    private func declareDead(_ channel: ChannelID, renewals: UInt64) async {
        do throws(MetadataError) {
            guard try await world.metadata.declareDead(channel, renewals: renewals) else { return }
            deaths.add()
            world.log.notice(
                "channel_declared_dead",
                [("channel", channel.description), ("renewals", "\(renewals)")])
            recover(channel)
        } catch {
            // Whether it took effect shows in the next reading.
            watch.lost()
            world.log.warning(
                "channel_not_declared_dead",
                [("channel", channel.description), ("error", error.description)])
        }
    }

    /// Begins the recovery of a channel unless one is running, or failed a moment ago.
    private func recover(_ channel: ChannelID) {
        var attempt = recoveries[channel] ?? Attempt(isRunning: false, dueAt: world.loop.now)
        recoveries[channel] = attempt
        guard !attempt.isRunning, !isDraining, world.loop.now >= attempt.dueAt,
            recoveries.values.count(where: \.isRunning) < limits.recoveriesMax
        else { return }
        attempt.isRunning = true
        recoveries[channel] = attempt
        world.loop.spawn { await self.runRecovery(channel) }
    }

    private func runRecovery(_ channel: ChannelID) async {
        let start = world.loop.now
        do throws(RecoveryError) {
            let summary = try await Recovery(channel, world: world, limits: limits).run()
            recoveries[channel] = nil
            recovered.add()
            recoverySeconds.record(world.loop.now - start)
            world.log.notice("channel_recovered", summary.fields(channel))
        } catch {
            let tries = (recoveries[channel]?.failures ?? 0) + 1
            let delay = limits.recoveryBackoff.delay(
                afterTries: tries, elapsed: 0, random: world.random.next())
            recoveries[channel] = Attempt(
                isRunning: false, failures: tries,
                dueAt: world.loop.now + (delay ?? limits.recoveryBackoff.delayNanosecondsMax))
            failures.add()
            world.log.error(
                "recovery_failed",
                [
                    ("channel", channel.description), ("error", error.description),
                    ("tries", "\(tries)"),
                ])
        }
    }
}
