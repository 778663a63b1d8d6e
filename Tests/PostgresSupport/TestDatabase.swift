// SPDX-License-Identifier: Apache-2.0

internal import Glibc
package import Postgres
internal import Primitives
internal import TestSupport

/// A database of its own for one test, on the server that `MILLRACE_TEST_POSTGRES` names.
package struct TestDatabase: Sendable {
    package let name: String
    package let conninfo: String

    /// An empty database without our schema.
    package static func empty() async throws -> TestDatabase {
        try await create(from: "template0")
    }

    /// A copy of a database that was migrated once for this process.
    package static func migrated() async throws -> TestDatabase {
        try await create(from: template.name())
    }

    /// Runs `body` against a migrated database and removes it afterwards.
    package static func with(
        _ options: PostgresOptions = .patient,
        _ body: (PostgresMetadata, TestDatabase) async throws -> Void
    ) async throws {
        let database = try await migrated()
        let metadata = PostgresMetadata(conninfo: database.conninfo, options: options)
        do {
            try await body(metadata, database)
        } catch {
            metadata.stop()
            try await database.drop()
            throw error
        }
        metadata.stop()
        try await database.drop()
    }

    package func drop() async throws {
        try await Self.administer("DROP DATABASE \(name) WITH (FORCE)")
    }

    /// A driver for statements that no operation offers.
    package func driver() -> PostgresDriver {
        PostgresDriver(conninfo: conninfo, options: .patient)
    }

    // MARK: The server

    private static let template = Template()

    private actor Template {
        private var made: Task<String, any Error>?

        func name() async throws -> String {
            if let made { return try await made.value }
            let task = Task {
                let database = try await TestDatabase.empty()
                try PostgresMetadata.migrate(conninfo: database.conninfo)
                return database.name
            }
            made = task
            return try await task.value
        }
    }

    private static func create(from template: String) async throws -> TestDatabase {
        RealService.postgres.note()
        let name = "test_\(getpid())_\(ID128(random: .system()))"
        try await administer("CREATE DATABASE \(name) TEMPLATE \(template) ENCODING 'UTF8'")
        return TestDatabase(name: name, conninfo: "\(try server()) dbname=\(name)")
    }

    private static func administer(_ sql: String) async throws {
        var options = PostgresOptions.patient
        options.connectionsMax = 1
        let driver = PostgresDriver(conninfo: try server(), options: options)
        defer { driver.stop() }
        _ = try await driver.execute(Statement("administer", sql), [])
    }

    private static func server() throws -> String {
        guard let value = getenv("MILLRACE_TEST_POSTGRES") else { throw MissingServer() }
        return String(cString: value)
    }
}

extension PostgresOptions {
    /// For tests that are not about limits of time: a machine that stands still for some seconds
    /// fails none of them.
    package static var patient: PostgresOptions {
        var options = PostgresOptions()
        options.connectNanosecondsMax = .seconds(60)
        options.statementNanosecondsMax = .seconds(60)
        options.operationNanosecondsMax = .seconds(60)
        return options
    }
}

package struct MissingServer: Error, CustomStringConvertible {
    package var description: String {
        "MILLRACE_TEST_POSTGRES is not set: run make test, "
            + "or Tests/Support/postgres.sh start DIR and source DIR/env"
    }
}
