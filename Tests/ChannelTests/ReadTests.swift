// SPDX-License-Identifier: Apache-2.0

import CSupport
import Log
import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import Records
import Testing

@testable import ChannelRole

@Suite struct ReadTests {
    @Test func aFollowGetsEveryBatchOnceAndKeepsItsBounds() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a", "b"))
        bench.pass()
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        session.onMessage?(try Bench.batch("c"))
        session.onMessage?(try Bench.batch("d", "e"))
        bench.pass()
        let pushes = try follow.pushes
        #expect(pushes.map(\.firstSeqNum) == [0, 2, 3])
        #expect(pushes.map(\.count) == [2, 1, 2])
        #expect(pushes.map(\.tail.seqNum) == [2, 3, 5])
        let replies = try session.replies
        #expect(pushes.map(\.tail) == replies.map(\.end))
    }

    @Test func aFollowAtTheTailIsGrantedByAHeartbeat() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        _ = try bench.activate(stream)
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        #expect(try follow.pushes.map(\.count) == [0])
        let beyond = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 1))
        #expect(beyond.ended?.status == .notInWindow)
    }

    @Test func aFollowInsideABatchBeginsThere() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a", "b", "c"))
        bench.pass()
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 2))
        let push = try #require(try follow.pushes.first)
        #expect(push.firstSeqNum == 2 && push.count == 1 && push.meteredBytes == 9)
        let batch = try ReadBatch(push.records)
        #expect(batch.records.map(\.body.lossyText) == ["c"])
    }

    @Test func whatIsNotStableIsNotShown() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        bench.store.hold()
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
        let plan = bench.call(
            .plan, PlanRequest(stream: stream, streamlet: 0, start: .seqNum(0), limit: 10))
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        #expect(try TailReply(try #require(tail.ended).payload).tail == .zero)
        #expect(try PlanReply(try #require(plan.ended).payload).pointers.isEmpty)
        #expect(try follow.pushes.map(\.count) == [0])
        bench.store.releaseAll()
        bench.pass()
        #expect(try follow.pushes.map(\.count) == [0, 1])
    }

    /// A streamlet that was taken over before the other log has settled that: its records are
    /// durable, and yet nobody may know of them.
    @Test func whatRestsOnAnotherLogIsNotShownBeforeThatIsSettled() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        let other = try bench.openSession(bench.makeStream("t"))
        let parts = try #require(bench.role.parts)
        let handoff = Dependency(channel: ChannelID(9), index: 3)
        try #require(parts.streamlets.find(stream)).dependency = handoff
        func tail() throws -> SeqNum {
            let call = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
            bench.pass()
            return try TailReply(try #require(call.ended).payload).tail.seqNum
        }
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        for text in ["a", "b", "c"] {
            session.onMessage?(try Bench.batch(text))
            other.onMessage?(try Bench.batch(text))
            bench.pass()
        }
        session.onMessage?(try Bench.batch("d", match: 7))
        bench.pass()
        #expect(try other.replies.map(\.end.seqNum) == [1, 2, 3])
        #expect(try session.replies.isEmpty && session.ended == nil)
        #expect(try follow.pushes.map(\.count) == [0])
        #expect(try tail() == 0)
        let channel = try #require(bench.role.channel)
        bench.run {
            let object = try await bench.store.get(LogKeys.chunk(channel, 0), range: nil)
            let entries = try Chunk(object.bytes).entries.filter { $0.stream == stream }
            #expect(entries.map(\.dependency) == [handoff, handoff])
        }
        parts.log.settle(Dependency(channel: ChannelID(9), index: 2))
        #expect(try tail() == 0, "it rests on another one")
        parts.log.settle(handoff)
        #expect(try session.replies.map(\.end.seqNum) == [1, 2, 3])
        bench.pass()
        #expect(session.ended?.status == .rejected)
        #expect(try follow.pushes.map(\.firstSeqNum) == [0, 0, 1, 2])
        #expect(try tail() == 3)
    }

    @Test func aPlanPointsAtTheRecordsInTheChunks() async throws {
        let bench = try await Bench { $0.lingerNanoseconds = 0...0 }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        for body in ["a", "b", "c"] {
            session.onMessage?(try Bench.batch(body))
            bench.pass()
        }
        let call = bench.call(
            .plan, PlanRequest(stream: stream, streamlet: 0, start: .seqNum(1), limit: 10))
        let plan = try PlanReply(try #require(call.ended).payload)
        #expect(plan.tail.seqNum == 3 && plan.flushedEnd == 0)
        #expect(plan.pointers.map(\.start.seqNum) == [1, 2])
        for (pointer, body) in zip(plan.pointers, ["b", "c"]) {
            let range = Int(pointer.offset)..<Int(pointer.offset + pointer.length)
            let slice = try await bench.store.get(pointer.object, range: range)
            #expect(try ReadBatch(slice.bytes).records.map(\.body.lossyText) == [body])
        }
    }

    /// Where others' batches came in between, a plan has a pointer to each piece.
    @Test func aPlanPointsAtEachPieceOfAFragment() async throws {
        let bench = try await Bench {
            $0.asAddedBytesMin = 0
            $0.stretchBytesMin = 1
        }
        let (stream, other) = (bench.makeStream("s"), bench.makeStream("t"))
        let session = try bench.openSession(stream)
        let others = try bench.openSession(other)
        for (number, body) in ["a", "b", "c", "d"].enumerated() {
            let timestamp = 1_600_000_000_000 + UInt64(number)
            session.onMessage?(try Bench.batch(body, body + "2", timestamp: timestamp))
            others.onMessage?(try Bench.batch("x"))
        }
        bench.pass()
        session.onMessage?(try Bench.batch("e"))
        bench.pass()
        func plan(_ start: PlanRequest.Start, limit: UInt32) throws -> [ChunkPointer] {
            let call = bench.call(
                .plan, PlanRequest(stream: stream, streamlet: 0, start: start, limit: limit))
            return try PlanReply(try #require(call.ended).payload).pointers
        }
        let pointers = try plan(.seqNum(0), limit: 10)
        #expect(pointers.map(\.start.seqNum) == [0, 2, 4, 6, 8])
        #expect(Set(pointers.map(\.object)).count == 2)
        for (pointer, body) in zip(pointers, ["a", "b", "c", "d"]) {
            let range = Int(pointer.offset)..<Int(pointer.offset + pointer.length)
            let slice = try await bench.store.get(pointer.object, range: range)
            let bodies = try ReadBatch(slice.bytes).records.map(\.body.lossyText)
            #expect(bodies == [body, body + "2"])
        }
        #expect(try plan(.seqNum(3), limit: 2).map(\.start.seqNum) == [2, 4])
        #expect(try plan(.seqNum(6), limit: 1).map(\.start.seqNum) == [6])
        #expect(try plan(.seqNum(7), limit: 9).map(\.start.seqNum) == [6, 8])
        #expect(try plan(.seqNum(9), limit: 9).isEmpty)
        let last = pointers[2].lastTimestamp
        #expect(try plan(.timestamp(last), limit: 9).map(\.start.seqNum) == [4, 6, 8])
        #expect(try plan(.timestamp(last + 1), limit: 9).map(\.start.seqNum) == [6, 8])
    }

    @Test func afterAFlushThePlanIsEmptyAndTheSegmentsHoldTheRecords() async throws {
        let bench = try await Bench { $0.flushNanoseconds = .seconds(1) }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a", "b"))
        bench.pass(.seconds(2))
        let call = bench.call(
            .plan, PlanRequest(stream: stream, streamlet: 0, start: .seqNum(0), limit: 10))
        let plan = try PlanReply(try #require(call.ended).payload)
        #expect(plan.pointers.isEmpty && plan.flushedEnd == 2)
        let page = try await bench.metadata.segments(of: stream, from: .seqNum(0), limit: 10)
        let row = try #require(page.segments.first)
        #expect(row.start.seqNum == 0 && row.endSeqNum == 2)
        let range = Int(row.offset)..<Int(row.offset + row.length)
        let bytes = try await bench.store.get(row.object, range: range).bytes
        let segment = try Segment(bytes, checksum: row.checksum)
        #expect(try ReadBatch(segment.records).records.map(\.body.lossyText) == ["a", "b"])
        #expect(page.lookup?.stream.state.tail.seqNum == 2)
        #expect(try await bench.metadata.channel(bench.role.channel!)?.flushedEnd == 1)
    }

    @Test func anIdleStreamletIsClosedAndTheStreamGoesOnFromItsState() async throws {
        let bench = try await Bench { $0.dormancyNanoseconds = .seconds(2) }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.fence("token"))
        session.onMessage?(try Bench.batch("a"))
        bench.pass(.seconds(6))
        #expect(try await bench.metadata.stream(stream)?.owner == nil, "dormant")
        session.onMessage?(try Bench.batch("late"))
        bench.pass()
        #expect(session.ended?.status == .notOwner, "nothing was done for a late batch")
        let second = try bench.openSession(stream)
        second.onMessage?(try Bench.batch("b", match: 2, token: "token"))
        second.onMessage?(try Bench.batch("c", token: "other"))
        bench.pass()
        #expect(try second.replies.map(\.start.seqNum) == [2])
        let payload = try #require(second.ended?.payload)
        #expect(try AppendRejection(payload) == .fencingTokenMismatch(current: "token"))
        #expect(try bench.activate(stream).streamlet == 1)
    }

    @Test func aFollowedStreamletStaysOpen() async throws {
        let bench = try await Bench { $0.dormancyNanoseconds = .seconds(2) }
        let stream = bench.makeStream("s")
        _ = try bench.activate(stream)
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        bench.pass(.seconds(20))
        #expect(follow.ended == nil)
        follow.onEnd?(.cancelled, Bytes())
        bench.pass(.seconds(20))
        #expect(try await bench.metadata.stream(stream)?.owner == nil)
    }

    @Test func aFollowerThatTakesNothingIsSentBack() async throws {
        let bench = try await Bench { $0.followerBytesMax = 1_000 }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        follow.unsentBytes = 1_001
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        #expect(follow.ended?.status == .notInWindow)
        #expect(try session.replies.count == 1)
    }

    /// The window may hold far more than a follower may leave untaken.
    @Test func aFollowerFarBehindIsSentBackWithoutAllOfTheWindow() async throws {
        let bench = try await Bench { $0.followerBytesMax = 1_000 }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        for _ in 0..<5 {
            session.onMessage?(try Bench.batch("a"))
            bench.pass()
        }
        let follow = FakeCall()
        follow.unsentBytes = 1_001
        bench.role.serve(
            follow, method: .follow,
            payload: FollowRequest(stream: stream, streamlet: 0, start: 0).encoded(),
            deadline: nil)
        bench.pass()
        #expect(follow.messages.count == 1)
        #expect(follow.ended?.status == .notInWindow)
    }

    @Test func followersAreCountedUntilTheirStreamletIsClosed() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        bench.pass()
        #expect(bench.world.metrics.render().contains("millrace_channel_followers 1.0\n"))
        _ = bench.call(
            .refresh, RefreshRequest(stream: stream, version: 1, deleted: true))
        bench.pass(.seconds(1))
        #expect(follow.ended != nil)
        #expect(bench.world.metrics.render().contains("millrace_channel_followers 0.0\n"))
    }

    /// Where tails are strict, it does although its lease holds.
    @Test(arguments: [false, true])
    func unsureOfItsLeaseTheChannelProbesBeforeItAnswers(isStrict: Bool) async throws {
        let bench = try await Bench { $0.hasStrictTails = isStrict }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        let channel = try #require(bench.role.channel)
        // Declared dead behind its back: a renewal would tell it, a tail must not be a lie.
        _ = try await bench.metadata.declareDead(channel, renewals: 0)
        let seal = Seal(
            header: ChunkHeader(
                kind: .seal, channel: channel, index: 1, putID: ID128(high: 1, low: 1),
                storageClass: 0, createdMilliseconds: 0),
            owner: "test", reason: "test")
        _ = try await bench.store.inner.put(
            LogKeys.chunk(channel, 1), [seal.encoded()], ifAbsent: true)
        if !isStrict { bench.stall(.seconds(4)) }
        let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
        bench.pass(.milliseconds(10))
        #expect(tail.ended?.status != .ok, "a zombie answers no tail")
        #expect(bench.exits.reasons.count == 1)
    }

    @Test func aStrictTailIsAnsweredByAProbe() async throws {
        let bench = try await Bench { $0.hasStrictTails = true }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        for _ in 0..<3 {
            let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
            #expect(tail.ended == nil, "no answer without a look into the log")
            bench.pass(.milliseconds(10))
            #expect(try TailReply(try #require(tail.ended).payload).tail.seqNum == 1)
        }
    }

    @Test func drainClosesEverythingAndExits() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        bench.run { await bench.role.drain() }
        #expect(try session.replies.count == 1)
        #expect(bench.exits.reasons == ["drained"])
        let lookup = try await bench.metadata.stream(stream)
        #expect(lookup?.owner == nil && lookup?.stream.state.tail.seqNum == 1)
    }

    @Test func deletionClosesTheStreamlet() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        _ = try await bench.metadata.deleteStream(basin: "test-basin", name: "s")
        let refresh = bench.call(
            .refresh, RefreshRequest(stream: stream, version: 1, deleted: true))
        bench.pass(.seconds(1))
        #expect(refresh.ended?.status == .ok)
        #expect(try await bench.metadata.stream(stream)?.owner == nil)
        session.onMessage?(try Bench.batch("b"))
        bench.pass()
        #expect(session.ended?.status == .streamDeleted)
    }

    @Test func anIdleOpenStreamletIsSmall() async throws {
        let bench = try await Bench()
        let table = StreamletTable(
            channel: ChannelID(1), world: bench.world, limits: ChannelLimits(address: "sim:1"))
        func open(_ range: Range<Int>) {
            for n in range {
                let stream = Stream(
                    id: StreamID(ID128(high: 9, low: UInt64(n))), basin: "test-basin",
                    name: "idle-stream-number-\(n)", config: .system, version: 1, cipher: nil,
                    state: .initial, createdMilliseconds: 0, deletedMilliseconds: nil)
                _ = table.insert(0, stream)
            }
        }
        open(0..<1_000)
        let before = Int(millrace_heap_bytes())
        open(1_000..<100_000)
        let each = (Int(millrace_heap_bytes()) - before) / 99_000
        #expect(each <= 400, "an idle open streamlet takes \(each) bytes")
        print("an idle open streamlet takes \(each) bytes")
    }
}
