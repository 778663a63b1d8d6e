// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

extension MemoryMetadata: HousekeepingStore {
    // MARK: Streams

    package func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int
    ) async throws(MetadataError) -> Scan<StreamID, StreamID> {
        step { $0.scanStreams(for: work, in: range, after: after, limit: limit, now: now()) }
    }

    package func unlinkTrimmed(_ stream: StreamID, limit: Int) async throws(MetadataError) -> Int {
        step { $0.unlinkTrimmed(stream, limit: limit, now: now()) }
    }

    package func expire(_ stream: StreamID) async throws(MetadataError) -> SeqNum? {
        step { $0.expire(stream, now: now()) }
    }

    package func deleteIfEmpty(
        _ stream: StreamID
    ) async throws(MetadataError) -> EmptyStreamResult {
        step { $0.deleteIfEmpty(stream, now: now()) }
    }

    package func purgeStream(
        _ stream: StreamID, limit: Int
    ) async throws(MetadataError) -> StreamPurgeResult {
        step { $0.purgeStream(stream, limit: limit, now: now()) }
    }

    package func deletingBasins(
        after: String, limit: Int
    ) async throws(MetadataError) -> Page<String> {
        step { $0.deletingBasins(after: after, limit: limit) }
    }

    package func purgeBasin(
        _ name: String, limit: Int
    ) async throws(MetadataError) -> BasinPurgeResult {
        step { $0.purgeBasin(name, limit: limit, now: now()) }
    }

    // MARK: Compaction

    package func smallSegments(
        of stream: StreamID, from: SeqNum, limit: Int
    ) async throws(MetadataError) -> [AgedSegment] {
        step { $0.smallSegments(of: stream, from: from, limit: limit) }
    }

    package func compact(
        _ inputs: [SegmentRow], into output: SegmentRow
    ) async throws(MetadataError) -> Bool {
        try step { state throws(MetadataError) in
            try state.compact(inputs, into: output, now: now())
        }
    }

    // MARK: Objects

    package func knownObjects(
        _ objects: [String], bucket: String
    ) async throws(MetadataError) -> Set<String> {
        step { $0.knownObjects(objects, bucket: bucket) }
    }

    package func unlinkObject(_ object: StoredObject) async throws(MetadataError) {
        step { $0.unlinkObject(object, now: now()) }
    }

    package func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int
    ) async throws(MetadataError) -> Scan<Garbage, StoredObject> {
        step { $0.scanGarbage(keys, after: after, limit: limit, now: now()) }
    }

    package func condemn(_ object: StoredObject, age: UInt64) async throws(MetadataError) -> Bool {
        step { $0.condemn(object, age: age, now: now()) }
    }

    package func forgetObject(_ object: StoredObject) async throws(MetadataError) {
        step { $0.forgetObject(object) }
    }

    // MARK: Logs

    package func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int
    ) async throws(MetadataError) -> Scan<LogGarbage, ChannelID> {
        step {
            $0.scanLogs(
                partition: partition, of: partitions, after: after, limit: limit, now: now())
        }
    }

    package func markLog(_ channel: ChannelID) async throws(MetadataError) {
        step { $0.markLog(channel, now: now()) }
    }

    package func forgetLog(
        _ channel: ChannelID, below end: ChunkIndex
    ) async throws(MetadataError) {
        step { $0.forgetLog(channel, below: end) }
    }

    package func forgetStreamlets(
        of channel: ChannelID, limit: Int
    ) async throws(MetadataError) -> Int {
        step { state in
            guard state.channels[channel]?.state == .retired else { return 0 }
            return state.forgetStreamlets(of: channel, [.closed], limit: limit)
        }
    }

    package func forgetChannel(_ channel: ChannelID) async throws(MetadataError) -> Bool {
        step { $0.forgetChannel(channel) }
    }

    // MARK: Leases

    package func leases(prefix: String) async throws(MetadataError) -> [NamedLease] {
        step { $0.leases(prefix: prefix) }
    }
}
