// SPDX-License-Identifier: Apache-2.0

internal import CopRole
internal import Shared

/// Brings the database to the schema of this program.
enum SchemaMigration {
    /// Tries until the database can be reached.
    static func run(on host: Host) async throws {
        let conninfo = host.settings[.metadata]
        while true {
            // Libpq blocks, and a migration may take minutes: the loop has signals and admin pages.
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
            do throws(MetadataError) {
                let applied = try result.get()
                return host.log.info("schema_migrated", [("applied", "\(applied)")])
            } catch {
                guard error.kind == .unavailable else { throw error }
                host.log.warning("waiting_for_metadata", [("error", error.description)])
            }
            await host.loop.sleep(.seconds(1))
        }
    }

    /// Once, as a command.
    static func run(_ settings: Settings) throws(CommandError) -> Never {
        do throws(MetadataError) {
            let applied = try PostgresMetadata.migrate(conninfo: settings[.metadata])
            Program.succeed(applied.isEmpty ? "up to date" : "applied \(applied)")
        } catch {
            throw CommandError(.failure, error.description)
        }
        Program.end(0)
    }
}
