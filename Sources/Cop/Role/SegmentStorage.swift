// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives
internal import Records

/// Stores replayed records as segments, many streams in one object.
///
/// Objects get random names, so nothing that two recoverers store collides; what no row refers to
/// is garbage.
struct SegmentStorage {
    /// What was stored: the rows for the metadata, per stream and in order.
    struct Stored {
        var rows: [StreamID: [SegmentRow]] = [:]
        var objects = 0
    }

    let bucket: Bucket
    let channel: ChannelID
    let world: CopWorld
    let objectBytesMax: Int
    let backoff: Backoff

    /// Records of one stream beyond this many bytes become several segments.
    private static let segmentBytesTarget = 16 << 20

    func store(
        _ replays: [StreamletReplay], closing: Set<StreamID>
    ) async throws(RecoveryError) -> Stored {
        var stored = Stored()
        var builder = newObject()
        for replay in replays {
            var pieces = Self.pieces(of: replay.runs)
            let closes = closing.contains(replay.id)
            // A stream's last segment tells where the stream stands.
            if pieces.isEmpty && closes { pieces = [[]] }
            for (number, piece) in pieces.enumerated() {
                let isLast = number == pieces.count - 1
                let state = isLast ? replay.segmentState(closes: closes) : nil
                let slices = piece.map(\.bytes)
                if !builder.isEmpty && builder.byteCount + byteCount(slices) > objectBytesMax {
                    try await put(builder, into: &stored)
                    builder = newObject()
                }
                try await add(slices, state, of: replay, to: &builder, &stored)
            }
        }
        if !builder.isEmpty { try await put(builder, into: &stored) }
        return stored
    }

    private func newObject() -> SegmentObjectBuilder {
        SegmentObjectBuilder(
            SegmentObjectHeader(
                id: ID128(random: world.random), channel: channel,
                createdMilliseconds: world.loop.wallMilliseconds))
    }

    private func add(
        _ slices: [Bytes], _ state: SegmentState?, of replay: StreamletReplay,
        to builder: inout SegmentObjectBuilder, _ stored: inout Stored
    ) async throws(RecoveryError) {
        for _ in 0..<2 {
            do throws(DecodeError) {
                let placement = try builder.add(
                    stream: replay.id, streamlet: replay.streamlet, records: slices, state: state)
                if placement != nil { return }
            } catch {
                throw RecoveryError("stream \(replay.id): its records do not continue: \(error)")
            }
            // No room: an object of its own must have.
            if !builder.isEmpty { try await put(builder, into: &stored) }
            builder = newObject()
        }
        throw RecoveryError("stream \(replay.id): \(byteCount(slices)) bytes fit no object")
    }

    private func put(
        _ builder: SegmentObjectBuilder, into stored: inout Stored
    ) async throws(RecoveryError) {
        let id = builder.header.id
        let key = LogKeys.segment(id)
        let (parts, placements) = builder.finish()
        do throws(StoreError) {
            let outcome = try await bucket.store.putOnce(
                key, parts, identity: SegmentObjectHeader.identity, loop: world.loop,
                random: world.random, backoff: backoff)
            guard outcome == .stored else { throw StoreError(.failed, "the id \(id) was taken") }
        } catch {
            throw RecoveryError("\(key): \(error)")
        }
        stored.objects += 1
        for placement in placements where !placement.span.isEmpty {
            let span = placement.span
            stored.rows[span.stream, default: []].append(
                SegmentRow(
                    stream: span.stream, start: span.start, endSeqNum: span.endSeqNum,
                    lastTimestamp: span.lastTimestamp, bucket: bucket.name, object: key,
                    offset: UInt64(placement.offset), length: UInt64(placement.length),
                    meteredBytes: span.meteredBytes, checksum: placement.checksum))
        }
    }

    /// The runs, gathered into segments of bounded size.
    private static func pieces(of runs: [StreamletReplay.Run]) -> [[StreamletReplay.Run]] {
        var pieces: [[StreamletReplay.Run]] = []
        var bytes = 0
        for run in runs {
            if pieces.isEmpty || bytes + run.bytes.count > segmentBytesTarget {
                pieces.append([])
                bytes = 0
            }
            pieces[pieces.count - 1].append(run)
            bytes += run.bytes.count
        }
        return pieces
    }
}
