// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

private let system = """
    {"storage_class":"express","retention_policy":{"age":604800},\
    "timestamping":{"mode":"client-prefer","uncapped":false},"delete_on_empty":{"min_age_secs":0}}
    """
private let full = """
    {"storage_class":"standard","retention_policy":{"infinite":{}},\
    "timestamping":{"mode":"client-require","uncapped":true},\
    "delete_on_empty":{"min_age_secs":18446744073709551615}}
    """
private let path = "/v1/streams/s"

@Suite struct StreamTests {
    private func bench(_ basin: String = "{}") -> ControlBench {
        let bench = ControlBench()
        bench.createBasin(basin)
        return bench
    }

    @Test func createsMinimally() {
        let bench = bench()
        let created = bench.ask("POST", "/v1/streams", #"{"stream":"s"}"#)
        #expect(created.status == 201)
        #expect(created.provisionResult == "created")
        #expect(
            created.bodyText == """
                {"name":"s","created_at":"2023-11-14T22:13:20.000Z","deleted_at":null,"cipher":null}
                """)
        #expect(bench.ask("GET", path).bodyText == system)
        let list = bench.ask("GET", "/v1/streams")
        #expect(list.bodyText == #"{"streams":[\#(created.bodyText)],"has_more":false}"#)
        bench.createStream("t", full)
        #expect(bench.ask("GET", "/v1/streams/t").bodyText == full)
    }

