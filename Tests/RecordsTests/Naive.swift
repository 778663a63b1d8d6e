// SPDX-License-Identifier: Apache-2.0

import Primitives
import Records

/// A second, simple-minded implementation of the formats, to compare with: arrays, no tricks.
enum Naive {
    struct Record: Equatable {
        var timestamp: UInt64?
        var headers: [[[UInt8]]] = []
        var body: [UInt8] = []

        var metered: Int {
            8 + 2 * headers.count + headers.reduce(0) { $0 + $1[0].count + $1[1].count }
                + body.count
        }
        var isCommand: Bool { headers.count == 1 && headers[0][0].isEmpty }
        var memory: [RecordHeader] {
            headers.map { RecordHeader(name: Bytes($0[0]), value: Bytes($0[1])) }
        }
    }

    struct Input: Equatable {
        var records: [Record] = []
        var match: UInt64?
        var token: String?
    }

    enum Verdict: Equatable {
        case accepted(Input)
        case malformed
        case invalid
    }

    // MARK: Writing

    static func varint(_ value: UInt64, padding: Int = 0) -> [UInt8] {
        var out: [UInt8] = []
        var rest = value
        repeat {
            out.append(UInt8(rest & 127))
            rest >>= 7
        } while rest > 0
        for _ in 0..<max(0, min(padding, 10 - out.count)) { out.append(0) }
        for i in out.indices.dropLast() { out[i] |= 128 }
        return out
    }

    static func field(_ number: UInt64, _ value: UInt64, padding: Int = 0) -> [UInt8] {
        varint(number << 3) + varint(value, padding: padding)
    }

    static func field(_ number: UInt64, _ bytes: [UInt8], padding: Int = 0) -> [UInt8] {
        varint(number << 3 | 2) + varint(UInt64(bytes.count), padding: padding) + bytes
    }

    static func fields(_ record: Record, headers: UInt64, body: UInt64) -> [UInt8] {
        var out: [UInt8] = []
        for header in record.headers {
            out += field(
                headers,
                (header[0].isEmpty ? [] : field(1, header[0]))
                    + (header[1].isEmpty ? [] : field(2, header[1])))
        }
        return out + (record.body.isEmpty ? [] : field(body, record.body))
    }

    static func canonical(_ input: Input) -> [UInt8] {
        var out: [UInt8] = []
        for record in input.records {
            let time = record.timestamp.map { field(1, $0) } ?? []
            out += field(1, time + fields(record, headers: 2, body: 3))
        }
        if let match = input.match { out += field(2, match) }
        if let token = input.token { out += field(3, Array(token.utf8)) }
        return out
    }

    static func stored(_ record: Record, seqNum: UInt64, timestamp: UInt64) -> [UInt8] {
        field(
            1,
            (seqNum == 0 ? [] : field(1, seqNum)) + (timestamp == 0 ? [] : field(2, timestamp))
                + fields(record, headers: 3, body: 4))
    }

    static func prepared(_ input: Input) -> [UInt8] {
        func little(_ value: UInt64, _ bytes: Int) -> [UInt8] {
            (0..<bytes).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        }
        var out: [UInt8] = []
        for record in input.records {
            let fields = fields(record, headers: 3, body: 4)
            let flags: UInt64 =
                (record.isCommand ? 1 << 31 : 0) | (record.timestamp == nil ? 0 : 1 << 30)
            out += little(UInt64(fields.count), 4)
            out += little(UInt64(record.metered) | flags, 4)
            out += little(record.timestamp ?? 0, 8)
            out += fields
        }
        return out
    }

    // MARK: Reading

    struct Malformed: Error {}

    struct Field {
        var number: UInt64
        var wire: Int
        var value: [UInt8]
        var n: UInt64
    }

