// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import Primitives
internal import Records

/// Rows that come and go. Each is told at the moment of its effect, before anything else happens.
extension Ledger {
    // MARK: Publishing

    func flushed(_ flush: Flush) async {
        let past = flushedEnds[flush.channel]?.last?.end ?? 0
        if flush.flushedEnd > past {
            flushedEnds[flush.channel, default: []].append((flush.flushedEnd, now))
        }
        for part in flush.parts {
            let ends = published[part.stream]?.keys.map(\.endSeqNum) ?? []
            let (came, went) = await reread(part.stream)
            for row in came where row.start.seqNum < ends.max() ?? 0 {
                violate("G6: \(named(row)) is published behind what follows it")
            }
            for row in went { violate("G1: a flush takes \(named(row)) away") }
        }
        guard past < flush.flushedEnd else { return }
        for index in past..<flush.flushedEnd {
            let key = LogKeys.chunk(flush.channel, index)
            if let bytes = await bytes(key) {
                await checkFlushed(bytes, key, "counts as flushed")
            } else {
                violate("G2: \(key) counts as flushed, and is not there")
            }
        }
    }

    func compacted(_ inputs: [SegmentRow], into output: SegmentRow) async {
        let youngest = inputs.compactMap { published[output.stream]?[$0] }.max()
        let (came, went) = await reread(output.stream)
        // Done before, by an earlier try.
        if came.isEmpty && went.isEmpty { return }
        if came != [output] || Set(went) != Set(inputs) {
            violate("G1: a compaction of \(named(output)) changes other segments")
        }
        guard output.replaces(inputs) else {
            return violate("G1: \(named(output)) does not hold what it replaces")
        }
        await checkCompaction(inputs, output)
        // It expires with its youngest input.
        if let youngest { published[output.stream]?[output] = youngest }
    }

    /// The output has the inputs' records, to the byte.
    private func checkCompaction(_ inputs: [SegmentRow], _ output: SegmentRow) async {
        var parts: [Bytes] = []
        for row in inputs {
            if let segment = await segment(row) { parts.append(segment.records) }
        }
        guard let whole = await segment(output) else { return }
        if parts.joined() != whole.records {
            violate("G1: \(named(output)) has other records than what it replaces")
        }
    }

    // MARK: Unlinking

    func unlinked(of stream: StreamID) async {
        let (_, went) = await reread(stream)
        if went.isEmpty { return }
        let lookup = await lookup(stream)
        for row in went where row.endSeqNum > lookup?.stream.state.trimPoint ?? 0 {
            violate("G1: \(named(row)) is unlinked, and is not trimmed")
        }
    }

    func expired(_ stream: StreamID, below boundary: SeqNum) async {
        guard let lookup = await lookup(stream) else { return }
        guard case .age(let seconds) = lookup.stream.config.retention else {
            return violate("\(lookup.stream.name) expires below \(boundary), and never should")
        }
        if boundary > lookup.stream.state.tail.seqNum {
            violate("\(lookup.stream.name) expires beyond its tail")
        }
        for (row, since) in published[stream] ?? [:]
        where row.start.seqNum < boundary && now - since < .seconds(Int64(seconds)) - 1_000_000 {
            violate("\(named(row)) expires \((now - since) / 1_000_000)ms behind its publication")
        }
    }

    func deletedAsEmpty(_ stream: StreamID) async {
        guard let found = await lookup(stream) else { return }
        let state = found.stream.state
        if found.owner != nil { violate("\(found.stream.name) is deleted as empty, and is open") }
        if state.trimPoint < state.tail.seqNum {
            violate("\(found.stream.name) is deleted as empty, and is not")
        }
    }

    func willPurge(_ stream: StreamID) async {
        purging = await lookup(stream)
    }

    func purged(_ stream: StreamID) async {
        let (_, went) = await reread(stream)
        let remains = await lookup(stream)
        guard let before = purging, !went.isEmpty || remains == nil else { return }
        if before.stream.deletedMilliseconds == nil {
            violate("G1: \(before.stream.name) is purged, and was not deleted")
        }
        if before.owner != nil { violate("G1: \(before.stream.name) is purged, and is open") }
    }

    // MARK: Objects

