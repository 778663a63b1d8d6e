// SPDX-License-Identifier: Apache-2.0

internal import ChannelRole
internal import CopRole
internal import FrontendRole
internal import HTTP
package import Metadata
package import ObjectStorage
internal import Observability
package import Primitives
internal import RPC

/// How many processes of each kind a cell has, besides its cop.
package struct CellSize: Sendable {
    package var frontends = 3
    package var channels = 3
    package var cacheys = 2
    /// Of background tasks.
    package var workers = 2

    package init() {}
}

/// A whole cell in one process: the same roles that the executables run, over simulated wires,
/// stores and metadata. Any process may crash at any time; what is durable is the world's.
package final class SimCell {
    /// A process of the cell: its loop, and whatever runs there.
    final class Process {
        let name: String
        let loop: SimLoop
        var contents: [AnyObject] = []
        var onEnd: (String) -> Void = { _ in }
        var drain: () -> Void = {}

        init(_ name: String, _ loop: SimLoop) {
            self.name = name
            self.loop = loop
        }
    }

    struct Frontend {
        let process: Process
        let role: FrontendRole
    }

    package let scheduler: Scheduler
    let wires: SimWires
    let clients: SimClients
    let storeService: SimService
    let metadataService: SimService
    /// What is durable.
    package let objects: MemoryStore
    package let rows: MemoryMetadata
    /// What the rules about garbage are held against.
    let ledger: Ledger
    let mutant: Mutant?
    /// A channel's window, which the seed draws.
    private let inFlightChunksMax: Int
    private(set) var frontends: [Int: Frontend] = [:]
    private(set) var channels: [Int: Process] = [:]
    var cop: Process?
    var cacheys: [Int: Process] = [:]
    /// Of background tasks.
    var workers: [Int: Process] = [:]
    /// The disks of cacheys, by number.
    var platters: [Int: SimPlatter] = [:]
    private(set) var incarnations = 0
    /// How many processes crashed.
    package internal(set) var crashes = 0
    /// What workers did, by task and action, as they told at the end of their passes.
    package internal(set) var work: [String: [String: Int]] = [:]
    private let size: CellSize
    /// Of every process of the data path that ever ran, kept with what its metrics read.
    private var meters: [(process: Process, metrics: Metrics)] = []
    /// No process is started any more.
    var isClosing = false

    package init(
        scheduler: Scheduler, size: CellSize, faults: Faults, mutant: Mutant? = nil
    ) {
        self.scheduler = scheduler
        self.size = size
        wires = SimWires(scheduler: scheduler)
        clients = SimClients(scheduler: scheduler)
        storeService = SimService(
            "store", scheduler: scheduler, latency: 300_000...(.milliseconds(8)), faults: faults)
        metadataService = SimService(
            "metadata", scheduler: scheduler, latency: 100_000...(.milliseconds(2)),
            faults: faults)
        let clock = LoopBound(scheduler)
        let now: @Sendable () -> UInt64 = {
            clock.value.epochMilliseconds + UInt64(clock.value.now / 1_000_000)
        }
        objects = MemoryStore(wallMilliseconds: now)
        rows = MemoryMetadata(now: now)
        ledger = Ledger(scheduler: scheduler, objects: objects, rows: rows)
        self.mutant = mutant
        inFlightChunksMax =
            faults.splitsAreGrey ? 64 : [1, 4, 64, 64][Int(scheduler.random.below(4))]
        for service in [storeService, metadataService] {
            service.onEffect = { [unowned self] in mayStop($0, behindEffectOn: $1) }
        }
    }

    /// From now on nothing goes wrong by itself.
    package func heal() {
        storeService.heal()
        metadataService.heal()
        wires.heal()
        for process in processes + background {
            process.loop.wallOffset = 0
            process.loop.resume()
        }
    }

    /// Lets more, or less, go wrong with the services from now on.
    func suffer(_ faults: Faults) {
        storeService.faults = faults
        metadataService.faults = faults
    }

    /// Every process that runs, but those of the background.
    var processes: [Process] {
        channels.keys.sorted().compactMap { channels[$0] }
            + frontends.keys.sorted().compactMap { frontends[$0]?.process }
            + (cop.map { [$0] } ?? [])
    }

    /// Cacheys and workers that run.
    var background: [Process] {
        cacheys.keys.sorted().compactMap { cacheys[$0] }
            + workers.keys.sorted().compactMap { workers[$0] }
    }

    package func start() { startCop() }

    // MARK: Requests

    /// Sends a request to some frontend that runs; nil if its connection breaks, or none runs.
    package func request(
        from client: SimLoop, _ method: String, _ path: String, query: String = "",
        headers: [(name: String, value: String)], body: Bytes
    ) async -> SimResponse? {
        guard let frontend = someFrontend() else { return nil }
        let request = HTTPRequest(
            method: method, path: path, query: query, headers: headers, isHTTP2: true)
        return await clients.request(
            from: client, to: frontend.process.loop, frontend.role, request, body: body)
    }

    /// Opens a request whose body and response stream; nil if no frontend runs.
    func open(
        from client: SimLoop, _ method: String, _ path: String, query: String = "",
        headers: [(name: String, value: String)]
    ) -> SimStream? {
        guard let frontend = someFrontend() else { return nil }
        let request = HTTPRequest(
            method: method, path: path, query: query, headers: headers, isHTTP2: true)
        return clients.open(from: client, to: frontend.process.loop, frontend.role, request)
    }

    private func someFrontend() -> Frontend? {
        let running = frontends.keys.sorted().compactMap { frontends[$0] }
        guard !running.isEmpty else { return nil }
        return running[Int(scheduler.random.below(UInt64(running.count)))]
    }

    // MARK: Ends

    /// The active cop is gone; another one starts after a while.
    func copEnded(restartAfter delay: Nanoseconds) {
        cop = nil
        world.run(after: delay) { [self] in startCop() }
    }

    func end(_ process: Process, _ reason: String) {
        guard process.loop.isAlive else { return }
        process.loop.crash()
        wires.crashed(process.loop)
        clients.crashed(process.loop)
        for (number, channel) in channels where channel === process { channels[number] = nil }
        for (number, one) in frontends where one.process === process { frontends[number] = nil }
        for (number, cachey) in cacheys where cachey === process { cacheys[number] = nil }
        for (number, worker) in workers where worker === process { workers[number] = nil }
        process.onEnd(reason)
    }

    private(set) lazy var world = scheduler.makeLoop("world")

    // MARK: Processes

    func makeProcess(_ kind: String) -> Process {
        incarnations += 1
        let name = "\(kind)-\(incarnations)"
        return Process(name, scheduler.makeLoop(name))
    }

    func log(_ process: Process) -> EventLog {
        let bound = LoopBound((scheduler, ledger, process.name))
        return EventLog(level: .info) { level, event, fields in
            let (scheduler, ledger, name) = bound.value
            let text = "\(name) \(level) \(event) \(fields.map { "\($0.name)=\($0.value)" })"
            scheduler.trace.note(text, at: scheduler.now)
            if Self.alarms.contains(event) { ledger.violate(text) }
        }
    }

    /// What a process says where it finds what cannot be: it is right, and the cell is wrong.
    private static let alarms: Set = ["bad_object", "object_too_short", "bgtask_violation"]

    func meter(_ process: Process, _ role: String) -> Metrics {
        let metrics = Metrics(role: role)
        meters.append((process, metrics))
        return metrics
    }

    /// What all processes counted under a name, labels included.
    func total(_ name: String) -> Int {
        meters.reduce(0) { total, meter in
            let lines = meter.metrics.render().split(separator: "\n")
            let values = lines.filter { $0.hasPrefix("\(name) ") }.map { line in
                Int(line.dropFirst(name.count + 1)) ?? 0
            }
            return total + values.reduce(0, +)
        }
    }

    func randomSource() -> RandomSource { .seeded(scheduler.random.next()) }

    /// The store and the metadata, as one process reaches them.
    func buckets(_ process: Process) -> [Bucket] {
        let store = SimObjectStore(
            inner: objects, service: storeService, origin: process.loop, ledger: ledger)
        return [Bucket(name: "main", store: store)]
    }

    func metadata(_ process: Process) -> SimMetadata {
        SimMetadata(
            inner: rows, service: metadataService, origin: process.loop, ledger: ledger)
    }

    private func startCop() {
        let process = makeProcess("cop")
        cop = process
        var limits = CopLimits()
        limits.channels = size.channels
        limits.frontends = size.frontends
        if case .cop(let bug) = mutant { limits.mutant = bug }
        limits.cacheys = size.cacheys
        limits.bgtasks = size.workers
        let role = CopRole(
            world: CopWorld(
                loop: process.loop, metadata: metadata(process), buckets: buckets(process),
                random: randomSource(), log: log(process), metrics: Metrics(role: "cop"),
                provisioner: SimProvisioner(cell: self, loop: process.loop)),
            limits: limits)
        process.contents = [role]
        process.loop.run { role.start() }
    }

    fileprivate func startChannel(_ number: Int, ended: @escaping (String) -> Void) -> SimChild {
        let process = makeProcess("channel")
        channels[number] = process
        process.onEnd = ended
        var limits = ChannelLimits(address: "sim:\(process.name)")
        limits.flushNanoseconds = .seconds(2)
        limits.inFlightChunksMax = inFlightChunksMax
        if inFlightChunksMax == 1 {
            // Little room and low rates: appends wait for their turn, and some are refused.
            limits.chunkBytesMax = 4 << 10
            limits.asAddedBytesMin = 0
            limits.stretchBytesMin = 64
            limits.batchesPerSecondMax = 50
            limits.streamBytesPerSecondMax = 16 << 10
        }
        limits.dormancyNanoseconds = .milliseconds(1_500)
        if case .channel(let bug) = mutant { limits.mutant = bug }
        let address = limits.address
        let network = SimNetwork(wires: wires, loop: process.loop)
        let role = ChannelRole(
            world: ChannelWorld(
                loop: process.loop, metadata: metadata(process), buckets: buckets(process),
                random: randomSource(), log: log(process), metrics: Metrics(role: "channel"),
                exit: { [weak self] in self?.end(process, $0) }),
            limits: limits)
        let server = RPCServer(
            network: network, loop: process.loop,
            identity: PeerIdentity(role: .channel, id: UInt64(incarnations)), service: role)
        process.contents = [role, server]
        launch(process, server, at: address) { try await role.start() }
        process.drain = { process.loop.spawn { await role.drain() } }
        return child(process, drain: process.drain)
    }

    /// Listens, then starts the process's role; a process that cannot do both ends.
    func launch(
        _ process: Process, _ server: RPCServer, at address: String,
        _ start: @escaping () async throws -> Void
    ) {
        let log = log(process)
        process.loop.run {
            process.loop.spawn {
                do {
                    try await server.listen(address)
                    try await start()
                } catch {
                    log.error("not started", [("error", "\(error)")])
                    self.end(process, "not started")
                }
            }
        }
    }

    fileprivate func startFrontend(_ number: Int, ended: @escaping (String) -> Void) -> SimChild {
        let process = makeProcess("frontend")
        process.onEnd = ended
        let calls = RPCClient(
            network: SimNetwork(wires: wires, loop: process.loop), loop: process.loop,
            identity: PeerIdentity(role: .frontend, id: UInt64(incarnations)),
            random: randomSource())
        let metadata = metadata(process)
        let metrics = meter(process, "frontend")
        let role = FrontendRole(
            world: FrontendWorld(
                loop: process.loop, metadata: metadata, calls: calls,
                buckets: buckets(process), random: randomSource(), log: log(process),
                metrics: metrics, cacheys: size.cacheys > 0 ? metadata : nil),
            limits: FrontendLimits(rootToken: nil))
        process.contents = [role, calls]
        frontends[number] = Frontend(process: process, role: role)
        process.loop.run { role.start() }
        return child(process) {
            process.loop.spawn {
                _ = await role.drain(within: .seconds(5))
                self.end(process, "drained")
            }
        }
    }

    func child(_ process: Process, drain: @escaping () -> Void) -> SimChild {
        SimChild(
            label: process.name,
            onDrain: { process.loop.run { drain() } },
            onKill: { [weak self] in self?.end(process, "killed") })
    }
}

