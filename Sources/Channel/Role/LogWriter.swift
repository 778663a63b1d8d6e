// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import ObjectStorage
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// What leaves the channel once the log lets it.
enum Exposure {
    case reply(AppendSession, start: StreamPosition, end: StreamPosition, messageBytes: Int)
    /// The end of a session that failed.
    case end(AppendSession, Status, Bytes)
}

/// Writes the channel's log: gathers batches into the open chunk, closes it, puts it, and says what
/// became stable.
///
/// The open chunk always has the window's next index: chunks are closed in order. Once a PUT of an
/// index was issued its bytes never change, so a retry cannot disagree with a first try that landed
/// late.
final class LogWriter {
    /// A closed chunk whose records are in memory.
    struct RetainedChunk {
        let index: ChunkIndex
        let bytes: Int
        let closedAt: Nanoseconds
        let streamlets: [OpenStreamlet]
    }

    private struct OpenChunk {
        /// Those with a fragment in this chunk.
        var streamlets: [OpenStreamlet] = []
        var unannounced: [OpenStreamlet] = []
        var bytes = 0
        var firstAppendAt: Nanoseconds = 0

        var isEmpty: Bool { streamlets.isEmpty }
        var fragmentCount: Int { streamlets.count + unannounced.count }
    }

    static let unsureTooLong = "the lease was unsure for longer than a seal surely lives"

    /// Header and trailer of a chunk, at most.
    private static let frameBytes = 256

    let channel: ChannelID
    private let world: ChannelWorld
    private let limits: ChannelLimits
    private let metrics: LogMetrics
    private var window: LogWindow
    private var gate = ExposureGate<Exposure>()
    private var linger: Linger
    private var open = OpenChunk()
    private var closing: Timer?
    private var isClosingSoon = false
    private(set) var hasFailed = false
    /// Put ids of the chunks that are not stable yet, to know our own in a probe.
    private(set) var putIDs: [ChunkIndex: ID128] = [:]

    /// Closed chunks in memory, by index: the unflushed ones and the recent window.
    private(set) var retained: Deque<RetainedChunk> = []
    private var retainedBytes = 0
    private(set) var unflushedBytes = 0
    /// Chunks below this are flushed.
    private(set) var flushedEnd: ChunkIndex = 0

    private var rate: (bytes: UInt64, at: Nanoseconds) = (0, 0)

    /// An exposure may leave.
    var onRelease: (Exposure) -> Void = { _ in }
    /// An exposure's prefix of the log failed: its outcome is unknown.
    var onIndefinite: (Exposure) -> Void = { _ in }
    /// Chunks below this became stable.
    var onStable: (ChunkIndex) -> Void = { _ in }
    /// Records became stable: to be pushed to whoever follows.
    var onRecords: (OpenStreamlet, OpenStreamlet.Fragment) -> Void = { _, _ in }
    /// False once a seal of this log may have been collected: then a PUT that succeeds proves
    /// nothing.
    var mayTrustTheStore: () -> Bool = { true }
    /// The log can go on no more.
    var onFailure: (String) -> Void = { _ in }

    init(channel: ChannelID, world: ChannelWorld, limits: ChannelLimits) {
        self.channel = channel
        self.world = world
        self.limits = limits
        window = LogWindow(widthMax: limits.inFlightChunksMax)
        linger = Linger(bounds: limits.lingerNanoseconds, width: limits.inFlightChunksMax)
        metrics = LogMetrics(world.metrics)
        world.metrics.gauge("chunks_in_flight", help: "Chunks whose PUT is under way.") {
            [unowned self] in Double(window.count)
        }
        world.metrics.gauge("unflushed_bytes", help: "Bytes in the log and in no segment.") {
            [unowned self] in Double(unflushedBytes)
        }
        world.metrics.gauge("held_exposures", help: "Replies that wait for durability.") {
            [unowned self] in Double(gate.count)
        }
    }

    var stableEnd: ChunkIndex { window.stableEnd }
    /// The index of the chunk whose PUT begins next.
    var nextIndex: ChunkIndex { window.nextIndex }
    var hasOpenRecords: Bool { !open.isEmpty }
    var putNanoseconds: Nanoseconds { linger.putNanoseconds }

    /// Whether a batch of up to `bytes` stored bytes has room now.
    func hasRoom(for bytes: Int) -> Bool {
        guard !hasFailed, unflushedBytes + bytes <= limits.unflushedBytesMax else { return false }
        return fits(bytes) || !window.isFull
    }

    private func fits(_ bytes: Int) -> Bool {
        // The batch may bring a fragment and its streamlet's OPEN.
        let entries = (open.fragmentCount + 2) * FragmentEntry.byteCount
        let opens = (open.unannounced.count + 1) * OpenPayload.byteCountMax
        return open.bytes + bytes + entries + opens + Self.frameBytes <= limits.chunkBytesMax
            && open.fragmentCount + 2 <= limits.chunkFragmentsMax
    }

