// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

/// What `MemoryMetadata` holds: basins and streams here, channels and streamlets in
/// `MemoryState+Channels.swift`. A step that throws has changed nothing.
struct MemoryState {
    struct BasinEntry {
        var basin: Basin
        var creationKey: String?
    }

    struct StreamEntry {
        var stream: Stream
        var creationKey: String?
        /// The next streamlet's number: one is never used again, whatever becomes of its row.
        var streamletCount: StreamletNumber = 0
        /// By number.
        var tenures: [Tenure] = []
        /// By position.
        var segments: [SegmentRow] = []
    }

    struct Tenure {
        var streamlet: Streamlet
        /// Records of this streamlet below it are in segments.
        var flushedEnd: SeqNum
    }

    struct LeaseEntry {
        /// Nil while nobody has it.
        var holder: String?
        /// Never goes back, so that what a challenger saw cannot come again.
        var renewals: UInt64
    }

    var basins: [Name: BasinEntry] = [:]
    var streams: [StreamID: StreamEntry] = [:]
    var streamIDs: [StreamName: StreamID] = [:]
    var channels: [ChannelID: ChannelRow] = [:]
    var channelIDLast: UInt64 = 0
    var leases: [String: LeaseEntry] = [:]
    var housekeeping = HousekeepingState()
    var cacheys = CacheyRows()
    var terms = MemoryTerms()
    /// As channels registered it.
    var unsureMilliseconds: [ChannelID: UInt64] = [:]

    // MARK: Basins

    mutating func createBasin(
        _ request: BasinCreation, now: UInt64
    ) throws(MetadataError) -> Provisioned<Basin> {
        guard let entry = basins[Name(request.name)] else {
            return Provisioned(insertBasin(request, now: now), .created)
        }
        if entry.basin.deletedMilliseconds != nil { throw MetadataError(.deletionPending) }
        guard let key = request.creationKey, key == entry.creationKey else {
            throw MetadataError(.alreadyExists)
        }
        return Provisioned(entry.basin, .noop)
    }

    mutating func ensureBasin(
        _ request: BasinCreation, now: UInt64
    ) throws(MetadataError) -> Provisioned<Basin> {
        guard let basin = basins[Name(request.name)]?.basin else {
            return Provisioned(insertBasin(request, now: now), .created)
        }
        if basin.deletedMilliseconds != nil { throw MetadataError(.deletionPending) }
        if let location = request.location, location != basin.location {
            throw MetadataError(.conflict, "the basin's location is another")
        }
        if basin.config == request.config { return Provisioned(basin, .noop) }
        return Provisioned(replaceConfig(of: basin, with: request.config), .updated)
    }

    mutating func updateBasin(
        _ name: String, version: UInt64, config: BasinConfig
    ) throws(MetadataError) -> Basin? {
        guard let basin = basins[Name(name)]?.basin else { return nil }
        if basin.deletedMilliseconds != nil { throw MetadataError(.deletionPending) }
        guard basin.version == version else { return nil }
        return basin.config == config ? basin : replaceConfig(of: basin, with: config)
    }

    mutating func deleteBasin(_ name: String, now: UInt64) -> Bool {
        guard let basin = basins[Name(name)]?.basin else { return false }
        basins[Name(name)]?.basin.deletedMilliseconds = basin.deletedMilliseconds ?? now
        return true
    }

    func listBasins(prefix: String, startAfter: String, limit: Int) -> Page<Basin> {
        page(
            basins.map { ($0.key, $0.value.basin) }, prefix: prefix, startAfter: startAfter,
            limit: limit)
    }

    private mutating func insertBasin(_ request: BasinCreation, now: UInt64) -> Basin {
        let basin = Basin(
            name: request.name, config: request.config, version: 1, location: request.location,
            createdMilliseconds: now, deletedMilliseconds: nil)
        basins[Name(request.name)] = BasinEntry(basin: basin, creationKey: request.creationKey)
        return basin
    }

    private mutating func replaceConfig(of basin: Basin, with config: BasinConfig) -> Basin {
        var basin = basin
        basin.config = config
        basin.version += 1
        basins[Name(basin.name)]?.basin = basin
        return basin
    }

    // MARK: Streams

    mutating func createStream(
        _ request: StreamCreation, now: UInt64
    ) throws(MetadataError) -> Provisioned<Stream> {
        let basin = try liveBasin(request.basin)
        guard let entry = streamIDs[StreamName(request)].flatMap({ streams[$0] }) else {
            return Provisioned(try insertStream(request, in: basin, now: now), .created)
        }
        if entry.stream.deletedMilliseconds != nil { throw MetadataError(.deletionPending) }
        guard let key = request.creationKey, key == entry.creationKey else {
            throw MetadataError(.alreadyExists)
        }
        return Provisioned(entry.stream, .noop)
    }

    mutating func ensureStream(
        _ request: StreamCreation, now: UInt64
    ) throws(MetadataError) -> Provisioned<Stream> {
        let basin = try liveBasin(request.basin)
        guard let stream = streamIDs[StreamName(request)].flatMap({ streams[$0]?.stream }) else {
            return Provisioned(try insertStream(request, in: basin, now: now), .created)
        }
        if stream.deletedMilliseconds != nil { throw MetadataError(.deletionPending) }
        let config = StreamConfig(
            resolving: request.wish, over: basin.config.defaultStreamConfig)
        if stream.config == config { return Provisioned(stream, .noop) }
        return Provisioned(replaceConfig(of: stream, with: config), .updated)
    }

