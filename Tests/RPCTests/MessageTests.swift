// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import Records
import TestSupport
import Testing

/// Every message that goes over RPC comes back as it was, and its decoder bears whatever comes.
@Suite struct MessageTests {
    private let stream = StreamID(ID128(high: 0x0102_0304_0506_0708, low: 0x090A_0B0C_0D0E_0F10))
    private let tail = StreamPosition(seqNum: 12, timestamp: 1_700_000_000_000)
    private let last = StreamPosition(seqNum: .max, timestamp: .max)

    @Test func fuzzAppends() throws {
        try fuzz([
            AppendOpen(stream: stream, streamlet: 0),
            AppendOpen(stream: stream, streamlet: .max, isPatient: false),
        ])
        let records = Bytes(repeatElement(7, count: 40))
        let token = String(repeating: "ü", count: Limits.fencingTokenBytesMax / 2)
        try fuzz([
            PreparedBatch(count: 1, meteredBytes: 0, records: Bytes(), conditions: .none),
            PreparedBatch(
                count: Limits.batchRecordsMax, meteredBytes: Limits.batchMeteredBytesMax,
                records: records, conditions: AppendConditions(matchSeqNum: .max)),
            PreparedBatch(
                count: 2, meteredBytes: 30, records: records,
                conditions: AppendConditions(matchSeqNum: 0, fencingToken: "")),
            PreparedBatch(
                count: 2, meteredBytes: 30, records: records,
                conditions: AppendConditions(fencingToken: token)),
        ])
        try fuzz([
            AppendReply(start: .zero, end: tail, tail: tail),
            AppendReply(start: last, end: last, tail: last),
        ])
        #expect(
            AppendReply(start: .zero, end: tail, tail: tail).encoded().count
                == AppendReply.byteCount)
        try fuzz([
            AppendRejection.seqNumMismatch(next: 3), .seqNumMismatch(next: .max),
            .fencingTokenMismatch(current: ""), .fencingTokenMismatch(current: token),
        ])
    }

    /// What other messages stand behind in one payload is left to their decoders.
    @Test func fuzzBatchesBackToBack() throws {
        let batches = (1...3).map {
            PreparedBatch(
                count: $0, meteredBytes: $0 * 9, records: Bytes(repeatElement(1, count: $0 * 20)),
                conditions: AppendConditions(matchSeqNum: $0 == 2 ? 5 : nil))
        }
        var writer = ByteWriter()
        for batch in batches { batch.encode(into: &writer) }
        let whole = writer.finish()
        var damage = Damage(seed: 3)
        for round in 0..<fuzzIterations {
            var reader = ByteReader(round == 0 ? whole : damage.damaged(whole))
            var read: [PreparedBatch] = []
            while !reader.isAtEnd, let batch = try? PreparedBatch(decoding: &reader) {
                read.append(batch)
            }
            if round == 0 { #expect(read == batches && reader.isAtEnd) }
            #expect(byteCount(read.map(\.records)) <= reader.offset)
        }
    }

    @Test func fuzzReads() throws {
        try fuzz([TailRequest(stream: stream, streamlet: 9)])
        try fuzz([TailReply(tail: .zero), TailReply(tail: last)])
        try fuzz([
            PlanRequest(stream: stream, streamlet: 9, start: .seqNum(.max), limit: 1),
            PlanRequest(
                stream: stream, streamlet: 0, start: .timestamp(7),
                limit: PlanRequest.pointersMax),
        ])
        let pointer = ChunkPointer(
            object: "wal/00000000000000000001/00000000000000000002", bucket: "main", start: tail,
            count: 3, lastTimestamp: .max, offset: 56, length: .max)
        var far = pointer
        far.object = String(repeating: "x", count: 1_024)
        far.bucket = ""
        far.start = StreamPosition(seqNum: .max - 3, timestamp: 0)
        var end = pointer
        end.object = "o"
        end.start.seqNum = .max - 3
        try fuzz([pointer, far, end]) { #expect($0.endSeqNum >= $0.start.seqNum) }
        let replies = [0, 1, 5].map { count in
            PlanReply(
                tail: tail, flushedEnd: 4, trimPoint: 2,
                pointers: [ChunkPointer](repeating: pointer, count: count))
        }
        try fuzz(replies) { reply in _ = reply.pointers.map(\.endSeqNum) }
        #expect(throws: DecodeError.self) {
            var bytes = replies[0].encoded().array
            bytes.replaceSubrange(bytes.count - 4..<bytes.count, with: [1, 4, 0, 0])
            _ = try PlanReply(Bytes(bytes))
        }
    }

    @Test func fuzzFollows() throws {
        try fuzz([FollowRequest(stream: stream, streamlet: 9, start: .max)])
        try fuzz([
            FollowPush(
                firstSeqNum: 9, count: 3, meteredBytes: 24, tail: tail,
                records: Bytes(repeatElement(3, count: 50))),
            FollowPush(
                firstSeqNum: .max - 3, count: 3, meteredBytes: 0, tail: last, records: Bytes()),
            FollowPush(
                firstSeqNum: .max, count: 0, meteredBytes: 0, tail: last, records: Bytes()),
        ]) { push in
            #expect(push.count > 0 || push.records.isEmpty)
            #expect(push.firstSeqNum + UInt64(push.count) >= push.firstSeqNum)
        }
    }

    @Test func fuzzOwnership() throws {
        try fuzz([ActivateRequest(stream: stream)])
        try fuzz([
            ActivateReply(streamlet: 2, channel: ChannelID(1), address: "[::1]:7400"),
            ActivateReply(
                streamlet: .max, channel: ChannelID(.max),
                address: String(repeating: "a", count: 512)),
        ])
        try fuzz([
            RefreshRequest(stream: stream, version: 0, deleted: false),
            RefreshRequest(stream: stream, version: .max, deleted: true),
        ])
    }

    @Test func fuzzFetches() throws {
        let name = String(repeating: "b", count: FetchRequest.bucketNameBytesMax)
        try fuzz([
            FetchRequest(buckets: ["main"], object: "seg/00/1", range: 0..<1),
            FetchRequest(
                buckets: [String](repeating: name, count: FetchRequest.bucketsMax),
                object: String(repeating: "ü", count: FetchRequest.objectNameBytesMax / 2),
                range: FetchRequest.offsetMax - 1..<FetchRequest.offsetMax),
        ]) { request in
            #expect(!request.range.isEmpty && !request.buckets.isEmpty)
        }
        try fuzz([FetchReply(objectSize: 0), FetchReply(objectSize: .max)])
    }

    /// Whoever speaks another version is understood that far, so that many encodings mean the same.
    @Test func fuzzHellos() throws {
        try fuzz(
            PeerRole.allCases.map { role in
                Hello(
                    identity: PeerIdentity(role: role, id: .max), callWindowBytes: 1,
                    connectionWindowBytes: 1 << 30)
            }, isCanonical: false
        ) { hello in
            #expect(hello.version != Hello.currentVersion || hello.callWindowBytes > 0)
        }
    }
}
