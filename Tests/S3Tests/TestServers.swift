// SPDX-License-Identifier: Apache-2.0

import Foundation
import ObjectStorage
import Primitives
import S3
import TestSupport

/// The S3 server that `make test` starts.
struct TestServer {
    struct Missing: Error, CustomStringConvertible {
        let description: String
    }
    let endpoint: String
    let bucket: String
    let region: String
    let credentials: S3Credentials

    /// Throws where there is none: a test without it proves nothing.
    init() throws {
        let environment = ProcessInfo.processInfo.environment
        func value(_ name: String) throws -> String {
            guard let value = environment["MILLRACE_TEST_S3_" + name], !value.isEmpty else {
                throw Missing(
                    description: "MILLRACE_TEST_S3_\(name) is not set: run `make test`, or "
                        + "`Tests/Support/s3.sh start DIR` and source DIR/env")
            }
            return value
        }
        endpoint = try value("ENDPOINT")
        bucket = try value("BUCKET")
        region = try value("REGION")
        credentials = S3Credentials(
            accessKey: try value("ACCESS_KEY"), secretKey: try value("SECRET_KEY"))
        RealService.s3.note()
    }

    func store(
        prefix: String = "", endpoint: String? = nil, style: S3Location.Style = .path,
        credentials: S3Credentials? = nil, limits: S3Store.Limits = S3Store.Limits(),
        clockMillisecondsAhead: Int64 = 0
    ) throws -> S3Store {
        let location = S3Location(
            bucket: bucket, prefix: prefix, endpoint: endpoint ?? self.endpoint, region: region,
            style: style)
        return try S3Store(
            location, credentials: credentials ?? self.credentials, limits: limits,
            wallMilliseconds: {
                UInt64(Int64(SystemClock.wallMilliseconds) + clockMillisecondsAhead)
            })
    }
}

/// A fault proxy of a test's own, in front of the test server. It ends with this object.
final class FaultProxy {
    let endpoint: String
    private let process = Process()
    private let input = Pipe()
    private let driver: CurlDriver

    init(_ server: TestServer) throws {
        driver = try CurlDriver()
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Support/fault_proxy.py")
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", script.path, String(server.endpoint.dropFirst(7))]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        var line = Data()
        while let byte = try output.fileHandleForReading.read(upToCount: 1), byte != Data([10]) {
            guard !byte.isEmpty else { break }
            line.append(byte)
        }
        guard let port = UInt16(String(decoding: line, as: UTF8.self)) else {
            throw TestServer.Missing(description: "the fault proxy does not start")
        }
        endpoint = "http://127.0.0.1:\(port)"
    }

    deinit { process.terminate() }

    struct Seen: Equatable {
        let faults: Int
        let upstream: Int
    }

    func set(_ rules: [[String: Any]]) async throws {
        let body = Bytes(Array(try JSONSerialization.data(withJSONObject: rules)))
        _ = try await control(.put, body: [body])
    }

    func seen() async throws -> Seen { try await control(.get, body: []) }

    private func control(_ method: CurlRequest.Method, body: [Bytes]) async throws -> Seen {
        let url = endpoint + "/__faults"
        let request = CurlRequest(
            method: method, body: body, replyBytesMax: 1_000, deadline: .seconds(10),
            head: { CurlRequest.Head(url: url, headers: []) })
        let reply = try await driver.perform(request).get()
        let object = try JSONSerialization.jsonObject(with: Data(reply.body.array))
        guard let counts = object as? [String: Int], let faults = counts["faults"],
            let upstream = counts["upstream"]
        else { throw TestServer.Missing(description: "the fault proxy does not answer") }
        return Seen(faults: faults, upstream: upstream)
    }
}
