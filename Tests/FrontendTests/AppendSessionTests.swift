// SPDX-License-Identifier: Apache-2.0

import HTTP
import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct AppendSessionTests {
    @Test func pipelinedInputsAreAcknowledgedInOrder() throws {
        let bench = try DataBench()
        let session = bench.appendSession()
        #expect(session.status == 200)
        #expect(session.responseHeader("content-type") == "s2s/proto")
        for i in 0..<50 { session.feed(inputFrame(["a\(i)", "b\(i)"])) }
        bench.loop.settle()
        let acks = try Frames(session).acks
        #expect(acks.map(\.start.seqNum) == (0..<50).map { UInt64($0) * 2 })
        #expect(acks.map(\.end.seqNum) == (1...50).map { UInt64($0) * 2 })
        #expect(!session.isFinished)
        session.endBody()
        bench.loop.settle()
        #expect(session.isFinished)
        #expect(try Frames(session).terminal == nil)
        // The dormant stream was given one channel, by one call.
        #expect(bench.channel.activations == 1)
        #expect(bench.calls.count(.append) == 1)
    }

    @Test func openAndCloseWithoutInputIsClean() throws {
        let bench = try DataBench()
        let session = bench.appendSession()
        session.endBody()
        bench.loop.settle()
        #expect(session.status == 200 && session.isFinished && session.body.isEmpty)
        #expect(bench.calls.count(.append) == 0)
    }

    @Test func theFirstFailureComesBehindEarlierAcksAndEndsTheSession() throws {
        let bench = try DataBench()
        let session = bench.appendSession()
        for i in 0..<4 { session.feed(inputFrame(["x"], match: UInt64(i))) }
        session.feed(inputFrame(["bad"], match: 2))
        session.feed(inputFrame(["later"]))
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.messages.count == 4)
        #expect(frames.terminal?.status == 412)
        #expect(frames.terminal?.text == #"{"seq_num_mismatch":4}"#)
        #expect(session.isFinished)
        #expect(bench.streamlet?.assigned.seqNum == 4)
    }

    @Test func aRejectionWaitsForWhatItObserved() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        session.feed(inputFrame(["y"], match: 0))
        bench.loop.settle()
        #expect(session.body.isEmpty && !session.isFinished)
        bench.channel.stabilise(try #require(bench.streamlet))
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.messages.count == 1 && frames.terminal?.status == 412)
    }

    @Test(
        arguments: [
            ([0, 0, 0], 400, "bad_frame"), ([0x20, 0, 1], 400, "bad_frame"),
            ([0, 0, 2, 0x60, 1], 400, "bad_frame"), ([0, 0, 2, 0x80, 1], 400, "bad_frame"),
            ([0, 0, 2, 0x20, 1], 400, "bad_frame"), ([0, 0, 2, 0, 0xFF], 400, "bad_frame"),
            ([0, 0, 1, 0x20], 400, "bad_frame"), ([0, 0, 1, 0x40], 400, "bad_frame"),
            ([0, 0, 1, 0], 422, "invalid"),
        ] as [([UInt8], Int, String)])
    func whatIsWrongIsToldBehindEarlierAcks(
        bytes: [UInt8], status: Int, code: String
    ) throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        session.feed([inputFrame(["good"]), Bytes(bytes)].joined())
        session.feed(inputFrame(["later"]))
        bench.loop.settle()
        #expect(!session.isFinished, "the good input is not acknowledged yet")
        bench.channel.stabilise(try #require(bench.streamlet))
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.messages.count == 1)
        #expect(frames.terminal?.status == status)
        #expect(frames.terminal?.text.contains("\"\(code)\"") == true)
        #expect(bench.streamlet?.assigned.seqNum == 1)
    }

    @Test func aCutOffInputIsABadFrame() throws {
        let bench = try DataBench()
        let session = bench.appendSession()
        session.feed(inputFrame(["whole"]))
        session.feed(inputFrame(["cut"]).prefix(7))
        session.endBody()
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.messages.count == 1 && frames.terminal?.status == 400)
    }

    @Test func framesMayBeSplitAnywhere() throws {
        let input = [inputFrame(["one", "two"]), inputFrame(["three"], match: 2)].joined()
        for cut in 1..<input.count {
            let bench = try DataBench()
            let session = bench.appendSession()
            session.feed(input.prefix(cut))
            bench.loop.settle()
            session.feed(input.dropFirst(cut))
            session.endBody()
            bench.loop.settle()
            #expect(try Frames(session).acks.map(\.end.seqNum) == [2, 3], "cut at \(cut)")
        }
    }

    /// The examples of S2's session protocol: gzip, and zstd with one raw block.
    @Test(
        arguments: [
            [
                0x00, 0x00, 0x1E, 0x40, 0x1F, 0x8B, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03,
                0xE3, 0x62, 0x97, 0x62, 0xCD, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x81, 0x94, 0xB3,
                0x1A, 0x09, 0x00, 0x00, 0x00,
            ],
            [
                0x00, 0x00, 0x13, 0x20, 0x28, 0xB5, 0x2F, 0xFD, 0x20, 0x09, 0x49, 0x00, 0x00, 0x0A,
                0x07, 0x1A, 0x05, 0x68, 0x65, 0x6C, 0x6C, 0x6F,
            ],
        ] as [[UInt8]])
    func compressedFramesAreInputs(frame: [UInt8]) throws {
        let bench = try DataBench()
        let session = bench.appendSession()
        session.feed(Bytes(frame))
        session.endBody()
        bench.loop.settle()
        #expect(try Frames(session).acks.map(\.end.seqNum) == [1])
        #expect(bench.get("seq_num=0").bodyText.contains(#""body":"hello""#))
    }

    @Test func aSpentBudgetStopsReadingUntilAcks() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.sessionInFlightBytesMax = 1_000
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        for _ in 0..<20 { session.feed(inputFrame([String(repeating: "x", count: 100)])) }
        bench.loop.settle()
        #expect(!session.isReading)
        let issued = try #require(bench.streamlet).assigned.seqNum
        #expect((2...4).contains(issued))
        bench.channel.isStableAtOnce = true
        bench.channel.stabilise(try #require(bench.streamlet))
        bench.loop.settle()
        session.endBody()
        bench.loop.settle()
        #expect(try Frames(session).acks.count == 20)
        #expect(session.isFinished)
    }

    @Test func aClientThatTakesNoAcksIsReadNoMore() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.responseBufferBytesMax = 100
        let bench = try DataBench(limits: limits)
        let session = bench.appendSession()
        session.holdsUnsent = true
        for _ in 0..<50 {
            session.feed(inputFrame(["x"]))
            bench.loop.settle()
        }
        #expect(!session.isReading)
        #expect((100..<200).contains(session.unsentBytes))
        session.holdsUnsent = false
        session.takeUnsent()
        bench.loop.settle()
        #expect(session.isReading)
        session.endBody()
        bench.loop.settle()
        #expect(try Frames(session).acks.count == 50)
    }

    @Test func tinyBatchesSpendTheBudgetToo() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.sessionInFlightBytesMax = 10_000
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        for _ in 0..<100 { session.feed(inputFrame([""])) }
        bench.loop.settle()
        #expect(!session.isReading)
        #expect(try #require(bench.streamlet).assigned.seqNum < 50)
    }

    @Test func sessionsOfOneStreamShareItsBudget() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.streamInFlightBytesMax = 200
        let bench = try DataBench(limits: limits)
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let first = bench.appendSession()
        first.feed(inputFrame([String(repeating: "x", count: 250)]))
        bench.loop.settle()
        let second = bench.appendSession()
        second.feed(inputFrame(["y"]))
        bench.loop.settle()
        #expect(!first.isReading && !second.isReading)
        let unary = bench.append(json: #"{"records":[{"body":"z"}]}"#)
        #expect(unary.status == 429)
        bench.channel.isStableAtOnce = true
        bench.channel.stabilise(try #require(bench.streamlet))
        bench.loop.settle()
        #expect(first.isReading && second.isReading)
        #expect(bench.append(json: #"{"records":[{"body":"z"}]}"#).status == 200)
    }

    @Test func aLostConnectionWithInputsOnTheWayIsIndefinite() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        bench.loop.settle()
        bench.calls.calls.last { $0.method == .append }?.end(.connectionLost, Bytes())
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.messages.isEmpty)
        #expect(frames.terminal?.status == 503)
        #expect(frames.terminal?.text.contains("\"unavailable\"") == true)
    }

    @Test func aLostIdleConnectionIsMadeAnew() throws {
        let bench = try DataBench()
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        bench.loop.settle()
        bench.calls.calls.last { $0.method == .append }?.end(.connectionLost, Bytes())
        bench.loop.advance(.seconds(70))
        session.feed(inputFrame(["y"]))
        bench.loop.advance(.seconds(1))
        #expect(try Frames(session).acks.map(\.end.seqNum) == [1, 2])
        #expect(bench.calls.count(.append) == 2)
    }

    @Test func aMovedStreamGetsTheRefusedInputsInOrder() throws {
        let bench = try DataBench()
        let other = FakeChannel(bench.loop, bench.metadata, bench.store, address: "b:2")
        bench.calls.channels["b:2"] = other
        let session = bench.appendSession()
        session.feed(inputFrame(["0"]))
        bench.loop.settle()
        try bench.run {
            try await other.register()
            try await bench.channel.flush(bench.stream, closes: true)
        }
        bench.calls.channels["a:1"] = nil
        for i in 1..<10 { session.feed(inputFrame(["\(i)"], match: UInt64(i))) }
        bench.loop.run { (try? Frames(session).messages.count) == 10 }
        #expect(try Frames(session).acks.map(\.start.seqNum) == Array(0..<10))
        #expect(other.streamlets[bench.stream]?.assigned.seqNum == 10)
    }

    @Test func whatOfARunWasAnsweredIsNotSentAgain() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        session.feed((0..<5).map { inputFrame(["\($0)", "x"]) }.joined())
        bench.loop.settle()
        let streamlet = try #require(bench.streamlet)
        bench.channel.stabilise(streamlet, 2)
        bench.loop.settle()
        #expect(try Frames(session).acks.map(\.end.seqNum) == [2, 4])
        // The rest was not done: the channel forgets it.
        streamlet.waiting = []
        streamlet.assigned = streamlet.stable
        bench.channel.isStableAtOnce = true
        bench.calls.calls.last { $0.method == .append }?.end(.notOwner, Bytes())
        bench.loop.advance(.seconds(1))
        #expect(try Frames(session).acks.map(\.end.seqNum) == [2, 4, 6, 8, 10])
        let bodies = bench.get("seq_num=0").bodyText
        for i in 0..<5 { #expect(bodies.split(separator: "\"body\":\"\(i)\"").count == 2) }
    }

    @Test func batchesOfOneTurnShareAMessage() throws {
        let bench = try DataBench()
        try bench.activate()
        let session = bench.appendSession()
        for i in 0..<100 { session.feed(inputFrame(["\(i)"])) }
        bench.loop.settle()
        #expect(try Frames(session).acks.count == 100)
        #expect(bench.channel.messages == 1)
        // None grows beyond what a message may hold.
        let large = String(repeating: "x", count: 1 << 19)
        for _ in 0..<20 { session.feed(inputFrame([large])) }
        bench.loop.settle()
        #expect(try Frames(session).acks.count == 120)
        #expect(bench.channel.messages == 21)
    }

    @Test func anOwnerThatNeverComesBackIsUnavailable() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.calls.channels["a:1"] = nil
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        bench.loop.advance(.seconds(15))
        #expect(try Frames(session).terminal?.status == 503)
        #expect(session.isFinished)
    }

    @Test func aSilentChannelDoesNotHoldASessionForEver() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        bench.loop.advance(.seconds(11))
        #expect(try Frames(session).terminal?.status == 503)
    }

    @Test(arguments: [
        (Status.streamDeleted, 409, "stream_deletion_pending"),
        (.timestampMissing, 422, "invalid"), (.indefinite, 503, "unavailable"),
    ])
    func channelFailuresHaveTheirCodes(status: Status, http: Int, code: String) throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.appendStatus = status
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.terminal?.status == http)
        #expect(frames.terminal?.text.contains("\"\(code)\"") == true)
        let unary = bench.append(json: #"{"records":[{}]}"#)
        #expect(unary.status == http && unary.bodyText.contains("\"\(code)\""))
    }

    @Test func drainingAcknowledgesWhatWasTakenThenSendsAway() throws {
        let bench = try DataBench()
        try bench.activate()
        bench.channel.isStableAtOnce = false
        let session = bench.appendSession()
        session.feed(inputFrame(["x"]))
        bench.loop.settle()
        bench.records.drain()
        session.feed(inputFrame(["late"]))
        bench.loop.settle()
        #expect(!session.isFinished)
        bench.channel.stabilise(try #require(bench.streamlet))
        bench.loop.settle()
        let frames = try Frames(session)
        #expect(frames.messages.count == 1 && frames.terminal?.status == 503)
        #expect(frames.terminal?.text.contains("server_draining") == true)
        #expect(bench.streamlet?.assigned.seqNum == 1)
    }

    @Test func setUpFailuresArePlainHTTP() throws {
        let missing = try DataBench(createsStream: false).appendSession()
        #expect(missing.status == 404 && missing.bodyText.contains("stream_not_found"))
        let bench = try DataBench()
        _ = try bench.run {
            try await bench.metadata.deleteStream(basin: DataBench.basin, name: "s")
        }
        let deleted = bench.appendSession()
        #expect(deleted.status == 409 && deleted.bodyText.contains("stream_deletion_pending"))
    }
}
