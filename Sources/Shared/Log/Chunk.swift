// SPDX-License-Identifier: Apache-2.0

package import Primitives
internal import Records

/// One object of a write-ahead log, verified: `header | fragments | index | trailer`.
package struct Chunk: Sendable {
    package let header: ChunkHeader
    package let entries: [FragmentEntry]
    package let bytes: Bytes

    package static let byteCountMax = 8 << 20
    package static let fragmentsMax = 4_096

    /// Throws unless the object is whole and every byte of it what was written.
    package init(_ bytes: Bytes) throws(DecodeError) {
        header = try ChunkHeader(bytes)
        guard header.kind == .chunk else { throw DecodeError(.malformed("not a chunk"), at: 6) }
        let table = try ChunkTable(tail: bytes, objectSize: bytes.count)
        guard table.headerChecksum == bytes.load(UInt32.self, at: ChunkHeader.byteCount - 4) else {
            throw DecodeError(.malformed("header and index are not of one chunk"), at: 0)
        }
        entries = table.entries
        self.bytes = bytes
        for entry in entries {
            do throws(DecodeError) {
                try entry.verify(bytes[entry.range])
            } catch {
                throw DecodeError(error.reason, at: entry.range.lowerBound)
            }
        }
    }

    /// The bytes of a fragment, sharing memory.
    package func fragment(_ entry: FragmentEntry) -> Bytes { bytes[entry.range] }
}

/// A chunk's index, read without the rest of it.
package struct ChunkTable: Sendable {
    package let entries: [FragmentEntry]
    /// Ties the index to its header.
    package let headerChecksum: UInt32

    /// How many of a chunk's last bytes hold its index. `tail` is some end of the object, at least
    /// `trailerBytes` long.
    package static func tailBytes(_ tail: Bytes, objectSize: Int) throws(DecodeError) -> Int {
        try ObjectTrailer.tailBytes(tail, objectSize: objectSize, magic: ObjectTrailer.chunkMagic)
    }

    package static let trailerBytes = ObjectTrailer.byteCount

    /// From an end of the object that holds at least the index.
    package init(tail: Bytes, objectSize: Int) throws(DecodeError) {
        let (trailer, table) = try ObjectTrailer.decode(
            tail, objectSize: objectSize, entryBytes: FragmentEntry.byteCount,
            magic: ObjectTrailer.chunkMagic)
        let start = tail.count - ObjectTrailer.byteCount - table.count
        guard objectSize <= Chunk.byteCountMax,
            (1...Chunk.fragmentsMax).contains(Int(trailer.entryCount))
        else {
            throw DecodeError(
                .malformed("\(trailer.entryCount) fragments in \(objectSize) bytes"), at: start)
        }
        var reader = ByteReader(table)
        var entries: [FragmentEntry] = []
        entries.reserveCapacity(Int(trailer.entryCount))
        var end = ChunkHeader.byteCount
        while !reader.isAtEnd {
            let at = start + reader.offset
            let entry = try FragmentEntry(decoding: &reader)
            guard entry.range.lowerBound == end else {
                throw DecodeError(.malformed("fragments do not adjoin"), at: at)
            }
            end = entry.range.upperBound
            entries.append(entry)
        }
        guard end == Int(trailer.tableOffset) else {
            throw DecodeError(.malformed("fragments do not adjoin the index"), at: start)
        }
        self.entries = entries
        headerChecksum = trailer.headerChecksum
    }
}

