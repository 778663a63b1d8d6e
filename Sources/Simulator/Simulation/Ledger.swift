// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives
internal import Records

/// What the store of a simulated cell holds, what refers to it, and since when nothing does.
/// Against this history the rules about garbage are held, at the very moment something goes.
///
/// - G1: segments are published only if their objects are durable and whole, and their rows leave
///   only for a trim, a deletion, or another segment that holds the same.
/// - G2: a chunk goes only once all its fragments are flushed, trimmed or purged, behind all chunks
///   below it, and when no plan that points into it is in use.
/// - G3: what nothing refers to is left alone while it is young.
/// - G4: what loses its last segment is garbage, which is condemned, deleted after a wait, and
///   forgotten last.
/// - G5: a seal outlives whoever might write behind it.
/// - G6: a key names one object for good, and a stream's segments are published in order.
/// - G7: nothing stands in a log but chunks and seals, under their own keys. (Nothing is adopted
///   yet: who brings recovery keys has to say here what refers to them.)
/// - G8: nothing that depends on another log is flushed before that log is known to hold it.
///
/// It looks at the world from outside, and trusts no process, and none of their limits: the waits
/// here are those that readers and writers need.
final class Ledger {
    /// One object's time in the store.
    struct Life {
        var since: Nanoseconds
        /// All of it: a checksum of what ends with its own is always the same.
        let body: Bytes
        let by: String
        var isThere = true
    }

    /// A reader drops a plan after five minutes, and what it asked for until then comes soon.
    static let planNanoseconds: Nanoseconds = .seconds(310)
    /// No transaction that began before takes longer.
    static let transactionNanoseconds: Nanoseconds = .seconds(30)
    /// A flush may still publish an object that is younger.
    static let orphanNanoseconds: Nanoseconds = .seconds(1_200)
    static let sealNanoseconds: Nanoseconds = .seconds(30 * 86_400)
    /// Of a simulated cell: its logs are short.
    static let chunkStride: ChunkIndex = 4

    let scheduler: Scheduler
    let objects: MemoryStore
    let rows: MemoryMetadata
    private(set) var violations: [String] = []
    private static let violationsMax = 20

    var lives: [String: Life] = [:]
    /// The published segments of each stream, and when each entered the metadata.
    var published: [StreamID: [SegmentRow: Nanoseconds]] = [:]
    /// Published segments in each object.
    var references: [String: Int] = [:]
    /// Of objects that had references, and have none.
    var unreferencedSince: [String: Nanoseconds] = [:]
    var condemnedAt: [String: Nanoseconds] = [:]
    /// When which flushed end of a log was published, in order.
    var flushedEnds: [ChannelID: [(end: ChunkIndex, at: Nanoseconds)]] = [:]
    /// Chunks of a log below it were deleted.
    var deletedEnds: [ChannelID: ChunkIndex] = [:]
    private var deletedAbove: [ChannelID: Set<ChunkIndex>] = [:]
    var retiredAt: [ChannelID: Nanoseconds] = [:]
    /// The stream that is being purged, as it was before.
    var purging: StreamLookup?

    init(scheduler: Scheduler, objects: MemoryStore, rows: MemoryMetadata) {
        self.scheduler = scheduler
        self.objects = objects
        self.rows = rows
    }

    var now: Nanoseconds { scheduler.now }

    func violate(_ text: String) {
        scheduler.trace.note("violation: \(text)", at: now)
        guard violations.count < Self.violationsMax else { return }
        violations.append("\(now / 1_000_000)ms \(text)")
    }

    func ask<Value: Sendable>(
        _ body: (MemoryMetadata) async throws(MetadataError) -> Value
    ) async -> Value {
        do throws(MetadataError) {
            return try await body(rows)
        } catch {
            preconditionFailure("the metadata behind all faults answers: \(error)")
        }
    }

    /// The object's bytes; nil if there is none.
    func bytes(_ key: String) async -> Bytes? {
        do throws(StoreError) {
            return try await objects.get(key, range: nil).bytes
        } catch {
            precondition(error.kind == .notFound, "the store behind all faults answers")
            return nil
        }
    }

    // MARK: Objects come

    /// Of an object that a store is tried by, which nothing ever refers to.
    private func isProbe(_ key: String) -> Bool { key.hasPrefix(storeProbesPrefix) }

    func stored(_ key: String, _ body: Bytes, by origin: SimLoop?) {
        if isProbe(key) { return }
        if let former = lives[key], former.body != body {
            violate("G6: \(key) names another object than before")
        }
        lives[key] = Life(since: now, body: body.detached(), by: origin?.name ?? "")
        if LogKeys.parseSegment(key) != nil { return }
        guard let (channel, index) = LogKeys.parseChunk(key) else {
            return violate("G7: \(key) is the key of nothing that we know")
        }
        do throws(DecodeError) {
            let header = try ChunkHeader(body)
            if header.channel != channel || header.index != index {
                violate("G7: \(key) holds slot \(header.index) of channel \(header.channel)")
            }
        } catch {
            violate("G7: \(key) holds neither chunk nor seal: \(error)")
        }
    }

