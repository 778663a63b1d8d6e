// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import Metadata
internal import ObjectStorage
internal import Observability
internal import Primitives
internal import Records

/// Moves stable records from the log to segments: segment objects become durable first, then one
/// transaction makes them known, and only then do the chunks' pointers go.
///
/// One flush at a time. It takes a snapshot of what is stable below one chunk index; what becomes
/// stable meanwhile is left to the next. Every step may be repeated.
final class Flusher {
    /// What one streamlet contributes.
    fileprivate struct Share {
        let streamlet: OpenStreamlet
        let from: SeqNum
        let state: StreamState
        let closes: Bool
        /// Its part of `Harvest.runs`.
        let runs: Range<Int>
        var segments: [SegmentRow] = []
    }

    /// What a flush takes along: the shares, by their streams' ids, and the records of all.
    private struct Harvest {
        var shares: [Share] = []
        /// Where the records are: runs of batches, those of one share in order and side by side.
        var runs: [Bytes] = []
        /// The fragments of the share that is being added.
        var places: [FragmentPlace] = []
    }

    private static let partsPerStatementMax = 256

    private let world: ChannelWorld
    private let limits: ChannelLimits
    private let log: LogWriter
    private let flushes: Counter
    private let segmentBytes: Counter
    private let duration: Histogram
    private(set) var isFlushing = false
    /// A streamlet was closed in the metadata.
    var onClosed: (OpenStreamlet) -> Void = { _ in }
    /// For a mutant: whether these were closed is unknown.
    var onUnknownClose: ([StreamID]) -> Void = { _ in }
    /// There is room again.
    var onFlushed: () -> Void = {}
    /// The flush can never succeed.
    var onFailure: (String) -> Void = { _ in }

    init(world: ChannelWorld, limits: ChannelLimits, log: LogWriter) {
        self.world = world
        self.limits = limits
        self.log = log
        flushes = world.metrics.counter("flushes_total", help: "Flushes that succeeded.")
        segmentBytes = world.metrics.counter(
            "segment_put_bytes_total", help: "Bytes of segment objects.")
        duration = world.metrics.histogram("flush_duration_seconds", help: "Time of a whole flush.")
    }

    /// Whether the unflushed records are too many or too old.
    func isDue(at now: Nanoseconds) -> Bool {
        guard log.flushedEnd < log.stableEnd else { return false }
        if log.unflushedBytes >= limits.flushBytes { return true }
        let oldest = log.retained.first { $0.index >= log.flushedEnd }
        return oldest.map { now - $0.closedAt >= limits.flushNanoseconds } ?? false
    }

    /// Flushes everything that is stable, and closes those of `closing` that are settled.
    func flush(closing: [OpenStreamlet]) {
        guard !isFlushing else { return }
        let end = log.stableEnd
        let harvest = harvest(below: end, closing: closing.filter(\.isSettled))
        guard end > log.flushedEnd || !harvest.shares.isEmpty else { return }
        isFlushing = true
        world.loop.spawn { [weak self] in
            guard let self else { return }
            let start = world.loop.now
            let done = await run(harvest, below: end)
            isFlushing = false
            guard done else { return }
            flushes.add()
            duration.record(world.loop.now - start)
            onFlushed()
        }
    }

    private func harvest(below end: ChunkIndex, closing: [OpenStreamlet]) -> Harvest {
        var seen: Set<StreamID> = []
        var harvest = Harvest()
        for streamlet in closing where seen.insert(streamlet.id).inserted {
            add(streamlet, below: end, closes: true, to: &harvest)
        }
        for chunk in log.retained where chunk.index >= log.flushedEnd && chunk.index < end {
            for fragment in chunk.records.fragments
            where seen.insert(fragment.streamlet.id).inserted {
                add(fragment.streamlet, below: end, closes: false, to: &harvest)
            }
        }
        harvest.shares.sort { $0.streamlet.id < $1.streamlet.id }
        return harvest
    }

    private func add(
        _ streamlet: OpenStreamlet, below end: ChunkIndex, closes: Bool, to harvest: inout Harvest
    ) {
        // All below the end is stable, and nothing else is.
        let state = streamlet.stable.streamState
        let first = harvest.runs.count
        log.find(&harvest.places, of: streamlet) { $0.endSeqNum > streamlet.flushedEnd }
        for place in harvest.places where place.chunk < end {
            // What is trimmed by a stable trim needs no segment.
            log.forEachRun(place, above: state.trimPoint) { harvest.runs.append($0) }
        }
        harvest.shares.append(
            Share(
                streamlet: streamlet, from: streamlet.flushedEnd, state: state, closes: closes,
                runs: first..<harvest.runs.count))
    }