final class SimChild: ProvisionedProcess {
    let label: String
    private let onDrain: () -> Void
    private let onKill: () -> Void

    init(label: String, onDrain: @escaping () -> Void, onKill: @escaping () -> Void) {
        self.label = label
        self.onDrain = onDrain
        self.onKill = onKill
    }

    func drain() { onDrain() }
    func kill() { onKill() }
}

/// Starts the processes that a simulated cop asks for.
private final class SimProvisioner: Provisioner {
    private unowned let cell: SimCell
    private let loop: SimLoop

    init(cell: SimCell, loop: SimLoop) {
        self.cell = cell
        self.loop = loop
    }

    func start(
        _ kind: ProcessKind, number: Int, ended: @escaping (String) -> Void
    ) throws(ProvisionError) -> any ProvisionedProcess {
        if cell.isClosing { throw ProvisionError("the cell is closing down") }
        let tell: (String) -> Void = { [loop] reason in
            loop.run(after: .milliseconds(1)) { ended(reason) }
        }
        switch kind {
        case .channel: return cell.startChannel(number, ended: tell)
        case .frontend: return cell.startFrontend(number, ended: tell)
        case .cachey: return cell.startCachey(number, ended: tell)
        case .bgtask: return cell.startWorker(number, ended: tell)
        }
    }
}
