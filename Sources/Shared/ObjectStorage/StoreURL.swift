// SPDX-License-Identifier: Apache-2.0

/// Where a cell keeps its objects, as configuration writes it.
///
/// `STORE` is the path of a folder, or
/// `s3://bucket/prefix?endpoint=http://host:port&region=eu-1&style=path`. Everything behind the
/// bucket is optional: no endpoint means AWS of that region, and the style is `virtual` there and
/// `path` elsewhere. Credentials never stand here.
package enum StoreURL: Sendable, Equatable {
    case folder(path: String)
    case s3(S3Location)

    /// Throws `.invalidRequest` and says what is wrong.
    package init(parsing text: String) throws(StoreError) {
        guard !text.isEmpty else { throw Self.bad(text, "is empty") }
        if text.hasPrefix("s3://") {
            self = .s3(try Self.location(text))
        } else if text.hasPrefix("file://") {
            self = .folder(path: String(text.dropFirst("file://".count)))
        } else if let scheme = text.firstRange(of: "://") {
            throw Self.bad(text, "has the unknown scheme \(text[..<scheme.lowerBound])")
        } else {
            self = .folder(path: text)
        }
    }

    private static func location(_ text: String) throws(StoreError) -> S3Location {
        let rest = text.dropFirst("s3://".count)
        let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts[0].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        let bucket = String(path[0])
        guard isBucketName(bucket) else { throw bad(text, "has no valid bucket name") }
        var prefix = path.count == 2 ? try decoded(path[1], in: text) : ""
        while prefix.hasSuffix("/") { prefix.removeLast() }
        if !prefix.isEmpty { try ObjectKey.validate(prefix) }

        var endpoint: String?
        var region = "us-east-1"
        var style: S3Location.Style?
        if parts.count == 2 {
            for field in parts[1].split(separator: "&") {
                let pair = field.split(separator: "=", maxSplits: 1)
                guard pair.count == 2 else { throw bad(text, "has no value for \(field)") }
                let value = try decoded(pair[1], in: text)
                switch pair[0] {
                case "endpoint": endpoint = value
                case "region": region = value
                case "style":
                    style = S3Location.Style(rawValue: value)
                    guard style != nil else { throw bad(text, "has an unknown style") }
                default: throw bad(text, "has the unknown field \(pair[0])")
                }
            }
        }
        return S3Location(
            bucket: bucket, prefix: prefix, endpoint: endpoint, region: region,
            style: style ?? (endpoint == nil ? .virtual : .path))
    }

    /// S3's rule for names, without its finer points.
    private static func isBucketName(_ name: String) -> Bool {
        (3...63).contains(name.utf8.count)
            && name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "-"), UInt8(ascii: "."):
                    true
                default: false
                }
            }
    }

    private static func decoded(_ text: Substring, in url: String) throws(StoreError) -> String {
        guard let bytes = PercentCoding.decode(text.utf8, plusIsSpace: false),
            let value = String(validating: bytes, as: UTF8.self)
        else { throw bad(url, "has a malformed percent sign") }
        return value
    }

    private static func bad(_ text: String, _ what: String) -> StoreError {
        StoreError(.invalidRequest, "the store \(text.debugDescription) \(what)")
    }
}

/// A bucket of S3, or a part of one.
package struct S3Location: Sendable, Equatable {
    package enum Style: String, Sendable {
        /// `https://host/bucket/key`
        case path
        /// `https://bucket.host/key`
        case virtual
    }
    package let bucket: String
    /// In front of every key, without the slash that follows it; empty for the whole bucket.
    package let prefix: String
    /// `http://host:port` or `https://host`; nil for AWS of the region.
    package let endpoint: String?
    package let region: String
    package let style: Style

    package init(
        bucket: String, prefix: String = "", endpoint: String?, region: String = "us-east-1",
        style: Style
    ) {
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = endpoint
        self.region = region
        self.style = style
    }
}
