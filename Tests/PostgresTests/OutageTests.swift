// SPDX-License-Identifier: Apache-2.0

import Glibc
import Metadata
import Postgres
import PostgresSupport
import Primitives
import Records
import Testing

/// A server of its own, which a test may stop and start.
private struct Server {
    let folder: String

    init() throws {
        folder = "/tmp/millrace-outage-\(getpid())"
        try run("start")
    }

    /// The server is stopped the hard way, and must not forget what it has confirmed.
    var conninfo: String {
        "host=\(folder) user=millrace dbname=postgres options='-c synchronous_commit=on'"
    }

    func run(_ command: String) throws {
        let tests = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        try Self.run(["/bin/bash", "/\(tests)/Support/postgres.sh", command, folder])
    }

    func remove() throws {
        try run("stop")
        try Self.run(["/bin/rm", "-r", folder])
    }

    private static func run(_ arguments: [String]) throws {
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var id = pid_t()
        try #require(posix_spawn(&id, words[0]!, nil, nil, &words, environ) == 0)
        var status: Int32 = -1
        while waitpid(id, &status, 0) < 0 { try #require(errno == EINTR) }
        try #require(status == 0)
    }
}

@Suite(.serialized) struct OutageTests {
    @Test func outageEndsCallsAndPasses() async throws {
        let server = try Server()
        defer { #expect(throws: Never.self) { try server.remove() } }
        try PostgresMetadata.migrate(conninfo: server.conninfo)
        var options = PostgresOptions()
        options.operationNanosecondsMax = .milliseconds(800)
        options.statementNanosecondsMax = .milliseconds(400)
        let patient = PostgresMetadata(conninfo: server.conninfo, options: .patient)
        let registration = ChannelRegistration(storageClass: "express", zone: "", address: "x")
        let channel = try await patient.registerChannel(registration)
        patient.stop()
        // The server stops under a connection that is open.
        let store = PostgresMetadata(conninfo: server.conninfo, options: options)
        let clock = ContinuousClock()
        var begin = clock.now
        while (try? await store.channels([.active])) == nil {
            try #require(clock.now - begin < .seconds(60))
        }

        try server.run("stop")
        begin = clock.now
        for _ in 0..<3 {
            do {
                _ = try await store.channels([.active])
                Issue.record("a stopped server answered")
            } catch {
                #expect(error.kind == .unavailable && !error.outcomeUnknown, "\(error)")
            }
        }
        do {
            _ = try await store.registerChannel(registration)
            Issue.record("a stopped server answered")
        } catch {
            #expect(error.kind == .unavailable)
        }
        #expect(clock.now - begin < .seconds(10))

        try server.run("start")
        begin = clock.now
        var found: [ChannelRow]?
        while found == nil, clock.now - begin < .seconds(60) {
            do { found = try await store.channels([.active]) } catch {
                #expect(error.kind == .unavailable)
            }
        }
        #expect(found?.map(\.id).first == channel)
        store.stop()
    }

    @Test func guardedWriteSurvivesAKilledBackend() async throws {
        try await TestDatabase.with { store, database in
            let (holder, killer) = (database.driver(), database.driver())
            defer {
                holder.stop()
                killer.stop()
            }
            let channel = try await store.registerChannel(
                ChannelRegistration(storageClass: "express", zone: "", address: "x"))
            // The write waits for this lock while its connection is killed.
            async let lock = holder.execute(
                Statement(
                    "hold_lock",
                    "SELECT pg_sleep(50) FROM (SELECT FROM millrace.channel FOR UPDATE) c"), [])
            let begin = ContinuousClock.now
            func killOne(_ condition: String) async throws {
                let kill = Statement(
                    "kill_\(condition.utf8.count)",
                    """
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND \(condition)
                    """)
                while try await killer.execute(kill, []).count == 0 {
                    try #require(ContinuousClock.now - begin < .seconds(40))
                }
            }
            let sleeping = Statement(
                "sleeping",
                """
                SELECT 1 FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event = 'PgSleep'
                """)
            while try await killer.execute(sleeping, []).count == 0 {
                try #require(ContinuousClock.now - begin < .seconds(40))
            }
            async let renewed = store.renewChannel(channel, load: .idle)
            try await killOne("wait_event_type = 'Lock'")
            try await killOne("wait_event = 'PgSleep'")
            let held = try? await lock
            #expect(held == nil)
            #expect(try await renewed)
            #expect(try await store.channel(channel)?.renewals == 1)
        }
    }
}
