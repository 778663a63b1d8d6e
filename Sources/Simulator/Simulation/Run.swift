// SPDX-License-Identifier: Apache-2.0

internal import HTTP
package import Primitives
internal import Records

/// One simulated life of a cell under load and faults, from a seed.
package struct Run {
    package var seed: UInt64
    package var frontends = 3
    package var channels = 3
    package var clients = 5
    /// How long clients and faults go on, in virtual time; then the world heals and is checked.
    package var duration: Nanoseconds = .seconds(30)
    package var faults: Faults
    package var keepsTrace = false
    package var mutant: Mutant?

    /// The seed decides what goes wrong, and how often.
    package init(seed: UInt64) {
        self.seed = seed
        faults = .swarm(seed: seed)
    }

    package struct Outcome {
        package var seed: UInt64
        package var traceHash: UInt64
        package var trace: [String]
        package var violations: [String]
        package var acknowledged: Int
        package var crashes: Int
        package var steps: Int
        /// Streams whose history was found linearizable.
        package var linearizable: Int
        /// Of each stream, in the public format.
        package var histories: [(stream: String, lines: [String])]
    }

    /// Runs it. Everything must also get well again: streams that cannot be read once the world
    /// healed are violations.
    package func callAsFunction() -> Outcome {
        let trace = Trace(keepsLines: keepsTrace)
        let scheduler = Scheduler(seed: seed, trace: trace)
        let cell = SimCell(
            scheduler: scheduler, frontends: frontends, channels: channels, faults: faults,
            mutant: mutant)
        let subjects = StreamKind.allCases.enumerated().map { Subject("stream-\($0.0)", $0.1) }
        let driver = Driver(cell, subjects, run: self)
        cell.start()
        driver.start()
        let finished = scheduler.run(until: duration + .seconds(400), steps: 20_000_000) {
            driver.isDone
        }
        var violations = driver.violations + subjects.flatMap(\.history.violations)
        if !finished { violations.append("the cell did not get well again: \(driver.phase)") }
        return Outcome(
            seed: seed, traceHash: trace.hash, trace: trace.lines, violations: violations,
            acknowledged: subjects.reduce(0) { $0 + $1.history.acknowledged },
            crashes: cell.crashes, steps: scheduler.stepCount,
            linearizable: subjects.count { $0.history.verdict == "linearizable" },
            histories: subjects.map { ($0.name, $0.history.log.lines) })
    }
}

/// Sets a cell up, lets clients and faults loose on it, heals it, and reads everything back.
private final class Driver {
    private let cell: SimCell
    private let loop: SimLoop
    private let requests: SimRequests
    private let subjects: [Subject]
    private let run: Run
    private let clients: [WorkloadClient]
    private let sessions: [SessionClient]
    private let followers: [FollowClient]
    private let control: ControlClient
    private let disturber: Disturber
    private(set) var isDone = false
    private(set) var phase = "set up"
    private var failures: [String] = []

    var violations: [String] { failures + control.violations }

    init(_ cell: SimCell, _ subjects: [Subject], run: Run) {
        self.cell = cell
        self.subjects = subjects
        self.run = run
        loop = cell.scheduler.makeLoop("driver")
        requests = SimRequests(cell: cell, loop: loop)
        clients = (0..<run.clients).map {
            WorkloadClient("client-\($0)", cell: cell, subjects: subjects)
        }
        sessions = subjects.filter { $0.kind == .sessions }.flatMap { subject in
            (0..<2).map { SessionClient("session-\($0)", cell: cell, subject: subject) }
        }
        followers = subjects.map { FollowClient("follow-\($0.name)", cell: cell, subject: $0) }
        control = ControlClient(cell)
        disturber = Disturber(cell)
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                await setUp()
                phase = "load"
                for client in clients { client.start() }
                for client in sessions { client.start() }
                for client in followers { client.start() }
                control.start()
                disturber.start(run.faults)
                await loop.sleep(run.duration)
                disturber.stop()
                cell.heal()
                for subject in subjects { subject.wake() }
                phase = "the clients end"
                await endLoad()
                for subject in subjects {
                    phase = "\(subject.name) is read back"
                    await check(subject)
                }
                isDone = true
            }
        }
    }

    private func endLoad() async {
        for client in clients { client.stops = true }
        for client in sessions { client.stops = true }
        control.stops = true
        while !clients.allSatisfy(\.isDone) || !sessions.allSatisfy(\.isDone) || !control.isDone {
            await loop.sleep(.milliseconds(100))
        }
    }

    private func setUp() async {
        await untilDone("/v1/basins", #"{"basin":"\#(SimRequests.basin)"}"#)
        for subject in subjects {
            await untilDone("/v1/streams", #"{"stream":"\#(subject.name)"}"#)
        }
    }

    private func untilDone(_ path: String, _ body: String) async {
        while true {
            // 409: an earlier try did it, and its reply was lost.
            if let status = await requests.json("POST", path, body)?.status,
                status == 201 || status == 409
            {
                return
            }
            await loop.sleep(.milliseconds(50))
        }
    }

    /// Reads a stream from its beginning, and waits for its follower; both must be possible within
    /// two minutes.
    private func check(_ subject: Subject) async {
        let deadline = loop.now + .seconds(120)
        var known = subject.history.knownTail
        guard let contents = await contents(of: subject, before: deadline) else { return }
        subject.history.finish(contents, known: known)
        for follower in followers where follower.subject === subject {
            while follower.next < subject.history.knownTail, loop.now < deadline {
                await loop.sleep(.milliseconds(100))
            }
            if follower.next < subject.history.knownTail {
                failures.append(
                    "\(subject.name): a follower stays at \(follower.next) of"
                        + " \(subject.history.knownTail)")
            }
            follower.stops = true
        }
        // An append that its client gave up may have come in since, and the follower have seen it.
        known = subject.history.knownTail
        guard let contents = await self.contents(of: subject, before: deadline) else { return }
        subject.history.readAll(contents, known: known)
    }

    private func contents(
        of subject: Subject, before deadline: Nanoseconds
    ) async -> [(seqNum: SeqNum, body: String)]? {
        while loop.now < deadline {
            if let contents = await requests.everything(subject) { return contents }
            await loop.sleep(.milliseconds(100))
        }
        failures.append("\(subject.name) cannot be read")
        return nil
    }
}
