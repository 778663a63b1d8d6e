// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// What is done to a stream.
enum StreamKind: CaseIterable {
    /// Appends, half of them guarded by a sequence number.
    case guarded
    /// Appends under fencing tokens, which are now and then replaced.
    case fenced
    /// Appends and trims.
    case trimmed
    /// Appends in pipelined sessions.
    case sessions
}

/// A stream of the workload, and what is known of it.
final class Subject {
    let name: String
    let kind: StreamKind
    let history: History
    private var isAwake = false

    init(_ name: String, _ kind: StreamKind) {
        self.name = name
        self.kind = kind
        history = History(stream: name)
    }

    var path: String { "/v1/streams/\(name)/records" }

    /// From now on it is always awake.
    func wake() { isAwake = true }

    /// Streams sleep for a while now and then, so that they become dormant.
    func sleeps(at now: Nanoseconds) -> Bool {
        if isAwake { return false }
        let epoch = UInt64(now / .seconds(3))
        let salt = name.utf8.reduce(epoch) { $0 &* 31 &+ UInt64($1) }
        return RandomSource.seeded(salt).oneIn(3)
    }
}

/// A client that appends, reads and asks for tails through whatever frontend runs, and notes what
/// it is told.
final class WorkloadClient {
    private let requests: SimRequests
    private let loop: SimLoop
    private let name: String
    private let random: RandomSource
    private let subjects: [Subject]
    /// Between two operations.
    private let pace: ClosedRange<Nanoseconds>
    private var operations = 0
    /// The token that this client believes to hold, by stream.
    private var tokens: [String: String] = [:]
    private(set) var isDone = false
    /// Set to end after the present operation.
    var stops = false

    init(
        _ name: String, cell: SimCell, subjects: [Subject],
        pace: ClosedRange<Nanoseconds> = 0...(.milliseconds(40))
    ) {
        self.name = name
        self.subjects = subjects
        self.pace = pace
        loop = cell.scheduler.makeLoop(name)
        requests = SimRequests(cell: cell, loop: loop)
        random = .seeded(cell.scheduler.random.next())
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                while !stops {
                    await step()
                    await loop.sleep(random.within(pace))
                }
                isDone = true
            }
        }
    }

    private func step() async {
        operations += 1
        let subject = subjects[Int(random.below(UInt64(subjects.count)))]
        if subject.sleeps(at: loop.now) { return }
        switch random.below(20) {
        case 0..<11: await append(subject)
        case 11..<16: await checkTail(subject)
        case 16..<19: await read(subject)
        default: await readAll(subject)
        }
    }

    // MARK: Appends

    private func append(_ subject: Subject) async {
        if subject.kind == .trimmed && random.oneIn(6) { return await trim(subject) }
        if subject.kind == .fenced && (tokens[subject.name] == nil || random.oneIn(12)) {
            return await fence(subject)
        }
        let bodies = (0...random.below(3)).map { "\(name)/\(operations)/\($0)" }
        var conditions = AppendConditions.none
        switch subject.kind {
        case .guarded: if random.oneIn(2) { conditions.matchSeqNum = subject.history.knownTail }
        case .fenced: conditions.fencingToken = tokens[subject.name]
        case .trimmed, .sessions: break
        }
        let records = bodies.map { AppendRecord(body: Bytes(utf8: $0)) }
        let applied = await perform(subject, records, bodies, conditions)
        if applied == false { tokens[subject.name] = nil }
    }

    private func fence(_ subject: Subject) async {
        let token = "\(name)-\(operations)"
        let record = AppendRecord(
            headers: [RecordHeader(name: Bytes(), value: Bytes(utf8: "fence"))],
            body: Bytes(utf8: token))
        var conditions = AppendConditions.none
        conditions.matchSeqNum = subject.history.knownTail
        tokens[subject.name] = nil
        let applied = await perform(subject, [record], [token], conditions, setsToken: token)
        if applied == true { tokens[subject.name] = token }
    }

    private func trim(_ subject: Subject) async {
        let point = random.below(subject.history.knownTail + 1)
        subject.history.willTrim(below: point)
        _ = await perform(
            subject, [.trim(below: point)], ["\(History.trimPrefix)\(point)"], .none)
    }

    /// True if it was applied, false if it certainly was not, nil if nobody knows.
    private func perform(
        _ subject: Subject, _ records: [AppendRecord], _ bodies: [String],
        _ conditions: AppendConditions, setsToken: String? = nil
    ) async -> Bool? {
        let history = subject.history
        let known = history.knownTail
        let id = history.log.begin(
            .append(
                OperationLog.Append(
                    hashes: bodies.map(History.hash), setsToken: setsToken,
                    token: conditions.fencingToken, match: conditions.matchSeqNum)))
        var input = ByteWriter()
        input.writeAppendInput(records, conditions)
        let response = await requests.send("POST", subject.path, body: input.finish())
        switch response.map(AppendAnswer.init) {
        case .applied(let ack):
            history.appended(
                bodies, start: ack.start.seqNum, end: ack.end.seqNum, tail: ack.tail.seqNum)
            history.log.end(id, .appended(tail: ack.end.seqNum))
            return true
        case .refused(let next):
            // Trims do not have a body of their own.
            if setsToken != nil || !bodies[0].hasPrefix(History.trimPrefix) {
                history.refused(bodies)
            }
            if let next { history.sawTail(next, known: known, by: "a rejection") }
            history.log.end(id, .failed)
            return false
        case .unknown, nil:
            history.log.end(id, .unknown)
            return nil
        }
    }

    // MARK: Reads

    private func checkTail(_ subject: Subject) async {
        let known = subject.history.knownTail
        let id = subject.history.log.begin(.checkTail)
        let response = await requests.send("GET", subject.path + "/tail")
        guard let response, response.status == 200,
            let tail = response.number(behind: "seq_num")
        else { return subject.history.log.end(id, .failed) }
        subject.history.sawTail(tail, known: known, by: "a tail")
        subject.history.log.end(id, .tail(tail))
    }

    private func read(_ subject: Subject) async {
        let known = subject.history.knownTail
        let start = random.below(known + 1)
        guard let page = await requests.page(subject, from: start) else { return }
        subject.history.read(page.records, from: start)
        guard page.reachesTail else { return }
        let end = page.records.last.map { $0.seqNum + 1 } ?? start
        subject.history.sawTail(page.tail ?? end, known: known, by: "a read")
    }

    /// Reads everything: one operation, however many requests it takes.
    private func readAll(_ subject: Subject) async {
        let history = subject.history
        let id = history.log.begin(.read)
        guard let records = await requests.everything(subject) else {
            return history.log.end(id, .failed)
        }
        history.read(records, from: 0)
        if history.isTrimmed { return history.log.end(id, .failed) }
        let hash = records.map { History.hash($0.body) }.reduce(0, XXH3.chain)
        history.log.end(id, .read(tail: SeqNum(records.count), hash: hash))
    }
}
