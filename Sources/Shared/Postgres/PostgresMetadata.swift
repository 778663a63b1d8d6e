// SPDX-License-Identifier: Apache-2.0

internal import CSupport
package import Metadata
package import Primitives
package import Records

/// The metadata of a cell in Postgres.
///
/// Every operation is one statement, a transaction of its own, so nothing is held between two of
/// them. Reads and guarded writes are tried again after a lost connection until the operation's
/// time is up; what a retry finds is what the caller learns. A registration is not guarded: if its
/// reply is lost, the caller hears that the outcome is unknown, and the orphan's lease runs out.
package final class PostgresMetadata: MetadataStore {
    private let driver: PostgresDriver
    private let options: PostgresOptions

    /// Connects when it is first asked something. `conninfo` is libpq's.
    package init(conninfo: String, options: PostgresOptions = PostgresOptions()) {
        self.options = options
        driver = PostgresDriver(conninfo: conninfo, options: options)
    }

    package var statistics: StatementStatistics { driver.statistics }

    /// Ends what is under way and closes the connections. For good.
    package func stop() { driver.stop() }

    /// Fails unless every migration that this program knows was applied.
    package func checkSchema() async throws(MetadataError) {
        let applied = try await ask(.schemaVersion, []).rows
        var row = ColumnReader(applied)
        let version = try row.numberIfAny(Int.self) ?? 0
        let newest = Migration.all.map(\.number).max() ?? 0
        guard version >= newest else {
            throw MetadataError(.failed, "the schema is at migration \(version) of \(newest)")
        }
    }

    // MARK: Basins

    package func createBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try await provision(request, ensure: false)
    }

    package func ensureBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try await provision(request, ensure: true)
    }

    package func basin(_ name: String) async throws(MetadataError) -> Basin? {
        let answer = try await ask(.basin, [name])
        guard answer.rows.count > 0 else { return nil }
        var row = ColumnReader(answer.rows)
        return try row.basinIfAny()
    }

    package func listBasins(
        prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Basin> {
        let answer = try await ask(
            .listBasins, [prefix, pastAll(prefix), startAfter, String(limit + 1)])
        return try page(answer.rows, limit) { row throws(MetadataError) in try row.basinIfAny() }
    }

    package func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) async throws(MetadataError) -> Basin? {
        let answer = try await ask(
            .updateBasin, [name, String(version)] + parameters(config), writes: .guarded)
        var row = ColumnReader(answer.rows)
        let outcome = try row.text()
        let basin = try row.basinIfAny()
        if outcome == "mismatch", answer.mayHaveRun,
            basin?.version == version &+ 1, basin?.config == config
        {
            return basin
        }
        return try settle(outcome) ? basin : nil
    }

    package func deleteBasin(_ name: String) async throws(MetadataError) -> Bool {
        try await ask(.deleteBasin, [name], writes: .guarded).rows.count > 0
    }

    private func provision(
        _ request: BasinCreation, ensure: Bool
    ) async throws(MetadataError) -> Provisioned<Basin> {
        let values =
            [request.name] + parameters(request.config)
            + [request.location, request.creationKey, String(ensure)]
        let answer = try await ask(.provisionBasin, values, writes: .guarded)
        var row = ColumnReader(answer.rows)
        let outcome = try row.text()
        if outcome == "exists", answer.mayHaveRun {
            throw MetadataError(
                .unavailable, outcomeUnknown: true, "the basin exists, and may be this request's")
        }
        _ = try settle(outcome)
        guard let basin = try row.basinIfAny() else { throw unexpected(outcome) }
        return Provisioned(basin, try result(outcome))
    }

    private func parameters(_ config: BasinConfig) -> [String?] {
        [
            config.defaultStreamConfig.json, config.streamCipher?.rawValue,
            String(config.createStreamOnAppend), String(config.createStreamOnRead),
        ]
    }

    // MARK: Streams

    package func createStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await provision(request, ensure: false)
    }

    package func ensureStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await provision(request, ensure: true)
    }

    package func stream(
        basin: String, name: String
    ) async throws(MetadataError) -> StreamLookup? {
        let answer = try await ask(.streamByName, [basin, name])
        guard answer.rows.count > 0 else { throw MetadataError(.basinNotFound) }
        var row = ColumnReader(answer.rows)
        return try row.lookupIfAny()
    }

    package func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup? {
        let answer = try await ask(.streamByID, [id.description])
        guard answer.rows.count > 0 else { return nil }
        var row = ColumnReader(answer.rows)
        return try row.lookupIfAny()
    }

    package func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Stream> {
        let answer = try await ask(
            .listStreams, [basin, prefix, pastAll(prefix), startAfter, String(limit + 1)])
        guard answer.rows.count > 0 else { throw MetadataError(.basinNotFound) }
        return try page(answer.rows, limit) { row throws(MetadataError) in
            try row.lookupIfAny()?.stream
        }
    }

    package func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) async throws(MetadataError) -> StreamLookup? {
        let answer = try await ask(
            .updateStream, [id.description, String(version), StreamConfigWish(config).json],
            writes: .guarded)
        var row = ColumnReader(answer.rows)
        let outcome = try row.text()
        let lookup = try row.lookupIfAny()
        if outcome == "mismatch", answer.mayHaveRun,
            lookup?.stream.version == version &+ 1, lookup?.stream.config == config
        {
            return lookup
        }
        return try settle(outcome) ? lookup : nil
    }

    package func deleteStream(
        basin: String, name: String
    ) async throws(MetadataError) -> StreamLookup? {
        let answer = try await ask(.deleteStream, [basin, name], writes: .guarded)
        var row = ColumnReader(answer.rows)
        return try settle(try row.text()) ? try row.lookupIfAny() : nil
    }

    private func provision(
        _ request: StreamCreation, ensure: Bool
    ) async throws(MetadataError) -> Provisioned<Stream> {
        let values = [
            request.id.description, request.basin, request.name,
            StreamConfigWish(.system).json, request.wish.json, request.creationKey, String(ensure),
        ]
        let answer = try await ask(.provisionStream, values, writes: .guarded)
        var row = ColumnReader(answer.rows)
        let outcome = try row.text()
        let stream = try row.lookupIfAny()?.stream
        if answer.mayHaveRun, let stream, stream.id == request.id {
            // An earlier try created it, and its reply was lost.
            return Provisioned(stream, .created)
        }
        _ = try settle(outcome)
        guard let stream else { throw unexpected(outcome) }
        return Provisioned(stream, try result(outcome))
    }

    // MARK: Leases of the cell's singletons

    package func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease {
        let values = [name, holder, stale.map { String($0) }]
        var row = ColumnReader(try await ask(.holdLease, values, writes: .guarded).rows)
        return Lease(holder: try row.text(), renewals: try row.number())
    }

    package func releaseLease(_ name: String, holder: String) async throws(MetadataError) {
        _ = try await ask(.releaseLease, [name, holder], writes: .guarded)
    }

    // MARK: Asking

    enum Writes {
        case nothing
        /// Running it twice does what running it once does.
        case guarded
        case unguarded
    }

    struct Answer {
        let rows: Rows
        /// Whether an earlier try, whose reply was lost, may have taken effect.
        let mayHaveRun: Bool
    }

    func ask(
        _ statement: Statement, _ parameters: [String?], writes: Writes = .nothing
    ) async throws(MetadataError) -> Answer {
        let deadline = millrace_boottime_nanoseconds() + options.operationNanosecondsMax
        var mayHaveRun = false
        var tries = 0
        while true {
            let left = deadline - millrace_boottime_nanoseconds()
            let failure: PostgresFailure
            do throws(PostgresFailure) {
                let rows = try await driver.execute(statement, parameters, within: left)
                return Answer(rows: rows, mayHaveRun: mayHaveRun)
            } catch {
                failure = error
            }
            tries += 1
            if failure.outcomeUnknown && writes != .nothing { mayHaveRun = true }
            let mayRepeat =
                failure.kind == .retriable || (failure.outcomeUnknown && writes != .unguarded)
            let hasTime = millrace_boottime_nanoseconds() < deadline
            if mayRepeat, hasTime, tries < options.triesMax { continue }
            let kind: MetadataError.Kind = failure.kind == .failed ? .failed : .unavailable
            throw MetadataError(
                kind, outcomeUnknown: mayHaveRun, "\(statement.name): \(failure.message)")
        }
    }

    /// Whether an outcome means that the operation is done; false for "no such" and "not now".
    private func settle(_ outcome: String) throws(MetadataError) -> Bool {
        switch outcome {
        case "created", "updated", "noop", "marked": return true
        case "none", "mismatch": return false
        case "exists": throw MetadataError(.alreadyExists)
        case "deleting": throw MetadataError(.deletionPending)
        case "no basin": throw MetadataError(.basinNotFound)
        case "basin deleting": throw MetadataError(.basinDeletionPending)
        case "conflict": throw MetadataError(.conflict, "the basin's location is another")
        default: throw unexpected(outcome)
        }
    }

    private func result(_ outcome: String) throws(MetadataError) -> ProvisionResult {
        guard let result = ProvisionResult(rawValue: outcome) else { throw unexpected(outcome) }
        return result
    }

    func unexpected(_ outcome: String) -> MetadataError {
        MetadataError(.failed, "a statement answered '\(outcome)'")
    }

    /// A text that no name with this prefix lies behind, as names have 512 bytes at most.
    private func pastAll(_ prefix: String) -> String {
        prefix + String(repeating: "\u{10FFFF}", count: Limits.streamNameBytesMax / 4)
    }

    private func page<Item: Sendable & Equatable>(
        _ rows: Rows, _ limit: Int,
        _ read: (inout ColumnReader) throws(MetadataError) -> Item?
    ) throws(MetadataError) -> Page<Item> {
        var items: [Item] = []
        for index in 0..<rows.count {
            var row = ColumnReader(rows, row: index)
            if let item = try read(&row) { items.append(item) }
        }
        return Page(Array(items.prefix(limit)), hasMore: items.count > limit)
    }
}
