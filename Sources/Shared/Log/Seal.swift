// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// The marker that ends a log: `header | owner | reason | checksum`.
package struct Seal: Sendable, Equatable {
    package let header: ChunkHeader
    /// Who put it there; up to 256 bytes.
    package let owner: String
    /// For people; up to 1,024 bytes.
    package let reason: String

    package static let ownerBytesMax = 256
    package static let reasonBytesMax = 1_024

    /// The kind of `header` becomes `seal`.
    package init(header: ChunkHeader, owner: String, reason: String) {
        precondition(owner.utf8.count <= Self.ownerBytesMax, "the owner's name is too long")
        precondition(reason.utf8.count <= Self.reasonBytesMax, "the reason is too long")
        var header = header
        header.kind = .seal
        self.header = header
        self.owner = owner
        self.reason = reason
    }

    package init(_ bytes: Bytes) throws(DecodeError) {
        header = try ChunkHeader(bytes)
        guard header.kind == .seal else { throw DecodeError(.malformed("not a seal"), at: 6) }
        var reader = ByteReader(bytes)
        _ = try reader.read(ChunkHeader.byteCount)
        owner = try reader.readText(lengthMax: Self.ownerBytesMax)
        reason = try reader.readText(lengthMax: Self.reasonBytesMax)
        try reader.expectChecksum(ofBytesFrom: 0)
        try reader.finish()
    }

    package func encoded() -> Bytes {
        var writer = ByteWriter()
        header.encode(into: &writer)
        writer.writeText(owner)
        writer.writeText(reason)
        writer.write(writer.checksum())
        return writer.finish()
    }
}
