// SPDX-License-Identifier: Apache-2.0

import HTTP
import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct FollowTests {
    @Test func aFollowHoldsItsRecordsAlone() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let buffers = ReadBuffers()
        bench.channel.onPush = { buffers.read($0) }
        let read = bench.session("seq_num=0")
        for _ in 0..<100 {
            try bench.channel.write(bench.stream, count: 1)
            bench.loop.settle()
        }
        #expect(try Frames(read).seqNums == Array(0..<101))
        #expect(buffers.heldBytes <= 65_536)
        // What is remembered is what a second reader gets.
        let second = bench.session("seq_num=50")
        try bench.channel.write(bench.stream, count: 1)
        bench.loop.settle()
        #expect(try Frames(second).seqNums == Array(50..<102))
        #expect(bench.calls.count(.follow) == 1)
    }

    @Test func theWaitEndsForAClientThatLagged() throws {
        var limits = FrontendLimits(rootToken: nil)
        limits.responseBufferBytesMax = 200
        limits.followerBufferBytesMax = 4_000
        let bench = try DataBench(limits: limits)
        try bench.fill([1])
        let read = bench.session("wait=5")
        read.holdsUnsent = true
        for _ in 0..<10 {
            try bench.channel.write(bench.stream, count: 3)
            bench.loop.settle()
        }
        bench.loop.advance(.seconds(6))
        #expect(!read.isFinished)
        #expect(try Frames(read).seqNums.count < 30)
        read.holdsUnsent = false
        read.takeUnsent()
        bench.loop.settle()
        #expect(try Frames(read).seqNums == Array(1..<31))
        bench.loop.advance(.seconds(4))
        #expect(!read.isFinished, "it counts from the last delivery")
        bench.loop.advance(.seconds(2))
        #expect(read.isFinished)
        #expect(try Frames(read).terminal == nil)
    }

    /// A channel that does not answer may have been replaced, and the tail may have moved.
    @Test func noHeartbeatUnlessTheChannelVouchesForIt() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let read = bench.session("seq_num=0")
        bench.loop.advance(.seconds(31))
        let beats = try Frames(read).batches
        #expect((3...8).contains(beats.count - 1), "one at once, then every 5 to 15 seconds")
        bench.calls.channels["a:1"] = nil
        bench.loop.advance(.seconds(60))
        #expect(try Frames(read).batches.count == beats.count)
        bench.calls.channels["a:1"] = bench.channel
        bench.loop.advance(.seconds(16))
        #expect(try Frames(read).batches.count > beats.count)
        #expect(!read.isFinished)
    }

    @Test func readersOfOneStreamShareTheQuestion() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let readers = (0..<200).map { _ in bench.session("seq_num=0") }
        let asked = bench.calls.count(.tail)
        bench.loop.advance(.seconds(31))
        for reader in readers {
            let beats = try Frames(reader).batches.count - 1
            #expect((3...8).contains(beats))
        }
        #expect(bench.calls.count(.tail) - asked <= 31)
    }

    /// A channel that is paused ends no follow; once it is declared dead its readers go elsewhere.
    @Test func readersLeaveADeadChannel() throws {
        let bench = try DataBench()
        bench.cell.start()
        try bench.fill([1])
        let read = bench.session("seq_num=0")
        bench.loop.advance(.seconds(3))
        #expect(bench.calls.count(.follow) == 1, "it lives")
        let other = FakeChannel(bench.loop, bench.metadata, bench.store, address: "b:2")
        bench.calls.channels["b:2"] = other
        try #require(bench.streamlet).follows = []
        try bench.run {
            try await other.register()
            // As recovery does.
            try await bench.channel.flush(bench.stream, closes: true)
            #expect(try await bench.metadata.declareDead(bench.channel.id, renewals: 0))
        }
        bench.loop.advance(.seconds(2))
        #expect(bench.calls.count(.follow) == 2)
        try other.write(bench.stream, count: 2)
        bench.loop.settle()
        #expect(try Frames(read).seqNums == [0, 1, 2] && !read.isFinished)
    }
}
