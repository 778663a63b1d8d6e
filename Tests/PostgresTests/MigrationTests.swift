// SPDX-License-Identifier: Apache-2.0

import Metadata
import Postgres
import PostgresSupport
import Primitives
import Testing

@Suite(.serialized) struct MigrationTests {
    private func expectFailed(_ database: TestDatabase, _ message: String) {
        do throws(MetadataError) {
            try PostgresMetadata.migrate(conninfo: database.conninfo)
            Issue.record("migrated")
        } catch {
            #expect(error.kind == .failed)
            #expect(error.message.contains(message), "\(error)")
        }
    }

    @Test func migratesOnce() async throws {
        let database = try await TestDatabase.empty()
        let metadata = PostgresMetadata(conninfo: database.conninfo)
        await #expect(throws: MetadataError.self) { try await metadata.checkSchema() }
        let applied = try PostgresMetadata.migrate(conninfo: database.conninfo)
        #expect(applied.starts(with: [1, 2, 3]) && applied == applied.sorted())
        #expect(try PostgresMetadata.migrate(conninfo: database.conninfo) == [])
        try await metadata.checkSchema()
        metadata.stop()
        try await database.drop()
    }

    @Test func concurrentMigratorsShareTheWork() async throws {
        let database = try await TestDatabase.empty()
        let applied = try await withThrowingTaskGroup(of: [Int].self) { group in
            for _ in 0..<6 {
                group.addTask { try PostgresMetadata.migrate(conninfo: database.conninfo) }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(applied.sorted().starts(with: [1, 2, 3]))
        #expect(Set(applied).count == applied.count)
        try await database.drop()
    }

    @Test func newerOrOtherSchemaIsRefused() async throws {
        let database = try await TestDatabase.migrated()
        let driver = database.driver()
        _ = try await driver.execute(
            Statement(
                "add_newer",
                "INSERT INTO millrace.schema_migration (number, name, checksum) "
                    + "VALUES (1000, 'later', 1)"), [])
        expectFailed(database, "newer than this program")
        _ = try await driver.execute(
            Statement("forget", "DELETE FROM millrace.schema_migration WHERE number = 1000"), [])
        _ = try await driver.execute(
            Statement(
                "edit", "UPDATE millrace.schema_migration SET checksum = 1 WHERE number = 2"), [])
        expectFailed(database, "migration 2 is not the one that was applied")
        driver.stop()
        try await database.drop()
    }

    @Test func absentServerIsUnavailable() {
        do throws(MetadataError) {
            try PostgresMetadata.migrate(conninfo: "host=/nonexistent user=x dbname=x")
            Issue.record("migrated")
        } catch {
            #expect(error.kind == .unavailable)
        }
    }
}
