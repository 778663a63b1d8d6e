// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import RPC
internal import Records

/// Some records of a read that go out together.
struct ReadDelivery {
    /// Runs of whole stored records, in order.
    var runs: [Bytes] = []
    var count = 0
    var meteredBytes = 0
    var storedBytes = 0
    var first: SeqNum = 0
    var last: StreamPosition = .zero
    /// Set iff these records end right before it.
    var tail: StreamPosition?

    init() {}

    /// A whole live batch, without a look at its records; nil where that is not enough.
    init?(_ push: FollowPush, at position: SeqNum, _ limits: ReadLimits) {
        let bounds = ReadBatchBounds.standard
        guard limits == ReadLimits(), push.firstSeqNum == position, push.count > 0,
            push.tail.seqNum == position + UInt64(push.count),
            Int(push.count) <= bounds.recordsMax,
            Int(push.meteredBytes) <= bounds.meteredBytesMax,
            push.records.count <= bounds.storedBytesMax
        else { return nil }
        runs = [push.records]
        count = Int(push.count)
        meteredBytes = Int(push.meteredBytes)
        storedBytes = push.records.count
        first = position
        last = StreamPosition(seqNum: push.tail.seqNum - 1, timestamp: push.tail.timestamp)
        tail = push.tail
    }

    mutating func add(_ cut: RecordCut, first: SeqNum, last: StreamPosition) {
        if count == 0 { self.first = first }
        runs.append(cut.records)
        count += cut.count
        meteredBytes += cut.meteredBytes
        storedBytes += cut.records.count
        self.last = last
    }
}

/// The form in which a read goes out to its client.
protocol ReadSink: AnyObject {
    /// Whether everything goes out in one piece, at the end.
    var isUnary: Bool { get }
    /// The start is known, and valid.
    func begin()
    func deliver(_ delivery: ReadDelivery) throws(APIError)
    /// Nothing is new at this tail, and everything before it was delivered.
    func heartbeat(_ tail: StreamPosition)
    /// The clean end.
    func end()
    /// The end for `error`, before `begin` or behind it.
    func fail(_ error: APIError)
}

enum SessionHeaders {
    static let antiBuffering: [(name: String, value: String)] = [
        ("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no"),
    ]
    static let all = [("content-type", "s2s/proto")] + antiBuffering
    static let events = [("content-type", "text/event-stream")] + antiBuffering
}

/// An S2S read session: stored bytes behind a frame's header.
final class SessionReadSink: ReadSink {
    private let exchange: any HTTPExchange
    private var hasBegun = false
    let isUnary = false

    init(_ exchange: any HTTPExchange) { self.exchange = exchange }

    func begin() {
        hasBegun = true
        exchange.respond(200, SessionHeaders.all)
    }

    func deliver(_ delivery: ReadDelivery) {
        var parts: [Bytes] = []
        parts.reserveCapacity(delivery.runs.count + 2)
        var writer = ByteWriter(capacity: 32)
        guard let tail = delivery.tail else {
            parts.append(SessionFrame.header(payloadBytes: delivery.storedBytes))
            return exchange.write(parts + delivery.runs)
        }
        writer.writeReadBatchTail(tail)
        let end = writer.finish()
        parts.append(SessionFrame.header(payloadBytes: delivery.storedBytes + end.count))
        parts += delivery.runs
        parts.append(end)
        exchange.write(parts)
    }

    func heartbeat(_ tail: StreamPosition) {
        var field = ByteWriter(capacity: 32)
        field.writeReadBatchTail(tail)
        let payload = field.finish()
        exchange.write([SessionFrame.header(payloadBytes: payload.count), payload])
    }

    func end() { exchange.finish() }

    func fail(_ error: APIError) {
        guard hasBegun else { return exchange.fail(error) }
        exchange.write([error.terminalFrame])
        exchange.finish()
    }
}

/// A read that is answered at once.
final class UnaryReadSink: ReadSink {
    private let exchange: any HTTPExchange
    /// Nil for protobuf.
    private let format: RecordFormat?
    private var deliveries: [ReadDelivery] = []
    let isUnary = true

    init(_ exchange: any HTTPExchange, format: RecordFormat?) {
        self.exchange = exchange
        self.format = format
    }

    func begin() {}
    func deliver(_ delivery: ReadDelivery) { deliveries.append(delivery) }
    func heartbeat(_ tail: StreamPosition) {}
    func fail(_ error: APIError) { exchange.fail(error) }

    func end() {
        let runs = deliveries.flatMap(\.runs)
        let tail = deliveries.last?.tail
        guard let format else {
            var writer = ByteWriter(capacity: 32)
            if let tail { writer.writeReadBatchTail(tail) }
            let parts = runs + [writer.finish()]
            exchange.respond(
                200,
                [
                    ("content-type", "application/protobuf"),
                    ("content-length", "\(byteCount(parts))"),
                ])
            exchange.write(parts)
            return exchange.finish()
        }
        do throws(DecodeError) {
            var json = JSONWriter(capacity: byteCount(runs) * 2 + 64)
            try json.writeReadBatch(runs, tail: tail, format: format)
            exchange.send(.json(200, json.finish()))
        } catch {
            exchange.fail(APIError(.storage, "stored records cannot be read"))
        }
    }
}

/// A read as server-sent events.
final class EventReadSink: ReadSink {
    private let exchange: any HTTPExchange
    private let format: RecordFormat
    private let loop: any Loop
    private var hasBegun = false
    /// Delivered on this connection.
    private var count: UInt64 = 0
    private var meteredBytes: UInt64 = 0
    let isUnary = false

    init(_ exchange: any HTTPExchange, format: RecordFormat, loop: any Loop) {
        self.exchange = exchange
        self.format = format
        self.loop = loop
    }

    func begin() {
        hasBegun = true
        exchange.respond(200, SessionHeaders.events)
    }

    func deliver(_ delivery: ReadDelivery) throws(APIError) {
        var json = JSONWriter(capacity: delivery.storedBytes * 2 + 64)
        do throws(DecodeError) {
            try json.writeReadBatch(delivery.runs, tail: delivery.tail, format: format)
        } catch {
            throw APIError(.storage, "stored records cannot be read")
        }
        count += UInt64(delivery.count)
        meteredBytes += UInt64(delivery.meteredBytes)
        let id = "\(delivery.last.seqNum),\(count),\(meteredBytes)"
        exchange.write([
            Bytes(utf8: "event: batch\nid: \(id)\ndata: "), json.finish(), Bytes(utf8: "\n\n"),
        ])
    }

    func heartbeat(_ tail: StreamPosition) {
        var json = JSONWriter()
        json.beginObject()
        json.field("timestamp", loop.wallMilliseconds)
        json.name("tail")
        json.write(tail)
        json.endObject()
        exchange.write([
            Bytes(utf8: "event: ping\ndata: "), json.finish(), Bytes(utf8: "\n\n"),
        ])
    }

    func end() {
        exchange.write([Bytes(utf8: "data: [DONE]\n\n")])
        exchange.finish()
    }

    func fail(_ error: APIError) {
        guard hasBegun else { return exchange.fail(error) }
        exchange.write([Bytes(utf8: "event: error\ndata: "), error.body, Bytes(utf8: "\n\n")])
        exchange.finish()
    }
}
