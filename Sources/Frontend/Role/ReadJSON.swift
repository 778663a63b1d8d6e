// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// How names, values and bodies stand in JSON strings: the header `s2-format`.
enum RecordFormat: Equatable {
    /// As UTF-8; what is not UTF-8 is shown as U+FFFD.
    case raw
    case base64

    /// Errors: `bad_header`.
    init(header: String?) throws(APIError) {
        switch header.map({ String($0[...].trimmingBlanks) }) {
        case nil, "raw", "json": self = .raw
        case "base64", "json-binsafe": self = .base64
        default: throw APIError(.badHeader, "s2-format must be raw or base64")
        }
    }
}

extension JSONWriter {
    /// `ReadBatch`, of runs of whole stored records.
    mutating func writeReadBatch(
        _ runs: [Bytes], tail: StreamPosition?, format: RecordFormat
    ) throws(DecodeError) {
        beginObject()
        name("records")
        beginArray()
        for run in runs {
            var walk = StoredRecords(run)
            while let record = try walk.next() { try write(record, in: run, format) }
        }
        endArray()
        if let tail {
            name("tail")
            write(tail)
        }
        endObject()
    }

    private mutating func write(
        _ record: StoredRecord, in run: Bytes, _ format: RecordFormat
    ) throws(DecodeError) {
        beginObject()
        field("seq_num", record.seqNum)
        field("timestamp", record.timestamp)
        if record.shape.headerCount > 0 {
            name("headers")
            beginArray()
            for header in try record.headers(in: run) {
                beginArray()
                write(header.name, format)
                write(header.value, format)
                endArray()
            }
            endArray()
        }
        if !record.body.isEmpty {
            name("body")
            write(run[record.body], format)
        }
        endObject()
    }

    private mutating func write(_ bytes: Bytes, _ format: RecordFormat) {
        switch format {
        case .raw: write(lossy: bytes)
        case .base64: write(base64: bytes)
        }
    }
}
