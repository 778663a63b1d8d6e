// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import ObjectStorage
internal import Primitives
internal import RPC

/// A request for a range, as HTTP writes it.
struct FetchHeaders {
    enum Problem: Error, Equatable {
        case badRequest(String)
        /// The range is no single `first-last`, or lies beyond the largest object.
        case badRange(String)
    }

    let request: RangeRequest

    /// `path` begins with `/fetch/`.
    init(_ head: HTTPRequest) throws(Problem) {
        let (kind, object) = try Self.names(head.path)
        var buckets = try Self.buckets(head)
        if buckets.isEmpty { buckets = [kind] }
        guard let text = head.header("range") else {
            throw .badRequest("the Range header is missing")
        }
        let range = try Self.range(text)
        request = RangeRequest(
            buckets: buckets, object: object, range: range, deadline: try Self.deadline(head),
            isFirstPageOnly: head.method == "HEAD")
    }

    private static func names(_ path: String) throws(Problem) -> (kind: String, object: String) {
        let parts = path.dropFirst("/fetch/".count)
            .split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { throw .badRequest("the path is /fetch/{kind}/{object}") }
        let kind = try decoded(parts[0])
        let object = try decoded(parts[1])
        try check(kind, "the kind", bytesMax: FetchRequest.bucketNameBytesMax)
        do throws(StoreError) {
            try ObjectKey.validate(object)
        } catch {
            throw .badRequest(error.message)
        }
        return (kind, object)
    }

    private static func decoded(_ text: Substring) throws(Problem) -> String {
        do throws(InvalidPercentEncoding) {
            return try URI.decode(segment: text)
        } catch {
            throw .badRequest("the path is not UTF-8")
        }
    }

    private static func check(_ name: String, _ what: String, bytesMax: Int) throws(Problem) {
        let isText = name.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control }
        guard (1...bytesMax).contains(name.utf8.count), isText else {
            throw .badRequest("\(what) has 1 to \(bytesMax) bytes and no control characters")
        }
    }

    private static func buckets(_ head: HTTPRequest) throws(Problem) -> [String] {
        var buckets: [String] = []
        for (name, value) in head.headers where name == "c0-bucket" {
            let bucket = value.trimmingBlanks
            try check(bucket, "a bucket", bytesMax: FetchRequest.bucketNameBytesMax)
            if !buckets.contains(bucket) { buckets.append(bucket) }
            guard buckets.count <= FetchRequest.bucketsMax else {
                throw .badRequest("at most \(FetchRequest.bucketsMax) buckets")
            }
        }
        return buckets
    }

    /// Exactly `bytes=first-last`.
    private static func range(_ text: String) throws(Problem) -> Range<Int> {
        let text = text.trimmingBlanks
        guard text.lowercased().hasPrefix("bytes=") else { throw .badRange("a range of bytes") }
        let ends = text.dropFirst("bytes=".count)
            .split(separator: "-", omittingEmptySubsequences: false)
            .map { end in
                end.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Int(end) : nil
            }
        guard ends.count == 2, let first = ends[0], let last = ends[1], first <= last,
            last < FetchRequest.offsetMax
        else { throw .badRange("the range must be bytes=first-last") }
        return first..<last + 1
    }

    /// Of `C0-Config`, whose other settings are the bucket drivers' own here, only the time for the
    /// whole operation has an effect. All are checked; unknown ones are not known to be wrong.
    private static func deadline(_ head: HTTPRequest) throws(Problem) -> Nanoseconds? {
        var deadline: Nanoseconds?
        for (name, value) in head.headers where name == "c0-config" {
            for token in value.split(separator: " ") {
                let pair = token.split(
                    separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard pair.count == 2 else { throw .badRequest("C0-Config: \(token)") }
                switch pair[0] {
                case "ct", "rt", "ot", "oat", "ma", "ib", "mb":
                    guard let number = UInt32(pair[1]) else {
                        throw .badRequest("C0-Config: \(token)")
                    }
                    if pair[0] == "ot" { deadline = .milliseconds(Int64(number)) }
                case "fps":
                    guard pair[1] == "true" || pair[1] == "false" else {
                        throw .badRequest("C0-Config: \(token)")
                    }
                default: break
                }
            }
        }
        return deadline
    }
}

extension String {
    fileprivate var trimmingBlanks: String {
        var text = self[...]
        while let first = text.first, first == " " || first == "\t" { text.removeFirst() }
        while let last = text.last, last == " " || last == "\t" { text.removeLast() }
        return String(text)
    }
}