    private func run(_ harvest: Harvest, below end: ChunkIndex) async -> Bool {
        let shares: [Share]
        do {
            shares = try await putSegments(harvest.shares, harvest.runs)
            for share in shares where share.closes { share.streamlet.isCloseIssued = true }
            for first in stride(from: 0, to: max(shares.count, 1), by: Self.partsPerStatementMax) {
                let last = min(first + Self.partsPerStatementMax, shares.count)
                let flush = Flush(
                    channel: log.channel, isRecovery: false,
                    parts: shares[first..<last].map(\.part),
                    // Chunks count as flushed once every streamlet in them is.
                    flushedEnd: last == shares.count ? flushedEnd(end) : log.flushedEnd)
                guard try await commit(flush) else { return false }
            }
        } catch {
            onFailure("the flush failed: \(error)")
            return false
        }
        for share in shares {
            share.streamlet.flushedEnd = share.state.tail.seqNum
            if share.closes { onClosed(share.streamlet) }
        }
        log.flushed(to: end)
        return true
    }

    private func flushedEnd(_ end: ChunkIndex) -> ChunkIndex {
        limits.mutant == .unflushedChunkFlushed ? log.nextIndex : end
    }

    private func commit(_ flush: Flush) async throws(MetadataError) -> Bool {
        let start = world.loop.now
        var tries = 0
        while true {
            do throws(MetadataError) {
                switch try await world.metadata.flush(flush) {
                case .done: return true
                case .channelNotActive:
                    onFailure("the channel is not active any more")
                    return false
                case .notContiguous(let stream):
                    onFailure("stream \(stream) was flushed by somebody else")
                    return false
                }
            } catch {
                // The statement is idempotent, so an unknown outcome is settled by repeating it.
                tries += 1
                if limits.mutant == .resumeAfterUnknownClose, error.outcomeUnknown,
                    flush.parts.contains(where: \.closes)
                {
                    onUnknownClose(flush.parts.filter(\.closes).map(\.stream))
                    return false
                }
                guard error.kind == .unavailable || error.outcomeUnknown,
                    let delay = limits.flushBackoff.delay(
                        afterTries: tries, elapsed: world.loop.now - start,
                        random: world.random.next())
                else { throw error }
                world.log.warning("flush is repeated", [("error", error.description)])
                await world.loop.sleep(delay)
            }
        }
    }

    // MARK: Segments

    /// Packs the shares' records into segment objects, stores them, and notes where each went.
    private func putSegments(_ shares: [Share], _ runs: [Bytes]) async throws -> [Share] {
        var shares = shares
        var packer = SegmentPacker(shares.map { $0.packed(runs) })
        while !packer.isEmpty {
            let id = ID128(random: world.random)
            let packed = try packer.next(
                SegmentObjectHeader(
                    id: id, channel: log.channel, createdMilliseconds: world.loop.wallMilliseconds))
            let key = LogKeys.segment(id)
            let outcome = try await world.buckets[0].store.putOnce(
                key, packed.parts, identity: SegmentObjectHeader.identity, loop: world.loop,
                random: world.random, backoff: limits.flushBackoff)
            guard outcome == .stored else {
                throw StoreError(.failed, "segment id \(id) was used before")
            }
            segmentBytes.add(byteCount(packed.parts))
            for (share, placement) in packed.segments {
                shares[share].segments.append(
                    SegmentRow(placement, object: key, bucket: world.buckets[0].name))
            }
        }
        return shares
    }
}

extension Flusher.Share {
    fileprivate var part: Flush.Part {
        Flush.Part(
            stream: streamlet.id, streamlet: streamlet.number, from: from, state: state,
            closes: closes, segments: segments)
    }

    fileprivate func packed(_ all: [Bytes]) -> SegmentPacker.Share {
        // A closing streamlet's last word is stored even where all its records are trimmed.
        let hasWord = !runs.isEmpty || (closes && state.tail.seqNum > 0)
        let word = SegmentState(
            basin: streamlet.basin, name: streamlet.name, configVersion: streamlet.version,
            state: state, closes: closes)
        return SegmentPacker.Share(
            stream: streamlet.id, streamlet: streamlet.number, runs: all[runs],
            state: hasWord ? word : nil)
    }
}

extension SegmentRow {
    fileprivate init(_ placement: SegmentPlacement, object: String, bucket: String) {
        let span = placement.span
        self.init(
            stream: span.stream, start: span.start, endSeqNum: span.endSeqNum,
            lastTimestamp: span.lastTimestamp, bucket: bucket, object: object,
            offset: UInt64(placement.offset), length: UInt64(placement.length),
            meteredBytes: span.meteredBytes, checksum: placement.checksum)
    }
}
