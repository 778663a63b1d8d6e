// SPDX-License-Identifier: Apache-2.0

import Metadata
import Postgres
import PostgresSupport
import Primitives
import Records
import Synchronization
import Testing

/// What the conformance suite runs against.
enum Backend: CaseIterable, Sendable {
    case memory, postgres

    func with(_ body: (any MetadataStore) async throws -> Void) async throws {
        switch self {
        case .memory:
            let clock = Mutex(UInt64(1_000))
            try await body(
                MemoryMetadata {
                    clock.withLock {
                        $0 += 1
                        return $0
                    }
                })
        case .postgres: try await TestDatabase.with { metadata, _ in try await body(metadata) }
        }
    }
}

@Suite(.serialized) struct Conformance {}

let u64Max = UInt64.max

func streamID(_ low: UInt64) -> StreamID { StreamID(ID128(high: 0xFEDC_BA98_7654_3210, low: low)) }

func expectError<Value>(
    _ kind: MetadataError.Kind, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Value
) async {
    do {
        let value = try await body()
        Issue.record("no error but \(value)", sourceLocation: sourceLocation)
    } catch let error as MetadataError {
        #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
        #expect(!error.outcomeUnknown, sourceLocation: sourceLocation)
    } catch {
        Issue.record(error, sourceLocation: sourceLocation)
    }
}

extension BasinConfig {
    static var full: BasinConfig {
        var config = BasinConfig()
        config.defaultStreamConfig.storageClass = "standard \"quoted\\\" \u{1} ü"
        config.defaultStreamConfig.retention = .age(seconds: u64Max)
        config.defaultStreamConfig.timestampingMode = .clientRequire
        config.defaultStreamConfig.timestampingUncapped = true
        config.defaultStreamConfig.deleteOnEmptyMinAgeSeconds = u64Max
        config.streamCipher = .aes256GCM
        config.createStreamOnAppend = true
        config.createStreamOnRead = true
        return config
    }
}

extension MetadataStore {
    @discardableResult
    func addBasin(
        _ name: String = "basin-one", config: BasinConfig = BasinConfig(), key: String? = nil
    ) async throws -> Basin {
        try await createBasin(
            BasinCreation(name: name, config: config, location: nil, creationKey: key)
        ).resource
    }

    @discardableResult
    func addStream(
        _ low: UInt64, basin: String = "basin-one", name: String? = nil,
        wish: StreamConfigWish = StreamConfigWish(), key: String? = nil
    ) async throws -> Stream {
        try await createStream(
            StreamCreation(
                id: streamID(low), basin: basin, name: name ?? "stream-\(low)", wish: wish,
                creationKey: key)
        ).resource
    }

    func addChannel(_ address: String = "127.0.0.1:7400") async throws -> ChannelID {
        try await registerChannel(
            ChannelRegistration(storageClass: "express", zone: "a", address: address))
    }

    /// A basin, a stream, a channel, and the stream claimed by it.
    func addOwnedStream(_ low: UInt64 = 1) async throws -> (StreamID, ChannelID) {
        try await addBasin()
        let stream = try await addStream(low)
        let channel = try await addChannel()
        let claim = try await claim(stream.id, channel: channel)
        #expect(claim == .claimed(0, stream))
        return (stream.id, channel)
    }

    func kill(_ channel: ChannelID, sealedAt: ChunkIndex) async throws {
        let row = try #require(try await self.channel(channel))
        #expect(try await declareDead(channel, renewals: row.renewals))
        #expect(
            try await publishSeal(channel, sealedAt: sealedAt, flushedEnd: row.flushedEnd))
    }
}

func segment(
    _ stream: StreamID, _ range: Range<SeqNum>, timestamps: ClosedRange<UInt64>? = nil
) -> SegmentRow {
    let timestamps = timestamps ?? range.lowerBound...(range.upperBound - 1)
    return SegmentRow(
        stream: stream,
        start: StreamPosition(seqNum: range.lowerBound, timestamp: timestamps.lowerBound),
        endSeqNum: range.upperBound, lastTimestamp: timestamps.upperBound, bucket: "bucket-1",
        object: "seg/00/\(range.lowerBound) \"it's\" \\ {ü}", offset: u64Max, length: 17,
        meteredBytes: 3, checksum: UInt32.max)
}

func state(
    _ tail: SeqNum, timestamp: UInt64? = nil, token: String = "", at position: SeqNum = 0,
    trim: SeqNum = 0
) -> StreamState {
    StreamState(
        tail: StreamPosition(seqNum: tail, timestamp: timestamp ?? (tail == 0 ? 0 : tail - 1)),
        fencingToken: token, fencingTokenPosition: position, trimPoint: trim)
}

/// One part with one segment for all of `range`.
func part(
    _ stream: StreamID, number: StreamletNumber = 0, _ range: Range<SeqNum>,
    closes: Bool = false, state newState: StreamState? = nil
) -> Flush.Part {
    Flush.Part(
        stream: stream, streamlet: number, from: range.lowerBound,
        state: newState ?? state(range.upperBound), closes: closes,
        segments: range.isEmpty ? [] : [segment(stream, range)])
}

func flush(
    _ channel: ChannelID, _ parts: [Flush.Part], to flushedEnd: ChunkIndex, recovery: Bool = false
) -> Flush {
    Flush(channel: channel, isRecovery: recovery, parts: parts, flushedEnd: flushedEnd)
}
