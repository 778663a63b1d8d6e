// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTP
import Primitives
import RPC
import Testing
import Transport

/// An HTTP/2 client that knows frames, and as much HPACK as a request needs.
final class H2Client {
    struct H2Frame {
        let kind: UInt8
        let flags: UInt8
        let stream: UInt32
        let payload: Bytes
    }
    let raw: RawClient
    private(set) var frames: [H2Frame] = []
    private var rest = Bytes()
    /// Windows are granted again as bytes come.
    var grants = true
    /// The server's SETTINGS are acknowledged.
    var acknowledges = true

    init(_ loop: NIOLoop, _ address: String, initialWindow: UInt32 = 65_535) async throws {
        raw = try await RawClient(loop, address)
        raw.onBytes = { [weak self] in self?.take($0) }
        raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        var settings = ByteWriter()
        settings.writeBigEndian(UInt16(4))
        settings.writeBigEndian(initialWindow)
        send(4, 0, 0, settings.finish())
    }

    func send(_ kind: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: Bytes = Bytes()) {
        var writer = ByteWriter()
        writer.write(UInt8(payload.count >> 16))
        writer.writeBigEndian(UInt16(truncatingIfNeeded: payload.count))
        writer.write(kind)
        writer.write(flags)
        writer.writeBigEndian(stream)
        writer.write(payload)
        raw.send(writer.finish())
    }

    func request(_ stream: UInt32, _ method: String, _ path: String, ends: Bool) {
        var block = ByteWriter()
        let fields = [
            (":method", method), (":scheme", "http"), (":path", path), (":authority", "h:80"),
        ]
        for (name, value) in fields {
            block.write(UInt8(0))
            for text in [name, value] {
                block.write(UInt8(text.utf8.count))
                block.write(utf8: text)
            }
        }
        send(1, ends ? 5 : 4, stream, block.finish())
    }

    func grant(_ stream: UInt32, _ count: Int) {
        var writer = ByteWriter()
        writer.writeBigEndian(UInt32(count))
        send(8, 0, stream, writer.finish())
    }

    private func take(_ bytes: Bytes) {
        rest = [rest, bytes].joined()
        while rest.count >= 9 {
            let length = Int(rest[0]) << 16 | Int(rest[1]) << 8 | Int(rest[2])
            guard rest.count >= 9 + length else { return }
            let stream = rest.loadBigEndian(UInt32.self, at: 5)
            let frame = H2Frame(
                kind: rest[3], flags: rest[4], stream: stream, payload: rest[9..<9 + length])
            rest = rest.dropFirst(9 + length)
            frames.append(frame)
            if frame.kind == 4, frame.flags == 0, acknowledges { send(4, 1, 0) }
            if frame.kind == 0, length > 0, grants {
                grant(0, length)
                if frame.flags & 1 == 0 { grant(stream, length) }
            }
        }
    }

    func data(_ stream: UInt32) -> Int {
        frames.filter { $0.kind == 0 && $0.stream == stream }.map(\.payload.count).reduce(0, +)
    }

    func hasEnded(_ stream: UInt32) -> Bool {
        frames.contains { $0.stream == stream && $0.kind <= 1 && $0.flags & 1 == 1 }
    }

    func has(_ kind: UInt8, _ stream: UInt32) -> Bool {
        frames.contains { $0.kind == kind && $0.stream == stream }
    }
}

