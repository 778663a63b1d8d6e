// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import Primitives
package import Records

/// The metadata of a simulated cell: the in-memory store behind a service that is slow, refuses,
/// and loses replies. Background work and cacheys ask it in `SimMetadata+Housekeeping.swift`.
// Safety: a simulation is one thread.
package final class SimMetadata: MetadataStore, @unchecked Sendable {
    package let inner: MemoryMetadata
    private let service: SimService
    /// Whose requests these are.
    let origin: SimLoop?
    let ledger: Ledger?

    init(inner: MemoryMetadata, service: SimService, origin: SimLoop?, ledger: Ledger?) {
        self.inner = inner
        self.service = service
        self.origin = origin
        self.ledger = ledger
    }

    /// For tests of one role: nothing fails, and every request takes `latency` there and again
    /// back.
    package convenience init(inner: MemoryMetadata, scheduler: Scheduler, latency: Nanoseconds) {
        self.init(
            inner: inner,
            service: SimService(
                "metadata", scheduler: scheduler, latency: latency...latency, faults: .none),
            origin: nil, ledger: nil)
    }

    func perform<Value: Sendable>(
        mayHaveEffect: Bool, key: String? = nil,
        _ operation: @escaping (MemoryMetadata) async throws(MetadataError) -> Value
    ) async throws(MetadataError) -> Value {
        let inner = inner
        return try await service.request(
            from: origin, key: key, mayHaveEffect: mayHaveEffect,
            failure: { fate in
                MetadataError(
                    .unavailable, outcomeUnknown: fate == .unknown && mayHaveEffect, "simulated")
            },
            {
                do throws(MetadataError) {
                    return .success(try await operation(inner))
                } catch {
                    return .failure(error)
                }
            })
    }

    package func createBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.createBasin(request)
        }
    }

    package func ensureBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.ensureBasin(request)
        }
    }

    package func basin(_ name: String) async throws(MetadataError) -> Basin? {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.basin(name)
        }
    }

    package func listBasins(
        prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Basin> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.listBasins(prefix: prefix, startAfter: startAfter, limit: limit)
        }
    }

    package func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) async throws(MetadataError) -> Basin? {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.updateBasin(name, version: version, config: config)
        }
    }

    package func deleteBasin(_ name: String) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.deleteBasin(name)
        }
    }

    package func createStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.createStream(request)
        }
    }

    package func ensureStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.ensureStream(request)
        }
    }

    package func stream(basin: String, name: String) async throws(MetadataError) -> StreamLookup? {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.stream(basin: basin, name: name)
        }
    }

    package func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup? {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.stream(id)
        }
    }

    package func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Stream> {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.listStreams(
                basin: basin, prefix: prefix, startAfter: startAfter, limit: limit)
        }
    }

    package func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) async throws(MetadataError) -> StreamLookup? {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.updateStream(id, version: version, config: config)
        }
    }

    package func deleteStream(
        basin: String, name: String
    ) async throws(MetadataError) -> StreamLookup? {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.deleteStream(basin: basin, name: name)
        }
    }

    package func registerChannel(
        _ registration: ChannelRegistration
    ) async throws(MetadataError) -> ChannelID {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.registerChannel(registration)
        }
    }

    package func renewChannel(
        _ id: ChannelID, load: ChannelLoad
    ) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.renewChannel(id, load: load)
        }
    }

    package func channels(_ states: Set<ChannelState>) async throws(MetadataError) -> [ChannelRow] {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.channels(states)
        }
    }

    package func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow? {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.channel(id)
        }
    }

    package func declareDead(
        _ id: ChannelID, renewals: UInt64
    ) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.declareDead(id, renewals: renewals)
        }
    }

    package func resignChannel(_ id: ChannelID) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.resignChannel(id)
        }
    }

    package func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.publishSeal(id, sealedAt: sealedAt, flushedEnd: flushedEnd)
        }
    }

    package func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool {
        try await perform(mayHaveEffect: true) { [ledger] store throws(MetadataError) in
            let isRetired = try await store.retireChannel(id)
            if isRetired { ledger?.retired(id) }
            return isRetired
        }
    }

    package func claim(
        _ stream: StreamID, channel: ChannelID
    ) async throws(MetadataError) -> ClaimResult {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.claim(stream, channel: channel)
        }
    }

    package func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult {
        try await perform(mayHaveEffect: true, key: SimService.flushKey) {
            [ledger] store throws(MetadataError) in
            let result = try await store.flush(flush)
            if result == .done { await ledger?.flushed(flush) }
            return result
        }
    }

    package func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet] {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.streamlets(of: channel, states)
        }
    }

    package func streamlets(
        of stream: StreamID, before: StreamletNumber?, limit: Int
    ) async throws(MetadataError) -> [Streamlet] {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.streamlets(of: stream, before: before, limit: limit)
        }
    }

    package func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage {
        try await perform(mayHaveEffect: false) { store throws(MetadataError) in
            try await store.segments(of: stream, from: start, limit: limit)
        }
    }

    package func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.holdLease(name, holder: holder, stale: stale)
        }
    }

    package func releaseLease(_ name: String, holder: String) async throws(MetadataError) {
        try await perform(mayHaveEffect: true) { store throws(MetadataError) in
            try await store.releaseLease(name, holder: holder)
        }
    }
}
