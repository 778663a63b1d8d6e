// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import Testing

@testable import Simulation

/// The store and the metadata of a simulated cell, without any process and without faults. What a
/// test does to them is all that happens, in virtual time, and each step takes none.
final class LedgerYard {
    /// A stream that is open, on a channel of its own.
    struct Tenure {
        let stream: StreamID
        let streamlet: StreamletNumber
        let channel: ChannelID
    }

    let ledger: Ledger
    /// Behind the ledger's back.
    let rows: MemoryMetadata
    let objects: MemoryStore
    /// As a worker of background tasks reaches them.
    let metadata: SimMetadata
    let store: SimObjectStore
    let worker: SimLoop
    /// As a channel reaches it.
    let channelStore: SimObjectStore
    private let random = RandomSource.seeded(1)
    private let service: SimService
    private let scheduler: Scheduler

    private init(_ scheduler: Scheduler) {
        self.scheduler = scheduler
        let clock = LoopBound(scheduler)
        let wall: @Sendable () -> UInt64 = {
            clock.value.epochMilliseconds + UInt64(clock.value.now / 1_000_000)
        }
        rows = MemoryMetadata(now: wall)
        objects = MemoryStore(wallMilliseconds: wall)
        ledger = Ledger(scheduler: scheduler, objects: objects, rows: rows)
        worker = scheduler.makeLoop("bgtask-1")
        service = SimService(
            "service", scheduler: scheduler, latency: 0...0, faults: .none)
        metadata = SimMetadata(inner: rows, service: service, origin: worker, ledger: ledger)
        store = SimObjectStore(inner: objects, service: service, origin: worker, ledger: ledger)
        channelStore = SimObjectStore(
            inner: objects, service: service, origin: scheduler.makeLoop("channel-2"),
            ledger: ledger)
    }

    /// What the ledger says of `body`, without the times.
    static func findings(
        of body: @escaping (LedgerYard) async throws -> Void
    ) throws -> [String] {
        let scheduler = Scheduler(seed: 1, trace: Trace())
        let yard = LedgerYard(scheduler)
        var outcome: Result<Void, any Error>?
        yard.worker.run {
            yard.worker.spawn {
                do {
                    outcome = .success(try await body(yard))
                } catch {
                    outcome = .failure(error)
                }
            }
        }
        let isOver = scheduler.run(until: .max, steps: 1_000_000) { outcome != nil }
        try #require(isOver)
        try outcome?.get()
        return yard.ledger.violations.map { String(withoutTime($0)) }
    }

    /// The store as a process reaches it, whose name begins with `kind`.
    func store(of kind: String) -> SimObjectStore {
        SimObjectStore(
            inner: objects, service: service, origin: scheduler.makeLoop("\(kind)-3"),
            ledger: ledger)
    }

    func wait(_ duration: Nanoseconds) async { await worker.sleep(duration) }

    // MARK: Streams

    func open(
        _ name: String = "a", retention: RetentionPolicy? = nil
    ) async throws -> Tenure {
        _ = try await metadata.ensureBasin(
            BasinCreation(
                name: "basin", config: BasinConfig(), location: nil, creationKey: nil))
        var wish = StreamConfigWish()
        wish.retention = retention
        let stream = try await metadata.createStream(
            StreamCreation(
                id: StreamID(random: random), basin: "basin", name: name, wish: wish,
                creationKey: nil)
        ).resource.id
        let channel = try await metadata.registerChannel(
            ChannelRegistration(storageClass: "standard", zone: "a", address: "sim:\(name)"))
        guard case .claimed(let number, _) = try await metadata.claim(stream, channel: channel)
        else { throw YardError("the stream is not claimed") }
        return Tenure(stream: stream, streamlet: number, channel: channel)
    }

    func delete(_ name: String = "a") async throws {
        _ = try await metadata.deleteStream(basin: "basin", name: name)
    }

    /// These records in one chunk, then in one segment, and a flush of both.
    @discardableResult
    func write(
        _ tenure: Tenure, _ span: Range<SeqNum>, chunk index: ChunkIndex
    ) async throws -> SegmentRow {
        try await put(LogKeys.chunk(tenure.channel, index), chunk(tenure, span, index))
        let (body, row) = try segment(tenure, span)
        try await put(row.object, body)
        try await flush(tenure, span, [row], flushedEnd: index + 1)
        return row
    }

    func flush(
        _ tenure: Tenure, _ span: Range<SeqNum>, _ rows: [SegmentRow], flushedEnd: ChunkIndex,
        trimPoint: SeqNum = 0, closes: Bool = false
    ) async throws {
        let flush = flushed(
            tenure, span, rows, flushedEnd: flushedEnd, trimPoint: trimPoint, closes: closes)
        guard try await metadata.flush(flush) == .done else { throw YardError("not flushed") }
    }

    func flushed(
        _ tenure: Tenure, _ span: Range<SeqNum>, _ rows: [SegmentRow], flushedEnd: ChunkIndex,
        trimPoint: SeqNum = 0, closes: Bool = false
    ) -> Flush {
        let tail = StreamPosition(seqNum: span.upperBound, timestamp: 999 + span.upperBound)
        let part = Flush.Part(
            stream: tenure.stream, streamlet: tenure.streamlet, from: span.lowerBound,
            state: StreamState(
                tail: tail, fencingToken: "", fencingTokenPosition: 0, trimPoint: trimPoint),
            closes: closes, segments: rows)
        return Flush(
            channel: tenure.channel, isRecovery: false, parts: [part], flushedEnd: flushedEnd)
    }

