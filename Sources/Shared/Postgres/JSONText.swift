// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Records

/// Writes the JSON of small parameters; what has rows is written by `JSONRows`.
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
