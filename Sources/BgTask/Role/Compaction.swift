// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives
internal import Records

/// Merges runs of small segments of one stream.
///
/// The output becomes durable first; then one transaction puts it in its inputs' place, if all of
/// them are still live. Else it is an orphan. Plans that name the inputs go on: their objects leave
/// as garbage does.
struct Compaction {
    let pass: Pass

    init(pass: Pass) { self.pass = pass }

    func run() async throws(TaskError) {
        try await pass.streams(.compaction) { id throws(TaskError) in
            let lookup = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.stream(id)
            }
            guard let stream = lookup?.stream else { return }
            var from = stream.state.trimPoint
            while pass.goesOn {
                let start = from
                let segments = try await pass.asking { metadata throws(MetadataError) in
                    try await metadata.smallSegments(
                        of: id, from: start, limit: pass.limits.scanRows)
                }
                for run in SegmentRuns.find(
                    in: segments, retention: stream.config.retention,
                    bytesMax: pass.limits.compactedBytesMax)
                {
                    guard pass.goesOn else { return }
                    let name = "\(id) from \(run[0].start.seqNum)"
                    try await pass.attempt(name, of: run[0].bucket) { () throws(TaskError) in
                        try await merge(run)
                    }
                }
                guard segments.count == pass.limits.scanRows, let last = segments.last else {
                    return
                }
                from = last.row.endSeqNum
            }
        }
    }

    private func merge(_ inputs: [SegmentRow]) async throws(TaskError) {
        let what = "\(inputs[0].stream) \(inputs[0].start.seqNum)..<\(inputs.last?.endSeqNum ?? 0)"
        guard let bucket = pass.world.bucket(inputs[0].bucket) else {
            return pass.skipped("\(what): this worker knows no bucket \(inputs[0].bucket)")
        }
        if pass.isDryRun { return note(what, inputs) }
        guard let segments = try await read(inputs, in: bucket) else {
            return pass.skipped("\(what) is gone")
        }
        guard let output = try await store(segments, in: bucket) else { return }
        guard output.replaces(inputs) else {
            return pass.violation("\(what): the output does not span its inputs")
        }
        let isDone = try await pass.asking { metadata throws(MetadataError) in
            try await metadata.compact(inputs, into: output)
        }
        if isDone { return note(what, inputs) }
        try await pass.asking { metadata throws(MetadataError) in
            try await metadata.unlinkObject(
                StoredObject(bucket: output.bucket, key: output.object))
        }
    }

    private func note(_ what: String, _ inputs: [SegmentRow]) {
        pass.tally.note(.compactedSegment, what, count: inputs.count)
    }

    /// The inputs, verified; nil if one of them is not there (any more).
    private func read(
        _ inputs: [SegmentRow], in bucket: Bucket
    ) async throws(TaskError) -> [Segment]? {
        var segments: [Segment] = []
        for row in inputs {
            let range = Int(row.offset)..<Int(row.offset + row.length)
            do throws(TaskError) {
                let bytes = try await pass.asking(bucket, bytes: range.count) {
                    store throws(StoreError) in
                    try await store.get(row.object, range: range)
                }.bytes
                segments.append(try verified(bytes, row))
            } catch {
                guard error.isGone else { throw error }
                return nil
            }
        }
        return segments
    }

    private func verified(_ bytes: Bytes, _ row: SegmentRow) throws(TaskError) -> Segment {
        do throws(DecodeError) {
            let segment = try Segment(bytes, checksum: row.checksum)
            guard segment.index.span.stream == row.stream,
                segment.index.span.start == row.start,
                segment.index.span.endSeqNum == row.endSeqNum
            else { throw DecodeError(.malformed("it is another segment"), at: 0) }
            return segment
        } catch {
            // Not a reason to stop: the others may be sound.
            pass.violation("\(row.object) at \(row.offset) is damaged: \(error)")
            throw TaskError("\(row.object) is damaged", isGone: true)
        }
    }

    private func store(
        _ segments: [Segment], in bucket: Bucket
    ) async throws(TaskError) -> SegmentRow? {
        guard let last = segments.last?.index else { return nil }
        let id = ID128(random: pass.world.random)
        var packer = SegmentPacker([
            SegmentPacker.Share(
                stream: last.span.stream, streamlet: last.span.streamlet,
                runs: segments.map(\.records), state: last.state)
        ])
        let packed: SegmentPacker.Packed
        do throws(SegmentPackingError) {
            packed = try packer.next(
                SegmentObjectHeader(
                    id: id, channel: nil, createdMilliseconds: pass.world.loop.wallMilliseconds))
        } catch {
            pass.violation("\(error)")
            return nil
        }
        guard packer.isEmpty, let placement = packed.segments.first?.placement else {
            pass.skipped("stream \(last.span.stream): the run fits no object")
            return nil
        }
        let (body, key) = (packed.parts, LogKeys.segment(id))
        await pass.pace.take(requests: 1, bytes: byteCount(body))
        let outcome: PutOnceOutcome
        do throws(StoreError) {
            outcome =
                try await pass.limits.mutant == .outputUnstored
                ? .stored
                : bucket.store.putOnce(
                    key, body, identity: SegmentObjectHeader.identity, loop: pass.world.loop,
                    random: pass.world.random, backoff: pass.limits.storeBackoff)
        } catch {
            throw TaskError("\(key): \(error)")
        }
        guard outcome == .stored else { throw TaskError("\(key): the id was taken") }
        let span = placement.span
        return SegmentRow(
            stream: span.stream, start: span.start, endSeqNum: span.endSeqNum,
            lastTimestamp: span.lastTimestamp, bucket: bucket.name, object: key,
            offset: UInt64(placement.offset), length: UInt64(placement.length),
            meteredBytes: span.meteredBytes, checksum: placement.checksum)
    }
}

