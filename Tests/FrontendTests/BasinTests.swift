// SPDX-License-Identifier: Apache-2.0

import FrontendRole
import HTTP
import Primitives
import TestSupport
import Testing

private let full = """
    {"default_stream_config":{"storage_class":"standard","retention_policy":{"age":86400},\
    "timestamping":{"mode":"arrival","uncapped":true},"delete_on_empty":{"min_age_secs":3600}},\
    "stream_cipher":null,"create_stream_on_append":true,"create_stream_on_read":true}
    """
private let unset = """
    {"default_stream_config":null,"stream_cipher":null,"create_stream_on_append":false,\
    "create_stream_on_read":false}
    """
private let path = "/v1/basins/basin-0001"

@Suite struct BasinTests {
    @Test func createsMinimally() {
        let bench = ControlBench()
        let created = bench.ask("POST", "/v1/basins", #"{"basin":"basin-0001","scope":1}"#)
        #expect(created.status == 201)
        #expect(created.provisionResult == "created")
        #expect(
            created.bodyText == """
                {"name":"basin-0001","location":null,"created_at":"2023-11-14T22:13:20.000Z",\
                "deleted_at":null,"state":"active"}
                """)
        #expect(bench.ask("GET", path).bodyText == unset)
        let list = bench.ask("GET", "/v1/basins")
        #expect(list.bodyText == #"{"basins":[\#(created.bodyText)],"has_more":false}"#)
    }

    @Test func echoesConfig() {
        let bench = ControlBench()
        bench.createBasin(full)
        #expect(bench.ask("GET", path).bodyText == full)
    }