    mutating func updateStream(
        _ id: StreamID, version: UInt64, config: StreamConfig
    ) throws(MetadataError) -> StreamLookup? {
        guard let entry = streams[id] else { return nil }
        _ = try liveBasin(entry.stream.basin)
        if entry.stream.deletedMilliseconds != nil { throw MetadataError(.deletionPending) }
        guard entry.stream.version == version else { return nil }
        if entry.stream.config != config { _ = replaceConfig(of: entry.stream, with: config) }
        return streams[id].map(lookup)
    }

    mutating func deleteStream(
        basin: String, name: String, now: UInt64
    ) throws(MetadataError) -> StreamLookup? {
        guard let stream = try stream(basin: basin, name: name)?.stream else { return nil }
        streams[stream.id]?.stream.deletedMilliseconds = stream.deletedMilliseconds ?? now
        return streams[stream.id].map(lookup)
    }

    func stream(basin: String, name: String) throws(MetadataError) -> StreamEntry? {
        if basins[Name(basin)] == nil { throw MetadataError(.basinNotFound) }
        return streamIDs[StreamName(basin: basin, name: name)].flatMap { streams[$0] }
    }

    func listStreams(
        basin: String, prefix: String, startAfter: String, limit: Int
    ) throws(MetadataError) -> Page<Stream> {
        if basins[Name(basin)] == nil { throw MetadataError(.basinNotFound) }
        let home = Name(basin)
        let ofBasin = streamIDs.filter { $0.key.basin == home }
        let named = ofBasin.compactMap { name, id in streams[id].map { (name.name, $0.stream) } }
        return page(named, prefix: prefix, startAfter: startAfter, limit: limit)
    }

    func lookup(_ entry: StreamEntry) -> StreamLookup {
        let open = entry.tenures.first { $0.streamlet.state == .open }
        return StreamLookup(stream: entry.stream, owner: open.flatMap { owner($0.streamlet) })
    }

    func owner(_ streamlet: Streamlet) -> Owner? {
        channels[streamlet.channel].map { channel in
            Owner(
                streamlet: streamlet.number, channel: channel.id, address: channel.address,
                channelIsActive: channel.state == .active)
        }
    }

    func segments(of id: StreamID, from start: ReadStart, limit: Int) -> SegmentPage {
        guard let entry = streams[id] else {
            return SegmentPage(lookup: nil, segments: [], hasMore: false)
        }
        let wanted = entry.segments.drop { segment in
            switch start {
            case .seqNum(let seqNum): segment.endSeqNum <= seqNum
            case .timestamp(let timestamp): segment.lastTimestamp < timestamp
            }
        }
        return SegmentPage(
            lookup: lookup(entry), segments: Array(wanted.prefix(limit)),
            hasMore: wanted.count > limit)
    }

    private func liveBasin(_ name: String) throws(MetadataError) -> Basin {
        guard let basin = basins[Name(name)]?.basin else { throw MetadataError(.basinNotFound) }
        if basin.deletedMilliseconds != nil { throw MetadataError(.basinDeletionPending) }
        return basin
    }

    private mutating func insertStream(
        _ request: StreamCreation, in basin: Basin, now: UInt64
    ) throws(MetadataError) -> Stream {
        if streams[request.id] != nil { throw MetadataError(.failed, "the stream's id is taken") }
        let stream = Stream(
            id: request.id, basin: request.basin, name: request.name,
            config: StreamConfig(resolving: request.wish, over: basin.config.defaultStreamConfig),
            version: 1, cipher: basin.config.streamCipher, state: .initial,
            createdMilliseconds: now, deletedMilliseconds: nil)
        streams[request.id] = StreamEntry(stream: stream, creationKey: request.creationKey)
        streamIDs[StreamName(request)] = request.id
        return stream
    }

    private mutating func replaceConfig(of stream: Stream, with config: StreamConfig) -> Stream {
        var stream = stream
        stream.config = config
        stream.version += 1
        streams[stream.id]?.stream = stream
        return stream
    }
}

/// Names are bytes. Swift's `String` takes two spellings of one text for equal; Postgres does not.
struct Name: Hashable, Comparable {
    let bytes: [UInt8]
    init(_ text: String) { bytes = Array(text.utf8) }
    static func < (a: Name, b: Name) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }
}

struct StreamName: Hashable {
    let basin: Name
    let name: Name
    init(basin: String, name: String) { (self.basin, self.name) = (Name(basin), Name(name)) }
    init(_ request: StreamCreation) { self.init(basin: request.basin, name: request.name) }
}

private func page<Item>(
    _ named: [(Name, Item)], prefix: String, startAfter: String, limit: Int
) -> Page<Item> {
    let (prefix, startAfter) = (Name(prefix), Name(startAfter))
    let matches = named.filter { $0.0.bytes.starts(with: prefix.bytes) && $0.0 > startAfter }
    let sorted = matches.sorted { $0.0 < $1.0 }.map(\.1)
    return Page(Array(sorted.prefix(limit)), hasMore: sorted.count > limit)
}
