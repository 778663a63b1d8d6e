// SPDX-License-Identifier: Apache-2.0

import HTTP
import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct AppendUnaryTests {
    @Test func jsonInAndOut() throws {
        let bench = try DataBench()
        let reply = bench.append(
            json: #"{"records":[{"body":"a","headers":[["k","v"]],"timestamp":5},{"body":null}]}"#)
        #expect(reply.status == 200)
        let time = bench.loop.wallMilliseconds
        #expect(
            reply.bodyText
                == #"{"start":{"seq_num":0,"timestamp":5},"#
                + #""end":{"seq_num":2,"timestamp":\#(time)},"#
                + #""tail":{"seq_num":2,"timestamp":\#(time)}}"#)
    }

    @Test func protobufInAndOut() throws {
        let bench = try DataBench()
        var writer = ByteWriter()
        writer.writeAppendInput([AppendRecord(body: Bytes(utf8: "x"))])
        let exchange = FakeExchange(
            "POST", "/v1/streams/s/records",
            headers: [
                ("content-type", "application/x-protobuf"), ("accept", "application/protobuf"),
            ])
        exchange.serve(by: bench)
        exchange.feed(writer.finish())
        exchange.endBody()
        bench.loop.settle()
        #expect(exchange.status == 200)
        #expect(exchange.responseHeader("content-type") == "application/protobuf")
        #expect(try AppendAck(exchange.body).end.seqNum == 1)
    }

    @Test(arguments: [
        ("{", 400, "bad_json"), ("{}", 400, "bad_json"), (#"{"records":[1]}"#, 400, "bad_json"),
        (#"{"records":[]}"#, 422, "invalid"),
        (#"{"records":[{"headers":[["","x"]]}]}"#, 422, "invalid"),
        (#"{"records":[{"headers":[["a"]]}]}"#, 400, "bad_json"),
        (#"{"records":[{"timestamp":-1}]}"#, 400, "bad_json"),
        (
            #"{"records":[{}],"fencing_token":"\#(String(repeating: "t", count: 37))"}"#, 400,
            "bad_json"
        ),
        (#"{"records":[{"headers":[["","x"]]},{"body":1}]}"#, 400, "bad_json"),
        (#"{"records":[{}],"match_seq_num":7}"#, 412, "seq_num_mismatch"),
    ])
    func whatIsWrongHasItsCode(json: String, status: Int, code: String) throws {
        let bench = try DataBench()
        let reply = bench.append(json: json)
        #expect(reply.status == status)
        #expect(reply.bodyText.contains("\"\(code)\""))
        #expect(bench.streamlet?.assigned.seqNum ?? 0 == 0)
    }

    @Test func base64AndHeaders() throws {
        let bench = try DataBench()
        let type = (name: "content-type", value: "application/json")
        let ok = bench.append(
            json: #"{"records":[{"body":"/w=="}]}"#, [type, ("s2-format", " base64 ")])
        #expect(ok.status == 200)
        let bad = bench.append(
            json: #"{"records":[{"body":"?"}]}"#, [type, ("s2-format", "base64")])
        #expect(bad.status == 422)
        #expect(bench.append(json: "{}", [type, ("s2-format", "hex")]).status == 400)
        let key = String(repeating: "k", count: 45)
        #expect(bench.append(json: "{}", [type, ("s2-encryption-key", key)]).status == 400)
        #expect(bench.append(json: "{}", []).bodyText.contains("bad_json"))
        let read = bench.get("seq_num=0", [("s2-format", "base64")])
        #expect(read.bodyText.contains(#""body":"/w==""#))
    }

    @Test func anOverloadedChannelIsToldAtOnce() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.appendStatus = .overloaded
        #expect(bench.append(json: #"{"records":[{}]}"#).status == 502)
    }

    @Test func aClientThatLeavesDoesNotFreeTheBudget() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.streamInFlightBytesMax = 10
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let first = bench.append(json: #"{"records":[{"body":"long enough"}]}"#)
        first.hangUp()
        bench.loop.settle()
        #expect(bench.append(json: #"{"records":[{}]}"#).status == 429)
        bench.channel.stabilise(try #require(bench.streamlet))
        bench.loop.settle()
        bench.channel.isStableAtOnce = true
        #expect(bench.append(json: #"{"records":[{}]}"#).status == 200)
    }

    @Test func concurrentFirstAppendsConvergeOnOneStream() throws {
        var config = BasinConfig()
        config.createStreamOnAppend = true
        let bench = try DataBench(createsStream: false, config: config)
        let exchanges = (0..<20).map { _ in
            let exchange = FakeExchange(
                "POST", "/v1/streams/s/records", headers: [("content-type", "application/json")])
            exchange.serve(by: bench)
            exchange.feed(Bytes(utf8: #"{"records":[{}]}"#))
            exchange.endBody()
            return exchange
        }
        bench.loop.settle()
        #expect(exchanges.allSatisfy { $0.status == 200 })
        #expect(bench.channel.streamlets.count == 1)
        #expect(bench.channel.streamlets.values.first?.assigned.seqNum == 20)
    }

    /// Deleted by way of another frontend, the stream is remembered here, and its name goes on.
    @Test func aStreamThatIsGoneIsMadeAnewWhereItMayBe() throws {
        var config = BasinConfig()
        config.createStreamOnAppend = true
        config.createStreamOnRead = true
        let bench = try DataBench(createsStream: false, config: config)
        let uses: [() throws -> FakeExchange] = [
            { bench.append(json: #"{"records":[{}]}"#) },
            { bench.get("seq_num=0") },
            { bench.session("seq_num=0&wait=0") },
        ]
        for use in uses {
            #expect(bench.append(json: #"{"records":[{}]}"#).status == 200)
            let id = try #require(bench.channel.streamlets.keys.first)
            try bench.run {
                try await bench.channel.flush(id, closes: true)
                _ = try await bench.metadata.deleteStream(basin: DataBench.basin, name: "s")
                while try await bench.metadata.purgeStream(id, limit: 100) != .purged {}
            }
            let exchange = try use()
            bench.loop.run(for: .seconds(5))
            let isEmptyRead = exchange.status == 416
            #expect(exchange.status == 200 || isEmptyRead, "\(exchange.status ?? 0)")
            let next = try bench.run {
                try await bench.metadata.stream(basin: DataBench.basin, name: "s")
            }
            #expect(next != nil && next?.stream.id != id)
        }
    }

    @Test func aMissingStreamIsNotCreatedUnlessAllowed() throws {
        let bench = try DataBench(createsStream: false)
        #expect(bench.append(json: #"{"records":[{}]}"#).status == 404)
        #expect(bench.get("seq_num=0").status == 404)
    }
}