@Suite(.serialized) struct HTTP2Tests {
    @Test func settingsComeAtOnceAndRequestsAreAnswered() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            #expect(await eventually(loop) { client.has(4, 0) })
            client.request(1, "GET", "/hello?a=b", ends: true)
            #expect(await eventually(loop) { client.hasEnded(1) })
            #expect(client.data(1) == 5)
            #expect(!client.has(3, 1), "no RST_STREAM")
            let request = site.requests[0]
            #expect(request.isHTTP2 && request.query == "a=b" && request.header("host") == "h:80")
            client.send(6, 0, 0, Bytes([1, 2, 3, 4, 5, 6, 7, 8]))
            #expect(await eventually(loop) { client.frames.contains { $0.kind == 6 } })
            let pong = client.frames.first { $0.kind == 6 }
            #expect(pong?.flags == 1 && pong?.payload == [1, 2, 3, 4, 5, 6, 7, 8])
        }
    }

    /// Also behind a body that waits for the client's windows.
    @Test(arguments: [0, 3, 1_000_000])
    func trailersEndTheStream(_ count: Int) async throws {
        try await withSite { loop, _, address, _ in
            let client = try await H2Client(loop, address)
            client.request(1, "GET", "/trailers?\(count)", ends: true)
            #expect(await eventually(loop) { client.hasEnded(1) })
            #expect(client.data(1) == count && !client.has(3, 1))
            let frames = client.frames.filter { $0.stream == 1 && $0.kind <= 1 }
            #expect(frames.filter { $0.kind == 1 }.count == 2)
            #expect(frames.last?.kind == 1 && frames.last?.flags == 5)
            #expect(frames.dropLast().allSatisfy { $0.flags & 1 == 0 })
            client.request(3, "GET", "/hello", ends: true)
            #expect(await eventually(loop) { client.hasEnded(3) && client.data(3) == 5 })
        }
    }

    @Test func manyStreamsAtOnceFullDuplex() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await H2Client(loop, address)
            #expect(await eventually(loop) { client.has(4, 0) })
            let streams = (0..<200).map { UInt32($0 * 2 + 1) }
            for stream in streams { client.request(stream, "POST", "/echo", ends: false) }
            #expect(await eventually(loop) { streams.allSatisfy { client.has(1, $0) } })
            for round in 1...3 {
                for stream in streams { client.send(0, 0, stream, Bytes(utf8: "abc")) }
                #expect(
                    await eventually(loop) { streams.allSatisfy { client.data($0) == 3 * round } })
            }
            for stream in streams { client.send(0, 1, stream) }
            #expect(await eventually(loop) { streams.allSatisfy { client.hasEnded($0) } })
            #expect(!client.frames.contains { $0.kind == 3 || $0.kind == 7 })
        }
    }

    @Test func bigBodiesFlowAndAStalledStreamHoldsBackItselfOnly() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            #expect(await eventually(loop) { client.has(4, 0) })
            client.request(1, "POST", "/stall", ends: false)
            let piece = Bytes([UInt8](repeating: 1, count: 16_384))
            // The whole window of the stalled stream.
            for _ in 0..<256 { client.send(0, 0, 1, piece) }
            client.request(3, "POST", "/count", ends: false)
            var granted = 4 << 20
            var sent = 0
            while sent < 40 << 20 {
                granted =
                    (4 << 20)
                    + client.frames.filter { $0.kind == 8 && $0.stream == 3 }
                    .map { Int($0.payload.loadBigEndian(UInt32.self, at: 0)) }.reduce(0, +)
                while sent < 40 << 20, sent + piece.count <= granted {
                    client.send(0, 0, 3, piece)
                    sent += piece.count
                }
                await loop.sleep(.milliseconds(1))
            }
            client.send(0, 1, 3)
            #expect(await eventually(loop) { client.hasEnded(3) })
            #expect(client.data(3) == "\(40 << 20)".utf8.count)
            #expect(site.bodyBytes == 0)
            #expect(!client.has(8, 1), "no window for the stalled stream")
            site.held[0].setReading(true)
            #expect(await eventually(loop) { site.bodyBytes == 4 << 20 && client.has(8, 1) })
        }
    }

    @Test func smallWindowsAreRespected() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address, initialWindow: 1_000)
            client.grants = false
            client.request(1, "GET", "/big?5000000", ends: true)
            #expect(await eventually(loop) { client.data(1) == 1_000 })
            await loop.sleep(.milliseconds(50))
            #expect(client.data(1) == 1_000)
            #expect(site.unsentMost <= (1 << 20) + 110_000)
            client.grant(1, 5_000_000)
            client.grant(0, 5_000_000)
            #expect(await eventually(loop) { client.hasEnded(1) })
            #expect(client.data(1) == 5_000_000)
            #expect(site.writables > 0)
        }
    }

    @Test func resetStreamAborts() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            for i in 0..<500 {
                let stream = UInt32(i * 2 + 1)
                client.request(stream, "POST", "/hang", ends: false)
                client.send(3, 0, stream, Bytes([0, 0, 0, 8]))
            }
            #expect(await eventually(loop) { site.aborts == 500 })
            client.request(1_001, "GET", "/hello", ends: true)
            #expect(await eventually(loop) { client.hasEnded(1_001) })
            client.request(1_003, "POST", "/hang", ends: false)
            #expect(await eventually(loop) { site.requests.count == 502 })
            client.raw.link.close()
            #expect(await eventually(loop) { site.aborts == 501 })
        }
    }

    @Test func abortResetsTheStreamAlone() async throws {
        try await withSite { loop, _, address, _ in
            let client = try await H2Client(loop, address)
            client.request(1, "GET", "/abort", ends: true)
            #expect(await eventually(loop) { client.has(3, 1) })
            client.request(3, "GET", "/hello", ends: true)
            #expect(await eventually(loop) { client.hasEnded(3) })
        }
    }

    @Test func abortLetsGoOfAResponseThatIsNotTaken() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address, initialWindow: 10)
            client.grants = false
            client.request(1, "GET", "/hang", ends: true)
            let exchange = try await site.respond(loop, bytes: 1 << 20)
            #expect(await eventually(loop) { client.data(1) == 10 })
            #expect(exchange.unsentBytes > 1 << 19)
            exchange.abort()
            #expect(await eventually(loop) { client.has(3, 1) && exchange.unsentBytes == 0 })
            client.request(3, "GET", "/hello", ends: true)
            #expect(await eventually(loop) { client.hasEnded(3) })
        }
    }

    /// It takes no reset, so that the connection has to go.
    @Test func abortLetsGoOfWhatADeafClientDoesNotTake() async throws {
        try await withSite { loop, site, address, server in
            let client = try await H2Client(loop, address, initialWindow: 1 << 30)
            client.grant(0, 1 << 30)
            #expect(await eventually(loop) { client.has(4, 0) })
            client.raw.link.setReading(false)
            client.request(1, "GET", "/hang", ends: true)
            let exchange = try await site.respond(loop, bytes: 32 << 20)
            await loop.sleep(.milliseconds(100))
            #expect(exchange.unsentBytes > 1 << 20)
            exchange.abort()
            #expect(
                await eventually(loop) {
                    server.connectionCount == 0 && exchange.unsentBytes == 0
                })
        }
    }

    @Test func stuckStreamIsResetAfterItsTime() async throws {
        var settings = HTTPSettings()
        settings.writeTimeout = .seconds(1)
        try await withSite(settings) { loop, site, address, _ in
            let client = try await H2Client(loop, address, initialWindow: 10)
            client.request(1, "GET", "/big", ends: true)
            #expect(await eventually(loop) { site.aborts == 1 && client.has(3, 1) })
            client.request(3, "GET", "/hello", ends: true)
            #expect(await eventually(loop) { client.hasEnded(3) })
        }
    }

    /// A client that opens its windows and then reads nothing takes no reset either.
    @Test func deafClientIsCutOff() async throws {
        var settings = HTTPSettings()
        settings.writeTimeout = .seconds(1)
        try await withSite(settings) { loop, site, address, server in
            let client = try await H2Client(loop, address, initialWindow: 1 << 30)
            client.grant(0, 1 << 30)
            #expect(await eventually(loop) { client.has(4, 0) })
            client.raw.link.setReading(false)
            for stream in UInt32(0)..<20 {
                client.request(stream * 2 + 1, "GET", "/big", ends: true)
            }
            #expect(await eventually(loop) { site.aborts == 20 && server.connectionCount == 0 })
        }
    }

    @Test func stopSaysGoAwayAndFinishes() async throws {
        try await withSite { loop, site, address, server in
            let client = try await H2Client(loop, address)
            client.request(5, "GET", "/hang", ends: true)
            #expect(await eventually(loop) { site.held.count == 1 })
            var isStopped = false
            loop.spawn {
                await server.stop(within: .seconds(20))
                isStopped = true
            }
            #expect(
                await eventually(loop) { client.frames.filter { $0.kind == 7 }.count == 2 })
            let last = client.frames.last { $0.kind == 7 }
            #expect(last?.payload.prefix(8) == [0, 0, 0, 5, 0, 0, 0, 0])
            #expect(!isStopped)
            site.reply(site.held[0], "done")
            #expect(await eventually(loop) { isStopped && client.raw.isClosed })
            #expect(client.hasEnded(5) && client.data(5) == 4)
        }
    }

    /// The end of a response is in our socket only, and nothing else is under way any more.
    @Test func stopLosesNothingThatWasAnswered() async throws {
        try await withSite { loop, site, address, server in
            let client = try await H2Client(loop, address, initialWindow: 40 << 20)
            client.grants = false
            client.grant(0, 40 << 20)
            client.request(1, "GET", "/hang", ends: true)
            #expect(await eventually(loop) { site.held.count == 1 && client.has(4, 0) })
            client.raw.link.setReading(false)
            let exchange = site.held[0]
            exchange.respond(200, [])
            let piece = Bytes([UInt8](repeating: 0x61, count: 128 << 10))
            var sent = 0
            while exchange.unsentBytes < 512 << 10 {
                exchange.write([piece])
                sent += piece.count
                await loop.sleep(.milliseconds(5))
            }
            exchange.finish()
            var isStopped = false
            loop.spawn {
                await server.stop(within: .seconds(20))
                isStopped = true
            }
            // Longer than the notice and the time that a closed connection is read on.
            await loop.sleep(.seconds(2))
            #expect(!isStopped)
            client.raw.link.setReading(true)
            #expect(await eventually(loop) { isStopped && client.raw.isClosed })
            #expect(client.hasEnded(1) && client.data(1) == sent)
        }
    }

    @Test func idleConnectionsEnd() async throws {
        var settings = HTTPSettings()
        settings.keepAliveTimeout = .seconds(1)
        try await withSite(settings) { loop, site, address, server in
            let idle = try await H2Client(loop, address)
            idle.request(1, "GET", "/hello", ends: true)
            // A header block without its end.
            let half = try await H2Client(loop, address)
            half.send(1, 1, 1, Bytes([0x82]))
            let busy = try await H2Client(loop, address)
            busy.request(1, "GET", "/hang", ends: true)
            #expect(await eventually(loop) { idle.raw.isClosed && half.raw.isClosed })
            #expect(idle.hasEnded(1) && idle.has(7, 0) && half.has(7, 0))
            // The server hears of a closed connection's end behind its client.
            #expect(await eventually(loop) { server.connectionCount == 1 })
            #expect(!busy.raw.isClosed)
            site.reply(site.held[0], "late")
            #expect(await eventually(loop) { busy.raw.isClosed })
            #expect(busy.hasEnded(1) && busy.data(1) == 4)
        }
    }

    @Test func brokenFramesEndTheConnection() async throws {
        try await withSite { loop, site, address, server in
            let client = try await H2Client(loop, address)
            client.request(1, "POST", "/hang", ends: false)
            #expect(await eventually(loop) { site.held.count == 1 })
            client.send(8, 0, 0, Bytes([0, 0, 0, 0]))
            #expect(await eventually(loop) { client.raw.isClosed && site.aborts == 1 })
            #expect(client.has(7, 0))
            #expect(await eventually(loop) { server.connectionCount == 0 })
        }
    }
}

