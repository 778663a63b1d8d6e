// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import ObjectStorage
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// Writes the channel's log: gathers batches into the open chunk, closes it, puts it, and says what
/// became stable.
///
/// The open chunk always has the window's next index: chunks are closed in order. Once a PUT of an
/// index was issued its bytes never change, so a retry cannot disagree with a first try that landed
/// late.
final class LogWriter {
    static let unsureTooLong = "the lease was unsure for longer than a seal surely lives"

    /// Header and trailer of a chunk, at most.
    private static let frameBytes = 256

    let channel: ChannelID
    private let world: ChannelWorld
    private let limits: ChannelLimits
    private let metrics: LogMetrics
    private var gate = ExposureGate<Exposure>()
    // What every batch touches is not checked for overlapping access, a fifth of its cost: each
    // access below is over before anything is called that could come back here.
    @exclusivity(unchecked) private var window: LogWindow
    private var linger: Linger
    private let puts: ChunkPuts
    @exclusivity(unchecked) private var open = OpenChunk()
    @exclusivity(unchecked) private var memory = ChunkMemory()
    /// Closes the open chunk at the end of this turn of the loop, so that one burst of appends
    /// shares a chunk.
    @exclusivity(unchecked) private var closingSoon: Errand?
    private var closingLater: Errand?
    /// Set for some chunk; it is left to run out where that one was closed before.
    @exclusivity(unchecked) private var closing: (timer: Timer, at: Nanoseconds)?
    @exclusivity(unchecked) private(set) var hasFailed = false
    /// Put ids of the chunks that are not stable yet, to know our own in a probe.
    private(set) var putIDs: [ChunkIndex: ID128] = [:]

    /// Closed chunks in memory, by index: the unflushed ones and the recent window.
    private(set) var retained: Deque<RetainedChunk> = []
    private var retainedBytes = 0
    /// Of chunks that have left memory, as many do with a flush: their arrays, to be used again.
    private var spares: [ChunkRecords] = []
    private var spareBytes = 0
    private static let spareBytesMax = 4 << 20
    @exclusivity(unchecked) private(set) var unflushedBytes = 0
    /// Chunks below this are flushed.
    private(set) var flushedEnd: ChunkIndex = 0

    private var rate: (bytes: UInt64, at: Nanoseconds) = (0, 0)
    /// From chunks' first appends to their PUTs, since this was last told.
    private var waits: (nanoseconds: Nanoseconds, chunks: Int) = (0, 0)

    @exclusivity(unchecked) private var replies = PendingReplies()

