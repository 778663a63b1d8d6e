// SPDX-License-Identifier: Apache-2.0

package import Metadata
internal import Primitives

extension PostgresMetadata: CacheyRegistry {
    package func registerCachey(
        _ registration: CacheyRegistration
    ) async throws(MetadataError) -> CacheyTenure {
        let values = [registration.zone, registration.address]
        let answer = try await ask(.registerCachey, values, writes: .unguarded)
        var row = ColumnReader(answer.rows)
        let id = CacheyID(try row.number())
        let cell = try row.text().filter { $0 != "-" }
        guard let cell = ID128(hex: cell) else { throw unexpected(cell) }
        return CacheyTenure(id: id, cell: cell)
    }

    package func renewCachey(
        _ id: CacheyID, load: CacheyLoad
    ) async throws(MetadataError) -> Bool {
        let values = [key(id), String(load.egressBytesPerSecond)]
        return try await ask(.renewCachey, values, writes: .guarded).rows.count > 0
    }

    package func cacheys(zone: String?) async throws(MetadataError) -> [CacheyRow] {
        let rows = try await ask(.cacheys, [zone]).rows
        var found: [CacheyRow] = []
        found.reserveCapacity(rows.count)
        for index in 0..<rows.count {
            var row = ColumnReader(rows, row: index)
            found.append(
                CacheyRow(
                    id: CacheyID(try row.number()), zone: try row.text(), address: try row.text(),
                    renewals: try row.number(),
                    load: CacheyLoad(egressBytesPerSecond: try row.number())))
        }
        return found
    }

    package func removeCachey(
        _ id: CacheyID, renewals: UInt64?
    ) async throws(MetadataError) {
        let values = [key(id), renewals.map { String($0) }]
        _ = try await ask(.removeCachey, values, writes: .guarded)
    }

    /// Ids come from a sequence of signed numbers; what lies beyond is nobody's, as is -1.
    private func key(_ id: CacheyID) -> String { String(Int64(exactly: id.number) ?? -1) }
}

extension Statement {
    static let registerCachey = Statement(
        "register_cachey",
        """
        INSERT INTO millrace.cachey (zone, address) VALUES ($1, $2)
        RETURNING id, (SELECT id FROM millrace.cell)
        """)

    static let renewCachey = Statement(
        "renew_cachey",
        """
        UPDATE millrace.cachey SET renewals = renewals + 1, egress_bytes_per_second = $2
        WHERE id = $1 RETURNING 1
        """)

    static let cacheys = Statement(
        "cacheys",
        """
        SELECT id, zone, address, renewals, egress_bytes_per_second FROM millrace.cachey
        WHERE zone = $1 OR $1::text IS NULL ORDER BY id
        """)

    static let removeCachey = Statement(
        "remove_cachey",
        "DELETE FROM millrace.cachey WHERE id = $1 AND renewals = coalesce($2, renewals)")
}