    /// Adds a stamped batch to the open chunk, and holds `exposure` until it is stable. There must
    /// be room. Returns the chunk's index.
    func append(
        _ batch: OpenStreamlet.Batch, firstTimestamp: TimestampMillis, to streamlet: OpenStreamlet
    ) -> ChunkIndex {
        if !fits(batch.bytes.count) { close() }
        if open.isEmpty { open.firstAppendAt = world.loop.now }
        let index = window.nextIndex
        if streamlet.add(batch, firstTimestamp: firstTimestamp, to: index) {
            open.streamlets.append(streamlet)
            if !streamlet.isAnnounced {
                streamlet.isAnnounced = true
                open.unannounced.append(streamlet)
            }
        }
        open.bytes += batch.bytes.count
        unflushedBytes += batch.bytes.count
        metrics.appended(batch)
        closeWhenDue()
        return index
    }

    /// Lets `exposure` leave once chunk `index` is stable: at once, if it is (or if nil).
    func expose(_ exposure: Exposure, until index: ChunkIndex?) {
        if limits.mutant == .rejectionUngated,
            case .end(let session, .rejected, let payload) = exposure
        {
            return session.end(.rejected, payload)
        }
        if hasFailed { return onIndefinite(exposure) }
        if limits.mutant == .ackBeforeStable { return onRelease(exposure) }
        if gate.hold(exposure, until: index, dependency: nil) { onRelease(exposure) }
    }

    // MARK: Closing

    private func closeWhenDue() {
        guard !open.isEmpty, !window.isFull, !hasFailed else { return }
        if open.bytes >= limits.chunkBytesTarget { return close() }
        let due = open.firstAppendAt + linger.delay(inFlight: window.count)
        let wait = due - world.loop.now
        if wait <= 0 {
            // At the end of this turn of the loop, so that one burst of appends shares a chunk.
            guard !isClosingSoon else { return }
            isClosingSoon = true
            world.loop.soon { [weak self] in
                self?.isClosingSoon = false
                self?.closeIfPossible()
            }
        } else if closing == nil {
            closing = world.loop.after(wait) { [weak self] in
                self?.closing = nil
                self?.closeIfPossible()
            }
        }
    }

    private func closeIfPossible() {
        if !open.isEmpty && !window.isFull && !hasFailed { close() }
    }

    private func close() {
        precondition(!open.isEmpty && !window.isFull, "an empty chunk is never written")
        closing?.cancel()
        closing = nil
        let now = world.loop.now
        metrics.queueDelay.record(now - open.firstAppendAt)
        let index = window.begin(at: now)
        let putID = ID128(random: world.random)
        let chunk = open
        open = OpenChunk()
        let body = build(chunk, index, putID)
        putIDs[index] = putID
        retained.append(
            RetainedChunk(
                index: index, bytes: chunk.bytes, closedAt: now, streamlets: chunk.streamlets))
        retainedBytes += chunk.bytes
        put(index, body)
    }

    private func build(_ chunk: OpenChunk, _ index: ChunkIndex, _ putID: ID128) -> [Bytes] {
        var builder = ChunkBuilder(
            ChunkHeader(
                kind: .chunk, channel: channel, index: index, putID: putID, storageClass: 0,
                createdMilliseconds: world.loop.wallMilliseconds))
        for streamlet in chunk.unannounced {
            let open = OpenPayload(
                basin: streamlet.basin, name: streamlet.name, state: streamlet.stable,
                configVersion: streamlet.version)
            add(FragmentEntry(open: streamlet), [open.encoded()], to: &builder)
        }
        for streamlet in chunk.streamlets {
            let fragment = streamlet.fragments[streamlet.fragments.count - 1]
            precondition(fragment.chunk == index, "a chunk holds the streamlet's last fragment")
            add(
                FragmentEntry(records: fragment, of: streamlet), fragment.batches.map(\.bytes),
                to: &builder)
        }
        let (parts, entries) = builder.finish()
        for (streamlet, entry) in zip(chunk.streamlets, entries[chunk.unannounced.count...]) {
            streamlet.fragments[streamlet.fragments.count - 1].offset = entry.offset
        }
        return parts
    }

    private func add(_ entry: FragmentEntry, _ slices: [Bytes], to builder: inout ChunkBuilder) {
        let fits = builder.add(entry, slices)
        precondition(fits, "what was let in fits the chunk")
    }

    private func put(_ index: ChunkIndex, _ body: [Bytes]) {
        let key = LogKeys.chunk(channel, index)
        metrics.puts.add()
        metrics.putBytes.add(byteCount(body))
        world.loop.spawn { [weak self] in
            guard let self else { return }
            do throws(StoreError) {
                let outcome = try await world.buckets[0].store.putOnce(
                    key, body, identity: ChunkHeader.identity, loop: world.loop,
                    random: world.random, backoff: limits.putBackoff)
                switch outcome {
                case .stored: stored(index)
                case .occupied: fail("chunk \(index) is occupied: the log was sealed")
                }
            } catch {
                fail("chunk \(index) cannot be stored: \(error)")
            }
        }
    }

