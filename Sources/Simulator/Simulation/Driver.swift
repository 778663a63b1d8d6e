// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import Records

/// Sets a cell up, lets clients and faults loose on it, heals it, and reads everything back; then
/// the evening and the night, if there are any.
final class Driver {
    private let cell: SimCell
    private let loop: SimLoop
    private let requests: SimRequests
    private let subjects: [Subject]
    private let run: Run
    private let clients: [WorkloadClient]
    private let sessions: [SessionClient]
    private let followers: [FollowClient]
    private let control: ControlClient
    private let lifecycles: [LifecycleClient]
    private let disturber: Disturber
    private(set) var isDone = false
    private(set) var phase = "set up"
    private var failures: [String] = []

    var violations: [String] {
        failures + control.violations + lifecycles.flatMap(\.violations)
    }

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
        lifecycles =
            run.evening > 0
            ? LifecycleClient.Way.allCases.map { LifecycleClient($0, cell: cell) } : []
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                await setUp()
                await day()
                if run.evening > 0 {
                    await evening()
                    await night()
                }
                isDone = true
            }
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

    // MARK: The day

    private func day() async {
        phase = "load"
        for client in clients { client.start() }
        for client in sessions { client.start() }
        for client in followers { client.start() }
        for client in lifecycles { client.start() }
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
    }

    private func endLoad() async {
        for client in clients { client.stops = true }
        for client in sessions { client.stops = true }
        control.stops = true
        while !clients.allSatisfy(\.isDone) || !sessions.allSatisfy(\.isDone) || !control.isDone {
            await loop.sleep(.milliseconds(100))
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

    // MARK: The evening

    private func evening() async {
        phase = "the evening"
        let disturber = Disturber(cell)
        let late = (0..<2).map {
            WorkloadClient(
                "late-\($0)", cell: cell, subjects: subjects, pace: 0...(.seconds(6)))
        }
        cell.suffer(run.eveningFaults)
        disturber.start(run.eveningFaults)
        for client in late { client.start() }
        await loop.sleep(run.evening)
        disturber.stop()
        cell.heal()
        for client in late { client.stops = true }
        for client in lifecycles { client.stops = true }
        phase = "the evening's clients end"
        while !late.allSatisfy(\.isDone) || !lifecycles.allSatisfy(\.isDone) {
            await loop.sleep(.milliseconds(100))
        }
        for subject in subjects {
            phase = "\(subject.name) is read once more"
            let known = subject.history.knownTail
            let deadline = loop.now + .seconds(120)
            if let contents = await contents(of: subject, before: deadline) {
                subject.history.readAll(contents, known: known)
            }
        }
    }

    // MARK: The night

    /// All logs are retired, all garbage goes; a month later the seals go too.
    private func night() async {
        phase = "logs are closed"
        cell.closeDown()
        await until("logs are not retired", within: .seconds(600)) { [cell] in
            let rows = await cell.ledger.ask { metadata throws(MetadataError) in
                try await metadata.channels([.active, .dead, .sealed])
            }
            return rows.map { "channel \($0.id) is \($0.state)" }
        }
        cell.endCop()
        phase = "garbage goes"
        await until("garbage stays", within: .seconds(3 * 3_600)) { [cell] in
            await cell.ledger.leftovers(sealsToo: false)
        }
        failures += await cell.ledger.missing()
        phase = "seals go"
        cell.scheduler.jump(Ledger.sealNanoseconds)
        await until("garbage stays for a month", within: .seconds(3 * 3_600)) { [cell] in
            await cell.ledger.leftovers(sealsToo: true)
        }
        failures += await cell.ledger.missing()
    }

    /// Waits until nothing is left of what `rest` lists; what stays beyond the limit is a failure.
    private func until(
        _ what: String, within limit: Nanoseconds, _ rest: () async -> [String]
    ) async {
        let deadline = loop.now + limit
        var left = await rest()
        while !left.isEmpty, loop.now < deadline {
            await loop.sleep(.seconds(20))
            left = await rest()
        }
        if !left.isEmpty { failures.append("\(what): \(left.prefix(5)), \(left.count) in all") }
    }
}
