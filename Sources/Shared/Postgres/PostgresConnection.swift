// SPDX-License-Identifier: Apache-2.0

internal import CPostgres
internal import CSupport
internal import Glibc
internal import Primitives

/// One libpq connection and the statement under way on it. Confined to the driver's thread; no
/// method waits.
final class PostgresConnection {
    private enum Phase {
        case closed
        case connecting(polling: PostgresPollingStatusType)
        case idle
        /// The statement is parsed first, so its effect has not begun.
        case preparing(Job)
        case executing(Job)
    }

    private let servers: [[Conninfo.Setting]]
    private let options: PostgresOptions
    /// Which of the servers it was last connected to, or tried.
    private(set) var server = 0
    private var phase = Phase.closed
    private var handle: OpaquePointer?
    private var prepared: Set<String> = []
    private var hasUnsentBytes = false
    private var result: Job.Outcome?
    private var isSpoilt = false
    private var connectDeadline: Nanoseconds = .max

    init(servers: [[Conninfo.Setting]], options: PostgresOptions) {
        self.servers = servers
        self.options = options
    }

    deinit { PQfinish(handle) }

    var isClosed: Bool { if case .closed = phase { true } else { false } }
    var isIdle: Bool { if case .idle = phase { true } else { false } }
    var isConnecting: Bool { if case .connecting = phase { true } else { false } }

    /// When to give up what is under way.
    var deadline: Nanoseconds {
        switch phase {
        case .closed, .idle: .max
        case .connecting: connectDeadline
        case .preparing(let job), .executing(let job): job.deadline
        }
    }

    /// What to wait for.
    var watched: pollfd {
        let events: Int32
        switch phase {
        case .closed: return pollfd(fd: -1, events: 0, revents: 0)
        case .connecting(let polling): events = polling == PGRES_POLLING_READING ? POLLIN : POLLOUT
        case .idle: events = POLLIN
        case .preparing, .executing: events = hasUnsentBytes ? POLLIN | POLLOUT : POLLIN
        }
        return pollfd(fd: PQsocket(handle), events: Int16(events), revents: 0)
    }

    /// Begins to connect to one of the servers; answers why not if that failed already.
    func connect(_ now: Nanoseconds, server: Int) -> String? {
        self.server = server
        handle = withSettings(servers[server]) { PQconnectStartParams($0, $1, 1) }
        guard handle != nil, PQstatus(handle) != CONNECTION_BAD else {
            let message = errorMessage
            close(message)
            return message
        }
        connectDeadline = now + options.connectNanosecondsMax
        phase = .connecting(polling: PGRES_POLLING_WRITING)
        return nil
    }

    /// Sends a statement. The connection is idle.
    func start(_ job: Job) {
        precondition(isIdle, "one statement at a time")
        prepared.contains(job.statement.name) ? execute(job) : prepare(job)
    }

    /// Goes on after `poll` reported `events`; answers why if the connection is lost.
    func advance(_ events: Int16) -> String? {
        switch phase {
        case .closed: return nil
        case .connecting: return advanceConnecting()
        case .idle:
            // Nothing is expected but the end; a notice does no harm.
            if PQconsumeInput(handle) == 1, PQstatus(handle) == CONNECTION_OK { return nil }
            return lose()
        case .preparing, .executing:
            if events & Int16(~POLLOUT) != 0, PQconsumeInput(handle) == 0 { return lose() }
            if hasUnsentBytes, !flush() { return lose() }
            return drain()
        }
    }

    /// Fails what is under way and closes the connection.
    func close(_ message: String) {
        let ended = phase
        phase = .closed
        PQfinish(handle)
        handle = nil
        prepared = []
        hasUnsentBytes = false
        isSpoilt = false
        result = nil
        switch ended {
        case .closed, .connecting, .idle: break
        case .preparing(let job):
            let isLate = millrace_boottime_nanoseconds() >= job.deadline
            finish(job, .failure(PostgresFailure(isLate ? .unavailable : .retriable, message)))
        case .executing(let job):
            finish(job, .failure(PostgresFailure(.unavailable, outcomeUnknown: true, message)))
        }
    }

    // MARK: Steps

    private func advanceConnecting() -> String? {
        let polling = PQconnectPoll(handle)
        switch polling {
        case PGRES_POLLING_OK:
            PQsetnonblocking(handle, 1)
            PQsetNoticeReceiver(handle, { _, _ in }, nil)
            phase = .idle
        case PGRES_POLLING_FAILED: return lose()
        default: phase = .connecting(polling: polling)
        }
        return nil
    }

    private func prepare(_ job: Job) {
        phase = .preparing(job)
        let statement = job.statement
        if PQsendPrepare(handle, statement.name, statement.sql, 0, nil) == 0 || !flush() {
            _ = lose()
        }
    }

