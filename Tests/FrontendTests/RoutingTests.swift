// SPDX-License-Identifier: Apache-2.0

import Compression
import HTTP
import Primitives
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct RouteTests {
    @Test(arguments: [
        ("/health", Resource.health), ("/ping", .health), ("/metrics", .metricsPage),
        ("/v1/basins", .basins), ("/v1/basins/b", .basin("b")), ("/v1/streams", .streams),
        ("/v1/streams/a%2Fb", .stream("a%2Fb")), ("/v1/streams/s/records", .records(stream: "s")),
        ("/v1/streams/s/records/tail", .tail(stream: "s")),
        ("/v1/streams/records", .stream("records")), ("/v1/access-tokens", .accessTokens),
        ("/v1/access-tokens/t", .accessToken("t")), ("/v1/metrics", .accountMetrics),
        ("/v1/metrics/b", .basinMetrics("b")),
        ("/v1/metrics/b/s", .streamMetrics(basin: "b", stream: "s")),
        ("/v1/locations", .locations), ("/v1/locations/default", .defaultLocation),
    ])
    func routes(_ path: String, _ resource: Resource) {
        #expect(Resource(path: path) == resource)
    }

    @Test(arguments: [
        "/", "", "*", "/v1", "/v1/", "/v2/basins", "/health/", "/v1/health", "/v1/basins/",
        "/v1/streams/", "/v1/access-tokens/", "/v1/metrics/", "/v1/metrics/b/", "//v1/basins",
        "/v1//streams", "/v1/streams/a/b", "/v1/streams//records", "/v1/streams/s/records/",
        "/v1/streams/s/records/tail/x", "/v1/locations/other", "/basins", "/v1/nothing",
    ])
    func routesNothingElse(_ path: String) {
        #expect(Resource(path: path) == nil)
    }
}

@Suite struct EnvelopeTests {
    @Test func answersHealth() {
        let bench = ControlBench(rootToken: "secret", starts: false)
        #expect(bench.ask("GET", "/health").status == 503)
        bench.role.start()
        for path in ["/health", "/ping"] {
            let exchange = bench.ask("GET", path)
            #expect(exchange.status == 200)
            #expect(exchange.bodyText == "OK")
        }
        let metrics = bench.ask("GET", "/metrics")
        #expect(metrics.responseHeader("content-type") == "text/plain; version=0.0.4")
        #expect(metrics.bodyText.contains(#"millrace_frontend_requests_total{status="5xx"} 1"#))
    }

    @Test func requestsOfTheControlPlaneAndForTheTailAreTimed() {
        let bench = ControlBench()
        for _ in 0..<2 { #expect(bench.ask("GET", "/v1/basins").status == 200) }
        #expect(bench.ask("GET", "/v1/streams/s/records/tail").status == 404)
        #expect(bench.ask("GET", "/v1/nowhere").status == 404)
        let metrics = bench.ask("GET", "/metrics").bodyText
        let name = "millrace_frontend_request_seconds_count"
        #expect(metrics.contains("\(name){kind=\"control\"} 2\n"))
        #expect(metrics.contains("\(name){kind=\"check_tail\"} 1\n"))
    }

    @Test func refusesUnknownPathsAndMethods() {
        let bench = ControlBench()
        bench.ask("GET", "/v1/streams/").expectFailure("not_found", 404)
        let exchange = bench.ask("PUT", "/v1/basins")
        exchange.expectFailure("method_not_allowed", 405)
        #expect(exchange.responseHeader("allow") == "GET, POST")
    }

    @Test(arguments: [
        (nil, false), ("Bearer", false), ("Bearer ", false), ("Bearer secre", false),
        ("Bearer secretsecret", false), ("Bearer Secret", false), ("Basic secret", false),
        ("secret", false), ("Bearer secret", true), ("bearer  secret ", true),
    ])
    func authorizes(_ value: String?, _ isAllowed: Bool) {
        let bench = ControlBench(rootToken: "secret")
        let headers = value.map { [(name: "authorization", value: $0)] } ?? []
        let exchange = bench.begin("GET", "/v1/basins", headers: headers)
        if isAllowed {
            #expect(exchange.status == 200)
        } else {
            exchange.expectFailure("authn", 401)
        }
    }

    @Test func emptyRootTokenAdmitsNobody() {
        let bench = ControlBench(rootToken: "")
        let headers = [(name: "authorization", value: "Bearer ")]
        bench.begin("GET", "/v1/basins", headers: headers).expectFailure("authn", 401)
    }

    @Test func permitsBrowsers() {
        let bench = ControlBench(rootToken: "secret")
        let preflight = bench.begin(
            "OPTIONS", "/v1/streams",
            headers: [
                ("origin", "https://a.example"), ("access-control-request-method", "PATCH"),
                ("access-control-request-headers", "authorization,s2-basin"),
            ])
        #expect(preflight.status == 200)
        #expect(preflight.responseHeader("access-control-allow-origin") == "https://a.example")
        #expect(preflight.responseHeader("access-control-allow-methods") == "PATCH")
        #expect(
            preflight.responseHeader("access-control-allow-headers") == "authorization,s2-basin")
        let refused = bench.begin("GET", "/v1/basins", headers: [("origin", "null")])
        refused.expectFailure("authn", 401)
        #expect(refused.responseHeader("access-control-allow-origin") == "null")
        #expect(bench.ask("GET", "/health").responseHeader("vary") == nil)
    }

