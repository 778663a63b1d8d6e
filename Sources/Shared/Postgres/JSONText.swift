// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import Records

/// Writes the JSON that parameters hold: configurations, and the parts of a flush.
enum JSONText {
    /// An object of the members that are not nil. A member's value is JSON already.
    static func object(_ members: KeyValuePairs<String, String?>) -> String {
        let present = members.compactMap { key, value in value.map { "\"\(key)\":\($0)" } }
        return "{" + present.joined(separator: ",") + "}"
    }

    static func array(_ items: [String]) -> String { "[" + items.joined(separator: ",") + "]" }

    static func string(_ value: String) -> String {
        var text = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\u{0}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}

extension StreamConfigWish {
    init(_ config: StreamConfig) {
        self.init()
        storageClass = config.storageClass
        retention = config.retention
        timestampingMode = config.timestampingMode
        timestampingUncapped = config.timestampingUncapped
        deleteOnEmptyMinAgeSeconds = config.deleteOnEmptyMinAgeSeconds
    }

    /// The leaves that are set; `||` in SQL lays one such object over another.
    var json: String {
        let retained: String? =
            switch retention {
            case nil: nil
            case .infinite?: JSONText.string("infinite")
            case .age(let seconds)?: String(seconds)
            }
        return JSONText.object([
            "storage_class": storageClass.map(JSONText.string),
            "retention": retained,
            "timestamping_mode": timestampingMode.map { JSONText.string($0.rawValue) },
            "timestamping_uncapped": timestampingUncapped.map(String.init),
            "delete_on_empty": deleteOnEmptyMinAgeSeconds.map { String($0) },
        ])
    }
}

extension Flush.Part {
    var json: String {
        JSONText.object([
            "stream": JSONText.string(stream.description),
            "number": String(streamlet),
            "start": String(from),
            "seq_num": String(state.tail.seqNum),
            "timestamp": String(state.tail.timestamp),
            "token": JSONText.string(EscapedText.escape(state.fencingToken)),
            "token_position": String(state.fencingTokenPosition),
            "trim_point": String(state.trimPoint),
            "closes": String(closes),
        ])
    }
}

extension SegmentRow {
    var json: String {
        JSONText.object([
            "stream": JSONText.string(stream.description),
            "start_seq_num": String(start.seqNum),
            "start_timestamp": String(start.timestamp),
            "end_seq_num": String(endSeqNum),
            "last_timestamp": String(lastTimestamp),
            "bucket": JSONText.string(bucket),
            "object": JSONText.string(object),
            "object_offset": String(offset),
            "object_length": String(length),
            "metered_bytes": String(meteredBytes),
            "checksum": String(checksum),
        ])
    }
}
