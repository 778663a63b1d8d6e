// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import Primitives
package import Records

/// Metadata with faults in whatever is asked of it.
package struct FaultyMetadata: HousekeepingStore {
    private let inner: MemoryMetadata
    private let fault: Fault

    package init(inner: MemoryMetadata, fault: Fault) {
        self.inner = inner
        self.fault = fault
    }

    package func createBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try await fault.onMetadata(await inner.createBasin(request))
    }
    package func ensureBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try await fault.onMetadata(await inner.ensureBasin(request))
    }
    package func basin(_ name: String) async throws(MetadataError) -> Basin? {
        try await fault.onMetadata(await inner.basin(name))
    }
    package func listBasins(
        prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Basin> {
        try await fault.onMetadata(
            await inner.listBasins(prefix: prefix, startAfter: startAfter, limit: limit))
    }
    package func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) async throws(MetadataError) -> Basin? {
        try await fault.onMetadata(await inner.updateBasin(name, version: version, config: config))
    }
    package func deleteBasin(_ name: String) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.deleteBasin(name))
    }
    package func createStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await fault.onMetadata(await inner.createStream(request))
    }
    package func ensureStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await fault.onMetadata(await inner.ensureStream(request))
    }
    package func stream(basin: String, name: String) async throws(MetadataError) -> StreamLookup? {
        try await fault.onMetadata(await inner.stream(basin: basin, name: name))
    }
    package func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup? {
        try await fault.onMetadata(await inner.stream(id))
    }
    package func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Stream> {
        try await fault.onMetadata(
            await inner.listStreams(
                basin: basin, prefix: prefix, startAfter: startAfter, limit: limit))
    }
    package func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) async throws(MetadataError) -> StreamLookup? {
        try await fault.onMetadata(await inner.updateStream(id, version: version, config: config))
    }
    package func deleteStream(
        basin: String, name: String
    ) async throws(MetadataError) -> StreamLookup? {
        try await fault.onMetadata(await inner.deleteStream(basin: basin, name: name))
    }
    package func registerChannel(
        _ registration: ChannelRegistration
    ) async throws(MetadataError) -> ChannelID {
        try await fault.onMetadata(await inner.registerChannel(registration))
    }
    package func renewChannel(
        _ id: ChannelID, load: ChannelLoad
    ) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.renewChannel(id, load: load))
    }
    package func channels(_ states: Set<ChannelState>) async throws(MetadataError) -> [ChannelRow] {
        try await fault.onMetadata(await inner.channels(states))
    }
    package func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow? {
        try await fault.onMetadata(await inner.channel(id))
    }
    package func declareDead(
        _ id: ChannelID, renewals: UInt64
    ) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.declareDead(id, renewals: renewals))
    }
    package func resignChannel(_ id: ChannelID) async throws(MetadataError) {
        try await fault.onMetadata(await inner.resignChannel(id))
    }
    package func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(
            await inner.publishSeal(id, sealedAt: sealedAt, flushedEnd: flushedEnd))
    }
    package func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.retireChannel(id))
    }
    package func claim(
        _ stream: StreamID, channel: ChannelID
    ) async throws(MetadataError) -> ClaimResult {
        try await fault.onMetadata(await inner.claim(stream, channel: channel))
    }
    package func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult {
        try await fault.onMetadata(await inner.flush(flush))
    }
    package func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet] {
        try await fault.onMetadata(await inner.streamlets(of: channel, states))
    }
    package func streamlets(
        of stream: StreamID, before: StreamletNumber?, limit: Int
    ) async throws(MetadataError) -> [Streamlet] {
        try await fault.onMetadata(await inner.streamlets(of: stream, before: before, limit: limit))
    }
    package func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage {
        try await fault.onMetadata(await inner.segments(of: stream, from: start, limit: limit))
    }
    package func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease {
        try await fault.onMetadata(await inner.holdLease(name, holder: holder, stale: stale))
    }
    package func releaseLease(_ name: String, holder: String) async throws(MetadataError) {
        try await fault.onMetadata(await inner.releaseLease(name, holder: holder))
    }

    package func scanStreams(
        for work: StreamWork, in range: ClosedRange<StreamID>, after: StreamID?, limit: Int
    ) async throws(MetadataError) -> Scan<StreamID, StreamID> {
        try await fault.onMetadata(
            await inner.scanStreams(for: work, in: range, after: after, limit: limit))
    }
    package func unlinkTrimmed(_ stream: StreamID, limit: Int) async throws(MetadataError) -> Int {
        try await fault.onMetadata(await inner.unlinkTrimmed(stream, limit: limit))
    }
    package func expire(_ stream: StreamID) async throws(MetadataError) -> SeqNum? {
        try await fault.onMetadata(await inner.expire(stream))
    }
    package func deleteIfEmpty(
        _ stream: StreamID
    ) async throws(MetadataError) -> EmptyStreamResult {
        try await fault.onMetadata(await inner.deleteIfEmpty(stream))
    }
    package func purgeStream(
        _ stream: StreamID, limit: Int
    ) async throws(MetadataError) -> StreamPurgeResult {
        try await fault.onMetadata(await inner.purgeStream(stream, limit: limit))
    }
    package func deletingBasins(
        after: String, limit: Int
    ) async throws(MetadataError) -> Page<String> {
        try await fault.onMetadata(await inner.deletingBasins(after: after, limit: limit))
    }
    package func purgeBasin(
        _ name: String, limit: Int
    ) async throws(MetadataError) -> BasinPurgeResult {
        try await fault.onMetadata(await inner.purgeBasin(name, limit: limit))
    }
    package func smallSegments(
        of stream: StreamID, from: SeqNum, limit: Int
    ) async throws(MetadataError) -> [AgedSegment] {
        try await fault.onMetadata(await inner.smallSegments(of: stream, from: from, limit: limit))
    }
    package func compact(
        _ inputs: [SegmentRow], into output: SegmentRow
    ) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.compact(inputs, into: output))
    }
    package func knownObjects(
        _ objects: [String], bucket: String
    ) async throws(MetadataError) -> Set<String> {
        try await fault.onMetadata(await inner.knownObjects(objects, bucket: bucket))
    }
    package func unlinkObject(_ object: StoredObject) async throws(MetadataError) {
        try await fault.onMetadata(await inner.unlinkObject(object))
    }
    package func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int
    ) async throws(MetadataError) -> Scan<Garbage, StoredObject> {
        try await fault.onMetadata(await inner.scanGarbage(keys, after: after, limit: limit))
    }
    package func condemn(_ object: StoredObject, age: UInt64) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.condemn(object, age: age))
    }
    package func forgetObject(_ object: StoredObject) async throws(MetadataError) {
        try await fault.onMetadata(await inner.forgetObject(object))
    }
    package func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int
    ) async throws(MetadataError) -> Scan<LogGarbage, ChannelID> {
        var scan = try await fault.onMetadata(
            await inner.scanLogs(
                partition: partition, of: partitions, after: after, limit: limit))
        for index in scan.items.indices { fault.tamper?(&scan.items[index]) }
        return scan
    }
    package func markLog(_ channel: ChannelID) async throws(MetadataError) {
        try await fault.onMetadata(await inner.markLog(channel))
    }
    package func forgetLog(
        _ channel: ChannelID, below end: ChunkIndex
    ) async throws(MetadataError) {
        try await fault.onMetadata(await inner.forgetLog(channel, below: end))
    }
    package func forgetStreamlets(
        of channel: ChannelID, limit: Int
    ) async throws(MetadataError) -> Int {
        try await fault.onMetadata(await inner.forgetStreamlets(of: channel, limit: limit))
    }
    package func forgetChannel(_ channel: ChannelID) async throws(MetadataError) -> Bool {
        try await fault.onMetadata(await inner.forgetChannel(channel))
    }
    package func leases(prefix: String) async throws(MetadataError) -> [NamedLease] {
        try await fault.onMetadata(await inner.leases(prefix: prefix))
    }
}
