// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Observability
internal import Primitives
internal import Records

/// Recovers one dead channel: ends its log, brings what the log holds into segments, closes its
/// streamlets, and retires it.
///
/// The end of the log is published before anything is read from it. Then, window by window, the
/// chunks are replayed, the segments stored, and one flush each makes them the metadata's; the
/// last window closes every streamlet. A step that was done before is a step that finds nothing to
/// do: whoever is interrupted starts again at the top, and so may somebody else at the same time.
/// A streamlet that cannot go on yet holds back its chunks, but no other streamlet.
final class Recovery {
    struct Summary {
        var chunks = 0
        var records = 0
        var streamlets = 0
        var segmentObjects = 0
    }

    private let channel: ChannelID
    private let world: CopWorld
    private let limits: CopLimits
    private let bucket: Bucket
    private var summary = Summary()
    private var replays: [StreamID: StreamletReplay] = [:]
    private var order: [StreamID] = []

    init(_ channel: ChannelID, world: CopWorld, limits: CopLimits) {
        self.channel = channel
        self.world = world
        self.limits = limits
        bucket = world.buckets[0]
    }

    func run() async throws(RecoveryError) -> Summary {
        let row = try await sealedRow()
        guard row.state == .sealed, let end = row.sealedAt else { return summary }
        guard row.flushedEnd <= end else {
            throw RecoveryError("the log ends at \(end), below what is flushed: \(row.flushedEnd)")
        }
        try await openStreamlets()
        try await replayLog(row.flushedEnd..<end)
        let blocked = replays.values.compactMap(\.blocked)
        if let first = blocked.first {
            throw RecoveryError("\(blocked.count) streams wait; one of them \(first)")
        }
        let isRetired = try await asking("retire") { metadata throws(MetadataError) in
            try await metadata.retireChannel(self.channel)
        }
        guard isRetired else { throw RecoveryError("something of the channel is still open") }
        return summary
    }

    /// The channel's row once its log has its end: sealed or retired.
    private func sealedRow() async throws(RecoveryError) -> ChannelRow {
        let row = try await currentRow()
        switch row.state {
        case .active: throw RecoveryError("it is not dead")
        case .sealed, .retired: return row
        case .dead: break
        }
        let end = try await LogEnd(
            channel: channel, bucket: bucket, world: world, backoff: limits.storeBackoff,
            mutant: limits.mutant
        ).seal(from: row.flushedEnd, storageClass: 0)
        let isPublished = try await asking("publish the seal") { metadata throws(MetadataError) in
            try await metadata.publishSeal(
                self.channel, sealedAt: end, flushedEnd: row.flushedEnd)
        }
        guard isPublished else { throw RecoveryError("its row changed while its log was sealed") }
        world.log.notice("log_sealed", [("channel", channel.description), ("end", "\(end)")])
        return try await currentRow()
    }

    private func currentRow() async throws(RecoveryError) -> ChannelRow {
        let row = try await asking("read the channel") { metadata throws(MetadataError) in
            try await metadata.channel(self.channel)
        }
        guard let row else { throw RecoveryError("there is no such channel") }
        return row
    }

    /// Begins a replay of each streamlet that is open on the channel.
    private func openStreamlets() async throws(RecoveryError) {
        let streamlets = try await asking("read the streamlets") { metadata throws(MetadataError) in
            try await metadata.streamlets(of: self.channel, [.open, .prepared])
        }
        for streamlet in streamlets {
            let found = try await asking("read a stream") { metadata throws(MetadataError) in
                try await metadata.stream(streamlet.stream)
            }
            // Another recoverer may have closed it since.
            guard let found, found.owner?.channel == channel,
                found.owner?.streamlet == streamlet.number
            else { continue }
            replays[streamlet.stream] = StreamletReplay(
                stream: found.stream, streamlet: streamlet.number)
            order.append(streamlet.stream)
        }
        summary.streamlets = order.count
    }

    /// Replays the chunks in windows of bounded size, and flushes behind each.
    private func replayLog(_ indexes: Range<ChunkIndex>) async throws(RecoveryError) {
        var flushedEnd = indexes.lowerBound
        var next = indexes.lowerBound
        repeat {
            var bytes = 0
            while next < indexes.upperBound, bytes < limits.recoveryBytesMax {
                let chunk = try await readChunk(next)
                bytes += chunk.bytes.count
                for entry in chunk.entries {
                    guard replays[entry.stream]?.streamlet == entry.streamlet else { continue }
                    replays[entry.stream]?.take(entry, chunk.fragment(entry))
                }
                next += 1
                summary.chunks += 1
            }
            // Chunks that a waiting streamlet needs stay unflushed.
            let target = replays.values.contains { $0.blocked != nil } ? flushedEnd : next
            try await flushWindow(
                from: flushedEnd, to: target, isLast: next == indexes.upperBound)
            flushedEnd = target
        } while next < indexes.upperBound
    }

