// SPDX-License-Identifier: Apache-2.0

internal import Observability
internal import Primitives

/// Keeps a number of processes of each kind running, and ends them in order.
///
/// A process that ends is started again after a wait that grows while it keeps ending soon. On
/// drain the frontends go first, so that no client finds a frontend without channels; whoever does
/// not end in time is killed.
final class Supervisor {
    private final class Slot {
        let kind: ProcessKind
        let number: Int
        var process: (any ProvisionedProcess)?
        /// Set when the present process has ended.
        var end = Signal<Void>()
        var startedAt: Nanoseconds = 0
        /// How many times in a row it ended before it was steady.
        var failures = 0
        var restart: Timer?

        init(_ kind: ProcessKind, _ number: Int) {
            self.kind = kind
            self.number = number
        }
    }

    private let world: CopWorld
    private let limits: CopLimits
    private var slots: [Slot] = []
    private var isRunning = false
    /// Set once the drain under way is over.
    private var draining: Signal<Void>?
    /// Everything is to run again once that is so.
    private var runsAfterDrain = false
    private let restarts: Counter

    init(world: CopWorld, limits: CopLimits) {
        self.world = world
        self.limits = limits
        restarts = world.metrics.counter(
            "restarts_total", help: "Processes that were started again.")
        slots = ProcessKind.allCases.flatMap { kind in
            (0..<limits.count(kind)).map { Slot(kind, $0 + 1) }
        }
        for kind in ProcessKind.allCases {
            world.metrics.gauge(
                "processes_running", labels: "kind=\"\(kind.rawValue)\"", help: "Processes running."
            ) { [weak self] in Double(self?.running(kind) ?? 0) }
        }
    }

    func running(_ kind: ProcessKind) -> Int {
        slots.count { $0.kind == kind && $0.process != nil }
    }

    /// Starts whatever is not running, once a drain under way is over. Does nothing if already
    /// running.
    func run() {
        guard !isRunning else { return }
        guard draining == nil else {
            runsAfterDrain = true
            return
        }
        isRunning = true
        for slot in slots where slot.process == nil { start(slot) }
    }

    /// Ends everything, the frontends first and the channels last, and returns once all is over,
    /// whoever began it.
    func drain() async {
        runsAfterDrain = false
        if let draining { return await draining.wait() }
        guard isRunning else { return }
        isRunning = false
        let draining = Signal<Void>()
        self.draining = draining
        for slot in slots {
            slot.restart?.cancel()
            slot.restart = nil
        }
        for kind in ProcessKind.allCases.reversed() { await end(kind) }
        self.draining = nil
        draining.set(())
        if runsAfterDrain {
            runsAfterDrain = false
            run()
        }
    }

    private func start(_ slot: Slot) {
        slot.restart = nil
        slot.startedAt = world.loop.now
        do throws(ProvisionError) {
            let process = try world.provisioner.start(slot.kind, number: slot.number) {
                [weak self] how in self?.ended(slot, how)
            }
            slot.process = process
            slot.end = Signal()
            world.log.info(
                "process_started",
                [
                    ("kind", slot.kind.rawValue), ("number", "\(slot.number)"),
                    ("label", process.label),
                ])
        } catch {
            ended(slot, error.description)
        }
    }

    private func ended(_ slot: Slot, _ how: String) {
        slot.process = nil
        slot.end.set(())
        let fields: EventLog.Fields = [
            ("kind", slot.kind.rawValue), ("number", "\(slot.number)"), ("how", how),
        ]
        guard isRunning else {
            world.log.info("process_drained", fields)
            return
        }
        world.log.warning("process_ended", fields)
        let wasSteady = world.loop.now - slot.startedAt >= limits.steadyNanoseconds
        slot.failures = wasSteady ? 1 : slot.failures + 1
        let delay = limits.restartBackoff.delay(
            afterTries: slot.failures, elapsed: 0, random: world.random.next())
        slot.restart = world.loop.after(delay ?? limits.restartBackoff.delayNanosecondsMax) {
            [weak self] in
            guard let self, isRunning else { return }
            restarts.add()
            start(slot)
        }
    }

    private func end(_ kind: ProcessKind) async {
        let ending = slots.filter { $0.kind == kind && $0.process != nil }
        let ends = ending.map(\.end)
        for slot in ending { slot.process?.drain() }
        let timer = world.loop.after(limits.drainNanoseconds) { [world] in
            for slot in ending {
                guard let process = slot.process else { continue }
                world.log.warning("process_killed", [("label", process.label)])
                process.kill()
            }
        }
        for end in ends { await end.wait() }
        timer.cancel()
    }
}