    /// A session may end.
    var onEnd: (AppendSession, Status, Bytes) -> Void = { _, _, _ in }
    /// Chunks below this became stable.
    var onStable: (ChunkIndex) -> Void = { _ in }
    /// Records of a streamlet with followers became stable: to be pushed to these.
    var onRecords: (OpenStreamlet, FragmentPlace) -> Void = { _, _ in }
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
        puts = ChunkPuts(
            world.buckets[0].store, world.loop, world.random, limits.putBackoff)
        open.overhead = overhead
        puts.onEnd = { [weak self] in self?.ended($0, $1) }
        closingSoon = Errand(on: world.loop) { [weak self] in self?.closeIfPossible() }
        closingLater = Errand(on: world.loop) { [weak self] in self?.closeIfDue() }
        world.metrics.gauge("chunks_in_flight", help: "Chunks whose PUT is under way.") {
            [unowned self] in Double(window.count)
        }
        world.metrics.gauge("open_chunk_bytes", help: "Bytes in the chunk that is being filled.") {
            [unowned self] in Double(open.bytes)
        }
        world.metrics.gauge("unstable_bytes", help: "Bytes in closed chunks not yet stable.") {
            [unowned self] in Double(unstableBytes)
        }
        world.metrics.gauge("unflushed_bytes", help: "Bytes in the log and in no segment.") {
            [unowned self] in Double(unflushedBytes)
        }
        world.metrics.gauge("held_exposures", help: "Replies that wait for durability.") {
            [unowned self] in Double(gate.count)
        }
    }

    private var unstableBytes: Int {
        retained.reversed().prefix { $0.index >= stableEnd }.reduce(0) { $0 + $1.bytes }
    }

    var stableEnd: ChunkIndex { window.stableEnd }
    /// The index of the chunk whose PUT begins next.
    var nextIndex: ChunkIndex { window.nextIndex }
    var hasOpenRecords: Bool { !open.isEmpty }

    /// Whether a batch of up to `bytes` stored bytes has room now.
    func hasRoom(for bytes: Int) -> Bool {
        guard !hasFailed, unflushedBytes + bytes <= limits.unflushedBytesMax else { return false }
        return fits(bytes) || !window.isFull
    }

    private func fits(_ bytes: Int) -> Bool {
        open.bytes + bytes + open.overhead <= limits.chunkBytesMax
    }

    /// What the open chunk takes besides records, if the next batch brings a fragment and its
    /// streamlet's OPEN; more than any chunk, if there may be no more of them.
    private var overhead: Int {
        guard open.fragmentCount + 2 <= limits.chunkFragmentsMax else { return .max / 2 }
        let entries = (open.fragmentCount + 2) * FragmentEntry.byteCount
        let opens = (open.unannounced.count + 1) * OpenPayload.byteCountMax
        return entries + opens + Self.frameBytes
    }

    /// Writes a batch into the open chunk. There must be room. Once it is stable, `session` gets
    /// its reply.
    func append(
        _ batch: SequencedBatch, to streamlet: OpenStreamlet, for session: AppendSession,
        messageBytes: Int
    ) {
        let bytes = batch.storedBytes
        if !fits(bytes) { close() }
        if open.isEmpty {
            open.firstAppendAt = world.loop.now
            memory.beginChunk()
        }
        let offset = memory.reserve(bytes)
        batch.write(to: memory.current.base + offset)
        let index = window.nextIndex
        let isNew = open.records.add(
            batch, in: memory.current, at: offset, to: streamlet, chunk: index)
        if isNew { begin(streamlet, in: index) }
        open.bytes += bytes
        if isNew { open.overhead = overhead }
        open.recordCount += batch.count
        unflushedBytes += bytes
        let run = joinRun(of: session, in: index)
        replies.open.add(start: batch.start, end: batch.end, messageBytes: messageBytes, to: run)
        if limits.mutant == .ackBeforeStable { release(.replies(index, run: run)) }
        if open.bytes >= limits.chunkBytesTarget || !open.isPlanned { closeWhenDue() }
    }

    /// The open chunk, whose index is `index`, has records of the streamlet from now on.
    private func begin(_ streamlet: OpenStreamlet, in index: ChunkIndex) {
        streamlet.touchedAt = world.loop.now
        if !streamlet.isAnnounced {
            streamlet.isAnnounced = true
            open.unannounced.append(streamlet)
        }
        let place = FragmentPlace(
            chunk: index, slot: UInt32(open.records.fragments.count - 1))
        _ = gate.hold(.records(place), until: index, dependency: streamlet.dependency)
    }

    /// The run of a session's replies in the open chunk, whose index is `index`.
    private func joinRun(of session: AppendSession, in index: ChunkIndex) -> UInt32 {
        if limits.mutant != .ackBeforeStable, let run = session.run(in: index) { return run }
        let run = replies.open.begin(for: session)
        session.enter(run, in: index)
        if limits.mutant == .ackBeforeStable { return run }
        let isStable = gate.hold(
            .replies(index, run: run), until: index, dependency: session.streamlet.dependency)
        precondition(!isStable, "the open chunk is not stable")
        return run
    }

    /// The batch of the streamlet that was appended last held commands, which it has applied.
    func noteCommands(of streamlet: OpenStreamlet) {
        guard let chunk = streamlet.lastChunk else { return }
        // The batch may have filled its chunk.
        if chunk == window.nextIndex { return open.records.noteCommands(of: streamlet) }
        guard let first = retained.first?.index, chunk >= first else { return }
        retained[Int(chunk - first)].records.noteCommands(of: streamlet)
    }

    /// Ends `session` once chunk `index` is stable: at once, if it is (or if nil).
    func end(
        _ session: AppendSession, _ status: Status, _ payload: Bytes, until index: ChunkIndex?
    ) {
        if limits.mutant == .rejectionUngated, status == .rejected {
            return session.end(status, payload)
        }
        let exposure = Exposure.end(session, status, payload)
        if hasFailed { return fail(exposure) }
        if limits.mutant == .ackBeforeStable { return release(exposure) }
        if gate.hold(exposure, until: index, dependency: session.streamlet.dependency) {
            release(exposure)
        }
    }

    /// The handoff in another log is durable: what waited for it alone leaves.
    func settle(_ dependency: Dependency) {
        gate.commit(dependency) { release($0) }
        replies.forget(below: window.stableEnd)
    }

    private func release(_ exposure: Exposure) {
        switch exposure {
        case .records(let place): show(place)
        case .replies(let index, let number):
            let replies = replies[index]
            let run = replies.runs[Int(number)]
            run.session.reply(run, of: replies)
            self.replies.left(index)
        case .end(let session, let status, let payload): onEnd(session, status, payload)
        }
    }

    private func show(_ place: FragmentPlace) {
        guard let records = records(of: place.chunk) else {
            preconditionFailure("what is not shown is not flushed, and stays in memory")
        }
        records.show(Int(place.slot))
        let streamlet = records.fragments[Int(place.slot)].streamlet
        if streamlet.hasFollowers { onRecords(streamlet, place) }
    }

    /// The exposure's prefix of the log failed: its outcome is unknown.
    private func fail(_ exposure: Exposure) {
        switch exposure {
        case .records: break
        case .replies(let index, let run):
            replies[index].runs[Int(run)].session.end(.indefinite, Bytes())
        case .end(let session, _, _): session.end(.indefinite, Bytes())
        }
    }

    // MARK: Closing

    private func closeWhenDue() {
        guard !open.isEmpty, !window.isFull, !hasFailed else { return }
        if open.bytes >= limits.chunkBytesTarget { return close() }
        if open.isDue { return }
        let now = world.loop.now
        let due = open.firstAppendAt + linger.delay(inFlight: window.count)
        if due <= now {
            open.isDue = true
            closingSoon?.soon()
            return
        }
        if open.dueAt < .max { return }
        open.dueAt = due
        setTimer(now)
    }

    private func setTimer(_ now: Nanoseconds) {
        if let closing {
            if closing.at <= open.dueAt { return }
            closing.timer.cancel()
        }
        closing = closingLater.map { ($0.after(open.dueAt - now), open.dueAt) }
    }

    private func closeIfDue() {
        closing = nil
        let now = world.loop.now
        if open.dueAt <= now { return closeIfPossible() }
        if open.dueAt < .max { setTimer(now) }
    }

    private func closeIfPossible() {
        open.isDue = false
        if !open.isEmpty && !window.isFull && !hasFailed { close() }
    }

    private func close() {
        precondition(!open.isEmpty && !window.isFull, "an empty chunk is never written")
        let now = world.loop.now
        let wait = now - open.firstAppendAt
        metrics.queueDelay.record(wait)
        waits = (waits.nanoseconds + wait, waits.chunks + 1)
        metrics.records.add(open.recordCount)
        metrics.recordBytes.add(open.bytes)
        let index = window.begin(at: now)
        let putID = ID128(random: world.random)
        let body = build(index, putID)
        putIDs[index] = putID
        var records = takeSpare()
        open.records.move(to: &records)
        retained.append(
            RetainedChunk(index: index, bytes: open.bytes, closedAt: now, records: records))
        retainedBytes += open.bytes
        evict()
        replies.close()
        open.unannounced = []
        open.bytes = 0
        open.recordCount = 0
        open.overhead = overhead
        open.dueAt = .max
        open.isDue = false
        put(index, body)
    }

    private func build(_ index: ChunkIndex, _ putID: ID128) -> [Bytes] {
        let layout = open.layout(limits)
        var builder = ChunkBuilder(
            ChunkHeader(
                kind: .chunk, channel: channel, index: index, putID: putID, storageClass: 0,
                createdMilliseconds: world.loop.wallMilliseconds),
            fragmentCount: open.records.extentCount(layout) + open.unannounced.count,
            sliceCount: open.unannounced.count
                + (layout == .asAdded ? memory.partCount : open.records.sliceCount))
        open.records.place(layout, in: &builder)
        for streamlet in open.unannounced {
            let payload = OpenPayload(
                basin: streamlet.basin, name: streamlet.name, state: streamlet.stable.streamState,
                configVersion: streamlet.version
            ).encoded()
            builder.begin(FragmentEntry(open: streamlet))
            builder.append(payload)
            builder.endFitting()
        }
        let bytes = builder.byteCount
        var object = builder.finish()
        switch layout {
        case .asAdded: memory.endChunk(of: &object)
        case .byFragment: memory.forgetChunk()
        }
        precondition(byteCount(object) == bytes, "the object is what its index says")
        return object
    }

    private func put(_ index: ChunkIndex, _ body: [Bytes]) {
        let key = LogKeys.chunk(channel, index)
        metrics.puts.add()
        metrics.putBytes.add(byteCount(body))
        puts.begin(index, key, body)
    }

    private func ended(_ index: ChunkIndex, _ put: Result<PutOnceOutcome, StoreError>) {
        switch put {
        case .success(.stored): stored(index)
        case .success(.occupied): fail("chunk \(index) is occupied: the log was sealed")
        case .failure(let error): fail("chunk \(index) cannot be stored: \(error)")
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
        gate.advance(to: index + 1) { release($0) }
        replies.forget(below: index + 1)
    }

    /// Ends the log: nothing more is sequenced or acknowledged, and all that is held is indefinite.
    func fail(_ reason: String) {
        guard !hasFailed else { return }
        hasFailed = true
        closing?.timer.cancel()
        closing = nil
        puts.end()
        gate.fail { fail($0) }
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

    /// How long chunks waited from their first append to their PUT since the last call, on average;
    /// or what waits now, if that is longer. 0 where nothing was appended.
    func takeQueueNanoseconds() -> Nanoseconds {
        defer { waits = (0, 0) }
        let mean = waits.nanoseconds / Nanoseconds(max(waits.chunks, 1))
        return max(mean, open.isEmpty ? 0 : world.loop.now - open.firstAppendAt)
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

    /// Empty, with room for the open chunk's records if there is such a one.
    private func takeSpare() -> ChunkRecords {
        guard let bytes = spares.last?.capacityBytes else { return ChunkRecords() }
        spareBytes -= bytes
        let fits = spares[spares.count - 1].isAsWide(as: open.records)
        let spare = spares.removeLast()
        return fits ? spare : ChunkRecords()
    }

    private func evict() {
        while let index = retained.first?.index, index < flushedEnd,
            retainedBytes > limits.windowBytesMax || retained.count > limits.windowChunksMax
        {
            var chunk = retained.removeFirst()
            retainedBytes -= chunk.bytes
            let bytes = chunk.records.capacityBytes
            guard spareBytes + bytes <= Self.spareBytesMax else { continue }
            chunk.records.reset()
            spares.append(chunk.records)
            spareBytes += bytes
        }
        memory.trim()
    }

    /// Where the streamlet's newest fragments in memory are, oldest first: as far back as
    /// `condition` holds, and without the open chunk's.
    func places(
        of streamlet: OpenStreamlet, while condition: (ChunkRecords.Fragment) -> Bool
    ) -> [FragmentPlace] {
        var found: [FragmentPlace] = []
        find(&found, of: streamlet, while: condition)
        return found
    }

    /// As `places`, into an array whose room is used again.
    func find(
        _ found: inout [FragmentPlace], of streamlet: OpenStreamlet,
        while condition: (ChunkRecords.Fragment) -> Bool
    ) {
        found.removeAll(keepingCapacity: true)
        var place = streamlet.newest
        while let at = place, let fragment = fragment(at) {
            if at.chunk < window.nextIndex {
                guard condition(fragment) else { break }
                found.append(at)
            }
            place = fragment.previous
        }
        found.reverse()
    }

    /// The fragment at a place; nil once its chunk has left memory.
    func fragment(_ place: FragmentPlace) -> ChunkRecords.Fragment? {
        records(of: place.chunk)?.fragments[Int(place.slot)]
    }

    /// Calls `body` with the batches of the fragment at a place, in order; none are there once its
    /// chunk has left memory.
    func forEachBatch<E: Error>(
        _ place: FragmentPlace, _ body: (OpenStreamlet.Batch) throws(E) -> Void
    ) throws(E) {
        try records(of: place.chunk)?.forEachBatch(of: Int(place.slot), body)
    }

    /// Calls `body` with the runs of bytes of the fragment at a place: `ChunkRecords.forEachRun`.
    func forEachRun(
        _ place: FragmentPlace, above trimPoint: SeqNum, _ body: (Bytes) -> Void
    ) {
        records(of: place.chunk)?.forEachRun(of: Int(place.slot), above: trimPoint, body)
    }

    /// Calls `body` with the extents of the fragment at a place, as `ChunkRecords.forEachExtent`.
    func forEachExtent(_ place: FragmentPlace, while body: (ChunkRecords.Extent) -> Bool) {
        records(of: place.chunk)?.forEachExtent(of: Int(place.slot), while: body)
    }

    private func records(of chunk: ChunkIndex) -> ChunkRecords? {
        if chunk == window.nextIndex { return open.records }
        guard let first = retained.first?.index, chunk >= first else { return nil }
        return retained[Int(chunk - first)].records
    }
}