    private func readChunk(_ index: ChunkIndex) async throws(RecoveryError) -> Chunk {
        let key = LogKeys.chunk(channel, index)
        let bytes: Bytes
        do throws(StoreError) {
            bytes = try await bucket.store.getRetrying(
                key, range: nil, loop: world.loop, random: world.random,
                backoff: limits.storeBackoff
            ).bytes
        } catch {
            throw RecoveryError("\(key): \(error)")
        }
        do throws(DecodeError) {
            let chunk = try Chunk(bytes)
            guard chunk.header.channel == channel, chunk.header.index == index else {
                throw DecodeError(.malformed("it is another chunk"), at: 0)
            }
            return chunk
        } catch {
            throw RecoveryError("\(key) is damaged: \(error)")
        }
    }

    /// Flushes what the window brought; with `isLast`, closes every streamlet.
    private func flushWindow(
        from flushedEnd: ChunkIndex, to target: ChunkIndex, isLast: Bool
    ) async throws(RecoveryError) {
        for stream in order { replays[stream]?.dropTrimmed() }
        var waiting = order.filter { stream in
            guard let replay = replays[stream] else { return false }
            return replay.state.tail.seqNum > replay.flushedEnd || (isLast && replay.blocked == nil)
        }
        if waiting.isEmpty && target == flushedEnd { return }
        repeat {
            let group = nextGroup(&waiting)
            let closing = group.filter { isLast && replays[$0]?.blocked == nil }
            try await flush(
                group, closing: Set(closing), flushedEnd: waiting.isEmpty ? target : flushedEnd)
            for stream in group {
                if closing.contains(stream) {
                    replays[stream] = nil
                } else {
                    replays[stream]?.flushed()
                }
            }
            order.removeAll { replays[$0] == nil }
        } while !waiting.isEmpty
    }

    /// Takes from `waiting` as many streamlets as one flush may hold, at least one.
    private func nextGroup(_ waiting: inout [StreamID]) -> [StreamID] {
        var bytes = 0
        var count = 0
        while count < min(waiting.count, limits.flushPartsMax) {
            let more = replays[waiting[count]]?.byteCount ?? 0
            if count > 0 && bytes + more > limits.segmentObjectBytesMax { break }
            bytes += more
            count += 1
        }
        defer { waiting.removeFirst(count) }
        return Array(waiting.prefix(count))
    }

    private func flush(
        _ group: [StreamID], closing: Set<StreamID>, flushedEnd: ChunkIndex
    ) async throws(RecoveryError) {
        let replays = group.compactMap { self.replays[$0] }
        let segments = try await SegmentStorage(
            bucket: bucket, channel: channel, world: world,
            objectBytesMax: limits.segmentObjectBytesMax, backoff: limits.storeBackoff
        ).store(replays, closing: closing)
        summary.segmentObjects += segments.objects
        let parts = replays.map { replay in
            Flush.Part(
                stream: replay.id, streamlet: replay.streamlet, from: replay.flushedEnd,
                state: replay.state, closes: closing.contains(replay.id),
                segments: segments.rows[replay.id] ?? [])
        }
        summary.records += replays.reduce(0) { $0 + Int($1.state.tail.seqNum - $1.flushedEnd) }
        let flush = Flush(
            channel: channel, isRecovery: true, parts: parts, flushedEnd: flushedEnd)
        let result = try await asking("flush") { metadata throws(MetadataError) in
            try await metadata.flush(flush)
        }
        switch result {
        case .done: break
        case .channelNotActive: throw RecoveryError("another recovery finished first")
        case .notContiguous(let stream):
            throw RecoveryError("another recovery is ahead, at stream \(stream)")
        }
    }

    private func asking<Value: Sendable>(
        _ what: String,
        _ body: (any MetadataStore) async throws(MetadataError) -> Value
    ) async throws(RecoveryError) -> Value {
        do throws(MetadataError) {
            return try await body(world.metadata)
        } catch {
            throw RecoveryError("could not \(what): \(error)")
        }
    }
}

extension Recovery.Summary {
    func fields(_ channel: ChannelID) -> EventLog.Fields {
        [
            ("channel", channel.description), ("chunks", "\(chunks)"), ("records", "\(records)"),
            ("streamlets", "\(streamlets)"), ("segment_objects", "\(segmentObjects)"),
        ]
    }
}
