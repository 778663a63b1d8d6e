// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

/// Looks at all objects and all rows: what is missing, and what is left over.
struct Check {
    /// Records that cannot be read, holes in logs: never allowed.
    var missing: [String] = []
    /// Objects and rows that nothing needs: allowed until the collectors had their time.
    var leftover: [String] = []

    init(_ cell: TestCell) throws {
        let streams = try cell.value { [metadata = cell.metadata] in
            try await metadata.allStreams()
        }
        var referenced: Set<String> = []
        var tails: [StreamID: SeqNum] = [:]
        for id in streams {
            guard let stream = try cell.lookup(id)?.stream else { continue }
            let rows = try cell.rows(id)
            referenced.formUnion(rows.map(\.object))
            tails[id] = stream.state.tail.seqNum
            if stream.deletedMilliseconds != nil {
                leftover.append("deleted stream \(id)")
                continue
            }
            try checkRecords(cell, stream, rows)
            for row in rows where row.endSeqNum <= stream.state.trimPoint {
                leftover.append("trimmed row \(id) \(row.start.seqNum)")
            }
        }
        let garbage = try cell.value { [metadata = cell.metadata] in
            try await metadata.scanGarbage("a"..<"z", after: nil, limit: 100_000).items
        }
        leftover += garbage.filter { !$0.isReferenced }.map { "garbage \($0.object.key)" }
        for key in try cell.keys("seg/") where !referenced.contains(key) {
            let object = try SegmentObject(
                try cell.value { [store = cell.store] in
                    try await store.get(key, range: nil).bytes
                })
            let isWord = object.placements.contains {
                $0.span.isEmpty && tails[$0.span.stream] == $0.span.endSeqNum
            }
            if !isWord { leftover.append(key) }
        }
        leftover += try cell.keys("doctor/")
        try checkLogs(cell)
    }

    private mutating func checkRecords(
        _ cell: TestCell, _ stream: Stream, _ rows: [SegmentRow]
    ) throws {
        var next = stream.state.trimPoint
        for row in rows where row.endSeqNum > stream.state.trimPoint {
            if row.start.seqNum > next { missing.append("\(stream.id) \(next)") }
            next = row.endSeqNum
            let range = Int(row.offset)..<Int(row.offset + row.length)
            do {
                let bytes = try cell.value { [store = cell.store] in
                    try await store.get(row.object, range: range).bytes
                }
                let segment = try Segment(bytes, checksum: row.checksum)
                try segment.checkRecords()
                #expect(segment.index.span.start == row.start)
                var walk = StoredRecords(segment.records)
                while let record = try walk.next() {
                    let text = segment.records[record.body].lossyText
                    #expect(text.hasPrefix("record \(record.seqNum) "))
                }
            } catch {
                missing.append("\(stream.id) \(row.start.seqNum): \(error)")
            }
        }
        if next != stream.state.tail.seqNum { missing.append("\(stream.id) \(next)") }
    }

    private mutating func checkLogs(_ cell: TestCell) throws {
        for writer in cell.writers {
            let indexes = try cell.keys(LogKeys.logPrefix(writer.id)).compactMap {
                LogKeys.parseChunk($0)?.index
            }
            // Below the flushed end, where nobody looks any more, chunks go a few at once.
            for (a, b) in zip(indexes, indexes.dropFirst())
            where b != a + 1 && b > writer.flushedEnd {
                missing.append("log \(writer.id) has a hole behind \(a)")
            }
            let flushed = indexes.filter { $0 < writer.flushedEnd }
            leftover += flushed.map { "chunk \(writer.id)/\($0)" }
            let (row, closed) = try cell.value { [metadata = cell.metadata, id = writer.id] in
                (try await metadata.channel(id), try await metadata.streamlets(of: id, [.closed]))
            }
            if row?.state != .active {
                leftover += closed.map { "streamlet \($0.stream) \($0.number)" }
            }
            let unflushed = indexes.filter { $0 >= writer.flushedEnd && $0 < writer.next }
            if unflushed.count != writer.next - writer.flushedEnd {
                missing.append("log \(writer.id) lacks unflushed chunks")
            }
        }
    }
}
