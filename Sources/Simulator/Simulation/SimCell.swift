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
    package let objects = MemoryStore()
    package let rows: MemoryMetadata
    private let mutant: Mutant?
    /// A channel's window, which the seed draws.
    private let inFlightChunksMax: Int
    private(set) var frontends: [Int: Frontend] = [:]
    private(set) var channels: [Int: Process] = [:]
    private(set) var cop: Process?
    private var incarnations = 0
    /// How many processes crashed.
    package internal(set) var crashes = 0
    private let size: (frontends: Int, channels: Int)

    package init(
        scheduler: Scheduler, frontends: Int, channels: Int, faults: Faults,
        mutant: Mutant? = nil
    ) {
        self.scheduler = scheduler
        size = (frontends, channels)
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
        rows = MemoryMetadata(now: now)
        self.mutant = mutant
        inFlightChunksMax =
            faults.splitsAreGrey ? 64 : [1, 4, 64, 64][Int(scheduler.random.below(4))]
    }

    /// From now on nothing goes wrong by itself.
    package func heal() {
        storeService.heal()
        metadataService.heal()
        wires.heal()
        for process in processes {
            process.loop.wallOffset = 0
            process.loop.resume()
        }
    }

    /// Every process that runs.
    var processes: [Process] {
        channels.keys.sorted().compactMap { channels[$0] }
            + frontends.keys.sorted().compactMap { frontends[$0]?.process }
            + (cop.map { [$0] } ?? [])
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
        process.onEnd(reason)
    }

    private(set) lazy var world = scheduler.makeLoop("world")

    // MARK: Processes

    private func makeProcess(_ kind: String) -> Process {
        incarnations += 1
        let name = "\(kind)-\(incarnations)"
        return Process(name, scheduler.makeLoop(name))
    }

    private func log(_ process: Process) -> EventLog {
        let bound = LoopBound((scheduler, process.name))
        return EventLog(level: .info) { level, event, fields in
            let (scheduler, name) = bound.value
            scheduler.trace.note(
                "\(name) \(level) \(event) \(fields.map { "\($0.name)=\($0.value)" })",
                at: scheduler.now)
        }
    }

    private func randomSource() -> RandomSource { .seeded(scheduler.random.next()) }

    /// The store and the metadata, as one process reaches them.
    private func buckets(_ process: Process) -> [Bucket] {
        let store = SimObjectStore(inner: objects, service: storeService, origin: process.loop)
        return [Bucket(name: "main", store: store)]
    }

    private func metadata(_ process: Process) -> SimMetadata {
        SimMetadata(inner: rows, service: metadataService, origin: process.loop)
    }

    private func startCop() {
        let process = makeProcess("cop")
        cop = process
        var limits = CopLimits()
        limits.channels = size.channels
        limits.frontends = size.frontends
        if mutant == .sealSkipped { limits.mutant = .sealSkipped }
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
        let log = log(process)
        process.loop.run {
            process.loop.spawn {
                do {
                    try await server.listen(address)
                    try await role.start()
                } catch {
                    log.error("not started", [("error", "\(error)")])
                    self.end(process, "not started")
                }
            }
        }
        process.drain = { process.loop.spawn { await role.drain() } }
        return child(process, drain: process.drain)
    }

    fileprivate func startFrontend(_ number: Int, ended: @escaping (String) -> Void) -> SimChild {
        let process = makeProcess("frontend")
        process.onEnd = ended
        let calls = RPCClient(
            network: SimNetwork(wires: wires, loop: process.loop), loop: process.loop,
            identity: PeerIdentity(role: .frontend, id: UInt64(incarnations)),
            random: randomSource())
        let role = FrontendRole(
            world: FrontendWorld(
                loop: process.loop, metadata: metadata(process), calls: calls,
                buckets: buckets(process), random: randomSource(), log: log(process),
                metrics: Metrics(role: "frontend")),
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

    private func child(_ process: Process, drain: @escaping () -> Void) -> SimChild {
        SimChild(
            label: process.name,
            onDrain: { process.loop.run { drain() } },
            onKill: { [weak self] in self?.end(process, "killed") })
    }
}

fileprivate final class SimChild: ProvisionedProcess {
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
        let tell: (String) -> Void = { [loop] reason in
            loop.run(after: .milliseconds(1)) { ended(reason) }
        }
        switch kind {
        case .channel: return cell.startChannel(number, ended: tell)
        case .frontend: return cell.startFrontend(number, ended: tell)
        case .cachey, .bgtask: throw ProvisionError("a simulated cell has no \(kind.rawValue)")
        }
    }
}
