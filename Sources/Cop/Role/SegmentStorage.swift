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
        let shares = replays.map { replay in
            let closes = closing.contains(replay.id)
            return SegmentPacker.Share(
                stream: replay.id, streamlet: replay.streamlet, runs: replay.runs.map(\.bytes),
                // A stream's last segment tells where the stream stands.
                state: closes || !replay.runs.isEmpty ? replay.segmentState(closes: closes) : nil)
        }
        var packer = SegmentPacker(
            shares, objectBytesTarget: objectBytesMax, segmentBytesTarget: Self.segmentBytesTarget)
        while !packer.isEmpty {
            let id = ID128(random: world.random)
            let packed: SegmentPacker.Packed
            do throws(SegmentPackingError) {
                packed = try packer.next(
                    SegmentObjectHeader(
                        id: id, channel: channel, createdMilliseconds: world.loop.wallMilliseconds))
            } catch {
                throw RecoveryError(error.description)
            }
            try await put(packed, id, into: &stored)
        }
        return stored
    }

    private func put(
        _ packed: SegmentPacker.Packed, _ id: ID128, into stored: inout Stored
    ) async throws(RecoveryError) {
        let key = LogKeys.segment(id)
        do throws(StoreError) {
            let outcome = try await bucket.store.putOnce(
                key, packed.parts, identity: SegmentObjectHeader.identity, loop: world.loop,
                random: world.random, backoff: backoff)
            guard outcome == .stored else { throw StoreError(.failed, "the id \(id) was taken") }
        } catch {
            throw RecoveryError("\(key): \(error)")
        }
        stored.objects += 1
        for (_, placement) in packed.segments {
            let span = placement.span
            stored.rows[span.stream, default: []].append(
                SegmentRow(
                    stream: span.stream, start: span.start, endSeqNum: span.endSeqNum,
                    lastTimestamp: span.lastTimestamp, bucket: bucket.name, object: key,
                    offset: UInt64(placement.offset), length: UInt64(placement.length),
                    meteredBytes: span.meteredBytes, checksum: placement.checksum))
        }
    }
}
