// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import Primitives
package import Records

/// What background work asks. Whatever takes something away is held against the ledger, at the
/// moment it takes effect.
extension SimMetadata: HousekeepingStore {
    // MARK: Streams

    package func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int
    ) async throws(MetadataError) -> Scan<StreamID, StreamID> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.scanStreams(for: work, in: range, after: after, limit: limit)
        }
    }

    package func unlinkTrimmed(_ stream: StreamID, limit: Int) async throws(MetadataError) -> Int {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            let count = try await store.unlinkTrimmed(stream, limit: limit)
            await ledger?.unlinked(of: stream)
            return count
        }
    }

    package func expire(_ stream: StreamID) async throws(MetadataError) -> SeqNum? {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            let boundary = try await store.expire(stream)
            if let boundary { await ledger?.expired(stream, below: boundary) }
            return boundary
        }
    }

    package func deleteIfEmpty(
        _ stream: StreamID
    ) async throws(MetadataError) -> EmptyStreamResult {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            let result = try await store.deleteIfEmpty(stream)
            if result == .deleted { await ledger?.deletedAsEmpty(stream) }
            return result
        }
    }

    package func purgeStream(
        _ stream: StreamID, limit: Int
    ) async throws(MetadataError) -> StreamPurgeResult {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            await ledger?.willPurge(stream)
            let result = try await store.purgeStream(stream, limit: limit)
            await ledger?.purged(stream)
            return result
        }
    }

    package func deletingBasins(
        after: String, limit: Int
    ) async throws(MetadataError) -> Page<String> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.deletingBasins(after: after, limit: limit)
        }
    }

    package func purgeBasin(
        _ name: String, limit: Int
    ) async throws(MetadataError) -> BasinPurgeResult {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.purgeBasin(name, limit: limit)
        }
    }

    // MARK: Compaction

    package func smallSegments(
        of stream: StreamID, from: SeqNum, limit: Int
    ) async throws(MetadataError) -> [AgedSegment] {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.smallSegments(of: stream, from: from, limit: limit)
        }
    }

    package func compact(
        _ inputs: [SegmentRow], into output: SegmentRow
    ) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            let isDone = try await store.compact(inputs, into: output)
            if isDone { await ledger?.compacted(inputs, into: output) }
            return isDone
        }
    }

    // MARK: Objects

    package func knownObjects(
        _ objects: [String], bucket: String
    ) async throws(MetadataError) -> Set<String> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.knownObjects(objects, bucket: bucket)
        }
    }

    package func unlinkObject(_ object: StoredObject) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { [ledger, origin] store throws(MetadataError) in
            await ledger?.willUnlink(object, by: origin)
            try await store.unlinkObject(object)
        }
    }

    package func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int
    ) async throws(MetadataError) -> Scan<Garbage, StoredObject> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.scanGarbage(keys, after: after, limit: limit)
        }
    }

    package func condemn(_ object: StoredObject, age: UInt64) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            let isCondemned = try await store.condemn(object, age: age)
            if isCondemned { ledger?.condemned(object) }
            return isCondemned
        }
    }

    package func forgetObject(_ object: StoredObject) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            try await store.forgetObject(object)
            await ledger?.forgot(object)
        }
    }

    // MARK: Logs

    package func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int
    ) async throws(MetadataError) -> Scan<LogGarbage, ChannelID> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.scanLogs(
                partition: partition, of: partitions, after: after, limit: limit)
        }
    }

    package func markLog(_ channel: ChannelID) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.markLog(channel)
        }
    }

    package func forgetLog(
        _ channel: ChannelID, below end: ChunkIndex
    ) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            ledger?.willForgetLog(channel, below: end)
            try await store.forgetLog(channel, below: end)
        }
    }

    package func forgetStreamlets(
        of channel: ChannelID, limit: Int
    ) async throws(MetadataError) -> Int {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.forgetStreamlets(of: channel, limit: limit)
        }
    }

    package func forgetChannel(_ channel: ChannelID) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            await ledger?.willForgetLog(channel)
            return try await store.forgetChannel(channel)
        }
    }

    // MARK: Leases

    package func leases(prefix: String) async throws(MetadataError) -> [NamedLease] {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.leases(prefix: prefix)
        }
    }
}

/// What cacheys and their readers ask.
extension SimMetadata: CacheyRegistry {
    package func registerCachey(
        _ registration: CacheyRegistration
    ) async throws(MetadataError) -> CacheyTenure {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.registerCachey(registration)
        }
    }

    package func renewCachey(
        _ id: CacheyID, load: CacheyLoad
    ) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.renewCachey(id, load: load)
        }
    }

    package func cacheys(zone: String?) async throws(MetadataError) -> [CacheyRow] {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.cacheys(zone: zone)
        }
    }

    package func removeCachey(
        _ id: CacheyID, renewals: UInt64?
    ) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.removeCachey(id, renewals: renewals)
        }
    }
}
