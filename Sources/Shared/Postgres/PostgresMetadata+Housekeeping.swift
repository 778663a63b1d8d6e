// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import Primitives
package import Records

extension PostgresMetadata: HousekeepingStore {
    // MARK: Streams

    package func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int
    ) async throws(MetadataError) -> Scan<StreamID, StreamID> {
        let values = [
            range.lowerBound.description, range.upperBound.description, after?.description,
            String(limit),
        ]
        let rows = try await ask(.scanStreams(for: work), values).rows
        var due: [StreamID] = []
        var (last, total): (StreamID?, Int) = (nil, 0)
        for index in 0..<rows.count {
            var row = ColumnReader(rows, row: index)
            let id = try row.streamID()
            if try row.flag() { due.append(id) }
            total = try row.number()
            last = id
        }
        return Scan(due, next: total == limit ? last : nil)
    }

    package func unlinkTrimmed(_ stream: StreamID, limit: Int) async throws(MetadataError) -> Int {
        var row = try await one(.unlinkTrimmed, [stream.description, String(limit)])
        return try row.number()
    }

    package func expire(_ stream: StreamID) async throws(MetadataError) -> SeqNum? {
        var row = try await one(.expire, [stream.description])
        return try row.numberIfAny()
    }

    package func deleteIfEmpty(
        _ stream: StreamID
    ) async throws(MetadataError) -> EmptyStreamResult {
        var row = try await one(.deleteIfEmpty, [stream.description])
        return try row.name()
    }

    package func purgeStream(
        _ stream: StreamID, limit: Int
    ) async throws(MetadataError) -> StreamPurgeResult {
        var row = try await one(.purgeStream, [stream.description, String(limit)])
        switch try row.text() {
        case "alive": return .alive
        case "open": return .open
        case "more": return .unlinked(try row.number())
        case "purged": return .purged
        case let other: throw unexpected(other)
        }
    }

    package func deletingBasins(
        after: String, limit: Int
    ) async throws(MetadataError) -> Page<String> {
        let rows = try await ask(.deletingBasins, [after, String(limit + 1)]).rows
        let names = try each(rows) { row throws(MetadataError) in try row.text() }
        return Page(Array(names.prefix(limit)), hasMore: names.count > limit)
    }

    package func purgeBasin(
        _ name: String, limit: Int
    ) async throws(MetadataError) -> BasinPurgeResult {
        var row = try await one(.purgeBasin, [name, String(limit)])
        switch try row.text() {
        case "alive": return .alive
        case "waiting": return .waiting(marked: try row.number())
        case "purged": return .purged
        case let other: throw unexpected(other)
        }
    }

    // MARK: Compaction

    package func smallSegments(
        of stream: StreamID, from: SeqNum, limit: Int
    ) async throws(MetadataError) -> [AgedSegment] {
        let values = [stream.description, String(from), String(limit)]
        let rows = try await ask(.smallSegments, values).rows
        return try each(rows) { row throws(MetadataError) in
            guard let segment = try row.segmentIfAny() else { throw self.unexpected("NULL") }
            return AgedSegment(row: segment, createdMilliseconds: try row.number())
        }
    }

    package func compact(
        _ inputs: [SegmentRow], into output: SegmentRow
    ) async throws(MetadataError) -> Bool {
        guard output.replaces(inputs) else {
            throw MetadataError(.failed, "the compacted segment does not span its inputs")
        }
        let values = [
            output.stream.description, JSONRows.of(inputs, count: inputs.count),
            JSONRows.of([output], count: 1),
        ]
        var row = try await one(.compact, values)
        return try row.flag()
    }

    // MARK: Objects

    package func knownObjects(
        _ objects: [String], bucket: String
    ) async throws(MetadataError) -> Set<String> {
        let values = [JSONText.array(objects.map(JSONText.string)), bucket]
        let rows = try await ask(.knownObjects, values).rows
        return Set(try each(rows) { row throws(MetadataError) in try row.text() })
    }

    package func unlinkObject(_ object: StoredObject) async throws(MetadataError) {
        _ = try await ask(.unlinkObject, [object.bucket, object.key], writes: .guarded)
    }

    package func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int
    ) async throws(MetadataError) -> Scan<Garbage, StoredObject> {
        let values = [
            keys.lowerBound, keys.upperBound, after?.key, after?.bucket, String(limit),
        ]
        let rows = try await ask(.scanGarbage, values, writes: .guarded).rows
        let items = try each(rows) { row throws(MetadataError) in
            let object = StoredObject(bucket: try row.text(), key: try row.text())
            let (isCondemned, isSettled) = (try row.flag(), try row.flag())
            return Garbage(
                object: object,
                phase: isSettled ? .settled : isCondemned ? .condemned : .unlinked,
                age: try row.number(), isReferenced: try row.flag())
        }
        return Scan(items, next: items.count == limit ? items.last?.object : nil)
    }

    package func condemn(_ object: StoredObject, age: UInt64) async throws(MetadataError) -> Bool {
        let values = [object.bucket, object.key, String(age)]
        return try await ask(.condemn, values, writes: .guarded).rows.count > 0
    }

    package func forgetObject(_ object: StoredObject) async throws(MetadataError) {
        _ = try await ask(.forgetObject, [object.bucket, object.key], writes: .guarded)
    }

    // MARK: Logs

    package func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int
    ) async throws(MetadataError) -> Scan<LogGarbage, ChannelID> {
        let values = [
            after.map(key) ?? "0", String(partitions), String(partition), String(limit),
        ]
        let rows = try await ask(.scanLogs, values).rows
        let items = try each(rows) { row throws(MetadataError) in
            let channel = try row.channel()
            let deletedEnd: ChunkIndex = try row.number()
            let markedEnd: ChunkIndex? = try row.numberIfAny()
            let markAge: UInt64? = try row.numberIfAny()
            return LogGarbage(
                channel: channel, deletedEnd: deletedEnd,
                mark: markedEnd.map { .init(end: $0, age: markAge ?? 0) },
                retiredAge: try row.numberIfAny(),
                unsureMilliseconds: try row.number())
        }
        return Scan(items, next: items.count == limit ? items.last?.channel.id : nil)
    }

    package func markLog(_ channel: ChannelID) async throws(MetadataError) {
        _ = try await ask(.markLog, [key(channel)], writes: .guarded)
    }

    package func forgetLog(
        _ channel: ChannelID, below end: ChunkIndex
    ) async throws(MetadataError) {
        _ = try await ask(.forgetLogBelow, [key(channel), String(end)], writes: .guarded)
    }

    package func forgetStreamlets(
        of channel: ChannelID, limit: Int
    ) async throws(MetadataError) -> Int {
        var row = try await one(.forgetStreamlets, [key(channel), String(limit)])
        return try row.number()
    }

    package func forgetChannel(_ channel: ChannelID) async throws(MetadataError) -> Bool {
        var row = try await one(.forgetChannel, [key(channel)])
        return try row.flag()
    }

    // MARK: Leases

    package func leases(prefix: String) async throws(MetadataError) -> [NamedLease] {
        let rows = try await ask(.leases, [prefix]).rows
        return try each(rows) { row throws(MetadataError) in
            NamedLease(
                name: try row.text(), holder: try row.textIfAny(), renewals: try row.number())
        }
    }

    // MARK: Rows

    /// The only row of a guarded write.
    private func one(
        _ statement: Statement, _ values: [String?]
    ) async throws(MetadataError) -> ColumnReader {
        let rows = try await ask(statement, values, writes: .guarded).rows
        guard rows.count == 1 else { throw unexpected("\(rows.count) rows") }
        return ColumnReader(rows)
    }

    private func each<Item>(
        _ rows: Rows, _ read: (inout ColumnReader) throws(MetadataError) -> Item
    ) throws(MetadataError) -> [Item] {
        var items: [Item] = []
        items.reserveCapacity(rows.count)
        for index in 0..<rows.count {
            var row = ColumnReader(rows, row: index)
            items.append(try read(&row))
        }
        return items
    }

    /// As for every channel's id: what lies beyond a sequence's numbers is nobody's.
    private func key(_ id: ChannelID) -> String { String(Int64(exactly: id.number) ?? -1) }
}