    /// Explicit values that equal the system's defaults are set all the same.
    @Test(arguments: [
        #"{"storage_class":"express"}"#, #"{"timestamping":{"mode":"client-prefer"}}"#,
        #"{"timestamping":{"uncapped":false}}"#, #"{"delete_on_empty":{"min_age_secs":0}}"#,
        #"{"delete_on_empty":{}}"#, #"{"retention_policy":{"age":604800}}"#,
    ])
    func echoesExplicitDefaults(_ config: String) {
        let bench = ControlBench()
        bench.createBasin(#"{"default_stream_config":\#(config)}"#)
        let defaults = bench.ask("GET", path).member("default_stream_config")?.object
        #expect(defaults?["storage_class"] == .string("express"))
        #expect(defaults?["delete_on_empty"]?.object?["min_age_secs"] == .unsigned(0))
    }

    @Test(arguments: [
        "short", String(repeating: "a", count: 49), "UPPERCASE", "under_score", "-leading-x",
        "trailing-", "",
    ])
    func refusesNames(_ name: String) {
        let bench = ControlBench()
        bench.ask("POST", "/v1/basins", #"{"basin":"\#(name)"}"#).expectFailure("bad_json", 400)
        if !name.isEmpty {
            bench.ask("PUT", "/v1/basins/\(name)").expectFailure("bad_path", 400)
            bench.ask("GET", "/v1/streams", basin: name).expectFailure("bad_header", 400)
        }
    }

    @Test func acceptsExtremeNames() {
        let bench = ControlBench()
        for name in ["12345678", String(repeating: "z", count: 48)] {
            #expect(bench.ask("POST", "/v1/basins", #"{"basin":"\#(name)"}"#).status == 201)
        }
    }

    @Test func createsOnce() {
        let bench = ControlBench()
        let body = #"{"basin":"basin-0001","config":{"create_stream_on_append":true}}"#
        let first = bench.ask("POST", "/v1/basins", body, token: "t1")
        let again = bench.ask("POST", "/v1/basins", body, token: "t1")
        #expect(again.status == 201)
        #expect(again.provisionResult == "noop")
        #expect(again.bodyText == first.bodyText)
        let other = #"{"basin":"basin-0001","config":{"create_stream_on_read":true}}"#
        for (body, token) in [(body, "t2"), (body, nil), (other, "t1")] as [(String, String?)] {
            bench.ask("POST", "/v1/basins", body, token: token)
                .expectFailure("resource_already_exists", 409)
        }
        let long = String(repeating: "x", count: 37)
        bench.ask("POST", "/v1/basins", body, token: long).expectFailure("bad_header", 400)
        // An ensure in between does not make the server forget.
        #expect(bench.ask("PUT", path, #"{"config":null}"#).provisionResult == "updated")
        #expect(bench.ask("POST", "/v1/basins", body, token: "t1").provisionResult == "noop")
    }

    @Test(arguments: [
        "{", "[]", "null", "{}", #"{"basin":1}"#, #"{"basin":null}"#,
        #"{"basin":"basin-0001","config":[]}"#,
        #"{"basin":"basin-0001","config":{"create_stream_on_read":1}}"#,
        #"{"basin":"basin-0001","config":{"stream_cipher":"rot13"}}"#,
        #"{"basin":"basin-0001","location":"a b"}"#, #"{"basin":"basin-0001"} x"#,
    ])
    func refusesBodies(_ body: String) {
        ControlBench().ask("POST", "/v1/basins", body).expectFailure("bad_json", 400)
    }

    @Test(arguments: [
        (#"{"retention_policy":{"age":0}}"#, "invalid", 422),
        (#"{"storage_class":"tape"}"#, "invalid", 422),
        (#"{"storage_class":3}"#, "bad_json", 400),
        (#"{"retention_policy":{"age":-1}}"#, "bad_json", 400),
        (#"{"retention_policy":{"age":1.5}}"#, "bad_json", 400),
        (#"{"retention_policy":{"age":"7d"}}"#, "bad_json", 400),
        (#"{"retention_policy":{"age":null}}"#, "bad_json", 400),
        (#"{"retention_policy":{}}"#, "bad_json", 400),
        (#"{"retention_policy":7}"#, "bad_json", 400),
        (#"{"retention_policy":{"age":1,"infinite":{}}}"#, "bad_json", 400),
        (#"{"timestamping":{"mode":"server"}}"#, "bad_json", 400),
        (#"{"timestamping":{"uncapped":"yes"}}"#, "bad_json", 400),
        (#"{"delete_on_empty":{"min_age_secs":-1}}"#, "bad_json", 400),
        (#"{"delete_on_empty":5}"#, "bad_json", 400),
    ])
    func refusesConfigs(_ config: String, _ code: String, _ status: Int) {
        let bench = ControlBench()
        let basin = #"{"default_stream_config":\#(config)}"#
        bench.ask("POST", "/v1/basins", #"{"basin":"basin-0001","config":\#(basin)}"#)
            .expectFailure(code, status)
        bench.ask("PUT", path, #"{"config":\#(basin)}"#).expectFailure(code, status)
        #expect(bench.ask("GET", path).status == 404)
        bench.createBasin()
        bench.createStream()
        bench.ask("PATCH", path, basin).expectFailure(code, status)
        bench.ask("PUT", "/v1/streams/s", config).expectFailure(code, status)
        bench.ask("PATCH", "/v1/streams/s", config).expectFailure(code, status)
        bench.ask("POST", "/v1/streams", #"{"stream":"t","config":\#(config)}"#)
            .expectFailure(code, status)
    }

    @Test func refusesCiphers() {
        let bench = ControlBench()
        let config = #"{"stream_cipher":"aegis-256"}"#
        bench.ask("POST", "/v1/basins", #"{"basin":"basin-0001","config":\#(config)}"#)
            .expectFailure("not_implemented", 501)
        bench.createBasin()
        bench.ask("PATCH", path, config).expectFailure("not_implemented", 501)
        #expect(bench.ask("PATCH", path, #"{"stream_cipher":null}"#).bodyText == unset)
    }

    @Test func knowsUnknownBasins() {
        let bench = ControlBench()
        for method in ["GET", "PATCH", "DELETE"] {
            bench.ask(method, path, method == "PATCH" ? "{}" : nil)
                .expectFailure("basin_not_found", 404)
        }
    }

    @Test func deletes() {
        let bench = ControlBench()
        bench.createBasin()
        bench.createStream()
        for _ in 0..<2 {
            let deleted = bench.ask("DELETE", path)
            #expect(deleted.status == 202)
            #expect(deleted.responseHeader("content-length") == "0")
            #expect(deleted.responseHeader("content-type") == nil)
            #expect(deleted.body.isEmpty)
        }
        let listed = bench.ask("GET", "/v1/basins").member("basins")?.array?.first?.object
        #expect(listed?["state"] == .string("deleting"))
        #expect(listed?["deleted_at"]?.string == "2023-11-14T22:13:20.000Z")
        #expect(bench.ask("GET", path).status == 200)
        let pending = "basin_deletion_pending"
        let body = #"{"basin":"basin-0001"}"#
        bench.ask("POST", "/v1/basins", body).expectFailure(pending, 409)
        bench.ask("PUT", path).expectFailure(pending, 409)
        bench.ask("PATCH", path, "{}").expectFailure(pending, 409)
        bench.ask("POST", "/v1/streams", #"{"stream":"t"}"#).expectFailure(pending, 409)
        bench.ask("PATCH", "/v1/streams/s", #"{"storage_class":"standard"}"#)
            .expectFailure(pending, 409)
    }

    @Test func reconfigures() {
        let bench = ControlBench()
        bench.createBasin(full)
        let patch = { (json: String) in bench.ask("PATCH", path, json) }
        #expect(patch("{}").bodyText == full)
        #expect(
            patch(#"{"create_stream_on_append":null,"default_stream_config":{}}"#).bodyText == full)
        let one = patch(#"{"create_stream_on_read":false}"#)
        #expect(one.member("create_stream_on_read") == .bool(false))
        #expect(one.member("create_stream_on_append") == .bool(true))
        let leaf = patch(#"{"default_stream_config":{"timestamping":{"mode":null}}}"#)
        let defaults = leaf.member("default_stream_config")?.object
        #expect(defaults?["timestamping"]?.object?["mode"] == .string("client-prefer"))
        #expect(defaults?["timestamping"]?.object?["uncapped"] == .bool(true))
        #expect(defaults?["storage_class"] == .string("standard"))
        #expect(patch(#"{"default_stream_config":null}"#).member("default_stream_config") == .null)
        #expect(bench.ask("GET", path).member("default_stream_config") == .null)
        let again = patch(#"{"default_stream_config":{"retention_policy":{"infinite":{}}}}"#)
        #expect(again.bodyText.contains(#""retention_policy":{"infinite":{}}"#))
    }

    @Test func ensures() {
        let bench = ControlBench()
        let created = bench.ask("PUT", path, #"{"config":\#(full)}"#)
        #expect(created.status == 201)
        #expect(created.provisionResult == "created")
        let same = bench.ask("PUT", path, #"{"config":\#(full)}"#)
        #expect(same.status == 200)
        #expect(same.provisionResult == "noop")
        #expect(same.bodyText == created.bodyText)
        let zero = #"{"config":{"default_stream_config":{"delete_on_empty":{"min_age_secs":0}}}}"#
        #expect(bench.ask("PUT", path, zero).provisionResult == "updated")
        #expect(bench.ask("PUT", path, zero).provisionResult == "noop")
        for body in [nil, "", "null", "{}", #"{"config":null}"#] {
            #expect(bench.ask("PUT", path, #"{"config":\#(full)}"#).provisionResult == "updated")
            #expect(bench.ask("PUT", path, body).provisionResult == "updated")
            #expect(bench.ask("GET", path).bodyText == unset)
        }
    }

    @Test func keepsLocations() {
        let bench = ControlBench()
        let created = bench.ask("PUT", path, #"{"location":"aws:us-east-1"}"#)
        #expect(created.member("location") == .string("aws:us-east-1"))
        bench.ask("PUT", path, #"{"location":"aws:us-west-2"}"#).expectFailure("invalid", 422)
        #expect(bench.ask("PUT", path).provisionResult == "noop")
    }

    @Test func lists() {
        let bench = ControlBench()
        let names = (0..<5).map { "basin-000\($0)" } + ["other-0001"]
        for name in names.reversed() { bench.createBasin(name: name) }
        let list = { (query: String) -> ([String], Bool?) in
            let page = bench.ask("GET", "/v1/basins?\(query)")
            let items = page.member("basins")?.array ?? []
            return (items.compactMap { $0.object?["name"]?.string }, page.member("has_more")?.bool)
        }
        #expect(list("") == (names, false))
        for limit in ["0", "1500", "1000"] { #expect(list("limit=\(limit)") == (names, false)) }
        #expect(list("limit=1") == (["basin-0000"], true))
        #expect(list("prefix=basin-&start_after=basin-0003") == (["basin-0004"], false))
        #expect(list("prefix=other&start_after=basin-0000") == (["other-0001"], false))
        #expect(list("prefix=basin&start_after=z") == ([], false))
        #expect(list("prefix=nothing") == ([], false))
        var seen: [String] = []
        while true {
            let (page, more) = list("limit=2&start_after=\(seen.last ?? "")")
            #expect(page.count == 2)
            seen += page
            if more == false { break }
        }
        #expect(seen == names)
        let bad = [
            "limit=abc", "limit=-1", "limit=", "limit=1.5", "prefix=-a", "prefix=A",
            "start_after=%FF",
        ]
        for query in bad {
            bench.ask("GET", "/v1/basins?\(query)").expectFailure("bad_query", 400)
        }
    }
}