    /// Somebody asked for an object that is not there.
    func missed(_ key: String, by origin: SimLoop?) {
        guard let name = origin?.name, name.hasPrefix("frontend") || name.hasPrefix("cachey")
        else { return }
        if lives[key] == nil { violate("\(name) was sent to \(key), which never was there") }
        if references[key] ?? 0 > 0 { violate("\(name) misses \(key), which segments refer to") }
    }

    // MARK: Objects go

    func willDelete(_ key: String, by origin: SimLoop?) async {
        guard let life = lives[key], life.isThere else { return }
        scheduler.trace.note("delete \(key)", at: now)
        if let (channel, index) = LogKeys.parseChunk(key) {
            await willDelete(channel, index, key)
        } else {
            willDeleteSegment(key)
        }
        lives[key]?.isThere = false
    }

    private func willDelete(_ channel: ChannelID, _ index: ChunkIndex, _ key: String) async {
        guard
            let row = await ask({ metadata throws(MetadataError) in
                try await metadata.channel(channel)
            })
        else { return violate("G2: \(key) goes, whose channel never was") }
        if let sealedAt = row.sealedAt, index >= sealedAt {
            return willDeleteEnd(of: row, sealedAt, index, key)
        }
        guard index < row.flushedEnd else {
            return violate("G2: \(key) goes, and the log is flushed below \(row.flushedEnd) only")
        }
        // Within a stride, chunks go in any order: recovery begins behind all of them.
        var end = deletedEnds[channel] ?? 0
        if index >= end + Self.chunkStride {
            violate("G2: \(key) goes, and chunk \(end) is there: a hole")
        }
        deletedAbove[channel, default: []].insert(index)
        while deletedAbove[channel]?.remove(end) != nil { end += 1 }
        deletedEnds[channel] = end
        let flushed = flushedEnds[channel]?.first { $0.end > index }?.at
        if let flushed, now - flushed < Self.planNanoseconds {
            violate("G2: \(key) goes \((now - flushed) / 1_000_000)ms behind its flush")
        }
        if let bytes = await bytes(key) { await checkFlushed(bytes, key, "goes") }
    }

    /// The seal goes, or what a late writer left behind it.
    private func willDeleteEnd(
        of row: ChannelRow, _ sealedAt: ChunkIndex, _ index: ChunkIndex, _ key: String
    ) {
        guard row.state == .retired, let retired = retiredAt[row.id],
            now - retired >= Self.sealNanoseconds
        else { return violate("G5: \(key) goes, and its log may still be written to") }
        guard index == sealedAt else { return }
        let prefix = LogKeys.logPrefix(row.id)
        for (other, life) in lives where life.isThere && other.hasPrefix(prefix) && other != key {
            violate("G5: the seal \(key) goes before \(other)")
        }
    }

    /// All fragments of a chunk are flushed, trimmed, or of streams that are gone; none hangs in
    /// the air.
    func checkFlushed(_ bytes: Bytes, _ key: String, _ what: String) async {
        let entries: [FragmentEntry]
        do throws(DecodeError) {
            guard case .chunk(let chunk) = try LogSlot(bytes) else {
                return violate("G2: \(key) \(what), and is a seal")
            }
            entries = chunk.entries
        } catch {
            return violate("G2: \(key) \(what), and cannot be read: \(error)")
        }
        for entry in entries {
            if let dependency = entry.dependency { await checkResolved(dependency, key, what) }
            guard entry.kind == .records else { continue }
            let lookup = await ask { metadata throws(MetadataError) in
                try await metadata.stream(entry.stream)
            }
            guard let stream = lookup?.stream, stream.deletedMilliseconds == nil else { continue }
            if stream.state.tail.seqNum < entry.endSeqNum {
                violate(
                    "G2: \(key) \(what) with records below \(entry.endSeqNum) of \(stream.name),"
                        + " which is flushed below \(stream.state.tail.seqNum)")
            }
        }
    }

    /// The log that a fragment depends on certainly holds what it depends on.
    private func checkResolved(_ dependency: Dependency, _ key: String, _ what: String) async {
        let row = await ask { metadata throws(MetadataError) in
            try await metadata.channel(dependency.channel)
        }
        if let row, dependency.index < max(row.flushedEnd, row.sealedAt ?? 0) { return }
        violate("G8: \(key) \(what), and what it depends on is not resolved")
    }

    private func willDeleteSegment(_ key: String) {
        if let count = references[key], count > 0 {
            violate("G1: \(key) goes, and \(count) segments refer to it")
        }
        if let condemned = condemnedAt[key] {
            if now - condemned < Self.transactionNanoseconds {
                violate("G4: \(key) goes as soon as it is condemned")
            }
        } else {
            violate("G4: \(key) goes, and was not condemned")
        }
        if let since = unreferencedSince[key], now - since < Self.planNanoseconds {
            violate("G2: \(key) goes \((now - since) / 1_000_000)ms behind its last segment")
        }
    }
}