    static func parse(_ bytes: [UInt8]) throws -> [Field] {
        var out: [Field] = []
        var at = 0
        func number() throws -> UInt64 {
            var value: UInt64 = 0
            for i in 0..<10 {
                guard at < bytes.count else { throw Malformed() }
                let byte = bytes[at]
                at += 1
                if i == 9 && byte > 1 { throw Malformed() }
                value |= UInt64(byte & 127) << UInt64(7 * i)
                if byte < 128 { return value }
            }
            throw Malformed()
        }
        func skip(_ wire: Int, _ group: UInt64, _ depth: Int) throws -> (Range<Int>, UInt64) {
            switch wire {
            case 0: return (at..<at, try number())
            case 1, 5:
                let count = wire == 1 ? 8 : 4
                guard bytes.count - at >= count else { throw Malformed() }
                at += count
                return (at..<at, 0)
            case 2:
                let length = try number()
                guard length <= UInt64(bytes.count - at) else { throw Malformed() }
                at += Int(length)
                return (at - Int(length)..<at, 0)
            case 3:
                guard depth <= 100 else { throw Malformed() }
                while true {
                    let tag = try number()
                    guard tag >= 8, tag <= UInt64(UInt32.max) else { throw Malformed() }
                    if tag & 7 == 4 {
                        guard tag >> 3 == group else { throw Malformed() }
                        return (at..<at, 0)
                    }
                    _ = try skip(Int(tag & 7), tag >> 3, depth + 1)
                }
            default: throw Malformed()
            }
        }
        while at < bytes.count {
            let tag = try number()
            guard tag >= 8, tag <= UInt64(UInt32.max) else { throw Malformed() }
            let (range, n) = try skip(Int(tag & 7), tag >> 3, 1)
            out.append(
                Field(number: tag >> 3, wire: Int(tag & 7), value: Array(bytes[range]), n: n))
        }
        return out
    }

    static func judge(_ bytes: [UInt8]) -> Verdict {
        var input = Input()
        do {
            for field in try parse(bytes) {
                switch field.number {
                case 1:
                    guard field.wire == 2 else { throw Malformed() }
                    input.records.append(try record(field.value))
                case 2:
                    guard field.wire == 0 else { throw Malformed() }
                    input.match = field.n
                case 3:
                    guard field.wire == 2, let text = String(validating: field.value, as: UTF8.self)
                    else { throw Malformed() }
                    input.token = text
                default: break
                }
            }
        } catch {
            return .malformed
        }
        return isValid(input) ? .accepted(input) : .invalid
    }

    private static func record(_ bytes: [UInt8]) throws -> Record {
        var record = Record()
        for field in try parse(bytes) {
            switch field.number {
            case 1:
                guard field.wire == 0 else { throw Malformed() }
                record.timestamp = field.n
            case 2:
                guard field.wire == 2 else { throw Malformed() }
                var header: [[UInt8]] = [[], []]
                for part in try parse(field.value) where part.number <= 2 {
                    guard part.wire == 2 else { throw Malformed() }
                    header[Int(part.number) - 1] = part.value
                }
                record.headers.append(header)
            case 3:
                guard field.wire == 2 else { throw Malformed() }
                record.body = field.value
            default: break
            }
        }
        return record
    }

    static func isValid(_ input: Input) -> Bool {
        guard (1...1_000).contains(input.records.count),
            input.records.reduce(0, { $0 + $1.metered }) <= 1_048_576,
            (input.token ?? "").utf8.count <= 36
        else { return false }
        return input.records.allSatisfy { record in
            if record.isCommand {
                switch record.headers[0][1] {
                case Array("fence".utf8):
                    return record.body.count <= 36
                        && String(validating: record.body, as: UTF8.self) != nil
                case Array("trim".utf8): return record.body.count == 8
                default: return false
                }
            }
            return record.headers.allSatisfy { !$0[0].isEmpty }
                && stored(record, seqNum: .max, timestamp: .max).count + 1 + 24 <= 2_097_152
        }
    }

    // MARK: Making things up

    static func bytes(_ count: Int, _ random: inout SplitMix64) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    static func number(_ random: inout SplitMix64) -> UInt64 {
        random.next() >> (random.next() % 64)
    }

