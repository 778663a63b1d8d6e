// SPDX-License-Identifier: Apache-2.0

package import ObjectStorage

/// How requests for one bucket are addressed: what stands in the URL, and what is signed.
package struct S3Address: Sendable, Equatable {
    /// `http` or `https`
    package let scheme: String
    /// With the port, where it is not the scheme's own; with the bucket in virtual style.
    package let host: String
    /// In front of every key: a slash, and the bucket in path style; encoded.
    private let path: String
    /// In front of every key, with the slash behind it, or empty.
    package let prefix: String

    /// Throws `.invalidRequest` for an endpoint that is no `http://` or `https://` host.
    package init(_ location: S3Location) throws(StoreError) {
        let endpoint = location.endpoint ?? "https://s3.\(location.region).amazonaws.com"
        let parts = endpoint.split(separator: "://", maxSplits: 1)
        guard parts.count == 2, parts[0] == "http" || parts[0] == "https" else {
            throw StoreError(.invalidRequest, "the endpoint \(endpoint) is no http or https URL")
        }
        var host = String(parts[1]).lowercased()
        if host.hasSuffix("/") { host.removeLast() }
        let isPlain = host.utf8.allSatisfy { byte in
            PercentCoding.isUnreserved(byte) || [0x3A, 0x5B, 0x5D].contains(byte)
        }
        guard !host.isEmpty, isPlain else {
            throw StoreError(.invalidRequest, "the endpoint \(endpoint) is more than a host")
        }
        // libcurl does not send the port that the scheme implies, so it must not be signed either.
        let implied = parts[0] == "http" ? ":80" : ":443"
        if host.hasSuffix(implied) { host.removeLast(implied.utf8.count) }
        scheme = String(parts[0])
        self.host = location.style == .virtual ? "\(location.bucket).\(host)" : host
        path = location.style == .virtual ? "/" : "/\(location.bucket)/"
        prefix = location.prefix.isEmpty ? "" : "\(location.prefix)/"
    }

    package var isEncrypted: Bool { scheme == "https" }

    /// The path of an object, encoded.
    package func path(ofKey key: String) -> String {
        path + PercentCoding.encode(prefix + key, also: "/")
    }

    /// The path of the bucket.
    package var bucketPath: String {
        path == "/" ? path : String(path.dropLast())
    }

    package func url(path: String, query: String) -> String {
        "\(scheme)://\(host)\(path)\(query.isEmpty ? "" : "?\(query)")"
    }
}
