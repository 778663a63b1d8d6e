// SPDX-License-Identifier: Apache-2.0

internal import CSupport
internal import Glibc
package import Primitives
internal import Synchronization

/// Sizes and times of a driver.
package struct PostgresOptions: Sendable {
    /// Opened when statements wait for one.
    package var connectionsMax = 4
    /// Statements accepted and not yet sent; more are refused at once.
    package var queuedMax = 1_024
    package var connectNanosecondsMax: Nanoseconds = .seconds(3)
    /// How long one statement may take, its wait for a connection included.
    package var statementNanosecondsMax: Nanoseconds = .seconds(3)
    /// How long an operation may take in all, its retries included.
    package var operationNanosecondsMax: Nanoseconds = .seconds(8)
    package var triesMax = 8

    package init() {}
}

/// Postgres over libpq, on one thread of its own.
///
/// The thread keeps a few non-blocking connections and waits in `poll(2)` for all of them and for
/// an eventfd that says there is something to send. Each connection has one statement under way: a
/// pipeline would defeat group commit, and a failure of one statement must not disturb another.
/// Every statement has a deadline. When it passes, the connection is closed and replaced, for
/// nothing else ends a statement on a connection that has gone silent; the server's own
/// `statement_timeout` ends what it may still be doing there.
///
/// libpq resolves host names synchronously: use addresses, or a resolver that answers fast.
package final class PostgresDriver: Sendable {
    private let inbox: StatementInbox
    private let options: PostgresOptions
    private let meter = StatementMeter()

    /// Connects when the first statement comes. `conninfo` is libpq's: `key=value …` or a URI.
    package init(conninfo: String, options: PostgresOptions = PostgresOptions()) {
        precondition(options.connectionsMax >= 1 && options.queuedMax >= 1)
        self.options = options
        inbox = StatementInbox(queuedMax: options.queuedMax)
        PostgresThread.start(inbox: inbox, conninfo: conninfo, options: options)
    }

    deinit { inbox.stop() }

    /// Runs one statement in a transaction of its own, within `limit` nanoseconds or the options'
    /// time, whichever is less.
    package func execute(
        _ statement: Statement, _ parameters: [String?], within limit: Nanoseconds = .max
    ) async throws(PostgresFailure) -> Rows {
        for case let parameter? in parameters where parameter.utf8.contains(0) {
            throw PostgresFailure(.failed, "a parameter holds a NUL, which Postgres cannot store")
        }
        let allowed = max(0, min(limit, options.statementNanosecondsMax))
        let deadline = millrace_boottime_nanoseconds() + allowed
        let start = meter.begin()
        let outcome = await withUnsafeContinuation { waiter in
            inbox.submit(
                Job(
                    statement: statement, parameters: parameters, deadline: deadline,
                    waiter: waiter))
        }
        meter.end(since: start, outcome)
        return try outcome.get()
    }

    package var statistics: StatementStatistics { meter.snapshot }

    /// Fails what is queued or under way, and closes the connections. For good.
    package func stop() { inbox.stop() }
}

/// A statement on its way, and who waits for its outcome.
struct Job: Sendable {
    typealias Outcome = Result<Rows, PostgresFailure>

    let statement: Statement
    let parameters: [String?]
    /// By CLOCK_BOOTTIME.
    let deadline: Nanoseconds
    let waiter: UnsafeContinuation<Outcome, Never>
}

/// Where callers leave statements for the driver's thread.
final class StatementInbox: Sendable {
    private struct State {
        var jobs: [Job] = []
        /// Accepted, and neither sent nor given up.
        var queuedCount = 0
        var isStopped = false
    }

    let wakeup: Int32
    private let queuedMax: Int
    private let state = Mutex(State())

    init(queuedMax: Int) {
        self.queuedMax = queuedMax
        wakeup = millrace_eventfd()
        precondition(wakeup >= 0, "no file descriptor left for an eventfd")
    }

    deinit { close(wakeup) }

    func submit(_ job: Job) {
        let refusal: String? = state.withLock { state in
            if state.isStopped { return "the driver has stopped" }
            if state.queuedCount >= queuedMax { return "too many statements are waiting" }
            state.queuedCount += 1
            state.jobs.append(job)
            return nil
        }
        if let refusal {
            job.waiter.resume(returning: .failure(PostgresFailure(.unavailable, refusal)))
        } else {
            millrace_eventfd_raise(wakeup)
        }
    }

    func stop() {
        state.withLock { $0.isStopped = true }
        millrace_eventfd_raise(wakeup)
    }

    /// What came since the last call, and whether to stop.
    func take() -> (jobs: [Job], isStopped: Bool) {
        state.withLock { state in
            let jobs = state.jobs
            state.jobs = []
            return (jobs, state.isStopped)
        }
    }

    /// `count` statements were sent or given up.
    func release(_ count: Int) {
        state.withLock { $0.queuedCount -= count }
    }
}
