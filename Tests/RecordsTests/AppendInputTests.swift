// SPDX-License-Identifier: Apache-2.0

import Primitives
import Records
import TestSupport
import Testing

@Suite struct AppendInputTests {
    private func invalid(_ input: Naive.Input) -> String? {
        do {
            _ = try AppendInputDecoder.decode(Bytes(Naive.canonical(input)))
            return nil
        } catch AppendInputError.invalid(let what) {
            #expect(!Naive.isValid(input))
            // The builder refuses the same, in the same words.
            do {
                _ = try build(input)
                Issue.record("the builder accepts what the decoder refuses: \(what)")
            } catch {
                #expect(error == .invalid(what))
            }
            return what
        } catch {
            Issue.record("\(error)")
            return nil
        }
    }

    private func build(_ input: Naive.Input) throws(AppendInputError) -> PreparedBatch {
        var builder = PreparedBatchBuilder()
        for record in input.records {
            try builder.add(
                timestamp: record.timestamp, headers: record.memory, body: Bytes(record.body))
        }
        return try builder.finish(
            AppendConditions(matchSeqNum: input.match, fencingToken: input.token))
    }

    @Test func workedExamples() throws {
        let one = try AppendInputDecoder.decode(hex("0A 07 1A 05 68 65 6C 6C 6F"))
        #expect(one.count == 1)
        #expect(one.meteredBytes == 13)
        #expect(one.conditions == .none)
        #expect(
            one.records
                == hex(
                    "07000000 0D000000 0000000000000000 22 05 68 65 6C 6C 6F"))
        let two = try AppendInputDecoder.decode(
            hex(
                """
                0A 07 1A 05 68 65 6C 6C 6F 0A 13 08 80 D0 95 FF BC 31 12 06 0A 01 6B 12 01 76 1A
                02 68 69 10 00 1A 01 74
                """))
        #expect(two.count == 2)
        #expect(two.meteredBytes == 13 + 14)
        #expect(two.conditions == AppendConditions(matchSeqNum: 0, fencingToken: "t"))
        let records = Array(try PreparedRecords(two))
        #expect(records.map(\.timestamp) == [nil, 1_700_000_000_000])
        let commands = try AppendInputDecoder.decode(
            hex(
                """
                0A 12 12 06 12 04 74 72 69 6D 1A 08 00 00 00 00 00 00 00 02
                0A 0E 12 07 12 05 66 65 6E 63 65 1A 03 74 6F 6B
                """))
        #expect(commands.meteredBytes == 22 + 18)
        let prepared = try PreparedRecords(commands)
        #expect(prepared.hasCommands)
        #expect(
            try prepared.map { try Command(storedFields: prepared.fields(of: $0)) }
                == [.trim(below: 2), .fence(token: "tok")])
    }

    @Test func theWriterWritesTheWorkedExamples() {
        var writer = ByteWriter()
        writer.writeAppendInput(
            [
                AppendRecord(body: Bytes(utf8: "hello")),
                AppendRecord(
                    timestamp: 1_700_000_000_000,
                    headers: [RecordHeader(name: Bytes(utf8: "k"), value: Bytes(utf8: "v"))],
                    body: Bytes(utf8: "hi")),
            ], AppendConditions(matchSeqNum: 0, fencingToken: "t"))
        #expect(
            writer.finish()
                == hex(
                    """
                    0A 07 1A 05 68 65 6C 6C 6F 0A 13 08 80 D0 95 FF BC 31 12 06 0A 01 6B 12 01 76 1A
                    02 68 69 10 00 1A 01 74
                    """))
    }

    @Test(arguments: 0..<40 as Range<UInt64>)
    func anyFormGivesTheSameBatch(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        for _ in 0..<10 {
            let input = Naive.input(&random)
            guard Naive.isValid(input) else { continue }
            let canonical = Naive.canonical(input)
            let expected = PreparedBatch(
                count: input.records.count,
                meteredBytes: input.records.reduce(0) { $0 + $1.metered },
                records: Bytes(Naive.prepared(input)),
                conditions: AppendConditions(matchSeqNum: input.match, fencingToken: input.token))
            #expect(try AppendInputDecoder.decode(Bytes(canonical)) == expected)
            #expect(try build(input) == expected)
            let odd = Naive.odd(input, &random)
            #expect(try AppendInputDecoder.decode(Bytes(odd)) == expected, "\(odd)")
            var writer = ByteWriter()
            writer.writeAppendInput(
                input.records.map {
                    AppendRecord(
                        timestamp: $0.timestamp, headers: $0.memory, body: Bytes($0.body))
                }, expected.conditions)
            #expect(writer.finish().array == canonical)
        }
    }

    @Test func decodesIntoAMessage() throws {
        var random = SplitMix64(seed: 7)
        for _ in 0..<100 {
            let input = Naive.input(&random)
            guard Naive.isValid(input) else { continue }
            let bytes = Bytes(Naive.canonical(input))
            let batch = try AppendInputDecoder.decode(bytes)
            var writer = ByteWriter(capacity: 1)
            writer.write(UInt8(0xEE))
            let head = try AppendInputDecoder.decode(bytes, into: &writer)
            #expect(head == batch.head)
            var expected = ByteWriter()
            expected.write(UInt8(0xEE))
            let flags: UInt8 = (input.match == nil ? 0 : 1) + (input.token == nil ? 0 : 2)
            expected.write(flags)
            expected.write(UInt32(batch.count))
            expected.write(UInt32(batch.meteredBytes))
            expected.write(UInt32(batch.records.count))
            if let match = input.match { expected.write(match) }
            if let token = input.token { expected.writeText(token) }
            expected.write(batch.records)
            #expect(writer.finish() == expected.finish())
        }
        var writer = ByteWriter()
        #expect(throws: AppendInputError.self) {
            try AppendInputDecoder.decode(hex("0A 05 1A"), into: &writer)
        }
        #expect(writer.count == 0)
    }

    @Test func presenceMatters() throws {
        let absent = try AppendInputDecoder.decode(hex("0A 00"))
        #expect(absent.conditions == .none)
        #expect(try Array(PreparedRecords(absent)).map(\.timestamp) == [nil])
        let present = try AppendInputDecoder.decode(hex("0A 02 08 00 10 00 1A 00"))
        #expect(present.conditions == AppendConditions(matchSeqNum: 0, fencingToken: ""))
        #expect(try Array(PreparedRecords(present)).map(\.timestamp) == [0])
    }

    @Test func canonicalises() throws {
        func fields(_ text: String) throws -> Bytes {
            let record = hex(text).array
            let batch = try AppendInputDecoder.decode(Bytes(Naive.field(1, record)))
            return batch.records.dropFirst(PreparedBatch.prefixBytes)
        }
        #expect(try fields("1A 00") == Bytes())
        #expect(try fields("1A 01 61 1A 01 62") == hex("22 01 62"))
        #expect(try fields("1A 81 00 61") == hex("22 01 61"))
        #expect(try fields("1A 01 61 12 03 0A 01 6B") == hex("1A 03 0A 01 6B 22 01 61"))
        #expect(try fields("12 05 12 00 0A 01 6B") == hex("1A 03 0A 01 6B"))
        #expect(try fields("12 06 12 01 76 0A 01 6B") == hex("1A 06 0A 01 6B 12 01 76"))
        #expect(try fields("12 06 0A 01 61 0A 01 62") == hex("1A 03 0A 01 62"))
        #expect(try fields("20 05 2A 01 00 1A 01 61 35 00 00 00 00") == hex("22 01 61"))
        #expect(try fields("1A 01 61 08 05") == hex("22 01 61"))
    }

    @Test(arguments: [
        "0A", "0A 02 08", "0A 01", "0B", "0C", "00", "02 00", "0A 02 1A 05", "0A 02 18 05",
        "0A 01 FF", "08 01", "12 00", "18 00", "1A 01 FF", "0A 03 12 01 0A", "0A 04 12 02 08 01",
        "0A 00 0A 0B 08 FF FF FF FF FF FF FF FF FF 02", "0A 00 0F", "0A 00 23 2C",
        "0A 00 80 80 80 80 10 01", "0A FF FF FF FF FF FF FF FF FF 01 00",
    ])
    func refusesMalformed(_ text: String) {
        #expect {
            try AppendInputDecoder.decode(hex(text))
        } throws: {
            guard case .malformed? = $0 as? AppendInputError else { return false }
            return true
        }
    }

    @Test func malformedOutranksInvalid() {
        // The first record breaks a rule, the second cannot be read.
        #expect {
            try AppendInputDecoder.decode(hex("0A 04 12 02 12 00 0A 02 1A 05"))
        } throws: {
            guard case .malformed? = $0 as? AppendInputError else { return false }
            return true
        }
    }

    @Test func batchLimits() {
        let empty = Naive.Record()
        #expect(invalid(Naive.Input()) == "an append must contain at least one record")
        #expect(invalid(Naive.Input(records: Array(repeating: empty, count: 1_000))) == nil)
        #expect(
            invalid(Naive.Input(records: Array(repeating: empty, count: 1_001)))
                == "1001 records are more than 1000")
        func two(_ first: Int) -> Naive.Input {
            let size = 1_048_576 - 8 - 8 - 5
            return Naive.Input(records: [
                Naive.Record(body: Array(repeating: 1, count: size)),
                Naive.Record(body: Array(repeating: 2, count: first)),
            ])
        }
        #expect(invalid(two(5)) == nil)
        #expect(
            invalid(two(6)) == "a batch of 1048577 metered bytes is larger than 1048576")
    }

    @Test func recordLimits() {
        func body(_ count: Int) -> Naive.Input {
            Naive.Input(records: [Naive.Record(body: Array(repeating: 1, count: count))])
        }
        #expect(invalid(body(1_048_568)) == nil)
        #expect(
            invalid(body(1_048_569)) == "record 0: 1048577 metered bytes are more than 1048576")
        // Headers of two bytes take four metered and eight stored ones.
        func headers(_ count: Int, body: Int) -> Naive.Input {
            Naive.Input(records: [
                Naive.Record(
                    headers: Array(repeating: [[1], [2]], count: count),
                    body: Array(repeating: 3, count: body))
            ])
        }
        // 1 tag + 3 length + 22 numbers + 8 n + body field <= 2 097 127.
        #expect(invalid(headers(262_137, body: 3)) == nil)
        #expect(invalid(headers(262_137, body: 4))?.contains("to be read back") == true)
    }

    @Test func tokenLimits() {
        let record = Naive.Record()
        let long = String(repeating: "ü", count: 18)
        #expect(invalid(Naive.Input(records: [record], token: long)) == nil)
        #expect(
            invalid(Naive.Input(records: [record], token: long + "x"))
                == "a fencing token of 37 bytes is longer than 36")
    }

    @Test func headerAndCommandRules() {
        func one(_ headers: [(String, String)], _ body: [UInt8]) -> Naive.Input {
            let headers = headers.map { [Array($0.utf8), Array($1.utf8)] }
            return Naive.Input(
                records: [Naive.Record(), Naive.Record(headers: headers, body: body)])
        }
        let eight = [UInt8](repeating: 0, count: 8)
        #expect(invalid(one([("a", ""), ("a", "")], [])) == nil)
        #expect(
            invalid(one([("a", "b"), ("", "fence")], []))
                == "record 1: a header name must not be empty")
        #expect(invalid(one([("", "")], []))?.contains("unknown command") == true)
        #expect(invalid(one([("", "Fence")], []))?.contains("unknown command") == true)
        #expect(invalid(one([("", "trim")], eight)) == nil)
        for body in [eight.dropLast(), eight + [0], []] {
            #expect(
                invalid(one([("", "trim")], body)) == "record 1: a trim point must be 8 bytes")
        }
        #expect(invalid(one([("", "fence")], [])) == nil)
        #expect(invalid(one([("", "fence")], Array(repeating: 65, count: 36))) == nil)
        #expect(
            invalid(one([("", "fence")], Array(repeating: 65, count: 37)))
                == "record 1: a fencing token of 37 bytes is longer than 36")
        #expect(invalid(one([("", "fence")], [0xFF])) == "record 1: a fencing token must be UTF-8")
    }

    @Test func truncatedAnywhere() {
        var random = SplitMix64(seed: 3)
        var input = Naive.input(&random, records: 3)
        input.records = input.records.map {
            var record = $0
            record.body = Array(record.body.prefix(40))
            return record
        }
        for bytes in [Naive.canonical(input), Naive.odd(input, &random)] {
            for length in bytes.indices { compare(Array(bytes.prefix(length))) }
        }
    }

    @Test func fuzz() {
        var random = SplitMix64(seed: 11)
        for round in 0..<fuzzIterations {
            let input = Naive.input(&random, records: 3)
            var bytes =
                round % 2 == 0 ? Naive.canonical(input) : Naive.odd(input, &random)
            for _ in 0..<random.next() % 4 where !bytes.isEmpty {
                let at = Int(random.next() % UInt64(min(bytes.count, 400)))
                switch random.next() % 4 {
                case 0: bytes[at] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes[at] ^= 1 << UInt8(random.next() % 8)
                case 2: bytes.remove(at: at)
                default: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: at)
                }
            }
            compare(bytes)
        }
    }

    /// Both implementations must come to the same verdict, and to the same batch.
    private func compare(_ bytes: [UInt8]) {
        let verdict = Naive.judge(bytes)
        do {
            let batch = try AppendInputDecoder.decode(Bytes(bytes))
            guard case .accepted(let input) = verdict else {
                Issue.record("accepted, should be \(verdict): \(bytes)")
                return
            }
            #expect(batch.records.array == Naive.prepared(input))
            #expect(batch.count == input.records.count)
            _ = try PreparedRecords(batch)
        } catch AppendInputError.malformed {
            #expect(verdict == .malformed, "\(bytes)")
        } catch AppendInputError.invalid(let what) {
            // A token that is too long is noticed before a record is looked at.
            let early = what.contains("fencing token of")
            #expect(verdict == .invalid || (early && verdict == .malformed), "\(bytes)")
        } catch {
            Issue.record("what was decoded is refused: \(error)")
        }
    }
}
