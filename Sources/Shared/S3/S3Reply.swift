// SPDX-License-Identifier: Apache-2.0

internal import ObjectStorage
internal import Primitives

/// What S3 says when it does not do what it was asked: a status, and mostly a code.
struct S3Refusal {
    let status: Int
    /// Empty where the reply has none.
    let code: String
    private let text: String

    init(_ reply: CurlReply) {
        status = reply.status
        var code = ""
        var message = ""
        // A reply without a proper body (to HEAD, or of a proxy) is told by its status alone.
        if !reply.body.isEmpty {
            do throws(DecodeError) {
                let root = try XMLElement.parse(reply.body)
                let error = root.name == "Error" ? root : root.first("Error")
                code = error?.text("Code") ?? ""
                message = error?.text("Message") ?? ""
            } catch {
                message = String(reply.body.prefix(200).lossyText)
            }
        }
        self.code = code
        let request = reply.requestID.isEmpty ? "" : " (request \(reply.requestID))"
        text = "\(status) \(code) \(message)\(request)"
    }

    /// `isChange`: whether the request would have changed something.
    func storeError(_ key: String, isChange: Bool) -> StoreError {
        StoreError(kind, outcomeUnknown: isChange && mayHaveHappened, "\(key): \(text)")
    }

    var isClockSkew: Bool { code == "RequestTimeTooSkewed" }

    private var kind: StoreError.Kind {
        switch code {
        case "NoSuchBucket", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed":
            return .denied
        case "RequestTimeout", "SlowDown", "RequestTimeTooSkewed", "OperationAborted",
            "ConditionalRequestConflict", "TooManyRequests":
            return .unavailable
        case "EntityTooLarge", "KeyTooLongError", "InvalidURI", "InvalidArgument":
            return .invalidRequest
        default: break
        }
        switch status {
        case 404: return .notFound
        case 416: return .rangeNotSatisfiable
        case 401, 403: return .denied
        case 408, 409, 425, 429: return .unavailable
        default: return isServerFailure ? .unavailable : .failed
        }
    }

    /// A failure at or before the store, which may pass: proxies have numbers of their own for it.
    /// What the server does not know how to do (501, 505) it will not learn.
    private var isServerFailure: Bool {
        (500...599).contains(status) && status != 501 && status != 505
    }

    /// A server that failed may have failed after the deed; one that refused has not done it.
    private var mayHaveHappened: Bool {
        isServerFailure || status == 408 || code == "RequestTimeout"
    }
}

extension CurlFailure {
    func storeError(_ key: String, isChange: Bool) -> StoreError {
        StoreError(storeKind, outcomeUnknown: isChange && wasSent, "\(key): \(message)")
    }

    private var storeKind: StoreError.Kind {
        switch kind {
        case .refused, .cancelled, .timedOut, .notConnected, .connectionLost: .unavailable
        case .replyTooLong, .broken: .failed
        }
    }
}

/// One page of ListObjectsV2.
struct S3ListPage {
    private(set) var objects: [ObjectInfo] = []
    let isTruncated: Bool
    let continuation: String?

    /// `prefix` is taken off the keys.
    init(_ document: Bytes, prefix: String) throws(DecodeError) {
        let root = try XMLElement.parse(document)
        guard root.name == "ListBucketResult" else { throw Self.bad("no ListBucketResult") }
        isTruncated = root.text("IsTruncated") == "true"
        continuation = root.text("NextContinuationToken")
        let isEncoded = root.text("EncodingType") == "url"
        for item in root.children where item.name == "Contents" {
            guard let text = item.text("Key"), let size = item.text("Size").flatMap({ Int($0) }),
                size >= 0, let time = item.text("LastModified").flatMap(S3Time.parse(iso8601:))
            else { throw Self.bad("an object without key, size or time") }
            let key = isEncoded ? try Self.decoded(text) : text
            guard key.utf8.starts(with: prefix.utf8) else { throw Self.bad("a foreign key") }
            objects.append(
                ObjectInfo(
                    key: String(decoding: key.utf8.dropFirst(prefix.utf8.count), as: UTF8.self),
                    size: size, modifiedMilliseconds: time))
        }
    }

    private static func decoded(_ text: String) throws(DecodeError) -> String {
        // S3 writes a space as a plus, and a plus as %2B.
        guard let bytes = PercentCoding.decode(text.utf8, plusIsSpace: true),
            let key = String(validating: bytes, as: UTF8.self)
        else { throw bad("a key is not encoded") }
        return key
    }

    private static func bad(_ what: String) -> DecodeError { DecodeError(.malformed(what), at: 0) }
}
