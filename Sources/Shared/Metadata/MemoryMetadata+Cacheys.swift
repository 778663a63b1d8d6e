// SPDX-License-Identifier: Apache-2.0

internal import Primitives

extension MemoryMetadata: CacheyRegistry {
    package func registerCachey(
        _ registration: CacheyRegistration
    ) async throws(MetadataError) -> CacheyTenure {
        step { $0.cacheys.register(registration) }
    }

    package func renewCachey(
        _ id: CacheyID, load: CacheyLoad
    ) async throws(MetadataError) -> Bool {
        step { $0.cacheys.renew(id, load: load) }
    }

    package func cacheys(zone: String?) async throws(MetadataError) -> [CacheyRow] {
        step { $0.cacheys.rows(zone: zone) }
    }

    package func removeCachey(
        _ id: CacheyID, renewals: UInt64?
    ) async throws(MetadataError) {
        step { $0.cacheys.remove(id, renewals: renewals) }
    }
}

/// The part of `MemoryState` that holds cacheys.
struct CacheyRows {
    /// One object in memory is one cell.
    private static let cell = ID128(high: 0x6D69_6C6C_7261_6365, low: 1)
    private var rows: [CacheyID: CacheyRow] = [:]
    private var idLast: UInt64 = 0

    mutating func register(_ registration: CacheyRegistration) -> CacheyTenure {
        idLast += 1
        let id = CacheyID(idLast)
        rows[id] = CacheyRow(
            id: id, zone: registration.zone, address: registration.address, renewals: 0,
            load: .idle)
        return CacheyTenure(id: id, cell: Self.cell)
    }

    mutating func renew(_ id: CacheyID, load: CacheyLoad) -> Bool {
        guard var row = rows[id] else { return false }
        row.renewals += 1
        row.load = load
        rows[id] = row
        return true
    }

    func rows(zone: String?) -> [CacheyRow] {
        rows.values.filter { zone == nil || $0.zone == zone }.sorted { $0.id < $1.id }
    }

    mutating func remove(_ id: CacheyID, renewals: UInt64?) {
        guard let row = rows[id], renewals == nil || renewals == row.renewals else { return }
        rows[id] = nil
    }
}