    @Test(arguments: [Coding.gzip, .zstd])
    func decompressesBodies(_ coding: Coding) {
        let bench = ControlBench()
        let codec = Codec()
        let headers = [
            (name: "content-type", value: "application/json; charset=utf-8"),
            (name: "content-encoding", value: coding.rawValue),
        ]
        let body = codec.compress(Bytes(utf8: #"{"basin":"basin-0001"}"#), coding)
        let created = bench.begin("POST", "/v1/basins", body, headers: headers)
        #expect(created.status == 201)
        let none = codec.compress(Bytes(), coding)
        let ensured = bench.begin("PUT", "/v1/basins/basin-0001", none, headers: headers)
        #expect(ensured.provisionResult == "noop")
        let bomb = codec.compress(Bytes(repeatElement(0x20, count: 4 << 20)), coding)
        bench.begin("POST", "/v1/basins", bomb, headers: headers)
            .expectFailure("body_too_large", 413)
        bench.begin("POST", "/v1/basins", [1, 2, 3], headers: headers)
            .expectFailure("bad_json", 400)
    }

    @Test func boundsBodies() {
        let bench = ControlBench()
        let json = (name: "content-type", value: "application/json")
        bench.begin("POST", "/v1/basins", [1], headers: [json, ("content-encoding", "br")])
            .expectFailure("unsupported_coding", 415)
        let announced = bench.begin(
            "POST", "/v1/basins", headers: [json, ("content-length", "1048577")], ends: false)
        announced.expectFailure("body_too_large", 413)
        let endless = bench.begin("POST", "/v1/basins", headers: [json], ends: false)
        for _ in 0..<17 { endless.feed(Bytes(repeatElement(0x20, count: 64 << 10))) }
        bench.loop.settle()
        endless.expectFailure("body_too_large", 413)
        #expect(!endless.isReading)
        let slow = bench.begin("POST", "/v1/basins", headers: [json], ends: false)
        bench.loop.advance(.seconds(59))
        #expect(slow.status == nil)
        bench.loop.advance(.seconds(2))
        slow.expectFailure("request_timeout", 408)
    }

    @Test func boundsAllBodiesTogether() {
        let bench = ControlBench()
        let json = [(name: "content-type", value: "application/json")]
        let most = FrontendRole.controlBytesMax / FrontendRole.controlBodyBytesMax
        let slow = (0..<most + 1).map { _ in
            bench.begin("POST", "/v1/basins", headers: json, ends: false)
        }
        #expect(slow.prefix(most).allSatisfy { $0.status == nil })
        slow[most].expectFailure("rate_limited", 429)
        // What is small goes on.
        let small = json + [(name: "content-length", value: "22")]
        let created = bench.begin(
            "POST", "/v1/basins", Bytes(utf8: #"{"basin":"basin-0001"}"#), headers: small)
        #expect(created.status == 201)
        #expect(bench.ask("GET", "/v1/basins").status == 200)
        slow[0].hangUp()
        bench.loop.settle()
        let next = bench.begin("POST", "/v1/basins", headers: json, ends: false)
        #expect(next.status == nil)
    }

    /// A refused request's body is taken before the answer, if it is small and announced.
    @Test func takesRefusedBodies() {
        let bench = ControlBench(rootToken: "secret")
        let headers = [(name: "content-length", value: "4")]
        let exchange = bench.begin("POST", "/v1/basins", headers: headers, ends: false)
        #expect(exchange.status == nil)
        exchange.feed(Bytes(utf8: "null"))
        exchange.endBody()
        exchange.expectFailure("authn", 401)
        let session = bench.begin("POST", "/v1/streams/s/records", ends: false)
        session.expectFailure("authn", 401)
    }

    /// Nobody who is refused makes the server keep what they send.
    @Test func dropsRefusedBodies() {
        let bench = ControlBench(rootToken: "secret")
        let headers = [(name: "content-length", value: "1048576")]
        let exchange = bench.begin("POST", "/v1/basins", headers: headers, ends: false)
        weak var kept: ByteStorage?
        do {
            let storage = ByteStorage.make(capacity: 1_000)
            kept = storage
            exchange.feed(
                Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: 1_000))
        }
        #expect(kept == nil && exchange.status == nil)
        bench.loop.advance(.seconds(6))
        exchange.expectFailure("authn", 401)
        #expect(!exchange.isReading)
        let larger = bench.begin("POST", "/v1/basins", headers: headers, ends: false)
        for _ in 0..<17 { larger.feed(Bytes(repeatElement(0x20, count: 64 << 10))) }
        larger.expectFailure("authn", 401)
        #expect(!larger.isReading)
    }

    @Test(arguments: [nil, "text/plain", "application/x-protobuf", "application/jsonp"])
    func wantsJSON(_ type: String?) {
        let bench = ControlBench()
        let headers = type.map { [(name: "content-type", value: $0)] } ?? []
        let body = Bytes(utf8: #"{"basin":"basin-0001"}"#)
        bench.begin("POST", "/v1/basins", body, headers: headers).expectFailure("bad_json", 400)
        let vendor = [(name: "content-type", value: "Application/vnd.x+JSON")]
        #expect(bench.begin("POST", "/v1/basins", body, headers: vendor).status == 201)
    }

    @Test func survivesClientsThatLeave() throws {
        let bench = ControlBench()
        let early = bench.begin("POST", "/v1/basins", Bytes(utf8: "{"), ends: false)
        early.hangUp()
        bench.loop.settle()
        #expect(early.status == nil)
        let drained = try bench.direct { await bench.role.drain(within: .seconds(1)) }
        #expect(drained)
    }

    @Test func drains() throws {
        let bench = ControlBench()
        let json = [(name: "content-type", value: "application/json")]
        let open = bench.begin("POST", "/v1/basins", headers: json, ends: false)
        var isEmpty: Bool?
        bench.loop.spawn { isEmpty = await bench.role.drain(within: .seconds(5)) }
        bench.loop.settle()
        bench.ask("GET", "/v1/basins").expectFailure("server_draining", 503)
        #expect(bench.ask("GET", "/health").status == 503)
        #expect(isEmpty == nil)
        open.feed(Bytes(utf8: #"{"basin":"basin-0001"}"#))
        open.endBody()
        bench.loop.settle()
        #expect(open.status == 201)
        #expect(isEmpty == true)
    }

    @Test func drainingEnds() {
        let bench = ControlBench()
        _ = bench.begin("POST", "/v1/basins", ends: false)
        var isEmpty: Bool?
        bench.loop.spawn { isEmpty = await bench.role.drain(within: .seconds(5)) }
        bench.loop.advance(.seconds(4))
        #expect(isEmpty == nil)
        bench.loop.advance(.seconds(2))
        #expect(isEmpty == false)
    }

    @Test(arguments: [
        ("GET", "/v1/access-tokens", nil, "not_implemented", 501),
        ("GET", "/v1/access-tokens?limit=-1", nil, "bad_query", 400),
        ("POST", "/v1/access-tokens", #"{"id":"t","scope":{}}"#, "not_implemented", 501),
        ("POST", "/v1/access-tokens", #"{"id":"","scope":{}}"#, "bad_json", 400),
        ("DELETE", "/v1/access-tokens/t", nil, "not_implemented", 501),
        ("DELETE", "/v1/access-tokens/..", nil, "bad_path", 400),
        ("GET", "/v1/metrics?set=account-ops&start=1&end=2", nil, "not_implemented", 501),
        ("GET", "/v1/metrics", nil, "bad_query", 400),
        ("GET", "/v1/metrics/basin-0001?set=storage&start=2&end=1", nil, "invalid", 422),
        ("GET", "/v1/metrics/X?set=storage", nil, "bad_path", 400),
        ("GET", "/v1/locations", nil, "not_implemented", 501),
        ("PUT", "/v1/locations/default", #""aws:us-east-1""#, "not_implemented", 501),
        ("PUT", "/v1/locations/default", "{}", "bad_json", 400),
    ])
    func laterEndpoints(
        _ method: String, _ target: String, _ body: String?, _ code: String, _ status: Int
    ) {
        ControlBench().ask(method, target, body).expectFailure(code, status)
    }
}