    // MARK: Stability

    private func stored(_ index: ChunkIndex) {
        guard !hasFailed else { return }
        guard mayTrustTheStore() else { return fail(Self.unsureTooLong) }
        let before = window.stableEnd
        if limits.mutant == .outOfOrderAck {
            guard index >= before else { return }
            for hole in before..<index { _ = window.complete(hole, at: world.loop.now) }
        }
        let (stableEnd, took) = window.complete(index, at: world.loop.now)
        if limits.mutant == .tailAfterUnstablePut { onStable(index + 1) }
        for index in before..<stableEnd { putIDs[index] = nil }
        linger.observe(put: took)
        metrics.putDuration.record(took)
        for index in before..<stableEnd { becameStable(index) }
        if stableEnd > before { onStable(stableEnd) }
        closeWhenDue()
    }

    private func becameStable(_ index: ChunkIndex) {
        let first = retained.first!.index
        let chunk = retained[Int(index - first)]
        precondition(chunk.index == index, "retained chunks are dense")
        var pushes: [(OpenStreamlet, OpenStreamlet.Fragment)] = []
        for streamlet in chunk.streamlets {
            guard let fragment = streamlet.becameStable(index) else { continue }
            if !streamlet.followers.isEmpty { pushes.append((streamlet, fragment)) }
        }
        gate.advance(to: index + 1, onRelease)
        for (streamlet, fragment) in pushes { onRecords(streamlet, fragment) }
    }

    /// Ends the log: nothing more is sequenced or acknowledged, and all that is held is indefinite.
    func fail(_ reason: String) {
        guard !hasFailed else { return }
        hasFailed = true
        closing?.cancel()
        gate.fail(onIndefinite)
        onFailure(reason)
    }

    /// Stored bytes per second since the last call.
    func takeBytesPerSecond(at now: Nanoseconds) -> UInt64 {
        let bytes = metrics.recordBytes.value
        defer { rate = (bytes, now) }
        let elapsed = now - rate.at
        guard rate.at > 0, elapsed > 0 else { return 0 }
        return (bytes - rate.bytes) * 1_000_000_000 / UInt64(elapsed)
    }

    // MARK: Memory

    /// Chunks below `end` are flushed: their records may leave memory, oldest first.
    func flushed(to end: ChunkIndex) {
        for chunk in retained where chunk.index >= flushedEnd && chunk.index < end {
            unflushedBytes -= chunk.bytes
        }
        flushedEnd = max(flushedEnd, end)
        evict()
    }

    private func evict() {
        while let first = retained.first, first.index < flushedEnd,
            retainedBytes > limits.windowBytesMax || retained.count > limits.windowChunksMax
        {
            retained.removeFirst()
            retainedBytes -= first.bytes
            for streamlet in first.streamlets {
                while let fragment = streamlet.fragments.first, fragment.chunk <= first.index {
                    streamlet.fragments.removeFirst()
                }
            }
        }
    }
}

/// What the log counts.
private struct LogMetrics {
    let puts: Counter
    let putBytes: Counter
    let records: Counter
    let recordBytes: Counter
    let putDuration: Histogram
    let queueDelay: Histogram

    init(_ metrics: Metrics) {
        puts = metrics.counter("chunk_puts_total", help: "Chunks given to the store.")
        putBytes = metrics.counter("chunk_put_bytes_total", help: "Bytes of those chunks.")
        records = metrics.counter("records_total", help: "Records sequenced.")
        recordBytes = metrics.counter("record_bytes_total", help: "Stored bytes of those records.")
        putDuration = metrics.histogram(
            "chunk_put_duration_seconds", help: "From a PUT's beginning to its success.")
        queueDelay = metrics.histogram(
            "append_queue_delay_seconds", help: "From a chunk's first append to its PUT.")
    }

    func appended(_ batch: OpenStreamlet.Batch) {
        records.add(Int(batch.count))
        recordBytes.add(batch.bytes.count)
    }
}

extension FragmentEntry {
    fileprivate init(open streamlet: OpenStreamlet) {
        let tail = streamlet.stable.tail
        self.init(
            stream: streamlet.id, streamlet: streamlet.number, kind: .open, at: tail,
            dependency: nil)
    }

    fileprivate init(records fragment: OpenStreamlet.Fragment, of streamlet: OpenStreamlet) {
        self.init(
            stream: streamlet.id, streamlet: streamlet.number, kind: .records,
            firstSeqNum: fragment.start.seqNum, count: fragment.count,
            firstTimestamp: fragment.start.timestamp, lastTimestamp: fragment.lastTimestamp,
            meteredBytes: UInt32(fragment.meteredBytes), dependency: nil)
    }
}

extension OpenPayload {
    /// Two names, a state, and their lengths, at most.
    fileprivate static let byteCountMax = 1_024
}
