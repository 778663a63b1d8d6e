// SPDX-License-Identifier: Apache-2.0

import Foundation
import ObjectStorage
import Primitives
import TestSupport
import Testing

/// A folder that is removed with its last user.
final class ScratchFolder: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.path + "/millrace-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// All regular files below it.
    var files: [String] {
        let all = FileManager.default.enumerator(atPath: path)?.compactMap { $0 as? String } ?? []
        return all.filter { name in
            var isDirectory: ObjCBool = false
            let full = "\(path)/\(name)"
            _ = FileManager.default.fileExists(atPath: full, isDirectory: &isDirectory)
            return !isDirectory.boolValue
        }
    }
}

@Suite struct ConformanceTests {
    @Test(arguments: StoreConformance.Check.allCases)
    func memory(_ check: StoreConformance.Check) async throws {
        let loop = ThreadLoop()
        defer { loop.stop() }
        try await StoreConformance(MemoryStore(), loop: loop).run(check)
    }

    @Test(arguments: StoreConformance.Check.allCases, [true, false])
    func folder(_ check: StoreConformance.Check, isDurable: Bool) async throws {
        let scratch = try ScratchFolder()
        let loop = ThreadLoop()
        defer { loop.stop() }
        let store = try FolderStore(path: scratch.path, isDurable: isDurable)
        try await StoreConformance(store, loop: loop).run(check)
    }
}

@Suite struct ObjectKeyTests {
    @Test func order() {
        #expect(ObjectKey.precedes("a", "a/b"))
        #expect(ObjectKey.precedes("a.b", "a/b"))
        #expect(ObjectKey.precedes("u\u{0308}", "ü"), "bytes, not characters")
        #expect(!ObjectKey.precedes("a", "a"))
    }

    @Test func longest() throws {
        try ObjectKey.validate(String(repeating: "é", count: 512))
        #expect(throws: StoreError.self) {
            try ObjectKey.validate(String(repeating: "é", count: 512) + "x")
        }
    }
}

@Suite struct StoreURLTests {
    @Test func folder() throws {
        #expect(try StoreURL(parsing: "./data/objects") == .folder(path: "./data/objects"))
        #expect(try StoreURL(parsing: "/srv/cell") == .folder(path: "/srv/cell"))
        #expect(try StoreURL(parsing: "file:///srv/cell") == .folder(path: "/srv/cell"))
    }

    @Test func s3() throws {
        #expect(
            try StoreURL(parsing: "s3://my-bucket")
                == .s3(S3Location(bucket: "my-bucket", endpoint: nil, style: .virtual)))
        #expect(
            try StoreURL(
                parsing: "s3://my-bucket/cells/a%20b/?endpoint=http://127.0.0.1:9000&region=eu-1")
                == .s3(
                    S3Location(
                        bucket: "my-bucket", prefix: "cells/a b", endpoint: "http://127.0.0.1:9000",
                        region: "eu-1", style: .path)))
        #expect(
            try StoreURL(parsing: "s3://b.c-d?endpoint=https%3A%2F%2Fs3.example&style=virtual")
                == .s3(
                    S3Location(bucket: "b.c-d", endpoint: "https://s3.example", style: .virtual)))
    }

    @Test(arguments: [
        "", "s3://", "s3:///prefix", "s3://My_Bucket", "s3://ab", "s3://bucket/a//b",
        "s3://bucket/../b", "s3://bucket?style=round", "s3://bucket?region",
        "s3://bucket?colour=red", "s3://bucket/%zz", "gs://bucket", "http://host/bucket",
    ])
    func refused(_ text: String) {
        #expect(throws: StoreError.self) { try StoreURL(parsing: text) }
    }
}
