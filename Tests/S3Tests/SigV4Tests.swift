// SPDX-License-Identifier: Apache-2.0

import Crypto
import ObjectStorage
import Primitives
import S3
import Testing

/// The examples of "Signature Calculations for the Authorization Header: Transferring Payload in a
/// Single Chunk", Amazon S3 API Reference.
@Suite struct SigV4Tests {
    private static let host = (name: "host", value: "examplebucket.s3.amazonaws.com")
    private static let empty = Hex.encode(SHA256.digest(""))
    /// 2013-05-24T00:00:00Z
    private static let time: UInt64 = 1_369_353_600_000
    private let signer = SigV4(
        credentials: S3Credentials(
            accessKey: "AKIAIOSFODNN7EXAMPLE",
            secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region: "us-east-1")

    private func authorization(_ request: SigV4.Request) -> String {
        let headers = signer.signedHeaders(request, wallMilliseconds: Self.time)
        return headers.first { $0.name == "authorization" }?.value ?? ""
    }

    @Test func getObject() {
        let request = SigV4.Request(
            method: "GET", path: "/test.txt", headers: [Self.host, ("range", "bytes=0-9")],
            payloadHash: Self.empty)
        #expect(
            authorization(request)
                == "AWS4-HMAC-SHA256 "
                + "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
                + "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
                + "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    }

    @Test func putObject() {
        let request = SigV4.Request(
            method: "PUT", path: "/" + PercentCoding.encode("test$file.text"),
            headers: [
                Self.host, ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ], payloadHash: Hex.encode(SHA256.digest("Welcome to Amazon S3.")))
        let expected = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        #expect(authorization(request).hasSuffix("Signature=" + expected))
    }

    @Test func getLifecycle() {
        let request = SigV4.Request(
            method: "GET", path: "/", query: [("lifecycle", "")], headers: [Self.host],
            payloadHash: Self.empty)
        let expected = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        #expect(authorization(request).hasSuffix("Signature=" + expected))
    }

    @Test func listObjects() {
        let request = SigV4.Request(
            method: "GET", path: "/", query: [("prefix", "J"), ("max-keys", "2")],
            headers: [Self.host], payloadHash: Self.empty)
        let expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        #expect(authorization(request).hasSuffix("Signature=" + expected))
    }

    @Test func theSessionTokenIsSigned() {
        let signer = SigV4(
            credentials: S3Credentials(accessKey: "A", secretKey: "B", sessionToken: "C"),
            region: "r")
        let request = SigV4.Request(
            method: "GET", path: "/", headers: [Self.host], payloadHash: Self.empty)
        let headers = signer.signedHeaders(request, wallMilliseconds: Self.time)
        #expect(headers.contains { $0.name == "x-amz-security-token" && $0.value == "C" })
        let authorization = headers.first { $0.name == "authorization" }?.value ?? ""
        #expect(authorization.contains("x-amz-date;x-amz-security-token,"))
    }

    @Test func credentialsOfTheEnvironment() {
        #expect(S3Credentials(environment: [:]) == nil)
        #expect(S3Credentials(environment: ["AWS_ACCESS_KEY_ID": "a"]) == nil)
        let some = S3Credentials(environment: [
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "",
        ])
        #expect(some?.accessKey == "a" && some?.secretKey == "b" && some?.sessionToken == nil)
    }
}

@Suite struct S3TimeTests {
    @Test(
        arguments: [
            (0, "19700101T000000Z"), (951_782_399_000, "20000228T235959Z"),
            (951_782_400_000, "20000229T000000Z"), (1_709_251_199_999, "20240229T235959Z"),
            (4_107_542_400_000, "21000301T000000Z"),
        ] as [(UInt64, String)])
    func timestamps(_ milliseconds: UInt64, _ text: String) {
        #expect(S3Time.timestamp(milliseconds) == text)
    }

    @Test func parsing() {
        #expect(S3Time.parse(iso8601: "2000-02-29T00:00:00.000Z") == 951_782_400_000)
        #expect(S3Time.parse(iso8601: "2000-02-29T00:00:00.120Z") == 951_782_400_120)
        #expect(S3Time.parse(iso8601: "2000-02-29T00:00:00Z") == 951_782_400_000)
        #expect(S3Time.parse(http: "Fri, 24 May 2013 00:00:00 GMT") == 1_369_353_600_000)
        for text in ["", "2000-02-29", "2000-13-01T00:00:00Z", "2000-01-01T25:00:00Z", "x"] {
            #expect(S3Time.parse(iso8601: text) == nil)
            #expect(S3Time.parse(http: text) == nil)
        }
    }
}

@Suite struct S3AddressTests {
    @Test func styles() throws {
        let path = try S3Address(
            S3Location(
                bucket: "buck", prefix: "a b", endpoint: "http://Host:9000/", style: .path))
        #expect(path.host == "host:9000" && !path.isEncrypted)
        #expect(path.path(ofKey: "x/y+z") == "/buck/a%20b/x/y%2Bz")
        #expect(path.bucketPath == "/buck")
        let virtual = try S3Address(S3Location(bucket: "buck", endpoint: nil, style: .virtual))
        #expect(virtual.host == "buck.s3.us-east-1.amazonaws.com" && virtual.isEncrypted)
        #expect(virtual.path(ofKey: "k") == "/k" && virtual.bucketPath == "/")
        let implied = try S3Address(
            S3Location(bucket: "buck", endpoint: "https://s3.example:443", style: .path))
        #expect(implied.host == "s3.example", "as libcurl sends it")
    }

    @Test(arguments: ["ftp://host", "host:80", "http://", "http://host/path", "http://u@host"])
    func refused(_ endpoint: String) {
        #expect(throws: StoreError.self) {
            try S3Address(S3Location(bucket: "buck", endpoint: endpoint, style: .path))
        }
    }
}

@Suite struct XMLTests {
    private func parse(_ text: String) throws(DecodeError) -> XMLElement {
        try XMLElement.parse(Bytes(utf8: text))
    }

    @Test func documents() throws {
        let root = try parse(
            """
            <?xml version="1.0" encoding="UTF-8"?>
            <!-- a comment --><r xmlns="http://x/" a='1>2'><k>a&amp;b&lt;&#65;&#x1F600;</k>
            <k/><empty></empty><d><![CDATA[<raw>&]]></d></r>
            """)
        #expect(root.name == "r")
        #expect(root.children.map(\.name) == ["k", "k", "empty", "d"])
        #expect(root.text("k") == "a&b<A😀")
        #expect(root.text("d") == "<raw>&")
        #expect(root.text("none") == nil)
    }

    @Test(arguments: [
        "", "text", "<a>", "<a></b>", "<a><b></a></b>", "<a>&nbsp;</a>", "<a>&amp</a>", "<a/><b/>",
        "<!DOCTYPE a><a/>", "<a b=c/>", "<a b='c/>", "<a>&#xD800;</a>", "<a>&#99999999;</a>", "<>",
        String(repeating: "<a>", count: 20) + String(repeating: "</a>", count: 20),
    ])
    func refused(_ text: String) {
        #expect(throws: DecodeError.self) { try parse(text) }
    }

    @Test func everyCutIsRefused() {
        let text = "<?xml version='1.0'?><a x='y'><b>1&amp;2</b><!-- c --><c/></a>"
        for length in 0..<text.utf8.count {
            #expect(throws: DecodeError.self) {
                try XMLElement.parse(Bytes(utf8: text).prefix(length))
            }
        }
    }
}