    private func execute(_ job: Job) {
        // From here on it may reach the server, whatever libpq says.
        phase = .executing(job)
        let wasQueued = withCStrings(job.parameters) { values in
            PQsendQueryPrepared(
                handle, job.statement.name, Int32(job.parameters.count), values, nil, nil, 0)
        }
        if wasQueued == 0 || !flush() { _ = lose() }
    }

    private func flush() -> Bool {
        let remaining = PQflush(handle)
        hasUnsentBytes = remaining == 1
        return remaining >= 0
    }

    /// Takes the results that have come in.
    private func drain() -> String? {
        while PQisBusy(handle) == 0 {
            guard let next = PQgetResult(handle) else { return endStatement() }
            take(next)
            PQclear(next)
            if isSpoilt, PQstatus(handle) != CONNECTION_OK { break }
        }
        if PQstatus(handle) == CONNECTION_OK { return nil }
        return lose()
    }

    private func take(_ next: OpaquePointer) {
        switch PQresultStatus(next) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK:
            if result == nil { result = .success(rows(of: next)) }
        default:
            let state = sqlState(of: next)
            if state.spoilsConnection { isSpoilt = true }
            let wasSent = if case .executing = phase { true } else { false }
            let message = trimmed(String(cString: PQresultErrorMessage(next)))
            result = .failure(state.failure(message, wasSent: wasSent))
        }
    }

    private func endStatement() -> String? {
        let ended = phase
        let outcome = result ?? .failure(PostgresFailure(.failed, "the statement gave no result"))
        result = nil
        phase = .idle
        let message: String? = isSpoilt ? "the connection was given up" : nil
        if let message { close(message) }
        switch (ended, outcome) {
        case (.preparing(let job), .success):
            prepared.insert(job.statement.name)
            execute(job)
        case (.preparing(let job), .failure), (.executing(let job), _): finish(job, outcome)
        case (.closed, _), (.connecting, _), (.idle, _): preconditionFailure("nothing was sent")
        }
        return message
    }

    private func lose() -> String {
        // What the server said last says more than that it hung up.
        var message = errorMessage
        if case .failure(let failure) = result { message = failure.message }
        close(message)
        return message
    }

    private func finish(_ job: Job, _ outcome: Job.Outcome) {
        job.waiter.resume(returning: outcome)
    }

    private var errorMessage: String {
        trimmed(handle == nil ? "out of memory" : String(cString: PQerrorMessage(handle)))
    }
}

// MARK: libpq

extension Conninfo {
    /// For the driver's connections.
    init(_ text: String, _ options: PostgresOptions) {
        let timeout = max(1, options.statementNanosecondsMax / 1_000_000)
        self.init(
            text,
            defaults: [
                ("fallback_application_name", "millrace"),
                ("target_session_attrs", "read-write"),
                ("tcp_user_timeout", "10000"),
            ], options: "-c statement_timeout=\(timeout) -c lock_timeout=\(timeout)")
    }
}

/// Lends C copies of `strings`; nil stays null.
func withCStrings<Answer>(
    _ strings: [String?], _ body: (UnsafePointer<UnsafePointer<CChar>?>?) -> Answer
) -> Answer {
    var characters: [CChar] = []
    var offsets: [Int?] = []
    for string in strings {
        offsets.append(string == nil ? nil : characters.count)
        if let string { characters.append(contentsOf: string.utf8CString) }
    }
    return characters.withUnsafeBufferPointer { all in
        let pointers = offsets.map { $0.flatMap { all.baseAddress?.advanced(by: $0) } }
        return pointers.withUnsafeBufferPointer { body($0.baseAddress) }
    }
}

private func rows(of result: OpaquePointer) -> Rows {
    let (rowCount, columnCount) = (PQntuples(result), PQnfields(result))
    var values: [String?] = []
    values.reserveCapacity(Int(rowCount * columnCount))
    for row in 0..<rowCount {
        for column in 0..<columnCount {
            let isNull = PQgetisnull(result, row, column) == 1
            values.append(isNull ? nil : String(cString: PQgetvalue(result, row, column)))
        }
    }
    return Rows(columnCount: Int(columnCount), values: values)
}

func sqlState(of result: OpaquePointer) -> SQLState {
    let code = PQresultErrorField(result, Int32(UInt8(ascii: "C"))).map { String(cString: $0) }
    let severity = PQresultErrorField(result, Int32(UInt8(ascii: "V"))).map { String(cString: $0) }
    // Without an SQLSTATE it is libpq that speaks, of a connection lost.
    return SQLState(code: code ?? "", endsSession: code == nil || severity != "ERROR")
}

func trimmed(_ message: String) -> String {
    var message = message[...]
    while message.last?.isWhitespace == true { message.removeLast() }
    return String(message)
}