    @Test func needsABasin() {
        let bench = ControlBench()
        bench.ask("GET", "/v1/streams", basin: nil).expectFailure("bad_header", 400)
        bench.ask("GET", "/v1/streams/..", basin: "BAD_NAME").expectFailure("bad_header", 400)
        bench.ask("GET", "/v1/streams/..").expectFailure("bad_path", 400)
        bench.ask("GET", "/v1/streams").expectFailure("basin_not_found", 404)
        bench.ask("GET", path).expectFailure("basin_not_found", 404)
        bench.ask("POST", "/v1/streams", #"{"stream":"s"}"#).expectFailure("basin_not_found", 404)
        bench.ask("PUT", path).expectFailure("basin_not_found", 404)
        bench.ask("DELETE", path).expectFailure("basin_not_found", 404)
        for target in ["/v1/streams/s/records", "/v1/streams/s/records/tail"] {
            bench.ask("GET", target, basin: nil).expectFailure("bad_header", 400)
            bench.ask("GET", target, basin: "x").expectFailure("bad_header", 400)
        }
        bench.ask("GET", "/v1/streams/%00/records").expectFailure("bad_path", 400)
    }

    @Test func judgesNames() {
        let bench = bench()
        for name in ["", ".", "..", String(repeating: "x", count: 513), "a\\u0000"] {
            bench.ask("POST", "/v1/streams", #"{"stream":"\#(name)"}"#)
                .expectFailure("bad_json", 400)
        }
        for name in [".", "%2E%2e", "a%00b", "%FF", String(repeating: "x", count: 513)] {
            bench.ask("PUT", "/v1/streams/\(name)").expectFailure("bad_path", 400)
        }
        let names = [
            ("a%2Fb%20c", "a/b c"), ("a+b", "a+b"), ("%E6%97%A5%F0%9F%98%80", "日😀"),
            (String(repeating: "x", count: 512), String(repeating: "x", count: 512)),
        ]
        for (raw, name) in names {
            #expect(bench.ask("PUT", "/v1/streams/\(raw)").member("name") == .string(name))
            #expect(bench.ask("GET", "/v1/streams/\(raw)").status == 200)
        }
        let listed = bench.ask("GET", "/v1/streams?prefix=a%2F").member("streams")?.array
        #expect(listed?.count == 1)
        #expect(listed?.first?.object?["name"] == .string("a/b c"))
    }

    /// Two names that look the same are two streams.
    @Test func tellsNormalFormsApart() {
        let bench = bench()
        #expect(bench.ask("PUT", "/v1/streams/%C3%A9").status == 201)
        #expect(bench.ask("PUT", "/v1/streams/e%CC%81").status == 201)
        #expect(bench.ask("GET", "/v1/streams").member("streams")?.array?.count == 2)
    }

    @Test func createsOnce() {
        let bench = bench()
        let body = #"{"stream":"s","config":{"delete_on_empty":{"min_age_secs":5}}}"#
        let first = bench.ask("POST", "/v1/streams", body, token: "t")
        bench.ask(
            "PATCH", "/v1/basins/basin-0001",
            #"{"default_stream_config":{"storage_class":"standard"}}"#)
        let again = bench.ask("POST", "/v1/streams", body, token: "t")
        #expect(again.status == 201)
        #expect(again.provisionResult == "noop")
        #expect(again.bodyText == first.bodyText)
        let other = #"{"stream":"s","config":{"delete_on_empty":{"min_age_secs":6}}}"#
        for (body, token) in [(body, "u"), (body, nil), (other, "t")] as [(String, String?)] {
            bench.ask("POST", "/v1/streams", body, token: token)
                .expectFailure("resource_already_exists", 409)
        }
    }

    @Test func inheritsLeafByLeaf() {
        let defaults = #"{"retention_policy":{"age":9},"delete_on_empty":{"min_age_secs":7}}"#
        let bench = bench(#"{"default_stream_config":\#(defaults)}"#)
        bench.createStream("s", #"{"delete_on_empty":{},"timestamping":{"uncapped":true}}"#)
        let expected = """
            {"storage_class":"express","retention_policy":{"age":9},\
            "timestamping":{"mode":"client-prefer","uncapped":true},\
            "delete_on_empty":{"min_age_secs":0}}
            """
        #expect(bench.ask("GET", path).bodyText == expected)
        bench.ask("PATCH", "/v1/basins/basin-0001", #"{"default_stream_config":null}"#)
        #expect(bench.ask("GET", path).bodyText == expected)
    }

    @Test func reconfigures() {
        let bench = bench(#"{"default_stream_config":{"retention_policy":{"age":9}}}"#)
        bench.createStream("s", full)
        let patch = { (json: String) in bench.ask("PATCH", path, json).json?.object }
        #expect(bench.ask("PATCH", path, "{}").bodyText == full)
        let empty = #"{"delete_on_empty":{},"timestamping":{}}"#
        #expect(bench.ask("PATCH", path, empty).bodyText == full)
        let retention = patch(#"{"retention_policy":null}"#)?["retention_policy"]?.object
        #expect(retention?["age"] == .unsigned(9))
        let mode = patch(#"{"timestamping":{"mode":null}}"#)?["timestamping"]?.object
        #expect(mode?["mode"] == .string("client-prefer"))
        #expect(mode?["uncapped"] == .bool(true))
        let last = bench.ask(
            "PATCH", path,
            #"{"timestamping":null,"delete_on_empty":null,"storage_class":"express"}"#)
        #expect(last.status == 200)
        #expect(last.bodyText == system.replacing("604800", with: "9"))
        #expect(bench.ask("GET", path).bodyText == last.bodyText)
        bench.ask("PATCH", "/v1/streams/none", "{}").expectFailure("stream_not_found", 404)
    }

    @Test func ensures() {
        let bench = bench(#"{"default_stream_config":{"delete_on_empty":{"min_age_secs":7}}}"#)
        let created = bench.ask("PUT", path, full)
        #expect((created.status, created.provisionResult) == (201, "created"))
        let same = bench.ask("PUT", path, full)
        #expect((same.status, same.provisionResult) == (200, "noop"))
        #expect(same.bodyText == created.bodyText)
        #expect(bench.ask("PUT", path).provisionResult == "updated")
        #expect(bench.ask("GET", path).bodyText.contains(#"{"min_age_secs":7}"#))
        // Judged by the effective configuration.
        let explicit = #"{"storage_class":"express","delete_on_empty":{"min_age_secs":7}}"#
        #expect(bench.ask("PUT", path, explicit).provisionResult == "noop")
        #expect(bench.ask("PUT", path, #"{"delete_on_empty":{}}"#).provisionResult == "updated")
    }

    @Test func deletes() {
        let bench = bench()
        bench.createStream()
        for _ in 0..<2 {
            let deleted = bench.ask("DELETE", path)
            #expect(deleted.status == 202)
            #expect(deleted.responseHeader("content-length") == "0")
            #expect(deleted.responseHeader("content-type") == nil)
        }
        let listed = bench.ask("GET", "/v1/streams").member("streams")?.array?.first?.object
        #expect(listed?["deleted_at"]?.string != nil)
        let pending = "stream_deletion_pending"
        bench.ask("GET", path).expectFailure(pending, 409)
        bench.ask("PUT", path).expectFailure(pending, 409)
        bench.ask("PATCH", path, "{}").expectFailure(pending, 409)
        bench.ask("POST", "/v1/streams", #"{"stream":"s"}"#).expectFailure(pending, 409)
        bench.ask("DELETE", "/v1/streams/none").expectFailure("stream_not_found", 404)
    }

    @Test func tellsTheOwner() throws {
        let bench = bench()
        bench.createStream()
        bench.ask("PATCH", path, #"{"storage_class":"standard"}"#)
        #expect(bench.calls.requests.isEmpty)
        try bench.claim()
        #expect(bench.ask("PATCH", path, #"{"retention_policy":{"age":5}}"#).status == 200)
        #expect(bench.calls.requests.map(\.version) == [3])
        #expect(bench.ask("PUT", path, full).provisionResult == "updated")
        // Again where nothing changes: the first attempt may have failed half-way.
        #expect(bench.ask("PUT", path, full).provisionResult == "noop")
        #expect(bench.ask("PATCH", path, full).status == 200)
        #expect(bench.calls.requests.map(\.version) == [3, 4, 4, 4])
        #expect(bench.ask("PATCH", path, "{}").status == 200)
        #expect(bench.calls.requests.count == 4)
        #expect(bench.ask("DELETE", path).status == 202)
        #expect(bench.calls.requests.last?.deleted == true)
    }

    /// An owner that cannot be told leaves the outcome open.
    @Test func isIndefiniteWithoutTheOwner() throws {
        let bench = bench()
        bench.createStream()
        try bench.claim()
        bench.calls.status = .connectionLost
        bench.ask("PATCH", path, #"{"retention_policy":{"age":5}}"#)
            .expectFailure("unavailable", 503)
        bench.ask("PUT", path, full).expectFailure("unavailable", 503)
        bench.ask("DELETE", path).expectFailure("unavailable", 503)
    }

    @Test func listsInByteOrder() {
        let bench = bench()
        for name in ["b", "a", "a/2", "a/1", "é", "Z", "a b"] { bench.createStream(name) }
        let names = { (query: String) in
            bench.ask("GET", "/v1/streams?\(query)").member("streams")?.array?
                .compactMap { $0.object?["name"]?.string }
        }
        #expect(names("") == ["Z", "a", "a b", "a/1", "a/2", "b", "é"])
        #expect(names("prefix=a+b") == ["a b"])
        #expect(names("prefix=a%2F&limit=1") == ["a/1"])
        #expect(names("prefix=&start_after=a/2") == ["b", "é"])
        bench.ask("GET", "/v1/streams?prefix=%00").expectFailure("bad_query", 400)
    }
}

@Suite struct CreationKeyTests {
    /// Different creations never share a key, however their parts are cut.
    @Test func isInjective() {
        var wish = StreamConfigWish()
        var keys: [String?] = []
        for token in ["", "a", #"a""#, #"a","#, "a,{}", "\0", #"["a",{}]"#] {
            for seconds in [nil, 0, 1, UInt64.max] {
                wish.deleteOnEmptyMinAgeSeconds = seconds
                keys.append(CreationKey.stream(token: token, wish: wish))
            }
            for location in [nil, "", "x"] as [String?] {
                keys.append(CreationKey.basin(token: token, config: .init(), location: location))
            }
        }
        #expect(Set(keys).count == keys.count)
        #expect(keys.allSatisfy { $0?.utf8.contains(0) == false })
        #expect(CreationKey.stream(token: nil, wish: wish) == nil)
    }
}
