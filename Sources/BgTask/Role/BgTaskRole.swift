// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives

/// One worker of a cell's background work.
///
/// Each task's keys are cut into partitions, and each partition is worked on by whoever holds its
/// lease in the metadata. Any number of workers share the work: who holds more leases than its
/// share ends the passes under way, and lets go. Any may die at any step: what it left is found
/// again by the next pass, for everything is marked before it is deleted, and forgotten after.
///
/// Nothing that matters to a client waits for it, but for the space that garbage takes.
package final class BgTaskRole {
    private let world: BgTaskWorld
    private let limits: BgTaskLimits
    private let pace: Pace
    private var posts: [Post] = []
    private var crew: Crew
    private var crewTimer: Timer?
    /// Set when the look at the crew under way has ended.
    private var looking: Signal<Void>?
    /// How many leases this worker may hold; none before it saw the others.
    private var share = 0
    private var isDraining = false
    private let actions: [Action: Counter]
    private let passes: [TaskKind: Counter]
    private let failures: Counter
    private let passSeconds: Histogram

    /// One partition of one task.
    private final class Post {
        let kind: TaskKind
        let partition: Partition
        var lease: TaskLease
        let setbacks = Setbacks()
        var dueAt: Nanoseconds = 0
        /// Set when the pass under way has ended.
        var running: Signal<Void>?
        /// Set when the try to hold the lease under way has ended.
        var holding: Signal<Void>?
        var timer: Timer?
        /// Another worker is to have it: no pass begins, and the lease goes after this one.
        var isLeaving = false

        init(_ kind: TaskKind, _ partition: Partition, _ lease: TaskLease) {
            self.kind = kind
            self.partition = partition
            self.lease = lease
        }
    }

    package init(world: BgTaskWorld, limits: BgTaskLimits) {
        limits.check()
        self.world = world
        self.limits = limits
        pace = Pace(
            loop: world.loop, requestsPerSecond: limits.requestsPerSecond,
            bytesPerSecond: limits.bytesPerSecond)
        let metrics = world.metrics
        var actions: [Action: Counter] = [:]
        for action in Action.allCases {
            actions[action] = metrics.counter(
                "actions_total", labels: "action=\"\(action.rawValue)\"",
                help: "What was done to the cell.")
        }
        self.actions = actions
        var passes: [TaskKind: Counter] = [:]
        for kind in TaskKind.allCases {
            passes[kind] = metrics.counter(
                "passes_total", labels: "task=\"\(kind.rawValue)\"",
                help: "Passes that came to their end, by task.")
        }
        self.passes = passes
        failures = metrics.counter(
            "pass_failures_total", help: "Passes that ended before their time.")
        passSeconds = metrics.histogram("pass_seconds", help: "Duration of passes.")
        let holder = ID128(random: world.random).description
        crew = Crew(
            holder: holder, lease: limits.leaseNanoseconds, margin: limits.leaseMarginNanoseconds)
        for kind in TaskKind.allCases {
            let parts = kind.parts(limits.partitions)
            for part in 0..<parts {
                let lease = TaskLease(
                    name: TaskLease.name(kind, part, of: parts), holder: holder,
                    lease: limits.leaseNanoseconds, margin: limits.leaseMarginNanoseconds)
                posts.append(Post(kind, Partition(number: part, count: parts), lease))
            }
        }
        metrics.gauge("passes_running", help: "Passes under way.") {
            [weak self] in Double(self?.posts.count { $0.running != nil } ?? 0)
        }
        metrics.gauge("leases_held", help: "Partitions that this worker works on.") {
            [weak self] in Double(self?.leasesHeld ?? 0)
        }
    }

    package var leasesHeld: Int { posts.count { $0.lease.isHeld(at: world.loop.now) } }
    /// Whether the metadata answered, once, and the worker is not draining.
    package private(set) var isReady = false

    package func start() {
        beginLook()
        for post in posts {
            // Spread, so that the leases are not all renewed at once.
            let delay = world.random.within(0...(limits.leaseNanoseconds / 3))
            post.timer = world.loop.after(delay) { [weak self] in self?.begin(post) }
        }
    }

    /// Ends the passes under way behind their present step, and gives the leases up.
    package func drain() async {
        isDraining = true
        isReady = false
        crewTimer?.cancel()
        for post in posts {
            post.timer?.cancel()
            await release(post)
        }
        await looking?.wait()
        if let seat = crew.held(at: world.loop.now) {
            crew[seat].release()
            await giveUp(crew[seat])
        }
    }

    /// Once its pass has ended.
    private func release(_ post: Post) async {
        await post.running?.wait()
        // Else it might take back what is given up here.
        while let holding = post.holding { await holding.wait() }
        guard post.lease.isHeld(at: world.loop.now) else { return }
        post.lease.release()
        await giveUp(post.lease)
    }

    private func giveUp(_ lease: TaskLease) async {
        do throws(MetadataError) {
            try await world.metadata.releaseLease(lease.name, holder: lease.holder)
        } catch {
            // It passes by itself.
            world.log.warning("lease_not_released", [("error", error.description)])
        }
    }

    /// Runs tasks once over all keys, whoever holds their leases, and tells what they did or, on a
    /// dry run, would have done.
    package func run(
        _ kind: TaskKind, isDryRun: Bool
    ) async throws(TaskError) -> Tally {
        let tally = Tally { [actions] in if !isDryRun { actions[$0]?.add($1) } }
        for post in posts where post.kind == kind {
            try await pass(post, tally, isDryRun: isDryRun) { [weak self] in
                self?.isDraining == false
            }.run(kind)
        }
        return tally
    }

    func leases() async throws(TaskError) -> [NamedLease] {
        do throws(MetadataError) {
            return try await world.metadata.leases(prefix: TaskLease.prefix)
        } catch {
            throw TaskError("metadata: \(error)")
        }
    }

    // MARK: Sharing

    private func beginLook() {
        guard !isDraining else { return }
        world.loop.spawn { [weak self] in await self?.look() }
    }

    /// Sees who else is there, is seen, and lets go of what is theirs.
    private func look() async {
        let ended = Signal<Void>()
        looking = ended
        do throws(MetadataError) {
            try await meetCrew()
            isReady = !isDraining
        } catch {
            world.log.warning("crew_not_seen", [("error", error.description)])
        }
        looking = nil
        ended.set(())
        guard !isDraining else { return }
        shareOut()
        crewTimer = world.loop.after(limits.leaseNanoseconds / 3) { [weak self] in
            self?.beginLook()
        }
    }

    private func meetCrew() async throws(MetadataError) {
        let began = world.loop.now
        let rows = try await world.metadata.leases(prefix: TaskLease.commonPrefix)
        let ended = world.loop.now
        let found = Dictionary(rows.map { ($0.name, $0) }) { a, _ in a }
        for post in posts where !post.lease.isHeld(at: ended) && post.holding == nil {
            post.lease.observe(other: found[post.lease.name], began: began, ended: ended)
        }
        crew.observe(found, began: began, ended: ended)
        for seat in crew.wanted(at: ended) where !isDraining {
            let began = world.loop.now
            let (name, holder, stale) = (crew[seat].name, crew[seat].holder, crew[seat].stale)
            let lease = try await world.metadata.holdLease(name, holder: holder, stale: stale)
            crew[seat].observe(lease, began: began, ended: world.loop.now)
            if lease.holder == holder { break }
        }
        share = crew.share(of: posts.count, at: world.loop.now)
    }

    private func shareOut() {
        let now = world.loop.now
        let held = posts.filter { $0.lease.isHeld(at: now) && !$0.isLeaving }
        guard held.count > share else { return }
        // Those that rest go first; apart from that, some of each task.
        let order = held.sorted { a, b in
            (a.running == nil ? 0 : 1, -a.partition.number)
                < (b.running == nil ? 0 : 1, -b.partition.number)
        }
        for post in order.prefix(held.count - share) {
            post.isLeaving = true
            world.loop.spawn { [weak self] in
                await self?.release(post)
                post.isLeaving = false
            }
        }
    }

    /// Whether this worker may try for one more.
    private var mayTake: Bool {
        let now = world.loop.now
        return posts.count { $0.lease.isHeld(at: now) || $0.holding != nil } < share
    }

    // MARK: Turns

    private func begin(_ post: Post) {
        guard !isDraining else { return }
        world.loop.spawn { [weak self] in await self?.turn(post) }
    }

    private func turn(_ post: Post) async {
        if post.lease.isHeld(at: world.loop.now) || (!post.isLeaving && mayTake) {
            await holdLease(post)
        }
        guard !isDraining else { return }
        let now = world.loop.now
        if post.lease.isHeld(at: now), post.running == nil, now >= post.dueAt, !post.isLeaving {
            let running = Signal<Void>()
            post.running = running
            world.loop.spawn { [weak self] in
                await self?.work(post)
                post.running = nil
                running.set(())
            }
        }
        var delay = limits.leaseNanoseconds / 3
        if post.lease.isHeld(at: now), post.running == nil, !post.isLeaving {
            delay = min(delay, max(post.dueAt - now, .milliseconds(100)))
        }
        post.timer = world.loop.after(delay) { [weak self] in self?.begin(post) }
    }

    private func holdLease(_ post: Post) async {
        guard !isDraining else { return }
        let holding = Signal<Void>()
        post.holding = holding
        defer {
            post.holding = nil
            holding.set(())
        }
        let began = world.loop.now
        let (name, holder) = (post.lease.name, post.lease.holder)
        do throws(MetadataError) {
            let lease = try await world.metadata.holdLease(
                name, holder: holder, stale: post.lease.stale)
            let wasHeld = post.lease.isHeld(at: began)
            post.lease.observe(lease, began: began, ended: world.loop.now)
            isReady = !isDraining
            if post.lease.isHeld(at: world.loop.now) != wasHeld {
                world.log.info(
                    wasHeld ? "task_lost" : "task_taken",
                    [("lease", name), ("holder", lease.holder)])
            }
        } catch {
            post.lease.lost()
            world.log.warning(
                "lease_not_renewed", [("lease", name), ("error", error.description)])
        }
    }

    private func work(_ post: Post) async {
        let start = world.loop.now
        let tally = Tally { [actions] in actions[$0]?.add($1) }
        var interval = post.kind == .orphanSweep ? limits.sweepNanoseconds : limits.passNanoseconds
        do throws(TaskError) {
            try await pass(post, tally, isDryRun: false) { [weak self, world] in
                self?.isDraining == false && post.lease.isHeld(at: world.loop.now)
            }.run(post.kind)
            passes[post.kind]?.add()
            // More is waiting than one pass may do.
            if tally.total >= limits.itemsPerPassMax { interval = 0 }
        } catch {
            failures.add()
            interval = limits.passNanoseconds
            world.log.warning(
                "pass_failed",
                [
                    ("task", post.kind.rawValue), ("partition", "\(post.partition.number)"),
                    ("error", error.description),
                ])
        }
        let end = world.loop.now
        passSeconds.record(end - start)
        // Some 10 percent more or less.
        let jitter = interval > 10 ? world.random.within(-interval / 10...interval / 10) : 0
        post.dueAt = end + interval + jitter
        guard !tally.counts.isEmpty else { return }
        world.log.info(
            "pass_ended",
            [("task", post.kind.rawValue), ("partition", "\(post.partition.number)")]
                + Action.allCases.compactMap { action in
                    tally.counts[action].map { (action.rawValue, "\($0)") }
                })
    }

    private func pass(
        _ post: Post, _ tally: Tally, isDryRun: Bool, mayGoOn: @escaping () -> Bool
    ) -> Pass {
        Pass(
            world: world, limits: limits, partition: post.partition, pace: pace, tally: tally,
            setbacks: isDryRun ? Setbacks() : post.setbacks, isDryRun: isDryRun, mayGoOn: mayGoOn)
    }
}
