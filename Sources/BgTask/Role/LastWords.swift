// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives
internal import Records

/// What segment objects tell of streams that nothing else in the buckets tells: where a stream
/// stands whose last records are trimmed.
///
/// Metadata can be rebuilt from the buckets only while somewhere the stream's tail is written down.
/// Before an object with such a word goes, the word is put into an object of its own, without
/// records; and an object that is nothing but such words stays until the streams move on.
struct LastWords {
    typealias Word = (placement: SegmentPlacement, state: SegmentState)

    let pass: Pass
    let bucket: Bucket

    /// How much of an object's end surely holds a directory of common size.
    private static let tailBytes = 64 << 10

    /// Whether the object must stay for what it tells: it has no records and the last word of some
    /// stream, or it cannot be read.
    func mustStay(_ key: String, size: Int) async throws(TaskError) -> Bool {
        guard let placements = try await placements(of: key, size: size) else { return true }
        guard placements.allSatisfy(\.span.isEmpty) else { return false }
        for placement in placements {
            if try await isLastWord(placement) { return true }
        }
        return false
    }

    /// Puts the last words that the object holds into an object of their own.
    func keep(of key: String) async throws(TaskError) {
        guard let id = LogKeys.parseSegment(key) else { return }
        let found = try await pass.asking(bucket) { store throws(StoreError) in
            try await store.head(key)
        }
        // Gone already: an earlier try came this far.
        guard let found else { return }
        var words: [Word] = []
        for placement in try await placements(of: key, size: found.size) ?? [] {
            guard placement.hasState, try await isLastWord(placement),
                let state = try await state(placement, in: key)
            else { continue }
            words.append((placement, state))
        }
        guard !words.isEmpty else { return }
        if !pass.isDryRun { try await put(words, heir: Self.heir(of: id)) }
        for word in words { pass.tally.note(.keptState, "of \(word.placement.span.stream)") }
    }

    /// The same for every try.
    private static func heir(of id: ID128) -> ID128 {
        var (a, b) = (SplitMix64(seed: id.high), SplitMix64(seed: id.low))
        return ID128(high: a.next() ^ id.low, low: b.next() ^ id.high)
    }

    /// What the object's directory lists; nil if it cannot be read.
    private func placements(
        of key: String, size: Int
    ) async throws(TaskError) -> [SegmentPlacement]? {
        var tail = try await read(key, max(0, size - Self.tailBytes)..<size)
        do {
            let needed = try SegmentDirectory.tailBytes(tail, objectSize: size)
            if needed > tail.count { tail = try await read(key, size - needed..<size) }
            return try SegmentDirectory(tail: tail, objectSize: size).placements
        } catch let error as DecodeError {
            pass.skipped("\(key) cannot be read: \(error)")
            return nil
        } catch {
            throw error as? TaskError ?? TaskError("\(key): \(error)")
        }
    }

    private func read(_ key: String, _ range: Range<Int>) async throws(TaskError) -> Bytes {
        try await pass.asking(bucket, bytes: range.count) { store throws(StoreError) in
            try await store.get(key, range: range)
        }.bytes
    }

    /// Whether the stream lives, still ends here, and no segment ends here too.
    private func isLastWord(_ placement: SegmentPlacement) async throws(TaskError) -> Bool {
        let end = placement.span.endSeqNum
        guard end > 0 else { return false }
        let page = try await pass.asking { metadata throws(MetadataError) in
            try await metadata.segments(
                of: placement.span.stream, from: .seqNum(end - 1), limit: 1)
        }
        guard let stream = page.lookup?.stream, stream.deletedMilliseconds == nil else {
            return false
        }
        return stream.state.tail.seqNum == end && page.segments.isEmpty
    }

    private func state(
        _ placement: SegmentPlacement, in key: String
    ) async throws(TaskError) -> SegmentState? {
        let length = SegmentIndex.tailBytesMax(segmentLength: placement.length)
        let end = placement.range.upperBound
        let tail = try await read(key, end - length..<end)
        do throws(DecodeError) {
            return try SegmentIndex(
                tail: tail, segmentLength: placement.length, checksum: placement.checksum
            ).state
        } catch {
            pass.skipped("\(key) is damaged: \(error)")
            return nil
        }
    }

    private func put(_ words: [Word], heir: ID128) async throws(TaskError) {
        let body = try Self.object(
            words,
            SegmentObjectHeader(
                id: heir, channel: nil, createdMilliseconds: pass.world.loop.wallMilliseconds))
        let key = LogKeys.segment(heir)
        // If it is there, an earlier try put it there.
        _ = try await pass.asking(bucket, bytes: byteCount(body)) { store throws(StoreError) in
            try await store.put(key, body, ifAbsent: true)
        }
    }

    /// An object of nothing but `words`. Those of one object fit one, for they fitted it already;
    /// throws if they do not, for none may be lost.
    static func object(
        _ words: [Word], _ header: SegmentObjectHeader
    ) throws(TaskError) -> [Bytes] {
        var builder = SegmentObjectBuilder(header)
        for (placement, state) in words {
            let span = placement.span
            let added: SegmentPlacement?
            do throws(DecodeError) {
                added = try builder.add(
                    stream: span.stream, streamlet: span.streamlet, records: [], state: state)
            } catch {
                throw TaskError("the words of \(header.id): \(error)")
            }
            guard added != nil else {
                throw TaskError("the words of \(header.id) do not fit one object")
            }
        }
        return builder.finish().parts
    }
}
