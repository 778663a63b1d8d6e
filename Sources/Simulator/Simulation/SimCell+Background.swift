// SPDX-License-Identifier: Apache-2.0

internal import BgTaskRole
internal import CacheyRole
internal import CopRole
internal import Observability
internal import Primitives
internal import RPC

/// The processes that no client waits for: cacheys, and workers of background tasks.
extension SimCell {
    /// A cachey keeps its address and its disk when it is started again.
    func startCachey(_ number: Int, ended: @escaping (String) -> Void) -> SimChild {
        let process = makeProcess("cachey")
        cacheys[number] = process
        let platter = platters[number] ?? SimPlatter(random: randomSource())
        platters[number] = platter
        process.onEnd = { reason in
            platter.tear()
            ended(reason)
        }
        var limits = CacheyLimits(address: "sim:cachey-\(number)")
        // So small that pages leave memory, and the disk.
        limits.memoryBytesMax = 16 << 10
        limits.diskBytesMax = 512 << 10
        if case .cachey(let bug) = mutant { limits.mutant = bug }
        let disk = SimDisk(platter, loop: process.loop, random: randomSource()) {
            [storeService] in storeService.faults.diskOneIn
        }
        let role = CacheyRole(
            world: CacheyWorld(
                loop: process.loop, registry: metadata(process), buckets: buckets(process),
                disk: disk, log: log(process), metrics: meter(process, "cachey")),
            limits: limits)
        let server = RPCServer(
            network: SimNetwork(wires: wires, loop: process.loop), loop: process.loop,
            identity: PeerIdentity(role: .cachey, id: UInt64(incarnations)), service: role)
        process.contents = [role, server]
        launch(process, server, at: limits.address) { try await role.start() }
        return child(process) {
            process.loop.spawn {
                await role.drain(within: .seconds(5))
                self.end(process, "drained")
            }
        }
    }

    /// The waits are the shortest that are allowed.
    func startWorker(_ number: Int, ended: @escaping (String) -> Void) -> SimChild {
        let process = makeProcess("bgtask")
        workers[number] = process
        process.onEnd = ended
        let calls = RPCClient(
            network: SimNetwork(wires: wires, loop: process.loop), loop: process.loop,
            identity: PeerIdentity(role: .bgtask, id: UInt64(incarnations)),
            random: randomSource())
        var limits = BgTaskLimits()
        limits.planNanoseconds = .seconds(360)
        limits.condemnedNanoseconds = .seconds(30)
        limits.orphanNanoseconds = .seconds(1_200)
        limits.sealNanoseconds = .seconds(30 * 86_400)
        limits.chunkStride = Int(Ledger.chunkStride)
        limits.passNanoseconds = .seconds(15)
        limits.sweepNanoseconds = .seconds(120)
        limits.partitions = 2
        if case .bgtask(let bug) = mutant { limits.mutant = bug }
        let role = BgTaskRole(
            world: BgTaskWorld(
                loop: process.loop, metadata: metadata(process), buckets: buckets(process),
                calls: calls, random: randomSource(), log: workLog(process),
                metrics: Metrics(role: "bgtask")),
            limits: limits)
        process.contents = [role, calls]
        process.loop.run { role.start() }
        return child(process) {
            process.loop.spawn {
                await role.drain()
                self.end(process, "drained")
            }
        }
    }

    /// Counts what is done, by task.
    private func workLog(_ process: Process) -> EventLog {
        let plain = log(process)
        let bound = LoopBound((self, plain))
        return EventLog(level: .info) { level, event, fields in
            let (cell, plain) = bound.value
            plain.log(level, event, fields)
            if event == "pass_ended" { cell.count(fields) }
        }
    }

    private func count(_ fields: EventLog.Fields) {
        guard let task = fields.first(where: { $0.name == "task" })?.value else { return }
        for field in fields where field.name != "task" && field.name != "partition" {
            work[task, default: [:]][field.name, default: 0] += Int(field.value) ?? 0
        }
    }

    /// A worker stops right behind an effect, or whoever has just stored a segment does: it ends,
    /// or freezes, for longer than anybody should rely on.
    func mayStop(_ origin: SimLoop?, behindEffectOn key: String?) {
        let n = storeService.faults.stopOneIn
        guard n > 0, let origin, origin.isAlive else { return }
        let worker = workers.values.first { $0.loop === origin }
        guard worker != nil || key?.hasPrefix("seg/") == true, scheduler.random.oneIn(n) else {
            return
        }
        guard let victim = worker ?? processes.first(where: { $0.loop === origin }),
            victim !== cop
        else { return }
        if scheduler.random.oneIn(2) {
            scheduler.trace.note("\(victim.name) ends behind an effect", at: scheduler.now)
            crashes += 1
            return end(victim, "crashed")
        }
        let isLong = worker != nil && scheduler.random.oneIn(3) && !isWorkerFrozen
        freeze(victim, isLong ? .seconds(1_800)...(.seconds(3_000)) : .seconds(1)...(.seconds(60)))
    }

    /// With all of them frozen, nothing would be done for long.
    var isWorkerFrozen: Bool { workers.values.contains { $0.loop.isPaused } }

    func freeze(_ victim: Process, _ durations: ClosedRange<Nanoseconds>) {
        let duration = scheduler.random.within(durations)
        scheduler.trace.note(
            "pause \(victim.name) for \(duration / 1_000_000)ms", at: scheduler.now)
        victim.loop.pause()
        world.run(after: duration) { [scheduler] in
            scheduler.trace.note("resume \(victim.name)", at: scheduler.now)
            victim.loop.resume()
        }
    }

    /// The day is over: no process is started any more, channels close their logs, and but for the
    /// background tasks everybody else goes home.
    func closeDown() {
        isClosing = true
        for number in frontends.keys.sorted() {
            if let frontend = frontends[number] { end(frontend.process, "closing") }
        }
        for number in cacheys.keys.sorted() {
            if let cachey = cacheys[number] { end(cachey, "closing") }
        }
        for number in channels.keys.sorted() {
            if let channel = channels[number] { channel.loop.run { channel.drain() } }
        }
    }

    /// All logs are retired: nobody has to watch over anything.
    func endCop() {
        if let cop { end(cop, "closing") }
    }
}