    func willUnlink(_ object: StoredObject, by origin: SimLoop?) async {
        let key = object.key
        guard let life = lives[key], life.isThere, references[key] ?? 0 == 0 else { return }
        let known = await ask { metadata throws(MetadataError) in
            try await metadata.knownObjects([key], bucket: object.bucket)
        }
        // Whoever made it and could not publish it knows that nobody will.
        guard !known.contains(key), life.by != origin?.name else { return }
        let drift = max(origin?.wallOffset ?? 0, origin?.wallOffsetBefore ?? 0, 0)
        let age = now - life.since + drift * 1_000_000
        if age < Self.orphanNanoseconds {
            violate("G3: \(key) is taken for an orphan after \(age / 1_000_000)ms")
        }
    }

    func condemned(_ object: StoredObject) {
        condemnedAt[object.key] = now
        if let since = unreferencedSince[object.key], now - since < Self.planNanoseconds {
            violate("G4: \(object.key) is condemned while plans may refer to it")
        }
    }

    func forgot(_ object: StoredObject) async {
        guard condemnedAt.removeValue(forKey: object.key) != nil else { return }
        if lives[object.key]?.isThere == true, references[object.key] ?? 0 == 0 {
            violate("G4: \(object.key) is forgotten before it is deleted")
        }
    }

    // MARK: Logs

    func retired(_ channel: ChannelID) {
        if retiredAt[channel] == nil { retiredAt[channel] = now }
    }

    func willForgetLog(_ channel: ChannelID, below end: ChunkIndex) {
        if end > deletedEnds[channel] ?? 0 {
            violate("G4: the log of channel \(channel) is forgotten below \(end) and not deleted")
        }
    }

    func willForgetLog(_ channel: ChannelID) async {
        let prefix = LogKeys.logPrefix(channel)
        for (key, life) in lives where life.isThere && key.hasPrefix(prefix) {
            violate("G4: the log of channel \(channel) is forgotten before \(key)")
        }
    }

    // MARK: What is published

    func lookup(_ stream: StreamID) async -> StreamLookup? {
        await ask { metadata throws(MetadataError) in try await metadata.stream(stream) }
    }

    /// Compares a stream's segments to those that it had: which came, in order, and which went.
    private func reread(_ stream: StreamID) async -> (came: [SegmentRow], went: [SegmentRow]) {
        let rows = await ask { metadata throws(MetadataError) in
            try await metadata.segments(of: stream, from: .seqNum(0), limit: .max)
        }.segments
        let known = published[stream] ?? [:]
        let present = Set(rows)
        let came = rows.filter { known[$0] == nil }
        let went = known.keys.filter { !present.contains($0) }.sorted {
            $0.start.seqNum < $1.start.seqNum
        }
        for row in came {
            published[stream, default: [:]][row] = now
            references[row.object, default: 0] += 1
            unreferencedSince[row.object] = nil
            if await segment(row) == nil {
                violate("G1: \(named(row)) is published, and is not there")
            }
        }
        for row in went {
            published[stream]?[row] = nil
            let left = (references[row.object] ?? 0) - 1
            references[row.object] = left > 0 ? left : nil
            if left <= 0 {
                unreferencedSince[row.object] = now
                await checkIsGarbage(row)
            }
        }
        if published[stream]?.isEmpty == true { published[stream] = nil }
        return (came, went)
    }

    /// Nothing names the object of a row that went, but the garbage.
    private func checkIsGarbage(_ row: SegmentRow) async {
        let known = await ask { metadata throws(MetadataError) in
            try await metadata.knownObjects([row.object], bucket: row.bucket)
        }
        if known.isEmpty { violate("G4: \(row.object) is forgotten with its last segment") }
    }

    /// The segment of a row, if it is there, whole, and what the row says.
    func segment(_ row: SegmentRow) async -> Segment? {
        guard let object = await bytes(row.object),
            object.count >= Int(row.offset + row.length)
        else { return nil }
        do throws(DecodeError) {
            let bytes = object[Int(row.offset)..<Int(row.offset + row.length)]
            let segment = try Segment(bytes, checksum: row.checksum)
            let span = segment.index.span
            return span.stream == row.stream && span.start == row.start
                && span.endSeqNum == row.endSeqNum ? segment : nil
        } catch {
            return nil
        }
    }

    func named(_ row: SegmentRow) -> String {
        "segment \(row.start.seqNum)..<\(row.endSeqNum) of \(row.stream) in \(row.object)"
    }
}