    static func record(_ random: inout SplitMix64) -> Record {
        var record = Record()
        if random.next() % 2 == 0 { record.timestamp = number(&random) }
        switch random.next() % 8 {
        case 0:
            record.headers = [[[], Array("fence".utf8)]]
            record.body = Array("token".utf8.prefix(Int(random.next() % 6)))
        case 1:
            record.headers = [[[], Array("trim".utf8)]]
            record.body = bytes(8, &random)
        default:
            for _ in 0..<random.next() % 4 {
                record.headers.append([
                    bytes(1 + Int(random.next() % 200), &random),
                    bytes(Int(random.next() % 200), &random),
                ])
            }
            let bodyMax: UInt64 = random.next() % 8 == 0 ? 20_000 : 300
            record.body = bytes(Int(random.next() % bodyMax), &random)
        }
        return record
    }

    static func input(_ random: inout SplitMix64, records: Int = 8) -> Input {
        var input = Input()
        for _ in 0...random.next() % UInt64(records) { input.records.append(record(&random)) }
        if random.next() % 2 == 0 { input.match = number(&random) }
        if random.next() % 2 == 0 {
            input.token = ["", "t", "a token", "ü"][Int(random.next() % 4)]
        }
        return input
    }

    /// The same input in one of the many forms that protobuf allows.
    static func odd(_ input: Input, _ random: inout SplitMix64) -> [UInt8] {
        func padding() -> Int { random.next() % 3 == 0 ? Int(random.next() % 4) : 0 }
        func noise(_ number: UInt64) -> [UInt8] {
            switch random.next() % 12 {
            case 0: field(number, random.next())
            case 1: field(number, bytes(3, &random))
            case 2: varint(number << 3 | 1) + bytes(8, &random)
            case 3: varint(number << 3 | 5) + bytes(4, &random)
            case 4: varint(number << 3 | 3) + field(7, 1) + varint(number << 3 | 4)
            default: []
            }
        }
        func decoy() -> Bool { random.next() % 4 == 0 }
        var out = noise(9)
        if let match = input.match {
            if decoy() { out += field(2, 77, padding: padding()) }
            out += field(2, match, padding: padding())
        }
        for record in input.records {
            var fields = noise(15)
            func body() {
                if decoy() { fields += field(3, [1, 2, 3]) }
                if !record.body.isEmpty || decoy() || !fields.isEmpty {
                    fields += field(3, record.body, padding: padding())
                }
            }
            let bodyFirst = decoy()
            if bodyFirst { body() }
            for header in record.headers {
                var parts: [[UInt8]] = [noise(20)]
                if decoy() { parts.append(field(1, [9])) }
                parts.append(field(1, header[0], padding: padding()))
                if !header[1].isEmpty || decoy() { parts.append(field(2, header[1])) }
                if decoy() { parts.swapAt(parts.count - 1, 0) }
                // Only the last of a repeated name counts: put the true one last.
                if decoy() { parts.append(field(1, header[0])) } else { parts.append([]) }
                let trueName = parts.last?.isEmpty == true ? field(1, header[0]) : []
                fields += field(2, parts.flatMap { $0 } + trueName, padding: padding())
            }
            if let time = record.timestamp {
                if decoy() { fields += field(1, 3) }
                fields += field(1, time, padding: padding())
            }
            if !bodyFirst { body() }
            out += field(1, fields + noise(16), padding: padding())
        }
        if let token = input.token {
            if decoy() { out += field(3, Array("decoy".utf8)) }
            out += field(3, Array(token.utf8), padding: padding())
        }
        return out
    }
}

/// Bytes written as hexadecimal digits, spaces allowed.
func hex(_ text: String) -> Bytes {
    let digits = text.filter { !$0.isWhitespace }
    return Bytes(
        stride(from: 0, to: digits.count, by: 2).map { at in
            let start = digits.index(digits.startIndex, offsetBy: at)
            return UInt8(digits[start..<digits.index(start, offsetBy: 2)], radix: 16)!
        })
}
