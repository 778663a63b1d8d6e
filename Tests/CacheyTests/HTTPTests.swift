// SPDX-License-Identifier: Apache-2.0

import ObjectStorage
import Observability
import Primitives
import TestSupport
import Testing

@testable import CacheyRole

@Suite struct HTTPTests {
    private func range(_ text: String) -> (name: String, value: String) { ("range", text) }

    @Test func aRangeIsServed() throws {
        let bench = try Bench()
        let object = bench.put("seg/a b/ü", 2_500)
        let reply = bench.http("GET", "/fetch/b/seg/a%20b/%C3%BC", [range("bytes=500-999")])
        #expect(reply.status == 206 && reply.body == object[500..<1_000])
        #expect(reply.header("content-range") == "bytes 500-999/2500")
        #expect(reply.header("content-length") == "500")
        #expect(reply.header("content-type") == "application/octet-stream")
        #expect(reply.header("c0-status") == "500-999; b; 0")
        #expect(reply.isFinished && reply.trailers.isEmpty)

        let fetchedAt = 1_700_000_000
        let again = bench.http("GET", "/fetch/b/seg/a%20b/%C3%BC", [range("bytes=0-0")])
        #expect(again.header("c0-status") == "0-0; b; \(fetchedAt)")
        // Slashes may be encoded, too.
        #expect(
            bench.http("GET", "/fetch/b/seg%2Fa%20b%2F%C3%BC", [range("bytes=0-0")]).status == 206)
        #expect(bench.gets == 1)
    }

    @Test func laterPagesAreToldInTrailers() throws {
        for isHTTP2 in [true, false] {
            let bench = try Bench()
            let object = bench.put("o", 2_500)
            let te = (name: "te", value: "trailers, deflate")
            _ = bench.http("GET", "/fetch/b/o", [range("bytes=1000-1000")])
            let reply = bench.http(
                "GET", "/fetch/b/o", [range("bytes=10-9999"), te], isHTTP2: isHTTP2)
            #expect(reply.status == 206 && reply.body == object[10..<2_500])
            #expect(reply.header("content-range") == "bytes 10-2499/2500")
            #expect(reply.header("c0-status") == "10-999; b; 0")
            #expect(reply.trailers.map(\.name) == ["c0-status", "c0-status"])
            #expect(
                reply.trailers.map(\.value) == ["1000-1999; b; 1700000000", "2000-2499; b; 0"])
            #expect(reply.header("content-length") == (isHTTP2 ? "2490" : nil))
            #expect(reply.header("trailer") == (isHTTP2 ? nil : "c0-status"))

            // Who does not ask for trailers gets a length.
            let plain = bench.http("GET", "/fetch/b/o", [range("bytes=0-2499")], isHTTP2: isHTTP2)
            #expect(plain.header("content-length") == "2500" && plain.trailers.isEmpty)
            #expect(plain.isFinished && plain.body == object)
        }
    }

    @Test func headTellsWithoutSending() throws {
        let bench = try Bench()
        bench.put("o", 5_000)
        let reply = bench.http("HEAD", "/fetch/b/o", [range("bytes=0-9999")])
        #expect(reply.status == 206 && reply.body.isEmpty && reply.isFinished)
        #expect(reply.header("content-range") == "bytes 0-4999/5000")
        #expect(reply.header("content-length") == "5000")
        #expect(bench.gets == 1, "one page tells all")
        #expect(bench.role.metrics.egressBytes.value == 0)
        #expect(bench.http("HEAD", "/fetch/b/x", [range("bytes=0-0")]).status == 404)
        #expect(bench.role.sessions.count == 0)
    }

    @Test(arguments: [
        "bytes=0-", "bytes=-5", "bytes=5-4", "bytes=0-1,3-4", "bytes=a-b", "items=0-1", "bytes=",
        "bytes=0-1099511627776", "bytes=0-99999999999999999999", "bytes=+0-1", "bytes=0--1",
    ])
    func otherRangesAreRefused(_ text: String) throws {
        let bench = try Bench()
        bench.put("o", 100)
        #expect(bench.http("GET", "/fetch/b/o", [range(text)]).status == 416)
        #expect(bench.gets == 0)
    }

    @Test func errorsHaveTheirStatus() throws {
        let bench = try Bench()
        bench.put("o", 1_500)
        let good = range("bytes=0-1499")
        #expect(bench.http("GET", "/fetch/b/o").status == 400, "the range is mandatory")
        #expect(bench.http("GET", "/fetch/b/missing", [good]).status == 404)
        let behind = bench.http("GET", "/fetch/b/o", [range("bytes=1500-1600")])
        #expect(behind.status == 416 && behind.header("content-range") == "bytes */1500")
        #expect(bench.http("GET", "/fetch/b/o", [range("bytes=2000-2001")]).status == 416)
        for path in [
            "/fetch/b", "/fetch/b/", "/fetch//o", "/fetch/b/a%00b", "/fetch/b/../x",
            "/fetch/b/%FF", "/fetch/\(String(repeating: "k", count: 65))/o", "/fetch/x%7F/o",
            "/fetch/b/\(String(repeating: "k", count: 1_025))",
        ] {
            #expect(bench.http("GET", path, [good]).status == 400, "\(path)")
        }
        for config in ["ct", "ct=", "ct=x", "fps=1", "rt=-1"] {
            let reply = bench.http("GET", "/fetch/b/o", [good, ("c0-config", "new=1 \(config)")])
            #expect(reply.status == 400, "\(config)")
        }
        let settings = "ct=1 rt=2 ot=3000 oat=4 ma=5 ib=6 mb=7 fps=true new=x"
        #expect(bench.http("GET", "/fetch/b/o", [good, ("c0-config", settings)]).status == 206)
        #expect(bench.http("GET", "/fetch/unknown/o", [good]).status == 400)
        #expect(bench.http("GET", "/fetch/b/o", [good, ("c0-bucket", "a\u{1}b")]).status == 400)
        #expect(bench.http("POST", "/fetch/b/o", [good]).status == 405)
        #expect(bench.http("GET", "/other").status == 404)
        bench.bucket.usual = .fail(.unavailable, after: 0)
        #expect(bench.http("GET", "/fetch/b/failing", [good]).status == 500)
    }

    @Test func sizesThatDifferAreAConflict() throws {
        let bench = try Bench()
        bench.put("o", 3_000)
        _ = bench.http("GET", "/fetch/b/o", [range("bytes=1000-1999")])
        bench.put("o", 2_900)
        // The first page is sent by then: the body ends where it stands.
        let reply = bench.http("GET", "/fetch/b/o", [range("bytes=0-1999")])
        #expect(reply.isAborted && !reply.isFinished && reply.body.count == 1_000)
        // With the disagreement known before anything is sent, it is a status.
        let sink = FakeExchange("GET", "/fetch/b/o", [range("bytes=0-1")])
        let exchange = FetchExchange(
            sink, world: bench.world, limits: bench.limits, metrics: bench.role.metrics)
        exchange.fail(.sizesDiffer, objectSize: 3_000)
        #expect(sink.status == 409)
    }

    @Test func bucketsMayBeNamed() throws {
        let bench = try Bench(buckets: ["b", "c"])
        let object = bench.put("o", 100)
        bench.buckets[0].objects = [:]
        let named: [(name: String, value: String)] = [
            range("bytes=0-99"), ("c0-bucket", "b"), ("c0-bucket", "c"), ("c0-bucket", "b"),
        ]
        let reply = bench.http("GET", "/fetch/any/o", named)
        #expect(reply.status == 206 && reply.body == object)
        #expect(reply.header("c0-status") == "0-99; c; 0")
    }

    @Test func aClientThatLeavesOrDoesNotRead() throws {
        let bench = try Bench { $0.responseBufferBytesMax = 1 << 20 }
        bench.put("o", 4 << 20)
        let slow = FakeExchange("GET", "/fetch/b/o", [range("bytes=0-4194303")])
        slow.holdsUnsent = true
        bench.role.serve(slow)
        bench.loop.advance(.seconds(3))
        #expect(slow.body.count > 1 << 20 && slow.body.count < (1 << 20) + 3_000)
        slow.takeUnsent()
        bench.loop.advance(.seconds(3))
        #expect(slow.body.count > 2 << 20)
        slow.hangUp()
        bench.loop.advance(.seconds(1))
        #expect(bench.role.sessions.count == 0)
        #expect(bench.role.metrics.count(.http, .abandoned) == 1)
    }

    @Test func pagesForOperators() throws {
        let bench = try Bench()
        bench.put("o", 1_000)
        _ = bench.http("GET", "/fetch/b/o", [range("bytes=0-999")])
        bench.loop.advance(.seconds(1))
        let stats = bench.http("GET", "/stats")
        #expect(stats.header("content-type") == "application/json")
        #expect(
            stats.body.lossyText
                == "{\"egress_throughput_10s_bps\":100.0,\"ingress_throughput_10s_bps\":100.0}")
        #expect(bench.http("GET", "/health").status == 200)
        let metrics = bench.http("GET", "/metrics").body.lossyText
        #expect(metrics.contains("millrace_cachey_pages_total{source=\"bucket\"} 1"))
        #expect(
            metrics.contains("millrace_cachey_fetches_total{surface=\"http\",outcome=\"ok\"} 1"))
        try bench.run { [role = bench.role] in await role.drain() }
        #expect(bench.http("GET", "/health").status == 503)
        #expect(bench.http("GET", "/health/live").status == 200)
    }
}
