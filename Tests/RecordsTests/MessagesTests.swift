// SPDX-License-Identifier: Apache-2.0

import Primitives
import Records
import Testing

@Suite struct MessagesTests {
    @Test func appendAck() throws {
        let ack = AppendAck(
            start: StreamPosition(seqNum: 0, timestamp: 1_700_000_000_000),
            end: StreamPosition(seqNum: 2, timestamp: 1_700_000_000_000),
            tail: StreamPosition(seqNum: 2, timestamp: 1_700_000_000_000))
        let bytes = hex(
            """
            0A 07 10 80 D0 95 FF BC 31 12 09 08 02 10 80 D0 95 FF BC 31 1A 09 08 02 10 80 D0 95
            FF BC 31
            """)
        #expect(ack.encoded() == bytes)
        #expect(try AppendAck(bytes) == ack)
        let zero = AppendAck(start: .zero, end: .zero, tail: .zero)
        #expect(zero.encoded() == hex("0A 00 12 00 1A 00"))
        #expect(try AppendAck(zero.encoded()) == zero)
        #expect(throws: DecodeError.self) { try AppendAck(bytes.prefix(bytes.count - 1)) }
    }

    @Test func readBatchTail() throws {
        func tail(_ seqNum: UInt64, _ timestamp: UInt64) -> Bytes {
            var writer = ByteWriter()
            writer.writeReadBatchTail(StreamPosition(seqNum: seqNum, timestamp: timestamp))
            return writer.finish()
        }
        #expect(tail(5, 1_000) == hex("12 05 08 05 10 E8 07"))
        #expect(tail(0, 0) == hex("12 00"))
        #expect(tail(.max, .max).count == Limits.tailFieldBytesMax)
        let empty = try ReadBatch(hex("12 00"))
        #expect(empty == ReadBatch(records: [], tail: .zero))
        #expect(try ReadBatch(Bytes()).tail == nil)
    }

    @Test func readBatch() throws {
        let bytes = hex("0A 07 10 E8 07 22 02 68 69 12 05 08 01 10 E8 07")
        #expect(
            try ReadBatch(bytes)
                == ReadBatch(
                    records: [
                        SequencedRecord(seqNum: 0, timestamp: 1_000, body: Bytes(utf8: "hi"))
                    ], tail: StreamPosition(seqNum: 1, timestamp: 1_000)))
        var builder = PreparedBatchBuilder()
        try builder.add(timestamp: nil, headers: [], body: Bytes(utf8: "hi"))
        let assigner = TimestampAssigner(
            config: .system, now: 1_000, previous: 0)
        let batch = try SequencedBatch(try builder.finish(), from: 0, timestamps: assigner)
        var writer = ByteWriter()
        writer.write(batch.stored())
        writer.writeReadBatchTail(batch.end)
        #expect(writer.finish() == bytes)
        // Any order, and unknown fields, are fine on the way in.
        let odd = try ReadBatch(hex("12 02 08 01 18 01 0A 05 22 01 61 08 07"))
        #expect(odd.tail?.seqNum == 1)
        #expect(odd.records.first?.seqNum == 7)
        for length in 1..<bytes.count where length != 9 {
            #expect(throws: DecodeError.self) { try ReadBatch(bytes.prefix(length)) }
        }
    }

    @Test func everyStoredRecordFitsAFrameWithATail() {
        let fields = Limits.storedRecordBytesMax - 22 - 4
        #expect(StoredRecord.elementBytesMax(fieldsBytes: fields) == Limits.storedRecordBytesMax)
        #expect(Limits.storedRecordBytesMax + Limits.tailFieldBytesMax + 1 == 2_097_152)
    }

    @Test(arguments: [
        ("abcdefgh", true), ("abcdefg", false), (String(repeating: "a", count: 48), true),
        (String(repeating: "a", count: 49), false), ("0bc-ef-9", true), ("-bcdefgh", false),
        ("abcdefg-", false), ("abcdefgH", false), ("abcdefg_", false), ("abcdefgü", false),
    ])
    func basinNames(_ name: String, _ isGood: Bool) {
        #expect((Names.problem(basin: name) == nil) == isGood)
    }

    @Test(arguments: [
        ("", true), ("a", true), ("a-", true), ("-", false), ("A", false),
        (String(repeating: "a", count: 49), false),
    ])
    func basinPrefixes(_ prefix: String, _ isGood: Bool) {
        #expect((Names.problem(basinPrefix: prefix) == nil) == isGood)
    }

    @Test(arguments: [
        ("a", true), ("", false), (".", false), ("..", false), ("...", true), ("a/b c ü", true),
        ("a\0", false), (String(repeating: "ü", count: 256), true),
        (String(repeating: "ü", count: 256) + "a", false),
    ])
    func streamNames(_ name: String, _ isGood: Bool) {
        #expect((Names.problem(stream: name) == nil) == isGood)
        let prefixIsGood = isGood || ["", ".", ".."].contains(name)
        #expect((Names.problem(streamPrefix: name) == nil) == prefixIsGood)
    }

    @Test func otherNames() {
        #expect(Names.problem(accessTokenID: String(repeating: "a", count: 96)) == nil)
        #expect(Names.problem(accessTokenID: String(repeating: "a", count: 97)) != nil)
        #expect(Names.problem(accessTokenID: "..") == "the access token id must not be \"..\"")
        #expect(Names.problem(accessTokenIDPrefix: "") == nil)
        #expect(Names.problem(accessTokenIDPrefix: "\0") != nil)
        #expect(Names.problem(location: "aws:us-east-1.Az") == nil)
        #expect(Names.problem(location: "") != nil)
        #expect(Names.problem(location: "a b") != nil)
        #expect(Names.problem(location: String(repeating: "a", count: 65)) != nil)
        #expect(Names.problem(requestToken: String(repeating: "a", count: 36)) == nil)
        #expect(Names.problem(requestToken: String(repeating: "a", count: 37)) != nil)
        #expect(Names.problem(fencingToken: String(repeating: "a", count: 37)) != nil)
    }
}
