// SPDX-License-Identifier: Apache-2.0

internal import CPostgres
internal import Glibc
package import Metadata
internal import Primitives

extension PostgresMetadata {
    /// Brings the schema up to this program's and answers the numbers of the migrations applied.
    /// Blocks its thread: for start-up and the command line. Errors: `.unavailable`; `.failed` if
    /// the database is newer than this program or was changed otherwise.
    @discardableResult
    package static func migrate(conninfo: String) throws(MetadataError) -> [Int] {
        let migrator = try Migrator(conninfo: conninfo)
        return try migrator.run(Migration.all)
    }
}

/// Applies migrations, each in a transaction of its own, under an advisory lock that any number of
/// migrators may wait for.
struct Migrator: ~Copyable {
    /// "millrace" in ASCII.
    private static let lock = 0x6D69_6C6C_7261_6365

    private let connection: OpaquePointer

    /// Connects, within ten seconds for each server.
    init(conninfo: String) throws(MetadataError) {
        let settings = Conninfo(
            conninfo,
            defaults: [
                ("fallback_application_name", "millrace migrate"),
                ("target_session_attrs", "read-write"),
                ("connect_timeout", "10"),
                ("tcp_user_timeout", "10000"),
            ], options: "-c lock_timeout=60000 -c statement_timeout=600000"
        ).all
        let handle = withSettings(settings) { PQconnectdbParams($0, $1, 1) }
        guard let handle else { throw MetadataError(.unavailable, "out of memory") }
        guard PQstatus(handle) == CONNECTION_OK else {
            let message = trimmed(String(cString: PQerrorMessage(handle)))
            PQfinish(handle)
            throw MetadataError(.unavailable, message)
        }
        PQsetNoticeReceiver(handle, { _, _ in }, nil)
        connection = handle
    }

    deinit { PQfinish(connection) }

    /// `migrations` are in the order of their numbers.
    borrowing func run(_ migrations: [Migration]) throws(MetadataError) -> [Int] {
        precondition(
            zip(migrations, migrations.dropFirst()).allSatisfy { $0.number < $1.number },
            "migrations are in order")
        let encoding = try execute("SHOW server_encoding")
        guard encoding.first == ["UTF8"] else {
            throw MetadataError(.failed, "the database's encoding is not UTF8")
        }
        var applied: [Int] = []
        while let number = try step(migrations) { applied.append(number) }
        return applied
    }

    /// Applies the next migration and answers its number; nil if there is none.
    private borrowing func step(_ migrations: [Migration]) throws(MetadataError) -> Int? {
        try execute("BEGIN")
        do throws(MetadataError) {
            let number = try stepInTransaction(migrations)
            try execute("COMMIT")
            return number
        } catch {
            // The first error is the one to tell; closing the connection rolls back as well.
            PQclear(PQexec(connection, "ROLLBACK"))
            throw error
        }
    }

    private borrowing func stepInTransaction(
        _ migrations: [Migration]
    ) throws(MetadataError) -> Int? {
        try execute("SELECT pg_advisory_xact_lock(\(Self.lock))")
        try execute("CREATE SCHEMA IF NOT EXISTS millrace")
        try execute(
            """
            CREATE TABLE IF NOT EXISTS millrace.schema_migration (
                number integer PRIMARY KEY,
                name text NOT NULL,
                checksum bigint NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now())
            """)
        let rows = try execute(
            "SELECT number, checksum FROM millrace.schema_migration ORDER BY number")
        for (index, row) in rows.enumerated() {
            guard index < migrations.count else {
                throw MetadataError(
                    .failed, "the schema is newer than this program: migration \(row[0])")
            }
            let migration = migrations[index]
            guard row == [String(migration.number), String(migration.checksum)] else {
                throw MetadataError(
                    .failed, "migration \(migration.number) is not the one that was applied")
            }
        }
        guard rows.count < migrations.count else { return nil }
        let next = migrations[rows.count]
        try execute(next.sql)
        try execute(
            """
            INSERT INTO millrace.schema_migration (number, name, checksum)
            VALUES (\(next.number), '\(next.name)', \(next.checksum))
            """)
        return next.number
    }

    @discardableResult
    private borrowing func execute(_ sql: String) throws(MetadataError) -> [[String]] {
        guard let result = PQexec(connection, sql) else {
            throw MetadataError(.unavailable, trimmed(String(cString: PQerrorMessage(connection))))
        }
        defer { PQclear(result) }
        switch PQresultStatus(result) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK:
            return (0..<PQntuples(result)).map { row in
                (0..<PQnfields(result)).map { String(cString: PQgetvalue(result, row, $0)) }
            }
        default:
            let message = trimmed(String(cString: PQresultErrorMessage(result)))
            let failure = sqlState(of: result).failure(message, wasSent: true)
            // A migration is a transaction under a lock: running all again is safe.
            throw MetadataError(failure.kind == .failed ? .failed : .unavailable, failure.message)
        }
    }
}