/// Which segments of a stream are worth a merge.
enum SegmentRuns {
    /// Merging goes by size, so that a record is rewritten about once per step.
    private static let steps: [UInt64] = [256 << 10, 2 << 20, SmallSegments.lengthEnd]

    /// Runs of at least `SmallSegments.countMin` adjoining segments of `segments`, which are in
    /// order, each run with at most `bytesMax` bytes in all.
    ///
    /// A merged segment expires with its youngest input: inputs of an expiring stream lie no
    /// further apart than an eighth of its retention age.
    static func find(
        in segments: [AgedSegment], retention: RetentionPolicy, bytesMax: Int
    ) -> [[SegmentRow]] {
        for step in steps {
            var runs: [[SegmentRow]] = []
            var open: [AgedSegment] = []
            var bytes: UInt64 = 0
            func close() {
                if open.count >= SmallSegments.countMin { runs.append(open.map(\.row)) }
                open = []
                bytes = 0
            }
            for segment in segments {
                let fits =
                    segment.row.length <= step
                    && bytes + segment.row.length <= UInt64(bytesMax)
                    && (open.last.map { $0.row.endSeqNum == segment.row.start.seqNum } ?? true)
                    && (open.last.map { $0.row.bucket == segment.row.bucket } ?? true)
                    && isNear(open.first, segment, retention)
                if !fits { close() }
                guard segment.row.length <= step else { continue }
                open.append(segment)
                bytes += segment.row.length
            }
            close()
            if !runs.isEmpty { return runs }
        }
        return []
    }

    private static func isNear(
        _ first: AgedSegment?, _ other: AgedSegment, _ retention: RetentionPolicy
    ) -> Bool {
        guard let first, case .age(let seconds) = retention else { return true }
        let (a, b) = (first.createdMilliseconds, other.createdMilliseconds)
        // Seconds over 8, in milliseconds.
        return max(a, b) - min(a, b) <= seconds.multipliedReportingOverflow(by: 125).partialValue
            || seconds > 1 << 50
    }
}