/// What curl says, on stdout.
private func curl(_ arguments: String...) async throws -> String {
    try await withCheckedThrowingContinuation { waiter in
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["curl", "-sS", "--max-time", "20"] + arguments
        process.standardOutput = output
        Thread.detachNewThread {
            do {
                try process.run()
                let data = output.fileHandleForReading.readDataToEndOfFile()
                process.waitUntilExit()
                waiter.resume(returning: String(decoding: data, as: UTF8.self))
            } catch {
                waiter.resume(throwing: error)
            }
        }
    }
}

@Suite(.serialized) struct CurlTests {
    private static let version = "%{http_version}"

    @Test func bothVersionsOnOnePlainPort() async throws {
        try await withSite { _, _, address, _ in
            let url = "http://\(address)/hello"
            #expect(try await curl("-w", Self.version, url) == "hello1.1")
            #expect(try await curl("-w", Self.version, "--http2", url) == "hello1.1")
            let h2 = try await curl("-w", Self.version, "--http2-prior-knowledge", url)
            #expect(h2 == "hello2")
            let head = try await curl("-I", "--http2-prior-knowledge", url)
            #expect(head.hasPrefix("HTTP/2 200"))
        }
    }

    @Test func bothVersionsOverTLS() async throws {
        let certificates = try Certificates()
        let files = TLSFiles(
            certificate: certificates.path("own.pem"), key: certificates.path("own.key"))
        try await withSite(tls: files) { _, _, address, _ in
            let url = "https://\(address)/hello"
            #expect(try await curl("-k", "-w", Self.version, "--http1.1", url) == "hello1.1")
            #expect(try await curl("-k", "-w", Self.version, "--http2", url) == "hello2")
            let big = "https://\(address)/big?20000000"
            let size = try await curl("-k", "-o", "/dev/null", "-w", "%{size_download}", big)
            #expect(size == "20000000")
        }
    }

    @Test func uploadsOverBoth() async throws {
        let file = FileManager.default.temporaryDirectory
            .appendingPathComponent("millrace-upload-\(UUID().uuidString)").path
        #expect(FileManager.default.createFile(atPath: file, contents: Data(count: 9_000_000)))
        try await withSite { _, _, address, _ in
            let url = "http://\(address)/count"
            let body = "@" + file
            let old = try await curl("--data-binary", body, url)
            #expect(old == "9000000")
            let new = try await curl("--http2-prior-knowledge", "--data-binary", body, url)
            #expect(new == "9000000")
        }
        try FileManager.default.removeItem(atPath: file)
    }
}
