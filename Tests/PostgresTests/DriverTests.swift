// SPDX-License-Identifier: Apache-2.0

import Glibc
import Postgres
import PostgresSupport
import Primitives
import Testing

private let sleepLong = Statement("sleep_long", "SELECT pg_sleep(30)")
private let sleeping = Statement(
    "sleeping",
    """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'PgSleep'
    """)
private let killSleeping = Statement(
    "kill_sleeping",
    """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'PgSleep'
    """)
private let one = Statement("one", "SELECT 1, NULL, $1::text")

/// The failure of `body`; records an issue if it succeeds.
private func failure<Value>(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Value
) async -> PostgresFailure? {
    do {
        let value = try await body()
        Issue.record("no failure but \(value)", sourceLocation: sourceLocation)
    } catch let failure as PostgresFailure {
        return failure
    } catch {
        Issue.record(error, sourceLocation: sourceLocation)
    }
    return nil
}

@Suite(.serialized) struct DriverTests {
    @Test func answersInText() async throws {
        let database = try await TestDatabase.empty()
        let driver = database.driver()
        let rows = try await driver.execute(one, ["it's \u{E9}\\"])
        #expect(rows == Rows(columnCount: 3, values: ["1", nil, "it's \u{E9}\\"]))
        let none = try await driver.execute(Statement("none", "SELECT 1 WHERE false"), [])
        #expect(none.count == 0)
        let nul = await failure { try await driver.execute(one, ["a\u{0}b"]) }
        #expect(nul?.kind == .failed)
        let large = String(repeating: "x", count: 3_000_000)
        #expect(try await driver.execute(one, [large])[0, 2] == large)
        driver.stop()
        let stopped = await failure { try await driver.execute(one, ["x"]) }
        #expect(stopped?.kind == .unavailable && stopped?.outcomeUnknown == false)
        // What holds a NUL was never a statement.
        let counts = driver.statistics
        #expect(counts.count(.done) == 3 && counts.count(.unavailable) == 1)
        #expect(counts.durations.count == 4 && counts.durations.sum > 0 && counts.inFlight == 0)
        try await database.drop()
    }

