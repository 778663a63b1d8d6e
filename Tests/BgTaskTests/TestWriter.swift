// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

/// A channel as background work sees one: a log that grows, and flushes.
final class TestWriter {
    let cell: TestCell
    let id: ChannelID
    private(set) var next: ChunkIndex = 0
    private(set) var flushedEnd: ChunkIndex = 0
    /// Streams to close with the next flush.
    var closing: Set<StreamID> = []
    private var open: [StreamID: Open] = [:]

    private struct Open {
        let basin: String
        let name: String
        let streamlet: StreamletNumber
        var state: StreamState
        var flushed: SeqNum
        var pending: [(chunk: ChunkIndex, records: Bytes, end: SeqNum)] = []
    }

    init(_ cell: TestCell, address: String, _ unsureMilliseconds: UInt64?) throws {
        self.cell = cell
        id = try cell.value { [metadata = cell.metadata] in
            try await metadata.registerChannel(
                ChannelRegistration(
                    storageClass: "express", zone: "a", address: address,
                    unsureMilliseconds: unsureMilliseconds
                        ?? ChannelRegistration.unsureMillisecondsDefault))
        }
    }

    func holds(_ stream: StreamID) -> Bool { open[stream] != nil }
    var streams: [StreamID] { open.keys.sorted() }
    func tail(_ stream: StreamID) -> SeqNum { open[stream]?.state.tail.seqNum ?? 0 }

    /// Whether the stream is this writer's now.
    @discardableResult
    func claim(_ stream: StreamID) throws -> Bool {
        let result = try cell.value { [id, metadata = cell.metadata] in
            try await metadata.claim(stream, channel: id)
        }
        guard case .claimed(let number, let row) = result else { return false }
        if open[stream] == nil {
            open[stream] = Open(
                basin: row.basin, name: row.name, streamlet: number, state: row.state,
                flushed: row.state.tail.seqNum)
        }
        return true
    }

    /// One chunk with `count` records of each stream.
    func write(_ streams: [StreamID], count: Int = 3, bodyBytes: Int = 10) throws {
        for stream in streams {
            guard var entry = open[stream] else { continue }
            var records = ByteWriter()
            for _ in 0..<count {
                let body = Self.body(entry.state.tail.seqNum, bytes: bodyBytes)
                body.withUnsafeBytes { fields in
                    let room = StoredRecord.elementBytesMax(fieldsBytes: fields.count)
                    records.advance(
                        StoredRecord.write(
                            fields: fields, seqNum: entry.state.tail.seqNum,
                            timestamp: cell.loop.wallMilliseconds, to: records.reserve(room)))
                }
                entry.state.tail.seqNum += 1
            }
            entry.state.tail.timestamp = cell.loop.wallMilliseconds
            entry.pending.append((next, records.finish(), entry.state.tail.seqNum))
            open[stream] = entry
        }
        try put(LogKeys.chunk(id, next), [Bytes(utf8: "chunk")])
        next += 1
    }

    func trim(_ stream: StreamID, to seqNum: SeqNum) throws {
        guard let state = open[stream]?.state else { return }
        open[stream]?.state.trimPoint = max(state.trimPoint, min(seqNum, state.tail.seqNum))
    }

    /// The keys of chunks that a plan points to.
    func pointers(_ stream: StreamID) -> [String] {
        (open[stream]?.pending ?? []).map { LogKeys.chunk(id, $0.chunk) }
    }

    /// Stores the segments of all that is pending, without telling anybody.
    func store() throws -> [StreamID: [SegmentRow]] {
        var builder = SegmentObjectBuilder(
            SegmentObjectHeader(
                id: ID128(random: cell.random), channel: id,
                createdMilliseconds: cell.loop.wallMilliseconds))
        for stream in streams {
            guard let entry = open[stream] else { continue }
            let closes = closing.contains(stream)
            let records = entry.pending.filter { $0.end > entry.state.trimPoint }.map(\.records)
            guard !records.isEmpty || (closes && entry.state.tail.seqNum > 0) else { continue }
            let added = try builder.add(
                stream: stream, streamlet: entry.streamlet, records: records,
                state: SegmentState(
                    basin: entry.basin, name: entry.name, configVersion: 1, state: entry.state,
                    closes: closes))
            try #require(added != nil)
        }
        guard !builder.isEmpty else { return [:] }
        let key = LogKeys.segment(builder.header.id)
        let (parts, placements) = builder.finish()
        try put(key, parts)
        var rows: [StreamID: [SegmentRow]] = [:]
        for placement in placements where !placement.span.isEmpty {
            let span = placement.span
            rows[span.stream] = [
                SegmentRow(
                    stream: span.stream, start: span.start, endSeqNum: span.endSeqNum,
                    lastTimestamp: span.lastTimestamp, bucket: "main", object: key,
                    offset: UInt64(placement.offset), length: UInt64(placement.length),
                    meteredBytes: span.meteredBytes, checksum: placement.checksum)
            ]
        }
        return rows
    }

    /// Flushes everything, and closes what is to be closed.
    func flush() throws { try commit(try store()) }

    func commit(_ rows: [StreamID: [SegmentRow]]) throws {
        let parts = streams.compactMap { stream in
            open[stream].map { entry in
                Flush.Part(
                    stream: stream, streamlet: entry.streamlet, from: entry.flushed,
                    state: entry.state, closes: closing.contains(stream),
                    segments: rows[stream] ?? [])
            }
        }
        let flush = Flush(channel: id, isRecovery: false, parts: parts, flushedEnd: next)
        let result = try cell.value { [metadata = cell.metadata] in
            try await metadata.flush(flush)
        }
        try #require(result == .done)
        for stream in streams {
            let end = tail(stream)
            open[stream]?.flushed = end
            open[stream]?.pending = []
        }
        for stream in closing { open[stream] = nil }
        closing = []
        flushedEnd = next
    }

    /// Flushes, closes, and ends with a seal, as after a recovery.
    func retire() throws {
        closing = Set(streams)
        try flush()
        try put(LogKeys.chunk(id, next), [Bytes(utf8: "seal")])
        let isRetired = try cell.value { [id, next, metadata = cell.metadata] in
            try await metadata.resignChannel(id)
            _ = try await metadata.publishSeal(id, sealedAt: next, flushedEnd: next)
            return try await metadata.retireChannel(id)
        }
        #expect(isRetired)
    }

    private func put(_ key: String, _ parts: [Bytes]) throws {
        _ = try cell.value { [store = cell.store] in
            try await store.put(key, parts, ifAbsent: true)
        }
    }

    static func body(_ seqNum: SeqNum, bytes: Int) -> Bytes {
        let text = "record \(seqNum) " + String(repeating: "x", count: bytes)
        var writer = ByteWriter()
        writer.write(UInt8(0x22))
        writer.writeVarint(UInt64(text.utf8.count))
        writer.write(utf8: text)
        return writer.finish()
    }
}
