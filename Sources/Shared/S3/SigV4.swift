// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import ObjectStorage
private import Synchronization

/// Who asks. Never printed.
package struct S3Credentials: Sendable {
    package let accessKey: String
    package let secretKey: String
    /// Of temporary credentials.
    package let sessionToken: String?

    package init(accessKey: String, secretKey: String, sessionToken: String? = nil) {
        self.accessKey = accessKey
        self.secretKey = secretKey
        self.sessionToken = sessionToken
    }

    /// From `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; nil without the
    /// first two.
    package init?(environment: [String: String]) {
        guard let accessKey = environment["AWS_ACCESS_KEY_ID"], !accessKey.isEmpty,
            let secretKey = environment["AWS_SECRET_ACCESS_KEY"], !secretKey.isEmpty
        else { return nil }
        let token = environment["AWS_SESSION_TOKEN"] ?? ""
        self.init(
            accessKey: accessKey, secretKey: secretKey, sessionToken: token.isEmpty ? nil : token)
    }
}

/// AWS Signature Version 4 in the `Authorization` header.
///
/// Everything is signed in the form in which it is sent: paths and queries come encoded, and go
/// into the URL as they are. All headers that are given are signed, `If-None-Match` above all:
/// nobody between us and the store may drop it. The signing key is derived once per day.
///
/// Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)",
/// Amazon S3 API Reference.
package final class SigV4: Sendable {
    package static let unsignedPayload = "UNSIGNED-PAYLOAD"

    private let credentials: S3Credentials
    private let region: String
    private let service: String
    private let cached = Mutex<(day: String, key: [UInt8])>(("", []))

    package init(credentials: S3Credentials, region: String, service: String = "s3") {
        self.credentials = credentials
        self.region = region
        self.service = service
    }

    /// What a request is signed with, in its final form.
    package struct Request: Sendable {
        package var method: String
        /// From the slash on, encoded.
        package var path: String
        /// Names and values, not encoded.
        package var query: [(name: String, value: String)]
        /// Lower-case names; `host` must be there.
        package var headers: [(name: String, value: String)]
        /// The hexadecimal SHA-256 of the body, or `unsignedPayload`.
        package var payloadHash: String

        package init(
            method: String, path: String, query: [(name: String, value: String)] = [],
            headers: [(name: String, value: String)], payloadHash: String
        ) {
            self.method = method
            self.path = path
            self.query = query
            self.headers = headers
            self.payloadHash = payloadHash
        }

        /// Sorted and encoded, as it is both signed and sent.
        package var queryText: String {
            query.map { (PercentCoding.encode($0.name), PercentCoding.encode($0.value)) }
                .sorted { ($0.0, $0.1) < ($1.0, $1.1) }
                .map { "\($0.0)=\($0.1)" }
                .joined(separator: "&")
        }
    }

    /// The headers to send, those of the signature included; `wallMilliseconds` is the time of the
    /// request.
    package func signedHeaders(
        _ request: Request, wallMilliseconds: UInt64
    ) -> [(name: String, value: String)] {
        let timestamp = S3Time.timestamp(wallMilliseconds)
        var headers = request.headers
        headers.append(("x-amz-content-sha256", request.payloadHash))
        headers.append(("x-amz-date", timestamp))
        if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token)) }
        headers.sort { $0.name < $1.name }

        let names = headers.map(\.name).joined(separator: ";")
        let lines = headers.map { "\($0.name):\($0.value)\n" }.joined()
        let canonical = """
            \(request.method)
            \(request.path)
            \(request.queryText)
            \(lines)
            \(names)
            \(request.payloadHash)
            """
        let day = String(timestamp.prefix(8))
        let scope = "\(day)/\(region)/\(service)/aws4_request"
        let hash = Hex.encode(SHA256.digest(canonical))
        let text = "AWS4-HMAC-SHA256\n\(timestamp)\n\(scope)\n\(hash)"
        let signature = Hex.encode(HMACSHA256.code(key: key(day), text))
        let value =
            "AWS4-HMAC-SHA256 Credential=\(credentials.accessKey)/\(scope),"
            + "SignedHeaders=\(names),Signature=\(signature)"
        headers.append(("authorization", value))
        return headers
    }

    private func key(_ day: String) -> [UInt8] {
        cached.withLock { cached in
            if cached.day != day {
                var key = Array("AWS4\(credentials.secretKey)".utf8)
                for part in [day, region, service, "aws4_request"] {
                    key = HMACSHA256.code(key: key, part)
                }
                cached = (day, key)
            }
            return cached.key
        }
    }
}
