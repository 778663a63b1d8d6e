// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Primitives
import Records

/// Fails one call, counted over the store and the metadata of a test: before it takes effect, or
/// after, as when a reply is lost.
final class Fault: @unchecked Sendable {
    // Safety: everything happens on the one thread of its test.
    enum Moment: CaseIterable { case before, after }
    private(set) var calls = 0
    var failing: (call: Int, moment: Moment)?
    var isDown = false
    /// Takes time before each call, so that what happens at once mixes.
    var pause: (() async -> Void)?

    func around<Value>(
        _ body: () async throws(MetadataError) -> Value
    ) async throws(MetadataError) -> Value {
        await pause?()
        let fails = next()
        if isDown || fails == .before { throw MetadataError(.unavailable, "injected") }
        let value = try await body()
        if fails == .after { throw MetadataError(.unavailable, outcomeUnknown: true, "injected") }
        return value
    }

    func around<Value>(
        _ body: () async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        await pause?()
        let fails = next()
        if fails == .before { throw StoreError(.failed, "injected") }
        let value = try await body()
        if fails == .after { throw StoreError(.failed, outcomeUnknown: true, "injected") }
        return value
    }

    private func next() -> Moment? {
        calls += 1
        guard let failing, failing.call == calls else { return nil }
        return failing.moment
    }
}

struct FaultyStore: ObjectStore {
    let inner: any ObjectStore
    let fault: Fault

    func put(_ key: String, _ body: [Bytes], ifAbsent: Bool) async throws(StoreError) -> PutResult {
        try await fault.around { () async throws(StoreError) in
            try await inner.put(key, body, ifAbsent: ifAbsent)
        }
    }
    func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try await fault.around { () async throws(StoreError) in
            try await inner.get(key, range: range)
        }
    }
    func head(_ key: String) async throws(StoreError) -> ObjectInfo? { try await inner.head(key) }
    func list(prefix: String, after: String, limit: Int) async throws(StoreError) -> ObjectListing {
        try await inner.list(prefix: prefix, after: after, limit: limit)
    }
    func delete(_ key: String) async throws(StoreError) { try await inner.delete(key) }
}

struct FaultyMetadata: MetadataStore {
    let inner: MemoryMetadata
    let fault: Fault

    func createBasin(_ r: BasinCreation) async throws(MetadataError) -> Provisioned<Basin> {
        try await inner.createBasin(r)
    }
    func ensureBasin(_ r: BasinCreation) async throws(MetadataError) -> Provisioned<Basin> {
        try await inner.ensureBasin(r)
    }
    func basin(_ name: String) async throws(MetadataError) -> Basin? { try await inner.basin(name) }
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
    func createStream(_ r: StreamCreation) async throws(MetadataError) -> Provisioned<Stream> {
        try await inner.createStream(r)
    }
    func ensureStream(_ r: StreamCreation) async throws(MetadataError) -> Provisioned<Stream> {
        try await inner.ensureStream(r)
    }
    func stream(basin: String, name: String) async throws(MetadataError) -> StreamLookup? {
        try await inner.stream(basin: basin, name: name)
    }
    func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup? {
        try await fault.around { () async throws(MetadataError) in try await inner.stream(id) }
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
    func registerChannel(_ r: ChannelRegistration) async throws(MetadataError) -> ChannelID {
        try await inner.registerChannel(r)
    }
    func renewChannel(_ id: ChannelID, load: ChannelLoad) async throws(MetadataError) -> Bool {
        try await inner.renewChannel(id, load: load)
    }
    func channels(_ states: Set<ChannelState>) async throws(MetadataError) -> [ChannelRow] {
        try await fault.around { () async throws(MetadataError) in
            try await inner.channels(states)
        }
    }
    func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow? {
        try await fault.around { () async throws(MetadataError) in try await inner.channel(id) }
    }
    func declareDead(_ id: ChannelID, renewals: UInt64) async throws(MetadataError) -> Bool {
        try await fault.around { () async throws(MetadataError) in
            try await inner.declareDead(id, renewals: renewals)
        }
    }
    func resignChannel(_ id: ChannelID) async throws(MetadataError) {
        try await inner.resignChannel(id)
    }
    func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool {
        try await fault.around { () async throws(MetadataError) in
            try await inner.publishSeal(id, sealedAt: sealedAt, flushedEnd: flushedEnd)
        }
    }
    func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool {
        try await fault.around { () async throws(MetadataError) in
            try await inner.retireChannel(id)
        }
    }
    func claim(_ stream: StreamID, channel: ChannelID) async throws(MetadataError) -> ClaimResult {
        try await inner.claim(stream, channel: channel)
    }
    func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult {
        try await fault.around { () async throws(MetadataError) in try await inner.flush(flush) }
    }
    func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet] {
        try await fault.around { () async throws(MetadataError) in
            try await inner.streamlets(of: channel, states)
        }
    }
    func streamlets(of stream: StreamID, limit: Int) async throws(MetadataError) -> [Streamlet] {
        try await inner.streamlets(of: stream, limit: limit)
    }
    func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage {
        try await inner.segments(of: stream, from: start, limit: limit)
    }
    func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease {
        try await fault.around { () async throws(MetadataError) in
            try await inner.holdLease(name, holder: holder, stale: stale)
        }
    }
    func releaseLease(_ name: String, holder: String) async throws(MetadataError) {
        try await inner.releaseLease(name, holder: holder)
    }
}
