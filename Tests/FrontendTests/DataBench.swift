// SPDX-License-Identifier: Apache-2.0

import HTTP
import Metadata
import ObjectStorage
import Observability
import Primitives
import Records
import TestSupport

@testable import FrontendRole

/// A frontend's data path with one stream and a channel or two, all in memory.
final class DataBench: HTTPService {
    let loop = ManualLoop()
    let metadata: MemoryMetadata
    let store: MemoryStore
    let calls: FakeCalls
    let channel: FakeChannel
    let cell: Cell
    let records: RecordsEndpoint
    private(set) var stream = StreamID(ID128(high: 0, low: 0))
    static let basin = "basin-one"

    init(
        limits: FrontendLimits = FrontendLimits(rootToken: nil), seed: UInt64 = 1,
        createsStream: Bool = true, config: BasinConfig = BasinConfig(),
        planWaitMilliseconds: UInt64? = nil
    ) throws {
        let wall = loop.wallMilliseconds
        metadata = MemoryMetadata { wall }
        store = MemoryStore()
        calls = FakeCalls(loop)
        channel = FakeChannel(loop, metadata, store, address: "a:1")
        calls.channels["a:1"] = channel
        let world = FrontendWorld(
            loop: loop, metadata: metadata, calls: calls,
            buckets: [Bucket(name: "b", store: store)], random: .seeded(seed), log: .silent,
            metrics: Metrics(role: "frontend"),
            terms: planWaitMilliseconds == nil ? nil : metadata)
        cell = Cell(world: world, limits: limits)
        records = RecordsEndpoint(world: world, limits: limits, cell: cell)
        try run { [self] in
            if let planWaitMilliseconds {
                try await metadata.setPlanWait(planWaitMilliseconds)
                records.start()
            }
            try await channel.register()
            _ = try await metadata.createBasin(
                BasinCreation(name: Self.basin, config: config, location: nil, creationKey: nil))
            guard createsStream else { return }
            let id = StreamID(ID128(high: 1, low: 1))
            _ = try await metadata.createStream(
                StreamCreation(
                    id: id, basin: Self.basin, name: "s", wish: StreamConfigWish(),
                    creationKey: nil))
            stream = id
        }
    }

    /// Runs asynchronous work to its end, without time passing unless it must.
    @discardableResult
    func run<Value: Sendable>(_ body: @escaping () async throws -> Value) throws -> Value {
        var result: Result<Value, any Error>?
        loop.spawn {
            do { result = .success(try await body()) } catch { result = .failure(error) }
        }
        loop.run { result != nil }
        guard let result else { throw Stuck() }
        return try result.get()
    }

    struct Stuck: Error {}

    func serve(_ exchange: any HTTPExchange) {
        let operation: RecordsOperation =
            exchange.request.path.hasSuffix("/tail")
            ? .checkTail : exchange.request.method == "POST" ? .append : .read
        records.serve(exchange, basin: Self.basin, stream: "s", operation: operation)
    }

    /// A request without a body, served as far as it goes without time passing.
    func get(_ query: String, _ headers: [(name: String, value: String)] = []) -> FakeExchange {
        let exchange = FakeExchange("GET", "/v1/streams/s/records?\(query)", headers: headers)
        exchange.serve(by: self)
        exchange.endBody()
        loop.settle()
        return exchange
    }

    func session(_ query: String) -> FakeExchange {
        get(query, [("content-type", "s2s/proto")])
    }

    func protobuf(_ query: String) -> FakeExchange {
        get(query, [("accept", "application/protobuf")])
    }

    func appendSession() -> FakeExchange {
        let exchange = FakeExchange(
            "POST", "/v1/streams/s/records", headers: [("content-type", "s2s/proto")])
        exchange.serve(by: self)
        loop.settle()
        return exchange
    }

    func append(
        json: String,
        _ headers: [(name: String, value: String)] = [
            ("content-type", "application/json")
        ]
    ) -> FakeExchange {
        let exchange = FakeExchange("POST", "/v1/streams/s/records", headers: headers)
        exchange.serve(by: self)
        exchange.feed(Bytes(utf8: json))
        exchange.endBody()
        loop.settle()
        return exchange
    }

    /// Opens the stream's streamlet, and writes batches of `counts` records.
    func fill(_ counts: [Int], bodyBytes: Int = 4) throws {
        try activate()
        for count in counts { try channel.write(stream, count: count, bodyBytes: bodyBytes) }
        loop.settle()
    }

    func activate() throws {
        try run { [self] in
            _ = try await cell.owner(
                for: try await cell.lookup(basin: Self.basin, name: "s", fresh: true))
        }
    }

    var streamlet: FakeChannel.Streamlet? { channel.streamlets[stream] }
}

/// A frame of an append session: an input of `bodies`.
func inputFrame(_ bodies: [String], match: SeqNum? = nil, token: String? = nil) -> Bytes {
    var writer = ByteWriter()
    writer.writeAppendInput(
        bodies.map { AppendRecord(body: Bytes(utf8: $0)) },
        AppendConditions(matchSeqNum: match, fencingToken: token))
    let input = writer.finish()
    return [SessionFrame.header(payloadBytes: input.count), input].joined()
}

/// What a session sent: messages, and the terminal frame if there is one.
struct Frames {
    var messages: [Bytes] = []
    var terminal: (status: Int, text: String)?

    /// Those of the response's body but for the `skipped` parts that were written first.
    init(_ exchange: FakeExchange, skipping skipped: Int = 0) throws {
        var decoder = SessionFrameDecoder()
        decoder.append(Array(exchange.written[skipped...]).joined())
        while let frame = try decoder.next() {
            if frame.isTerminal {
                terminal = (
                    Int(frame.payload.loadBigEndian(UInt16.self, at: 0)),
                    frame.payload.dropFirst(2).lossyText
                )
            } else {
                messages.append(frame.payload)
            }
        }
        try decoder.finish()
    }

    var acks: [AppendAck] {
        get throws { try messages.map { try AppendAck($0) } }
    }
    var batches: [ReadBatch] {
        get throws { try messages.map { try ReadBatch($0) } }
    }
    /// All records' sequence numbers, in order of delivery.
    var seqNums: [SeqNum] {
        get throws { try batches.flatMap { $0.records.map(\.seqNum) } }
    }
}