/// Gathers fragments into a chunk. What it is given is not copied: the chunk is a list of parts.
package struct ChunkBuilder {
    package let header: ChunkHeader
    /// What the object would take as it stands.
    package private(set) var byteCount = ChunkHeader.byteCount + ObjectTrailer.byteCount
    package private(set) var fragmentCount = 0
    private var parts: [Bytes] = []
    /// Header, index and trailer: the first part and the last one, in one piece of memory.
    private var own: ByteWriter
    private var offset = ChunkHeader.byteCount
    /// The fragment of which more bytes may come, and what came of it.
    private var begun: FragmentEntry?
    /// Bytes that are counted, and are not in `parts`.
    private var elsewhere = 0
    private var begunLength = 0
    private var begunChecksum: UInt32 = 0

    /// How many fragments to make room for, and how many slices in all.
    package init(_ header: ChunkHeader, fragmentCount: Int = 1, sliceCount: Int = 1) {
        precondition(header.kind == .chunk, "a seal has no fragments")
        self.header = header
        own = ByteWriter(
            capacity: ChunkHeader.byteCount + fragmentCount * FragmentEntry.byteCount
                + ObjectTrailer.byteCount)
        header.encode(into: &own)
        parts.reserveCapacity(sliceCount + 2)
        parts.append(Bytes())
    }

    package var isEmpty: Bool { fragmentCount == 0 }

    /// Whether another fragment of so many bytes fits.
    package func hasRoom(for bytes: Int) -> Bool {
        fragmentCount < Chunk.fragmentsMax
            && byteCount + bytes + FragmentEntry.byteCount <= Chunk.byteCountMax
    }

    /// Adds a fragment that consists of `slices`, back to back, and at least one byte. Returns its
    /// entry; nil if it does not fit: then nothing was added.
    package mutating func add(_ entry: FragmentEntry, _ slices: [Bytes]) -> FragmentEntry? {
        guard hasRoom(for: Primitives.byteCount(slices)) else { return nil }
        begin(entry)
        for slice in slices { append(slice) }
        return end()
    }

    /// Begins a fragment; `append` gives it bytes, and `end` ends it.
    package mutating func begin(_ entry: FragmentEntry) {
        precondition(begun == nil, "one fragment at a time")
        precondition((entry.kind == .records) == (entry.count > 0), "only records are counted")
        begun = entry
        begunLength = 0
        begunChecksum = 0
    }

    /// The next bytes of the fragment that was begun.
    package mutating func append(_ slice: Bytes) {
        count(slice)
        elsewhere -= slice.count
        parts.append(slice)
    }

    /// As `append`, but it is left to the caller to put the bytes into the object.
    package mutating func count(_ slice: Bytes) {
        precondition(begun != nil, "a fragment was begun")
        begunLength += slice.count
        elsewhere += slice.count
        begunChecksum = CRC32C.of(slice, seed: begunChecksum)
    }

    /// Ends the fragment, which has at least one byte, and returns its entry; nil where the chunk
    /// had no room for it, and is spent.
    package mutating func end() -> FragmentEntry? {
        guard var placed = begun, hasRoom(for: begunLength) else { return nil }
        precondition(begunLength > 0, "a fragment is never empty")
        begun = nil
        placed.place(offset: offset, length: begunLength, checksum: begunChecksum)
        placed.encode(into: &own)
        fragmentCount += 1
        offset += begunLength
        byteCount += begunLength + FragmentEntry.byteCount
        return placed
    }

    /// The chunk, as parts to be stored back to back: the header, what was appended, the index.
    /// What was only counted is missing. There must be at least one fragment. The builder is spent.
    package mutating func finish() -> [Bytes] {
        precondition(!isEmpty, "an empty chunk is never written")
        ObjectTrailer(
            tableOffset: UInt32(offset), entryCount: UInt32(fragmentCount),
            headerChecksum: own.load(UInt32.self, at: ChunkHeader.byteCount - 4)
        ).encode(behind: &own, from: ChunkHeader.byteCount, magic: ObjectTrailer.chunkMagic)
        let bytes = own.finish()
        var parts: [Bytes] = []
        swap(&parts, &self.parts)
        parts[0] = bytes[0..<ChunkHeader.byteCount]
        parts.append(bytes.dropFirst(ChunkHeader.byteCount))
        precondition(
            Primitives.byteCount(parts) + elsewhere == byteCount, "the size was foretold")
        return parts
    }
}
