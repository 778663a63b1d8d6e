// SPDX-License-Identifier: Apache-2.0

internal import S2SClient

/// A server that keeps streams of its own kind, given the same records by the same load generator.
final class Peer: Pollable {
    private let socket: Socket
    private let request: [UInt8]
    /// The first byte of the line that ends a request.
    private let mark: UInt8
    private var isAtLineStart = true
    private var pending: [UInt8] = []
    private var room = [UInt8](repeating: 0, count: 256 << 10)
    private var sentAt: [Int64] = []
    private var oldest = 0
    private(set) var acked = 0
    private(set) var isBroken = false
    private var latency = Histogram()
    private var isMeasuring = false

    private init(
        port: UInt16, greeting: String, request: [UInt8], mark: Character
    ) throws(ClientError) {
        socket = try Socket(host: "127.0.0.1", port: port)
        socket.write(greeting.utf8)
        self.request = request
        self.mark = mark.asciiValue!
    }

    /// Redis, started with `appendfsync always`: an entry is on disk before the reply.
    static func redis(port: UInt16) throws(ClientError) -> Peer {
        var request = Array("*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nd\r\n".utf8)
        request += Array("$\(Content.bodyBytes)\r\n".utf8) + body + [13, 10]
        return try Peer(port: port, greeting: "", request: request, mark: "$")
    }

    /// NATS JetStream with a file store: it does not sync a message before it acknowledges it.
    static func nats(port: UInt16) throws(ClientError) -> Peer {
        let config = #"{"name":"BENCH","subjects":["bench"],"storage":"file","retention":"limits"}"#
        let greeting =
            "CONNECT {\"verbose\":false}\r\nSUB answers 1\r\n"
            + "PUB $JS.API.STREAM.CREATE.BENCH created \(config.utf8.count)\r\n\(config)\r\n"
        let request = Array("PUB bench answers \(Content.bodyBytes)\r\n".utf8) + body + [13, 10]
        return try Peer(port: port, greeting: greeting, request: request, mark: "M")
    }

    private static var body: [UInt8] {
        // Both protocols count bytes, but this parser looks for line ends in what comes back.
        (Content.filling + [0, 0, 0, 0, 0, 0, 0, 0]).prefix(Content.bodyBytes).map { $0 }
    }

    var descriptor: Int32 { socket.descriptor }
    var wantsToWrite: Bool { socket.wantsToWrite }
    func flush() { if !socket.flush() { isBroken = true } }

    func readable() {
        let count = room.withUnsafeMutableBytes { socket.read(into: $0) }
        guard let count else {
            isBroken = true
            return
        }
        for byte in room[..<count] {
            if isAtLineStart {
                if byte == mark { answered() }
                // NATS asks whether we are there.
                if byte == UInt8(ascii: "P") { socket.write("PONG\r\n".utf8) }
                if byte == UInt8(ascii: "-") { isBroken = true }
            }
            isAtLineStart = byte == 10
        }
    }

    private func answered() {
        guard oldest < sentAt.count else { return }
        acked += 1
        if isMeasuring { latency.record(monotonicNanoseconds - sentAt[oldest]) }
        oldest += 1
        if oldest > 65_536 {
            sentAt.removeFirst(oldest)
            oldest = 0
        }
    }

    /// Keeps `window` requests in flight.
    func measure(
        _ name: String, window: Int, seconds: Double, _ report: inout Report
    ) throws(ClientError) {
        let poller = Poller()
        poller.add(self)
        latency = Histogram()
        func load(_ seconds: Double) throws(ClientError) {
            let end = monotonicNanoseconds + Int64(seconds * 1e9)
            while monotonicNanoseconds < end {
                while sentAt.count - oldest < window {
                    sentAt.append(monotonicNanoseconds)
                    socket.write(request)
                }
                poller.turn(until: end)
                if isBroken { throw ClientError("\(name) hung up or refused") }
            }
        }
        try load(min(0.5, seconds / 4))
        isMeasuring = true
        let before = acked
        let start = monotonicNanoseconds
        try load(seconds)
        let elapsed = Double(monotonicNanoseconds - start) / 1e9
        isMeasuring = false
        report.add("\(name) records/s", Double(acked - before) / elapsed, "/s")
        for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
            report.add("\(name) ack \(label)", latency.milliseconds(share), "ms")
        }
        try poller.wait("\(name): the last acks") { sentAt.count == oldest || isBroken }
    }

    static func run(_ options: Options, _ report: inout Report) throws(ClientError) {
        let seconds = min(3, options.seconds)
        let makers: [(String, UInt16?, (UInt16) throws(ClientError) -> Peer)] = [
            ("redis", options.redis, redis), ("nats", options.nats, nats),
        ]
        for (name, port, make) in makers {
            guard let port else { continue }
            for (label, window) in [("one-in-flight", 1), ("window", 4_096)] {
                try make(port).measure(
                    "peer \(name) \(label)", window: window, seconds: seconds, &report)
            }
        }
    }
}