    /// Closes the stream, and ends the log where it is flushed, with a seal if it `isSealed`.
    func retire(
        _ tenure: Tenure, tail: SeqNum, end: ChunkIndex, isSealed: Bool = true
    ) async throws {
        try await flush(tenure, tail..<tail, [], flushedEnd: end, closes: true)
        try await metadata.resignChannel(tenure.channel)
        if isSealed { try await put(LogKeys.chunk(tenure.channel, end), seal(tenure, end)) }
        let isPublished = try await metadata.publishSeal(
            tenure.channel, sealedAt: end, flushedEnd: end)
        let isRetired = try await metadata.retireChannel(tenure.channel)
        guard isPublished, isRetired else { throw YardError("not retired") }
    }

    // MARK: Objects

    func put(_ key: String, _ body: Bytes) async throws {
        _ = try await channelStore.put(key, [body], ifAbsent: false)
    }

    private func header(
        _ kind: ChunkHeader.Kind, _ tenure: Tenure, _ index: ChunkIndex
    ) -> ChunkHeader {
        ChunkHeader(
            kind: kind, channel: tenure.channel, index: index, putID: ID128(random: random),
            storageClass: 0, createdMilliseconds: 1)
    }

    func seal(_ tenure: Tenure, _ index: ChunkIndex) -> Bytes {
        Seal(header: header(.seal, tenure, index), owner: "cop", reason: "a test").encoded()
    }

    func chunk(
        _ tenure: Tenure, _ span: Range<SeqNum>, _ index: ChunkIndex,
        dependency: Dependency? = nil
    ) -> Bytes {
        var builder = ChunkBuilder(header(.chunk, tenure, index))
        let records = Self.records(span, mark: 1)
        let entry = FragmentEntry(
            stream: tenure.stream, streamlet: tenure.streamlet, kind: .records,
            firstSeqNum: span.lowerBound, count: UInt32(span.count),
            firstTimestamp: 1_000 + span.lowerBound, lastTimestamp: 999 + span.upperBound,
            meteredBytes: 16 * UInt32(span.count), dependency: dependency)
        precondition(builder.add(entry, [records]) != nil, "one fragment fits")
        return builder.finish().joined()
    }

    /// A chunk that begins a tenure, and holds no records.
    func mark(_ tenure: Tenure, _ index: ChunkIndex, _ dependency: Dependency) -> Bytes {
        var builder = ChunkBuilder(header(.chunk, tenure, index))
        let entry = FragmentEntry(
            stream: tenure.stream, streamlet: tenure.streamlet, kind: .open, at: .zero,
            dependency: dependency)
        precondition(builder.add(entry, [Bytes(utf8: "open")]) != nil, "one fragment fits")
        return builder.finish().joined()
    }

    /// An object with one segment, and the row that publishes it. The records' bodies are `mark`s.
    func segment(
        _ tenure: Tenure, _ span: Range<SeqNum>, mark: UInt8 = 1
    ) throws -> (body: Bytes, row: SegmentRow) {
        let id = ID128(random: random)
        var builder = SegmentObjectBuilder(
            SegmentObjectHeader(id: id, channel: tenure.channel, createdMilliseconds: 1))
        let added = try builder.add(
            stream: tenure.stream, streamlet: tenure.streamlet,
            records: [Self.records(span, mark: mark)], state: nil)
        guard let added else { throw YardError("the segment does not fit") }
        let row = SegmentRow(
            stream: tenure.stream, start: added.span.start, endSeqNum: added.span.endSeqNum,
            lastTimestamp: added.span.lastTimestamp, bucket: "main",
            object: LogKeys.segment(id), offset: UInt64(added.offset),
            length: UInt64(added.length), meteredBytes: added.span.meteredBytes,
            checksum: added.checksum)
        return (builder.finish().parts.joined(), row)
    }

    /// An object without records, that says where a stream ends.
    func lastWord(_ tenure: Tenure, tail: SeqNum) throws -> (key: String, body: Bytes) {
        let id = ID128(random: random)
        var builder = SegmentObjectBuilder(
            SegmentObjectHeader(id: id, channel: tenure.channel, createdMilliseconds: 1))
        let state = StreamState(
            tail: StreamPosition(seqNum: tail, timestamp: 999 + tail), fencingToken: "",
            fencingTokenPosition: 0, trimPoint: tail)
        let added = try builder.add(
            stream: tenure.stream, streamlet: tenure.streamlet, records: [],
            state: SegmentState(
                basin: "basin", name: "a", configVersion: 1, state: state, closes: true))
        guard added != nil else { throw YardError("the last word does not fit") }
        return (LogKeys.segment(id), builder.finish().parts.joined())
    }

    private static func records(_ span: Range<SeqNum>, mark: UInt8) -> Bytes {
        var writer = ByteWriter()
        for seqNum in span {
            let fields = [0x22, 8] + [UInt8](repeating: mark, count: 8)
            fields.withUnsafeBytes { fields in
                let room = StoredRecord.elementBytesMax(fieldsBytes: fields.count)
                writer.advance(
                    StoredRecord.write(
                        fields: fields, seqNum: seqNum, timestamp: 1_000 + seqNum,
                        to: writer.reserve(room)))
            }
        }
        return writer.finish()
    }
}

extension SegmentRow {
    var storedObject: StoredObject { StoredObject(bucket: bucket, key: object) }
}

/// A violation as it was told, but for when.
func withoutTime(_ violation: String) -> Substring {
    violation.drop { $0 != " " }.dropFirst()
}

struct YardError: Error {
    let what: String
    init(_ what: String) { self.what = what }
}
