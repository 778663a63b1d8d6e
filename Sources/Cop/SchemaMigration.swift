// SPDX-License-Identifier: Apache-2.0

internal import CopRole
internal import Shared

/// Brings the database to the schema of this program.
enum SchemaMigration {
    /// Tries until the database can be reached.
    static func run(on host: Host) async throws {
        while true {
            do throws(MetadataError) {
                let applied = try await migrate(host)
                return host.log.info("schema_migrated", [("applied", "\(applied)")])
            } catch {
                guard error.kind == .unavailable else { throw error }
                host.log.warning("waiting_for_metadata", [("error", error.description)])
            }
            await host.loop.sleep(.seconds(1))
        }
    }

    /// Once, as a command; returns the exit code.
    static func runOnce(on host: Host) async -> Int32 {
        do throws(MetadataError) {
            let applied = try await migrate(host)
            Program.succeed(applied.isEmpty ? "up to date" : "applied \(applied)")
            return 0
        } catch {
            Program.say("cop: \(error.description)")
            return 1
        }
    }

    /// Libpq blocks, and a migration may take minutes: the loop has signals and admin pages.
    private static func migrate(_ host: Host) async throws(MetadataError) -> [Int] {
        let conninfo = host.settings[.metadata]
        let result = await withUnsafeContinuation { waiter in
            runOnThread {
                do throws(MetadataError) {
                    let applied = try PostgresMetadata.migrate(conninfo: conninfo)
                    waiter.resume(returning: Result<[Int], MetadataError>.success(applied))
                } catch {
                    waiter.resume(returning: .failure(error))
                }
            }
        }
        return try result.get()
    }
}
