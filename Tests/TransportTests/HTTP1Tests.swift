// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import RPC
import Testing
import Transport

@Suite(.serialized) struct HTTP1Tests {
    private static let hello = "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"
    private static let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"

    @Test func keepAliveAndPipelining() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            for _ in 0..<3 {
                client.send(Self.hello)
                #expect(await client.receive(loop, until: "hello") == Self.answer)
            }
            let two = Self.hello + Self.hello
            client.send(two + "GET /hello?last=%20 HTTP/1.1\r\nX-Some: Thing\r\n\r\n")
            #expect(
                await eventually(loop) { client.text == Self.answer + Self.answer + Self.answer })
            #expect(site.requests.count == 6)
            let last = site.requests[5]
            #expect(last.path == "/hello" && last.query == "last=%20" && !last.isHTTP2)
            #expect(last.header("x-some") == "Thing")
            #expect(!client.isClosed)
        }
    }

    @Test func aTargetMayBeAWholeURI() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send("GET http://h:80/hello?a=http://b/ HTTP/1.1\r\nhost: h\r\n\r\n")
            #expect(await client.receive(loop, until: "hello") == Self.answer)
            let request = try #require(site.requests.last)
            #expect(request.path == "/hello" && request.query == "a=http://b/")
        }
    }

    @Test func trailersFollowAChunkedBody() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await RawClient(loop, address)
            for (count, body) in [(3, "3\r\naaa\r\n"), (0, "")] {
                client.send("GET /trailers?\(count) HTTP/1.1\r\nhost: h\r\nte: trailers\r\n\r\n")
                let end = "0\r\nx-a: 1; b  x-evil: 1\r\nx-a: 2\r\n\r\n"
                #expect(
                    await client.receive(loop, until: end)
                        == "HTTP/1.1 200 OK\r\ntrailer: x-a\r\ntransfer-encoding: chunked\r\n\r\n"
                        + body + end)
            }
            client.send(Self.hello)
            #expect(await client.receive(loop, until: "hello") == Self.answer)
            // HTTP/1.0 has no chunks: the body comes without.
            client.send("GET /trailers?3 HTTP/1.0\r\nhost: h\r\n\r\n")
            #expect(await client.receive(loop, until: "aaa").hasSuffix("\r\n\r\naaa"))
        }
    }

    @Test func splitHead() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await RawClient(loop, address)
            for character in Self.hello {
                client.send(String(character))
                await loop.sleep(.milliseconds(1))
            }
            #expect(await client.receive(loop, until: "hello") == Self.answer)
        }
    }

    @Test func fullDuplex() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send(
                "POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
            let head = await client.receive(loop, until: "\r\n\r\n")
            #expect(
                head == "HTTP/1.1 200 OK\r\ncontent-type: s2s/proto\r\n"
                    + "transfer-encoding: chunked\r\n\r\n")
            for i in 0..<5 {
                client.send("3\r\nab\(i)\r\n")
                #expect(await client.receive(loop, until: "\r\n") == "3\r\nab\(i)\r\n")
            }
            client.send("0\r\n\r\n")
            #expect(await client.receive(loop, until: "0\r\n\r\n") == "0\r\n\r\n")
            client.send("GET /empty HTTP/1.1\r\n\r\n")
            #expect(
                await client.receive(loop, until: "\r\n\r\n") == "HTTP/1.1 204 No Content\r\n\r\n")
        }
    }

    @Test func headHasNoBody() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await RawClient(loop, address)
            client.send("HEAD /hello HTTP/1.1\r\n\r\n" + Self.hello)
            let expected = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + Self.answer
            #expect(await client.receive(loop, until: "hello") == expected)
        }
    }

    @Test func continueIsSaid() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await RawClient(loop, address)
            client.send(
                "POST /count HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
            #expect(
                await client.receive(loop, until: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
            client.send("abc")
            #expect(await client.receive(loop, until: "3").hasSuffix("\r\n\r\n3"))
        }
    }

    @Test func earlyAnswerCloses() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await RawClient(loop, address)
            client.send("POST /early HTTP/1.1\r\ncontent-length: 1000000\r\n\r\nabc")
            #expect(await eventually(loop) { client.isClosed })
            #expect(client.text.hasPrefix("HTTP/1.1 413 "))
        }
    }

    @Test func oldVersionIsClosedAfterwards() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await RawClient(loop, address)
            client.send("GET /big?300000 HTTP/1.0\r\n\r\n")
            #expect(await eventually(loop) { client.isClosed })
            #expect(client.bytes > 300_000 && client.bytes < 300_200)
        }
    }

    @Test func oversizedHeadIsRefused() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send("GET / HTTP/1.1\r\nx: " + String(repeating: "y", count: 70_000))
            #expect(await eventually(loop) { client.isClosed })
            #expect(client.text.hasPrefix("HTTP/1.1 431 "))
            let many = try await RawClient(loop, address)
            let lines = (0..<300).map { "a\($0): b\r\n" }.joined()
            many.send("GET / HTTP/1.1\r\n" + lines + "\r\n")
            #expect(await eventually(loop) { many.isClosed })
            #expect(many.text.hasPrefix("HTTP/1.1 431 "))
            let nonsense = try await RawClient(loop, address)
            nonsense.send("what is this\r\n\r\n")
            #expect(await eventually(loop) { nonsense.isClosed })
            #expect(nonsense.text.hasPrefix("HTTP/1.1 400 "))
            #expect(site.requests.isEmpty)
        }
    }

    @Test func slowClientsAreCutOff() async throws {
        var settings = HTTPSettings()
        settings.headTimeout = .seconds(3)
        settings.bodyTimeout = .seconds(3)
        try await withSite(settings) { loop, _, address, server in
            let silent = try await RawClient(loop, address)
            let head = try await RawClient(loop, address)
            head.send("GET /hello HT")
            let body = try await RawClient(loop, address)
            body.send("POST /count HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
            let session = try await RawClient(loop, address)
            session.send("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
            #expect(
                await eventually(loop) { silent.isClosed && head.isClosed && body.isClosed })
            #expect(head.text.hasPrefix("HTTP/1.1 408 "))
            #expect(body.text.hasPrefix("HTTP/1.1 408 "))
            // A session may be idle.
            #expect(!session.isClosed)
            #expect(await eventually(loop) { server.connectionCount == 1 })
        }
    }

    @Test func vanishedClientAborts() async throws {
        try await withSite { loop, site, address, server in
            let client = try await RawClient(loop, address)
            client.send("POST /hang HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            #expect(await eventually(loop) { site.held.count == 1 })
            client.link.close()
            #expect(await eventually(loop) { site.aborts == 1 && server.connectionCount == 0 })
            // The same while the service holds the client back.
            let held = try await RawClient(loop, address)
            held.send("POST /stall HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
            #expect(await eventually(loop) { site.held.count == 2 && !held.text.isEmpty })
            held.link.close()
            #expect(await eventually(loop) { site.aborts == 2 && server.connectionCount == 0 })
        }
    }

    @Test func neverReadingClientIsBoundedAndCutOff() async throws {
        var settings = HTTPSettings()
        settings.writeTimeout = .seconds(2)
        try await withSite(settings) { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.link.setReading(false)
            client.send("GET /big HTTP/1.1\r\n\r\n")
            #expect(await eventually(loop) { site.aborts == 1 })
            #expect(site.unsentMost <= (1 << 20) + 110_000)
        }
    }

    @Test func heldBodyHoldsTheClientBack() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send("POST /stall HTTP/1.1\r\ncontent-length: 100000000\r\n\r\n")
            let piece = Bytes([UInt8](repeating: 1, count: 1_000_000))
            for _ in 0..<100 { client.send(piece) }
            try #require(await eventually(loop) { site.held.count == 1 })
            await loop.sleep(.milliseconds(200))
            #expect(site.bodyBytes == 0)
            #expect(client.link.unsentBytes > 50_000_000)
            site.held[0].setReading(true)
            #expect(await eventually(loop) { site.bodyBytes == 100_000_000 })
        }
    }

    @Test func abortLetsGoOfAResponseThatIsNotTaken() async throws {
        try await withSite { loop, site, address, server in
            let client = try await RawClient(loop, address)
            client.link.setReading(false)
            client.send("GET /hang HTTP/1.1\r\n\r\n")
            let exchange = try await site.respond(loop, bytes: 32 << 20)
            await loop.sleep(.milliseconds(100))
            #expect(exchange.unsentBytes > 1 << 20)
            exchange.abort()
            #expect(await eventually(loop) { server.connectionCount == 0 })
        }
    }

    /// A response that was taken is over: its connection serves others.
    @Test func abortBehindTheEndDoesNothing() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send("GET /hang HTTP/1.1\r\n\r\n")
            #expect(await eventually(loop) { site.held.count == 1 })
            site.reply(site.held[0], "done")
            _ = await client.receive(loop, until: "done")
            site.held[0].abort()
            client.send("GET /hello HTTP/1.1\r\n\r\n")
            #expect(await client.receive(loop, until: "hello").hasSuffix("hello"))
        }
    }

    @Test func bigResponse() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send("GET /big?50000000 HTTP/1.1\r\n\r\n")
            #expect(await eventually(loop) { client.bytes > 50_000_000 })
            #expect(site.unsentMost <= (1 << 20) + 110_000)
            #expect(site.writables > 0)
        }
    }

    @Test func pipelinedRequestsWaitUntilTheClientTakesItsAnswers() async throws {
        var settings = HTTPSettings()
        settings.headTimeout = .seconds(3)
        settings.keepAliveTimeout = .seconds(3)
        let unsentBytesLow = settings.unsentBytesLow
        try await withSite(settings) { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.link.setReading(false)
            let request = "GET /page?200000 HTTP/1.1\r\nhost: h\r\n\r\n"
            client.send(String(repeating: request, count: 200))
            #expect(await eventually(loop) { !site.requests.isEmpty })
            // Longer than a client may be idle, or take for a head: this one waits for neither.
            await loop.sleep(.seconds(7))
            #expect(site.requests.count < 100)
            #expect(site.unsentMost <= unsentBytesLow + 201_000)
            client.link.setReading(true)
            #expect(await eventually(loop) { client.bytes > 200 * 200_000 })
            #expect(site.requests.count == 200)
            #expect(await eventually(loop) { client.isClosed }, "idle at last")
        }
    }

    @Test func tooManyPipelinedRequestsAreNotTaken() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send("GET /hang HTTP/1.1\r\nhost: h\r\n\r\n")
            #expect(await eventually(loop) { site.held.count == 1 })
            client.send(String(repeating: Self.hello, count: 1_500))
            #expect(await eventually(loop) { client.link.unsentBytes == 0 })
            await loop.sleep(.milliseconds(500))
            site.reply(site.held[0], "first")
            #expect(await eventually(loop) { client.isClosed })
            #expect(client.text.hasSuffix("\r\nconnection: close\r\n\r\nfirst"))
            #expect(site.requests.count == 1)
        }
    }

    @Test func aStreamBehindALargeAnswerGoesOn() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await RawClient(loop, address)
            client.send(
                "GET /page?8000000 HTTP/1.1\r\n\r\nGET /big?5000000 HTTP/1.1\r\n\r\n"
                    + Self.hello)
            #expect(await eventually(loop) { site.requests.count == 3 })
            #expect(await eventually(loop) { client.bytes > 13_000_000 })
        }
    }

    @Test func stopLetsExchangesFinish() async throws {
        try await withSite { loop, site, address, server in
            let client = try await RawClient(loop, address)
            client.send("GET /hang HTTP/1.1\r\n\r\n")
            let idle = try await RawClient(loop, address)
            idle.send("GET /empty HTTP/1.1\r\n\r\n")
            #expect(await eventually(loop) { site.requests.count == 2 })
            var isStopped = false
            loop.spawn {
                await server.stop(within: .seconds(20))
                isStopped = true
            }
            #expect(await eventually(loop) { idle.isClosed })
            #expect(!isStopped && !client.isClosed)
            site.reply(site.held[0], "done")
            #expect(await eventually(loop) { client.isClosed && isStopped })
            #expect(client.text.hasSuffix("connection: close\r\n\r\ndone"))
        }
    }

    @Test func connectionsAreBounded() async throws {
        var settings = HTTPSettings()
        settings.connectionsMax = 2
        try await withSite(settings) { loop, _, address, server in
            let first = try await RawClient(loop, address)
            let second = try await RawClient(loop, address)
            #expect(await eventually(loop) { server.connectionCount == 2 })
            let third = try await RawClient(loop, address)
            #expect(await eventually(loop) { third.isClosed })
            #expect(!first.isClosed && !second.isClosed)
        }
    }
}
