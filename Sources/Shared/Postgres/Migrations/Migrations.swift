// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// One numbered step of the schema. Once released it is never edited: its checksum is on record in
/// every database that it was applied to.
struct Migration: Sendable {
    let number: Int
    let name: String
    let sql: String

    /// All of them, in the order of their numbers, which may have gaps.
    static let all = [
        migration0001, migration0002, migration0003, migration0010, migration0020, migration0021,
        migration0025, migration0030, migration0031,
    ]

    var checksum: UInt32 {
        Array(sql.utf8).withUnsafeBytes { CRC32C.of($0) }
    }
}
