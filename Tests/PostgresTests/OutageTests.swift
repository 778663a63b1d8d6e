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
        let store = PostgresMetadata(conninfo: server.conninfo, options: options)
        let registration = ChannelRegistration(storageClass: "express", zone: "", address: "x")
        let channel = try await store.registerChannel(registration)

        try server.run("stop")
        let clock = ContinuousClock()
        let begin = clock.now
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
        #expect(clock.now - begin < .seconds(6))

        try server.run("start")
        var found: [ChannelRow]?
        while found == nil, clock.now - begin < .seconds(30) {
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
                    "SELECT pg_sleep(1.5) FROM (SELECT FROM millrace.channel FOR UPDATE) c"), [])
            let sleeping = Statement(
                "sleeping",
                """
                SELECT 1 FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event = 'PgSleep'
                """)
            while try await killer.execute(sleeping, []).count == 0 {}
            async let renewed = store.renewChannel(channel, load: .idle)
            let kill = Statement(
                "kill",
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'
                """)
            var killedCount = 0
            while killedCount == 0, try await killer.execute(sleeping, []).count > 0 {
                killedCount += try await killer.execute(kill, []).count
            }
            #expect(killedCount == 1)
            _ = try await lock
            #expect(try await renewed)
            #expect(try await store.channel(channel)?.renewals == 1)
        }
    }
}
