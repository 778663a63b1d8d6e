// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records
internal import Synchronization

/// The metadata of a cell in memory: the specification that Postgres is tested against, and the
/// simulator's durable fake.
///
/// Every operation is one step under one lock, so the order of calls is the order of effects. It
/// has no clock and no randomness of its own: the same calls give the same answers. It outlives
/// the simulated processes, and fails only where the contract says so; lost replies and late
/// effects are for the simulator to put around it.
package final class MemoryMetadata: MetadataStore {
    private let state = Mutex(MemoryState())
    let now: @Sendable () -> UInt64

    /// `now` tells the milliseconds since the Unix epoch.
    package init(now: @escaping @Sendable () -> UInt64) { self.now = now }

    // MARK: Basins

    package func createBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try step { state throws(MetadataError) in try state.createBasin(request, now: now()) }
    }

    package func ensureBasin(
        _ request: BasinCreation
    ) async throws(MetadataError) -> Provisioned<Basin> {
        try step { state throws(MetadataError) in try state.ensureBasin(request, now: now()) }
    }

    package func basin(_ name: String) async throws(MetadataError) -> Basin? {
        step { $0.basins[Name(name)]?.basin }
    }

    package func listBasins(
        prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Basin> {
        step { $0.listBasins(prefix: prefix, startAfter: startAfter, limit: limit) }
    }

    package func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) async throws(MetadataError) -> Basin? {
        try step { state throws(MetadataError) in
            try state.updateBasin(name, version: version, config: config)
        }
    }

    package func deleteBasin(_ name: String) async throws(MetadataError) -> Bool {
        step { $0.deleteBasin(name, now: now()) }
    }

    // MARK: Streams

    package func createStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try step { state throws(MetadataError) in try state.createStream(request, now: now()) }
    }

    package func ensureStream(
        _ request: StreamCreation
    ) async throws(MetadataError) -> Provisioned<Stream> {
        try step { state throws(MetadataError) in try state.ensureStream(request, now: now()) }
    }

    package func stream(
        basin: String, name: String
    ) async throws(MetadataError) -> StreamLookup? {
        try step { state throws(MetadataError) in
            try state.stream(basin: basin, name: name).map(state.lookup)
        }
    }

    package func stream(_ id: StreamID) async throws(MetadataError) -> StreamLookup? {
        step { state in state.streams[id].map(state.lookup) }
    }

    package func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) async throws(MetadataError) -> Page<Stream> {
        try step { state throws(MetadataError) in
            try state.listStreams(
                basin: basin, prefix: prefix, startAfter: startAfter, limit: limit)
        }
    }

    package func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) async throws(MetadataError) -> StreamLookup? {
        try step { state throws(MetadataError) in
            try state.updateStream(id, version: version, config: config)
        }
    }

    package func deleteStream(
        basin: String, name: String
    ) async throws(MetadataError) -> StreamLookup? {
        try step { state throws(MetadataError) in
            try state.deleteStream(basin: basin, name: name, now: now())
        }
    }

    // MARK: Channels and their leases

    package func registerChannel(
        _ registration: ChannelRegistration
    ) async throws(MetadataError) -> ChannelID {
        step { $0.registerChannel(registration, now: now()) }
    }

    package func renewChannel(
        _ id: ChannelID, load: ChannelLoad
    ) async throws(MetadataError) -> Bool {
        step { $0.renewChannel(id, load: load) }
    }

    package func channels(
        _ states: Set<ChannelState>
    ) async throws(MetadataError) -> [ChannelRow] {
        step { $0.channels.values.filter { states.contains($0.state) }.sorted { $0.id < $1.id } }
    }

    package func channel(_ id: ChannelID) async throws(MetadataError) -> ChannelRow? {
        step { $0.channels[id] }
    }

    package func declareDead(
        _ id: ChannelID, renewals: UInt64
    ) async throws(MetadataError) -> Bool {
        step { $0.declareDead(id, renewals: renewals) }
    }

    package func resignChannel(_ id: ChannelID) async throws(MetadataError) {
        step { $0.resignChannel(id) }
    }

    package func publishSeal(
        _ id: ChannelID, sealedAt: ChunkIndex, flushedEnd: ChunkIndex
    ) async throws(MetadataError) -> Bool {
        try step { state throws(MetadataError) in
            try state.publishSeal(id, sealedAt: sealedAt, flushedEnd: flushedEnd)
        }
    }

    package func retireChannel(_ id: ChannelID) async throws(MetadataError) -> Bool {
        step { $0.retireChannel(id) }
    }

    // MARK: Streamlets

    package func claim(
        _ stream: StreamID, channel: ChannelID
    ) async throws(MetadataError) -> ClaimResult {
        step { $0.claim(stream, channel: channel) }
    }

    package func flush(_ flush: Flush) async throws(MetadataError) -> FlushResult {
        try step { state throws(MetadataError) in
            let result = try state.flush(flush)
            if result == .done {
                state.noteCreation(of: flush.parts.flatMap(\.segments), now: now())
            }
            return result
        }
    }

    package func streamlets(
        of channel: ChannelID, _ states: Set<StreamletState>
    ) async throws(MetadataError) -> [Streamlet] {
        step { $0.streamlets(of: channel, states) }
    }

    package func streamlets(
        of stream: StreamID, before: StreamletNumber?, limit: Int
    ) async throws(MetadataError) -> [Streamlet] {
        step { state in
            (state.streams[stream]?.tenures ?? []).reversed().map(\.streamlet)
                .filter { $0.number < before ?? .max }.prefix(limit).map(\.self)
        }
    }

    // MARK: Reading

    package func segments(
        of stream: StreamID, from start: ReadStart, limit: Int
    ) async throws(MetadataError) -> SegmentPage {
        step { $0.segments(of: stream, from: start, limit: limit) }
    }

    // MARK: Leases of the cell's singletons

    package func holdLease(
        _ name: String, holder: String, stale: UInt64?
    ) async throws(MetadataError) -> Lease {
        step { $0.holdLease(name, holder: holder, stale: stale) }
    }

    package func releaseLease(_ name: String, holder: String) async throws(MetadataError) {
        step { $0.releaseLease(name, holder: holder) }
    }

    func step<Answer: Sendable, Failure: Error>(
        _ body: (inout MemoryState) throws(Failure) -> Answer
    ) throws(Failure) -> Answer {
        try state.withLock { (state) throws(Failure) -> Answer in try body(&state) }
    }
}
