// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records

/// The metadata as a worker sees it, with faults in what a worker asks.
struct FaultyMetadata: HousekeepingStore {
    let inner: MemoryMetadata
    let fault: Fault

    func createBasin(_ request: BasinCreation) async throws(MetadataError) -> Provisioned<Basin> {
        try await inner.createBasin(request)
    }
    func ensureBasin(_ request: BasinCreation) async throws(MetadataError) -> Provisioned<Basin> {
        try await inner.ensureBasin(request)
    }
    func basin(_ name: String) async throws(MetadataError) -> Basin? {
        try await inner.basin(name)
    }
    func listBasins(
        prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Basin> {
        try await inner.listBasins(prefix: prefix, startAfter: startAfter, limit: limit)
    }
    func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) async throws(MetadataError) -> Basin? {
        try await inner.updateBasin(name, version: version, config: config)
    }
    func deleteBasin(_ name: String) async throws(MetadataError) -> Bool {
        try await inner.deleteBasin(name)
    }
    func createStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await inner.createStream(request)
    }
    func ensureStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await inner.ensureStream(request)
    }
    func stream(basin: String, name: String) async throws(MetadataError) -> StreamLookup? {
        try await inner.stream(basin: basin, name: name)
    }
    func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup? {
        try await fault.around { () async throws(MetadataError) in
            try await inner.stream(id)
        }
    }
    func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Stream> {
        try await inner.listStreams(
            basin: basin, prefix: prefix, startAfter: startAfter, limit: limit)
    }
    func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) async throws(MetadataError) -> StreamLookup? {
        try await inner.updateStream(id, version: version, config: config)
    }
    func deleteStream(basin: String, name: String) async throws(MetadataError) -> StreamLookup? {
        try await inner.deleteStream(basin: basin, name: name)
    }
    func registerChannel(
        _ registration: ChannelRegistration
    ) async throws(MetadataError) -> ChannelID {
        try await inner.registerChannel(registration)
    }
    func renewChannel(_ id: ChannelID, load: ChannelLoad) async throws(MetadataError) -> Bool {
        try await inner.renewChannel(id, load: load)
    }
    func channels(_ states: Set<ChannelState>) async throws(MetadataError) -> [ChannelRow] {
        try await inner.channels(states)
    }
    func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow? {
        try await inner.channel(id)
    }
    func declareDead(_ id: ChannelID, renewals: UInt64) async throws(MetadataError) -> Bool {
        try await inner.declareDead(id, renewals: renewals)
    }
    func resignChannel(_ id: ChannelID) async throws(MetadataError) {
        try await inner.resignChannel(id)
    }
    func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool {
        try await inner.publishSeal(id, sealedAt: sealedAt, flushedEnd: flushedEnd)
    }
    func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool {
        try await inner.retireChannel(id)
    }
    func claim(_ stream: StreamID, channel: ChannelID) async throws(MetadataError) -> ClaimResult {
        try await inner.claim(stream, channel: channel)
    }
    func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult {
        try await inner.flush(flush)
    }
    func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet] {
        try await inner.streamlets(of: channel, states)
    }
    func streamlets(of stream: StreamID, limit: Int) async throws(MetadataError) -> [Streamlet] {
        try await inner.streamlets(of: stream, limit: limit)
    }
    func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage {
        try await fault.around { () async throws(MetadataError) in
            try await inner.segments(of: stream, from: start, limit: limit)
        }
    }
    func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease {
        try await fault.around { () async throws(MetadataError) in
            try await inner.holdLease(name, holder: holder, stale: stale)
        }
    }
    func releaseLease(_ name: String, holder: String) async throws(MetadataError) {
        try await fault.around { () async throws(MetadataError) in
            try await inner.releaseLease(name, holder: holder)
        }
    }

    func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int
    ) async throws(MetadataError) -> Scan<StreamID, StreamID> {
        try await fault.around { () async throws(MetadataError) in
            try await inner.scanStreams(for: work, in: range, after: after, limit: limit)
        }
    }
    func unlinkTrimmed(_ stream: StreamID, limit: Int) async throws(MetadataError) -> Int {
        try await fault.around { () async throws(MetadataError) in
            try await inner.unlinkTrimmed(stream, limit: limit)
        }
    }
    func expire(_ stream: StreamID) async throws(MetadataError) -> SeqNum? {
        try await fault.around { () async throws(MetadataError) in
            try await inner.expire(stream)
        }
    }
    func deleteIfEmpty(_ stream: StreamID) async throws(MetadataError) -> EmptyStreamResult {
        try await fault.around { () async throws(MetadataError) in
            try await inner.deleteIfEmpty(stream)
        }
    }
    func purgeStream(
        _ stream: StreamID, limit: Int
    ) async throws(MetadataError) -> StreamPurgeResult {
        try await fault.around { () async throws(MetadataError) in
            try await inner.purgeStream(stream, limit: limit)
        }
    }
    func deletingBasins(after: String, limit: Int) async throws(MetadataError) -> Page<String> {
        try await fault.around { () async throws(MetadataError) in
            try await inner.deletingBasins(after: after, limit: limit)
        }
    }
    func purgeBasin(_ name: String, limit: Int) async throws(MetadataError) -> BasinPurgeResult {
        try await fault.around { () async throws(MetadataError) in
            try await inner.purgeBasin(name, limit: limit)
        }
    }
    func smallSegments(
        of stream: StreamID, from: SeqNum, limit: Int
    ) async throws(MetadataError) -> [AgedSegment] {
        try await fault.around { () async throws(MetadataError) in
            try await inner.smallSegments(of: stream, from: from, limit: limit)
        }
    }
    func compact(
        _ inputs: [SegmentRow], into output: SegmentRow
    ) async throws(MetadataError) -> Bool {
        try await fault.around { () async throws(MetadataError) in
            try await inner.compact(inputs, into: output)
        }
    }
    func knownObjects(
        _ objects: [String], bucket: String
    ) async throws(MetadataError) -> Set<String> {
        try await fault.around { () async throws(MetadataError) in
            try await inner.knownObjects(objects, bucket: bucket)
        }
    }
    func unlinkObject(_ object: StoredObject) async throws(MetadataError) {
        try await fault.around { () async throws(MetadataError) in
            try await inner.unlinkObject(object)
        }
    }
    func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int
    ) async throws(MetadataError) -> Scan<Garbage, StoredObject> {
        try await fault.around { () async throws(MetadataError) in
            try await inner.scanGarbage(keys, after: after, limit: limit)
        }
    }
    func condemn(_ object: StoredObject, age: UInt64) async throws(MetadataError) -> Bool {
        try await fault.around { () async throws(MetadataError) in
            try await inner.condemn(object, age: age)
        }
    }
    func forgetObject(_ object: StoredObject) async throws(MetadataError) {
        try await fault.around { () async throws(MetadataError) in
            try await inner.forgetObject(object)
        }
    }
    func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int
    ) async throws(MetadataError) -> Scan<LogGarbage, ChannelID> {
        var scan = try await fault.around { () async throws(MetadataError) in
            try await inner.scanLogs(
                partition: partition, of: partitions, after: after, limit: limit)
        }
        for index in scan.items.indices { fault.tamper?(&scan.items[index]) }
        return scan
    }
    func markLog(_ channel: ChannelID) async throws(MetadataError) {
        try await fault.around { () async throws(MetadataError) in
            try await inner.markLog(channel)
        }
    }
    func forgetLog(_ channel: ChannelID, below end: ChunkIndex) async throws(MetadataError) {
        try await fault.around { () async throws(MetadataError) in
            try await inner.forgetLog(channel, below: end)
        }
    }
    func forgetLog(_ channel: ChannelID) async throws(MetadataError) {
        try await fault.around { () async throws(MetadataError) in
            try await inner.forgetLog(channel)
        }
    }
    func leases(prefix: String) async throws(MetadataError) -> [NamedLease] {
        try await fault.around { () async throws(MetadataError) in
            try await inner.leases(prefix: prefix)
        }
    }
}
