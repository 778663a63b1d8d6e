// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Observability
internal import Primitives

/// Append sessions that wait for their turn: for room in the log, or for their stream's rate.
///
/// Room is given by deficit round-robin over streams (Shreedhar and Varghese, 1995): a stream whose
/// sessions wait has a *line*, and lines take turns. In its turn a line may use as many bytes as it
/// has credit for, a quantum more each time, so that all get the same in the long run, however many
/// sessions they have and however large their batches are. The sessions of one line take turns too.
///
/// Nobody overtakes: what comes while lines wait for room, or for a stream that has a line, joins
/// the queue. A line whose stream is ahead of its rate stands apart until its time has come, and
/// holds up nobody else.
final class AppendQueue {
    private struct Waiter {
        let session: AppendSession
        /// What its next batch takes, or a few bytes less.
        let bytes: Int
        let since: Nanoseconds
    }

    private final class Line {
        let streamlet: OpenStreamlet
        var waiters: Deque<Waiter> = []
        var credit = 0
        /// It has its quantum and has not used it up: room was short.
        var isInTurn = false
        /// Its stream is ahead of its rate until then.
        var notBefore: Nanoseconds?

        init(_ streamlet: OpenStreamlet) { self.streamlet = streamlet }
    }

    /// Small against a chunk, so that many streams share one; large against common batches.
    static let quantumBytes = 64 << 10

    private let log: LogWriter
    private let loop: any Loop
    private let waits: Histogram
    /// Those that wait for room, in the order of their turns.
    private var ready: Deque<Line> = []
    /// All lines: those of `ready`, those that stand apart, and the one that is served.
    private var lines: [ObjectIdentifier: Line] = [:]
    private var serving: Line?
    /// Whose turn it is, and whether a batch of it was taken.
    private var turn: (waiter: Waiter, hasPassed: Bool)?

    init(log: LogWriter, world: ChannelWorld) {
        self.log = log
        loop = world.loop
        waits = world.metrics.histogram(
            "append_wait_seconds", help: "How long append sessions waited for room or their rate.")
        world.metrics.gauge("blocked_sessions", help: "Append sessions that wait for room.") {
            [unowned self] in Double(count)
        }
    }

    /// Sessions that wait.
    var count: Int { lines.values.reduce(0) { $0 + $1.waiters.count } }

    /// Takes a batch of so many bytes past the queue, if there is room for it and nobody waits who
    /// comes first.
    func admit(_ bytes: Int, of streamlet: OpenStreamlet) -> Bool {
        guard log.hasRoom(for: bytes) else { return false }
        if lines.isEmpty { return true }
        if let serving, serving.streamlet === streamlet {
            guard bytes <= serving.credit else { return false }
            serving.credit -= bytes
            turn?.hasPassed = true
            return true
        }
        return serving == nil && ready.isEmpty && lines[ObjectIdentifier(streamlet)] == nil
    }

    /// The session waits with a batch of so many bytes: it is resumed in its turn, and not before
    /// `notBefore`.
    func join(_ session: AppendSession, bytes: Int, notBefore: Nanoseconds? = nil) {
        if let turn, turn.waiter.session === session, !turn.hasPassed, let serving {
            // It got nothing: its turn is not over.
            serving.waiters.prepend(
                Waiter(session: session, bytes: bytes, since: turn.waiter.since))
            serving.notBefore = notBefore
            return
        }
        let waiter = Waiter(session: session, bytes: bytes, since: loop.now)
        if let line = lines[ObjectIdentifier(session.streamlet)] {
            line.waiters.append(waiter)
            if line === serving { line.notBefore = notBefore }
            return
        }
        let line = Line(session.streamlet)
        line.waiters.append(waiter)
        line.notBefore = notBefore
        lines[ObjectIdentifier(session.streamlet)] = line
        settle(line)
    }

    /// The session is over.
    func leave(_ session: AppendSession) {
        lines[ObjectIdentifier(session.streamlet)]?.waiters.removeAll { $0.session === session }
    }

    /// Removes those sessions that have waited since before `limit` and would rather be refused.
    func takeImpatient(since limit: Nanoseconds) -> [AppendSession] {
        var taken: [AppendSession] = []
        // In an order of their own: a dictionary's differs from run to run.
        for line in lines.values.sorted(by: { $0.streamlet.id < $1.streamlet.id }) {
            line.waiters.removeAll { waiter in
                guard !waiter.session.isPatient, waiter.since < limit else { return false }
                taken.append(waiter.session)
                return true
            }
        }
        return taken
    }

    /// Resumes sessions in their turns, as far as there is room.
    func serve() {
        guard serving == nil else { return }
        while let line = ready.popFirst() {
            if let next = line.waiters.first, line.notBefore == nil {
                guard log.hasRoom(for: next.bytes) else { return ready.prepend(line) }
                serve(line)
            }
            settle(line)
        }
    }

    private func serve(_ line: Line) {
        if !line.isInTurn {
            line.credit += Self.quantumBytes
            line.isInTurn = true
        }
        serving = line
        while line.notBefore == nil, let next = line.waiters.first, next.bytes <= line.credit,
            log.hasRoom(for: next.bytes)
        {
            line.waiters.removeFirst()
            turn = (next, false)
            next.session.resume()
            if turn?.hasPassed == true { waits.record(loop.now - next.since) }
        }
        turn = nil
        serving = nil
    }

    /// Where a line goes on that was served, or could not be.
    private func settle(_ line: Line) {
        guard let next = line.waiters.first else {
            lines[ObjectIdentifier(line.streamlet)] = nil
            return
        }
        if let notBefore = line.notBefore { return setApart(line, until: notBefore) }
        if line.isInTurn, next.bytes <= line.credit { return ready.prepend(line) }
        line.isInTurn = false
        ready.append(line)
    }

    private func setApart(_ line: Line, until time: Nanoseconds) {
        line.isInTurn = false
        line.credit = 0
        loop.after(max(time - loop.now, 0)) { [weak self] in
            line.notBefore = nil
            self?.ready.append(line)
            self?.serve()
        }
    }
}
