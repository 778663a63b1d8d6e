// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Where cacheys make themselves known, and readers find those of their zone.
///
/// A row is only a hint: whoever reads it judges by its own clock whether `renewals` still goes up.
/// A cachey that is gone for good leaves a row behind, which another one removes.
package protocol CacheyRegistry: Sendable {
    /// Adds a cachey. A registration whose reply was lost leaves a row that nobody renews.
    func registerCachey(
        _ registration: CacheyRegistration
    ) async throws(MetadataError) -> CacheyTenure
    /// False if the row is gone: register again.
    func renewCachey(_ id: CacheyID, load: CacheyLoad) async throws(MetadataError) -> Bool
    /// The cacheys of a zone, or of all zones, by id.
    func cacheys(zone: String?) async throws(MetadataError) -> [CacheyRow]
    /// Removes the row, unless it was renewed since it had these `renewals`; nil removes it anyway.
    func removeCachey(_ id: CacheyID, renewals: UInt64?) async throws(MetadataError)
}

/// One incarnation of a cachey process; an id is never used again.
package struct CacheyID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
    package static func < (a: CacheyID, b: CacheyID) -> Bool { a.number < b.number }
    package var description: String { String(number) }
}

package struct CacheyRegistration: Sendable, Equatable {
    package var zone: String
    /// `host:port` or `unix:/path` of the cachey's RPC server. Where it stays the same, so do the
    /// pages that readers ask this cachey for.
    package var address: String

    package init(zone: String, address: String) {
        self.zone = zone
        self.address = address
    }
}

package struct CacheyTenure: Sendable, Equatable {
    package var id: CacheyID
    /// Names the cell for good: two cells may have objects of the same name, so what was kept of
    /// one must never be served in another.
    package var cell: ID128

    package init(id: CacheyID, cell: ID128) {
        self.id = id
        self.cell = cell
    }
}

package struct CacheyLoad: Sendable, Hashable {
    /// Sent to readers, over the last seconds.
    package var egressBytesPerSecond: UInt64

    package static let idle = CacheyLoad(egressBytesPerSecond: 0)

    package init(egressBytesPerSecond: UInt64) {
        self.egressBytesPerSecond = egressBytesPerSecond
    }
}

package struct CacheyRow: Sendable, Equatable {
    package var id: CacheyID
    package var zone: String
    package var address: String
    /// Counts the renewals.
    package var renewals: UInt64
    package var load: CacheyLoad

    package init(
        id: CacheyID, zone: String, address: String, renewals: UInt64, load: CacheyLoad
    ) {
        self.id = id
        self.zone = zone
        self.address = address
        self.renewals = renewals
        self.load = load
    }
}
