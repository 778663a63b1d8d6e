// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// How a chunk and a seal begin: whose slot of which log this is, and which PUT made it.
///
/// Its own checksum lets a prefix of the object tell a chunk from a seal, and mine from another's.
package struct ChunkHeader: Sendable, Hashable {
    package enum Kind: UInt8, Sendable {
        case chunk = 1
        /// The log ends here.
        case seal = 2
    }
    package var kind: Kind
    package var channel: ChannelID
    package var index: ChunkIndex
    /// Random; the same on every try of one PUT, and on no other.
    package var putID: ID128
    /// The storage class, as the cell's configuration numbers it.
    package var storageClass: UInt8
    package var createdMilliseconds: UInt64

    package static let byteCount = 56
    /// Of a chunk and of a seal: the whole header tells one from the other.
    package static let identity = ObjectIdentity(prefixBytes: byteCount, putID: 24..<40)

    private static let magic: UInt32 = 0x4C41_574D  // "MWAL"

    package init(
        kind: Kind, channel: ChannelID, index: ChunkIndex, putID: ID128, storageClass: UInt8,
        createdMilliseconds: UInt64
    ) {
        self.kind = kind
        self.channel = channel
        self.index = index
        self.putID = putID
        self.storageClass = storageClass
        self.createdMilliseconds = createdMilliseconds
    }

    /// From the first bytes of an object.
    package init(_ bytes: Bytes) throws(DecodeError) {
        guard bytes.count >= Self.byteCount else { throw DecodeError(.truncated, at: bytes.count) }
        var reader = ByteReader(bytes[0..<Self.byteCount])
        try reader.expectMagic(Self.magic, "a chunk or seal")
        let kindCode: UInt8 = try reader.read()
        let storageClass: UInt8 = try reader.read()
        let channel = ChannelID(try reader.read())
        let index: ChunkIndex = try reader.read()
        let putID = try reader.readID()
        let created: UInt64 = try reader.read()
        try reader.expectZeros(4)
        try reader.expectChecksum(ofBytesFrom: 0)
        guard let kind = Kind(rawValue: kindCode) else {
            throw DecodeError(.malformed("unknown kind of object \(kindCode)"), at: 6)
        }
        guard channel.number > 0 else { throw DecodeError(.malformed("channel 0"), at: 8) }
        self.init(
            kind: kind, channel: channel, index: index, putID: putID, storageClass: storageClass,
            createdMilliseconds: created)
    }

    /// Which of the two begins with `bytes`, by that one byte; nil if it is neither. For counting:
    /// nothing is checked.
    static func kind(of bytes: Bytes) -> Kind? { bytes.count > 6 ? Kind(rawValue: bytes[6]) : nil }

    package func encode(into writer: inout ByteWriter) {
        let start = writer.count
        writer.write(Self.magic)
        writer.write(LogFormat.version)
        writer.write(kind.rawValue)
        writer.write(storageClass)
        writer.write(channel.number)
        writer.write(index)
        writer.write(putID)
        writer.write(createdMilliseconds)
        writer.write(UInt32(0))
        writer.write(writer.checksum(from: start))
    }
}

/// What a log may hold at an index.
package enum LogSlot: Sendable {
    case chunk(Chunk)
    case seal(Seal)

    package init(_ bytes: Bytes) throws(DecodeError) {
        switch try ChunkHeader(bytes).kind {
        case .chunk: self = .chunk(try Chunk(bytes))
        case .seal: self = .seal(try Seal(bytes))
        }
    }
}
