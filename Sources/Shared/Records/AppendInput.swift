// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// A record to be appended, in memory: for clients.
package struct AppendRecord: Sendable, Hashable {
    package var timestamp: TimestampMillis?
    package var headers: [RecordHeader]
    package var body: Bytes

    package init(
        timestamp: TimestampMillis? = nil, headers: [RecordHeader] = [], body: Bytes = Bytes()
    ) {
        self.timestamp = timestamp
        self.headers = headers
        self.body = body
    }
}

extension ByteWriter {
    /// `AppendInput` as protobuf, in canonical form.
    package mutating func writeAppendInput(
        _ records: [AppendRecord], _ conditions: AppendConditions = .none
    ) {
        for record in records { write(record) }
        if let match = conditions.matchSeqNum {
            write(UInt8(0x10))
            writeVarint(match)
        }
        if let token = conditions.fencingToken { writeField(0x1A, Bytes(utf8: token)) }
    }

    private mutating func write(_ record: AppendRecord) {
        let headers = record.headers.map { header in
            Self.fieldBytes(header.name) + Self.fieldBytes(header.value)
        }
        var length = Self.fieldBytes(record.body)
        if let timestamp = record.timestamp { length += 1 + Varint.length(timestamp) }
        for header in headers { length += 1 + Varint.length(UInt64(header)) + header }
        write(UInt8(0x0A))
        writeVarint(UInt64(length))
        if let timestamp = record.timestamp {
            write(UInt8(0x08))
            writeVarint(timestamp)
        }
        for (header, bytes) in zip(record.headers, headers) {
            write(UInt8(0x12))
            writeVarint(UInt64(bytes))
            if !header.name.isEmpty { writeField(0x0A, header.name) }
            if !header.value.isEmpty { writeField(0x12, header.value) }
        }
        if !record.body.isEmpty { writeField(0x1A, record.body) }
    }

    private static func fieldBytes(_ bytes: Bytes) -> Int {
        bytes.isEmpty ? 0 : 1 + Varint.length(UInt64(bytes.count)) + bytes.count
    }

    private mutating func writeField(_ tag: UInt8, _ bytes: Bytes) {
        write(tag)
        writeVarint(UInt64(bytes.count))
        write(bytes)
    }
}
