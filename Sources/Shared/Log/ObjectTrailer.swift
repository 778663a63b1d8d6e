// SPDX-License-Identifier: Apache-2.0

internal import Primitives

enum LogFormat {
    /// Of every object; a reader refuses what it does not know.
    static let version: UInt16 = 1
}

/// How a chunk and a segment object end: where the table is that tells what is inside.
///
/// The checksum covers the table and the trailer, the trailer holds the header's checksum, and the
/// table those of all that lies between: so nothing can change unnoticed, and the table can be read
/// and trusted alone.
struct ObjectTrailer: Equatable {
    var tableOffset: UInt32
    var entryCount: UInt32
    /// The checksum that ends the object's header.
    var headerChecksum: UInt32

    static let byteCount = 24
    static let chunkMagic: UInt32 = 0x4558_444D  // "MDXE"
    static let segmentMagic: UInt32 = 0x4547_534D  // "MSGE"

    /// Appends itself to a writer that ends with the table, which begins at `start`.
    func encode(behind table: inout ByteWriter, from start: Int, magic: UInt32) {
        let length = UInt32(table.count - start)
        table.write(tableOffset)
        table.write(length)
        table.write(entryCount)
        table.write(headerChecksum)
        table.write(table.checksum(from: start))
        table.write(magic)
    }

    /// How many of the object's last bytes hold table and trailer. `tail` is some end of the
    /// object, the trailer at least; nothing is verified yet.
    static func tailBytes(
        _ tail: Bytes, objectSize: Int, magic: UInt32
    ) throws(DecodeError) -> Int {
        let (trailer, length) = try read(tail, magic: magic)
        guard Int(trailer.tableOffset) + length + byteCount == objectSize else {
            throw DecodeError(.malformed("the table lies elsewhere"), at: tail.count - byteCount)
        }
        return length + byteCount
    }

    /// The trailer and the table, verified. `tail` is an end of the object that holds both.
    static func decode(
        _ tail: Bytes, objectSize: Int, entryBytes: Int, magic: UInt32
    ) throws(DecodeError) -> (trailer: ObjectTrailer, table: Bytes) {
        let length = try tailBytes(tail, objectSize: objectSize, magic: magic) - byteCount
        let (trailer, _) = try read(tail, magic: magic)
        guard tail.count >= length + byteCount else { throw DecodeError(.truncated, at: 0) }
        let start = tail.count - byteCount - length
        let checked = tail[start..<tail.count - 8]
        guard CRC32C.of(checked) == tail.load(UInt32.self, at: tail.count - 8) else {
            throw DecodeError(.checksum, at: start)
        }
        guard Int(trailer.entryCount) * entryBytes == length else {
            throw DecodeError(.malformed("\(trailer.entryCount) entries"), at: start)
        }
        return (trailer, tail[start..<start + length])
    }

    private static func read(
        _ tail: Bytes, magic: UInt32
    ) throws(DecodeError) -> (trailer: ObjectTrailer, tableLength: Int) {
        guard tail.count >= byteCount else { throw DecodeError(.truncated, at: tail.count) }
        let start = tail.count - byteCount
        var reader = ByteReader(tail.dropFirst(start))
        let offset: UInt32 = try reader.read()
        let length: UInt32 = try reader.read()
        let count: UInt32 = try reader.read()
        let header: UInt32 = try reader.read()
        guard tail.load(UInt32.self, at: tail.count - 4) == magic else {
            throw DecodeError(.malformed("not the end of such an object"), at: tail.count - 4)
        }
        let trailer = ObjectTrailer(
            tableOffset: offset, entryCount: count, headerChecksum: header)
        return (trailer, Int(length))
    }
}

extension ByteReader {
    mutating func expectMagic(_ magic: UInt32, _ what: String) throws(DecodeError) {
        guard try read(UInt32.self) == magic else {
            throw DecodeError(.malformed("not the beginning of \(what)"), at: offset - 4)
        }
        let version: UInt16 = try read()
        guard version == LogFormat.version else {
            throw DecodeError(.malformed("unknown format version \(version)"), at: offset - 2)
        }
    }

    mutating func expectZeros(_ count: Int) throws(DecodeError) {
        let start = offset
        let zeros = try read(count)
        guard zeros.withUnsafeBytes({ $0.allSatisfy { $0 == 0 } }) else {
            throw DecodeError(.malformed("reserved bytes are not zero"), at: start)
        }
    }

    /// Reads a checksum of all bytes from `start` up to here.
    mutating func expectChecksum(ofBytesFrom start: Int) throws(DecodeError) {
        let end = offset
        guard try read(UInt32.self) == CRC32C.of(bytes[start..<end]) else {
            throw DecodeError(.checksum, at: start)
        }
    }
}
