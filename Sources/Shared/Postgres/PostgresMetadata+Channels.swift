// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import Primitives
internal import Records

extension PostgresMetadata {
    // MARK: Channels and their leases

    package func registerChannel(
        _ registration: ChannelRegistration
    ) async throws(MetadataError) -> ChannelID {
        let values = [
            registration.storageClass, registration.zone, registration.address,
            String(registration.unsureMilliseconds),
        ]
        let answer = try await ask(.registerChannel, values, writes: .unguarded)
        var row = ColumnReader(answer.rows)
        return try row.channelID()
    }

    package func renewChannel(
        _ id: ChannelID, load: ChannelLoad
    ) async throws(MetadataError) -> Bool {
        let values = [
            key(id), String(load.bytesPerSecond), String(load.queueDelayMicroseconds),
            String(load.openStreamlets),
        ]
        return try await ask(.renewChannel, values, writes: .guarded).rows.count > 0
    }

    package func channels(
        _ states: Set<ChannelState>
    ) async throws(MetadataError) -> [ChannelRow] {
        let rows = try await ask(.channels, [array(states.map(\.rawValue))]).rows
        return try all(rows) { row throws(MetadataError) in try row.channel() }
    }

    package func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow? {
        let rows = try await ask(.channel, [key(id)]).rows
        return try all(rows) { row throws(MetadataError) in try row.channel() }.first
    }

    package func declareDead(
        _ id: ChannelID, renewals: UInt64
    ) async throws(MetadataError) -> Bool {
        try await ask(.declareDead, [key(id), String(renewals)], writes: .guarded).rows.count > 0
    }

    package func resignChannel(_ id: ChannelID) async throws(MetadataError) {
        _ = try await ask(.resignChannel, [key(id)], writes: .guarded)
    }

    package func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool {
        let values = [key(id), String(sealedAt), String(flushedEnd)]
        return try await ask(.publishSeal, values, writes: .guarded).rows.count > 0
    }

    package func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool {
        let answer = try await ask(.retireChannel, [key(id)], writes: .guarded)
        var row = ColumnReader(answer.rows)
        return try row.flag()
    }

    // MARK: Streamlets

    package func claim(
        _ stream: StreamID, channel: ChannelID
    ) async throws(MetadataError) -> ClaimResult {
        let values = [stream.description, key(channel)]
        let answer = try await ask(.claim, values, writes: .guarded)
        var row = ColumnReader(answer.rows)
        let outcome = try row.text()
        switch outcome {
        case "claimed":
            let number = try row.number(StreamletNumber.self)
            var info = ColumnReader(answer.rows, from: 5)
            guard let lookup = try info.lookupIfAny() else { throw unexpected(outcome) }
            return .claimed(number, lookup.stream)
        case "owned": return .owned(try row.owner(try row.number()))
        case "none": return .streamNotFound
        case "deleting": return .streamDeletionPending
        case "inactive": return .channelNotActive
        default: throw unexpected(outcome)
        }
    }

    package func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult {
        if let stream = flush.misshapenStream { return .notContiguous(stream) }
        let values = [
            key(flush.channel), String(flush.isRecovery), String(flush.flushedEnd),
            JSONRows.of(flush.parts),
            JSONRows.of(flush.parts.lazy.flatMap(\.segments), count: flush.parts.count),
        ]
        let answer = try await ask(.flush, values, writes: .guarded)
        var row = ColumnReader(answer.rows)
        switch try row.text() {
        case "done": return .done
        case "inactive": return .channelNotActive
        case "misfit": return .notContiguous(try row.streamID())
        case let other: throw unexpected(other)
        }
    }

    package func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet] {
        let values = [key(channel), array(states.map(\.rawValue))]
        let rows = try await ask(.streamletsOfChannel, values).rows
        return try all(rows) { row throws(MetadataError) in try row.streamlet() }
    }

    package func streamlets(
        of stream: StreamID, before: StreamletNumber?, limit: Int
    ) async throws(MetadataError) -> [Streamlet] {
        let end = before.map(UInt64.init) ?? UInt64(StreamletNumber.max) + 1
        let values = [stream.description, String(limit), String(end)]
        let rows = try await ask(.streamletsOfStream, values).rows
        return try all(rows) { row throws(MetadataError) in try row.streamlet() }
    }

    // MARK: Reading

    package func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage {
        let (statement, bound): (Statement, UInt64) =
            switch start {
            case .seqNum(let seqNum): (.segmentsFromSeqNum, seqNum)
            case .timestamp(let timestamp): (.segmentsFromTimestamp, timestamp)
            }
        let values = [stream.description, String(bound), String(limit + 1)]
        let rows = try await ask(statement, values).rows
        let segments = try all(rows) { row throws(MetadataError) in
            try row.segmentIfAny()
        }.compactMap(\.self)
        // Behind the segment's columns and the row's place.
        var info = ColumnReader(rows, from: 12)
        return SegmentPage(
            lookup: rows.count > 0 ? try info.lookupIfAny() : nil,
            segments: Array(segments.prefix(limit)), hasMore: segments.count > limit)
    }

    // MARK: Parameters and rows

    /// Ids come from a sequence of signed numbers; what lies beyond is nobody's, as is -1.
    private func key(_ id: ChannelID) -> String { String(Int64(exactly: id.number) ?? -1) }

    /// An array of states, whose names need no quotes.
    private func array(_ states: [String]) -> String { "{" + states.joined(separator: ",") + "}" }

    private func all<Item>(
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
}
