// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Lets things go wrong with a cell, each kind at its own rate, until it is told to stop.
final class Disturber {
    private let cell: SimCell
    private let loop: SimLoop
    private let random: RandomSource
    private var isOver = false
    private var splitsAreGrey = false

    init(_ cell: SimCell) {
        self.cell = cell
        loop = cell.scheduler.makeLoop("disturber")
        random = .seeded(cell.scheduler.random.next())
    }

    func start(_ faults: Faults) {
        splitsAreGrey = faults.splitsAreGrey
        every(faults.crashNanoseconds, crash)
        every(faults.pauseNanoseconds, pause)
        every(faults.partitionNanoseconds, partition)
        every(faults.outageNanoseconds, outage)
        every(faults.isolationNanoseconds, isolate)
        every(faults.splitNanoseconds, split)
        every(faults.drainNanoseconds, drain)
        every(faults.clockNanoseconds, moveClock)
        every(faults.sleepNanoseconds, sleep)
        every(faults.stuckNanoseconds, stick)
        every(faults.frontendCrashNanoseconds, crashFrontend)
    }

    func stop() { isOver = true }

    private func every(_ mean: Nanoseconds, _ disturb: @escaping () -> Void) {
        guard mean > 0 else { return }
        loop.run(after: random.within(0...(2 * mean))) { [self] in
            guard !isOver else { return }
            disturb()
            every(mean, disturb)
        }
    }

    private func note(_ text: String) {
        cell.scheduler.trace.note(text, at: cell.scheduler.now)
    }

    private func pick<Element>(_ all: [Element]) -> Element? {
        all.isEmpty ? nil : all[Int(random.below(UInt64(all.count)))]
    }

    private func somebody() -> SimCell.Process? {
        let background = cell.background
        if !background.isEmpty && random.oneIn(4) { return pick(background) }
        return somebodyInFront()
    }

    private func somebodyInFront() -> SimCell.Process? {
        pick(cell.processes.filter { $0 !== cell.cop || random.oneIn(3) })
    }

    private func someChannel() -> SimCell.Process? {
        pick(cell.channels.keys.sorted().compactMap { cell.channels[$0] })
    }

    /// Ends some process, as kill -9 does.
    private func crash() {
        guard let victim = somebody() else { return }
        cell.crashes += 1
        note("crash \(victim.name)")
        guard victim === cell.cop else { return cell.end(victim, "crashed") }
        // Its children are bound to it, as child processes are.
        for child in cell.processes + cell.background where child !== victim {
            cell.end(child, "cop is gone")
        }
        cell.end(victim, "crashed")
        cell.copEnded(restartAfter: random.within(.milliseconds(100)...(.seconds(5))))
    }

    private func crashFrontend() {
        let all = cell.frontends.keys.sorted().compactMap { cell.frontends[$0]?.process }
        guard let victim = pick(all) else { return }
        cell.crashes += 1
        note("crash \(victim.name)")
        cell.end(victim, "crashed")
    }

    private func pause() {
        guard let victim = random.oneIn(2) ? someChannel() : somebody() else { return }
        // Mostly longer than a lease, and not so long that every client has given up.
        let duration =
            random.oneIn(4)
            ? random.within(.milliseconds(10)...(.seconds(20)))
            : random.within(.seconds(4)...(.seconds(9)))
        note("pause \(victim.name) for \(duration / 1_000_000)ms")
        victim.loop.pause()
        loop.run(after: duration) { [self] in
            note("resume \(victim.name)")
            victim.loop.resume()
        }
    }

    private func partition() {
        guard let one = somebody(), let other = somebody(), one !== other else { return }
        let duration = random.within(.milliseconds(100)...(.seconds(12)))
        let breaks = random.oneIn(2)
        note("cut \(one.name) from \(other.name) for \(duration / 1_000_000)ms, breaks: \(breaks)")
        cell.wires.cut(one.loop, other.loop, for: duration, breaks: breaks)
    }

    private func outage() {
        let duration = random.within(.milliseconds(200)...(.seconds(10)))
        let isStore = random.oneIn(2)
        note("\(isStore ? "store" : "metadata") away for \(duration / 1_000_000)ms")
        (isStore ? cell.storeService : cell.metadataService).goAway(for: duration)
    }

    /// A grey failure: a process that its peers reach, and that reaches little itself.
    private func isolate() {
        guard let victim = random.oneIn(4) ? somebody() : someChannel() else { return }
        let duration = random.within(.seconds(3)...(.seconds(15)))
        note("isolate \(victim.name) for \(duration / 1_000_000)ms")
        cell.metadataService.cutOff(victim.loop, for: duration, .nothing)
        if random.oneIn(2) {
            cell.storeService.cutOff(victim.loop, for: duration, .oneIn(2 + random.below(4)))
        }
    }

    /// A channel and a frontend see each other, and little else: what the frontend knows of owners
    /// grows old, and the channel is declared dead behind its back.
    private func split() {
        let others = cell.frontends.keys.sorted().compactMap { cell.frontends[$0]?.process }
        guard let channel = someChannel(), let ally = pick(others) else { return }
        let duration = random.within(.seconds(5)...(.seconds(14)))
        note("split \(channel.name) and \(ally.name) off for \(duration / 1_000_000)ms")
        for one in [channel, ally] {
            cell.metadataService.cutOff(one.loop, for: duration, .nothing)
        }
        let breaks = random.oneIn(2)
        for other in others where other !== ally {
            cell.wires.cut(channel.loop, other.loop, for: duration, breaks: breaks)
        }
        let reaches: [SimService.Reach] = [
            .nothing, .oneIn(2 + random.below(5)), .everyOtherKey, .everyOtherKey,
        ]
        let reach = splitsAreGrey ? .everyOtherKey : pick(reaches) ?? .nothing
        cell.storeService.cutOff(channel.loop, for: duration, reach)
    }

    /// A worker is frozen for so long that whatever it was about to do is out of date.
    private func sleep() {
        guard !cell.isWorkerFrozen,
            let worker = pick(cell.workers.keys.sorted().compactMap { cell.workers[$0] })
        else { return }
        cell.freeze(worker, .seconds(300)...(.seconds(3_000)))
    }

    /// A channel's flushes fail, and nothing else of it: so it is never declared dead.
    private func stick() {
        guard let channel = someChannel() else { return }
        note("flushes of \(channel.name) are stuck")
        let duration = random.within(.seconds(1_750)...(.seconds(2_400)))
        cell.metadataService.cutOff(channel.loop, for: duration, .allBut(SimService.flushKey))
    }

    private func drain() {
        guard let channel = someChannel() else { return }
        note("drain \(channel.name)")
        channel.loop.run { channel.drain() }
    }

    private func moveClock() {
        guard let victim = somebody() else { return }
        victim.loop.wallOffset = random.within(-3_600_000...3_600_000)
        note("clock of \(victim.name) is off by \(victim.loop.wallOffset)ms")
    }
}