    @Test func oneFailureLeavesItsNeighboursAlone() async throws {
        let database = try await TestDatabase.empty()
        let driver = database.driver()
        let divide = Statement("divide", "SELECT 1 / $1::int")
        let wrong = Statement("wrong", "SELEKT")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<60 {
                group.addTask {
                    switch index % 3 {
                    case 0:
                        let rows = try await driver.execute(divide, ["1"])
                        #expect(rows[0, 0] == "1")
                    case 1:
                        let failed = await failure { try await driver.execute(divide, ["0"]) }
                        #expect(failed?.kind == .failed && failed?.outcomeUnknown == false)
                        #expect(failed?.message.hasPrefix("22012") == true)
                    default:
                        let failed = await failure { try await driver.execute(wrong, []) }
                        #expect(failed?.kind == .failed && failed?.outcomeUnknown == false)
                    }
                }
            }
            try await group.waitForAll()
        }
        driver.stop()
        try await database.drop()
    }

    @Test func deadlineEndsAStatementAndOnlyThat() async throws {
        let database = try await TestDatabase.empty()
        let driver = database.driver()
        _ = try await driver.execute(one, ["x"])
        let begin = ContinuousClock.now
        async let slow = failure {
            try await driver.execute(sleepLong, [], within: .seconds(2))
        }
        for _ in 0..<20 { _ = try await driver.execute(one, ["x"]) }
        let failed = await slow
        #expect(failed?.kind == .unavailable && failed?.outcomeUnknown == true)
        #expect(ContinuousClock.now - begin < .seconds(20), "less than it would sleep")
        _ = try await driver.execute(one, ["x"])
        driver.stop()
        try await database.drop()
    }

    @Test func waitingStatementEndsWithoutDoubt() async throws {
        let database = try await TestDatabase.empty()
        var options = PostgresOptions.patient
        options.connectionsMax = 1
        options.queuedMax = 2
        let driver = PostgresDriver(conninfo: database.conninfo, options: options)
        let watcher = database.driver()
        _ = try await driver.execute(one, ["x"])
        async let running = failure { try await driver.execute(sleepLong, []) }
        let begin = ContinuousClock.now
        while try await watcher.execute(sleeping, []).count == 0 {
            try #require(ContinuousClock.now - begin < .seconds(60))
        }
        // Two wait behind it, and what comes beyond is refused at once.
        let failures = await withTaskGroup(of: PostgresFailure?.self) { group in
            for _ in 0..<12 {
                group.addTask {
                    await failure {
                        try await driver.execute(sleepLong, [], within: .milliseconds(500))
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(failures.allSatisfy { $0?.kind == .unavailable })
        #expect(failures.contains { $0?.message.contains("too many") == true })
        // Only what was sent may have been done.
        #expect(failures.allSatisfy { $0?.outcomeUnknown == false })
        _ = try await watcher.execute(killSleeping, [])
        #expect(await running?.outcomeUnknown == true)
        _ = try await driver.execute(one, ["x"])
        driver.stop()
        watcher.stop()
        try await database.drop()
    }

    /// What an operator sets for the session adds to what the driver sets, which bounds how long a
    /// statement may go on whose outcome nobody knows.
    @Test(arguments: ["-c statement_timeout=0 -c work_mem=5MB", ""])
    func theOperatorsOptionsStandBeforeOurs(_ options: String) async throws {
        let database = try await TestDatabase.empty()
        let driver = PostgresDriver(conninfo: database.conninfo + " options='\(options)'")
        let show = Statement(
            "show",
            """
            SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
                current_setting('work_mem'), current_setting('client_encoding')
            """)
        let rows = try await driver.execute(show, [])
        let memory = options.isEmpty ? "4MB" : "5MB"
        #expect(rows == Rows(columnCount: 4, values: ["3s", "3s", memory, "UTF8"]))
        driver.stop()
        try await database.drop()
    }

    /// The first of two servers takes connections and is silent.
    @Test func aSilentServerIsPassedOver() async throws {
        let kind = SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue
        let silent = socket(AF_INET, Int32(kind), 0)
        defer { close(silent) }
        #expect(listen(silent, 16) == 0)
        var address = sockaddr_in()
        var count = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(silent, $0, &count) }
        }
        let database = try await TestDatabase.empty()
        let words = database.conninfo.split(separator: " ")
        let host = try #require(words.first { $0.hasPrefix("host=") }).dropFirst(5)
        let rest = words.filter { !$0.hasPrefix("host=") }.joined(separator: " ")
        let conninfo =
            "host=127.0.0.1,\(host) port=\(UInt16(bigEndian: address.sin_port)),5432 \(rest)"
        var options = PostgresOptions.patient
        options.connectNanosecondsMax = .seconds(2)
        let driver = PostgresDriver(conninfo: conninfo, options: options)
        #expect(try await driver.execute(one, ["x"])[0, 2] == "x")
        func isTried() -> Bool {
            let taken = accept(silent, nil, nil)
            if taken >= 0 { close(taken) }
            return taken >= 0
        }
        #expect(isTried())
        while isTried() {}
        // Those that come later begin where it answered.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 { group.addTask { _ = try await driver.execute(one, ["x"]) } }
            try await group.waitForAll()
        }
        #expect(!isTried())
        driver.stop()
        try await database.drop()
    }

    @Test func killedBackendIsReplaced() async throws {
        let database = try await TestDatabase.empty()
        let driver = database.driver()
        let killer = database.driver()
        async let victim = failure { try await driver.execute(sleepLong, []) }
        let begin = ContinuousClock.now
        while try await killer.execute(killSleeping, []).count == 0 {
            try #require(ContinuousClock.now - begin < .seconds(60))
        }
        let failed = await victim
        #expect(failed?.kind == .unavailable && failed?.outcomeUnknown == true)
        #expect(failed?.message.hasPrefix("57P01") == true)
        #expect(try await driver.execute(one, ["x"]).count == 1)

        // Idle connections die unnoticed by callers.
        for _ in 0..<5 {
            _ = try await killer.execute(
                Statement(
                    "kill_idle",
                    """
                    SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()
                    """), [])
            await waitUntilReplaced(driver)
        }
        driver.stop()
        killer.stop()
        try await database.drop()
    }

    /// A statement that meets a connection just killed may fail; the next one finds another.
    private func waitUntilReplaced(_ driver: PostgresDriver) async {
        for _ in 0..<4 {
            do {
                let rows = try await driver.execute(one, ["x"])
                #expect(rows.count == 1)
                return
            } catch {
                #expect(error.kind != .failed, "\(error)")
            }
        }
        Issue.record("no statement got through")
    }

    @Test func silentServerEndsByDeadline() async throws {
        let listener = try SilentListener()
        var options = PostgresOptions.patient
        options.connectNanosecondsMax = .milliseconds(200)
        let driver = PostgresDriver(
            conninfo: "host=127.0.0.1 port=\(listener.port) user=x dbname=x sslmode=disable",
            options: options)
        let begin = ContinuousClock.now
        let failures = await withTaskGroup(of: PostgresFailure?.self) { group in
            for _ in 0..<10 {
                group.addTask {
                    await failure {
                        try await driver.execute(one, ["x"], within: .milliseconds(700))
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(failures.allSatisfy { $0?.kind == .unavailable && $0?.outcomeUnknown == false })
        #expect(ContinuousClock.now - begin < .seconds(30))
        driver.stop()
    }
}

/// Accepts connections, in the kernel, and never says anything.
private struct SilentListener: ~Copyable {
    private let descriptor: Int32
    let port: UInt16

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 64) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }
}
