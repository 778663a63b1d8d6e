// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import Records
import Testing

@testable import ChannelRole

/// Who comes next where not everybody can.
@Suite struct AppendQueueTests {
    private static func batch(_ bytes: Int) throws -> Bytes {
        try Bench.batch(String(repeating: "x", count: bytes))
    }

    /// A channel with room for one chunk of 1 MiB besides the one whose PUT is held.
    private func fullBench(_ adjust: (inout ChannelLimits) -> Void = { _ in }) async throws -> Bench
    {
        let bench = try await Bench {
            $0.inFlightChunksMax = 1
            $0.lingerNanoseconds = 0...0
            $0.chunkBytesMax = 1 << 20
            adjust(&$0)
        }
        let filler = try bench.openSession(bench.makeStream("filler"))
        bench.store.hold()
        filler.onMessage?(try Bench.batch("under way"))
        bench.pass()
        for _ in 0..<9 { filler.onMessage?(try Self.batch(110_000)) }
        return bench
    }

    /// Lets one chunk after the other become durable while `condition` holds.
    private func drain(_ bench: Bench, while condition: () throws -> Bool = { true }) throws {
        for _ in 0..<1_000 where try condition() {
            let held = bench.store.held
            if held.isEmpty { return }
            for key in held { bench.store.release(key) }
            bench.pass()
        }
    }

    private func count(_ calls: [FakeCall]) throws -> Int {
        try calls.reduce(0) { try $0 + $1.replies.count }
    }

    @Test func aStreamGetsItsShareHoweverManySessionsAnotherHas() async throws {
        let bench = try await fullBench()
        let crowd = bench.makeStream("crowd")
        let many = try (0..<8).map { _ in try bench.openSession(crowd) }
        let one = try bench.openSession(bench.makeStream("one"))
        for session in many { for _ in 0..<64 { session.onMessage?(try Self.batch(16_000)) } }
        for _ in 0..<64 { one.onMessage?(try Self.batch(16_000)) }
        #expect(try bench.gauge("blocked_sessions") == 9)
        try drain(bench) { try one.replies.count < 64 }
        let theirs = try count(many)
        #expect((40...80).contains(theirs), "\(theirs) of theirs until 64 of the other's")
        // Among themselves they share as well.
        try drain(bench) { try count(many) < 256 }
        let shares = try many.map { try $0.replies.count }
        #expect(shares.allSatisfy { (24...42).contains($0) }, "\(shares)")
        try drain(bench)
        #expect(try many.allSatisfy { try $0.replies.count == 64 })
        for session in many + [one] {
            let starts = try session.replies.map(\.start.seqNum)
            #expect(starts == starts.sorted(), "a session's batches keep their order")
        }
        #expect(try bench.gauge("blocked_sessions") == 0)
    }

    @Test func largeBatchesGainNothing() async throws {
        let bench = try await fullBench()
        let large = try bench.openSession(bench.makeStream("large"))
        let small = try bench.openSession(bench.makeStream("small"))
        for _ in 0..<7 { large.onMessage?(try Self.batch(500_000)) }
        for _ in 0..<250 { small.onMessage?(try Self.batch(4_000)) }
        try drain(bench) { try small.replies.count < 250 }
        #expect((1...3).contains(try large.replies.count), "they had 1 MB each")
        try drain(bench)
        #expect(try large.replies.count == 7)
    }

    @Test func whoComesLaterWaitsAsWell() async throws {
        let bench = try await fullBench()
        let large = try bench.openSession(bench.makeStream("large"))
        let small = try bench.openSession(bench.makeStream("small"))
        large.onMessage?(try Self.batch(900_000))
        // There is room for it, but somebody waits.
        small.onMessage?(try Self.batch(10))
        #expect(try bench.gauge("blocked_sessions") == 2)
        try drain(bench)
        #expect(try count([large]) == 1 && count([small]) == 1)
    }

    @Test func whoLeavesHoldsUpNobody() async throws {
        let bench = try await fullBench()
        let stream = bench.makeStream("s")
        let leaving = try (0..<5).map { _ in try bench.openSession(stream) }
        let staying = try bench.openSession(stream)
        for session in leaving + [staying] { session.onMessage?(try Self.batch(200_000)) }
        for session in leaving { session.onEnd?(.cancelled, Bytes()) }
        #expect(try bench.gauge("blocked_sessions") == 1)
        try drain(bench)
        #expect(try staying.replies.map(\.start.seqNum) == [0])
        #expect(try leaving.allSatisfy { try $0.replies.isEmpty })
    }

    @Test func singleAppendsAreRefusedAfterTooLongAWait() async throws {
        let bench = try await fullBench { $0.shedNanoseconds = .seconds(1) }
        let stream = bench.makeStream("s")
        let single = try bench.openSession(stream, isPatient: false)
        let session = try bench.openSession(stream)
        single.onMessage?(try Self.batch(200_000))
        session.onMessage?(try Self.batch(200_000))
        bench.pass(.milliseconds(900))
        #expect(single.ended == nil)
        bench.pass(.milliseconds(300))
        #expect(single.ended?.status == .overloaded)
        bench.pass(.seconds(30))
        #expect(session.ended == nil)
        try drain(bench)
        #expect(try session.replies.map(\.start.seqNum) == [0], "the other was not applied")
        #expect(try single.replies.isEmpty)
    }

    /// As long as the metadata are away a streamlet cannot be closed, and nobody else can have it.
    @Test func singleAppendsAreRefusedAfterTooLongAWaitForAClose() async throws {
        let bench = try await Bench { $0.shedNanoseconds = .seconds(1) }
        let stream = bench.makeStream("s")
        let single = try bench.openSession(stream, isPatient: false)
        let session = try bench.openSession(stream)
        let streamlet = try #require(bench.role.parts?.streamlets.find(stream))
        streamlet.phase = .closing
        single.onMessage?(try Self.batch(100))
        session.onMessage?(try Self.batch(100))
        bench.pass(.milliseconds(900))
        #expect(single.ended == nil)
        bench.pass(.milliseconds(200))
        #expect(single.ended?.status == .overloaded)
        #expect(session.ended == nil)
        streamlet.phase = .closed
        for resume in streamlet.takeWaiting() { resume() }
        #expect(session.ended?.status == .notOwner)
        #expect(try single.replies.isEmpty && session.replies.isEmpty)
    }

    // MARK: Rates

    @Test func aStreamKeepsToItsRateAndHoldsUpNoOther() async throws {
        let bench = try await Bench { $0.streamBytesPerSecondMax = 1 << 20 }
        let stream = bench.makeStream("fast")
        let sessions = try (0..<2).map { _ in try bench.openSession(stream) }
        for session in sessions {
            for _ in 0..<128 { session.onMessage?(try Self.batch(16_000)) }
        }
        let other = try bench.openSession(bench.makeStream("other"))
        other.onMessage?(try Self.batch(16_000))
        bench.pass(.milliseconds(10))
        #expect(try other.replies.count == 1)
        bench.pass(.seconds(2))
        // 2 MiB, and the slack of a quarter.
        let bytes = try count(sessions) * 16_000
        #expect((2_150_000...2_450_000).contains(bytes), "\(bytes) bytes in 2 s")
        let shares = try sessions.map { try $0.replies.count }
        #expect(abs(shares[0] - shares[1]) <= 20, "\(shares)")
        bench.pass(.seconds(2))
        #expect(try count(sessions) == 256, "4 MB take less than 4 s")
    }

    @Test func sessionsKeepToTheirRateOfBatches() async throws {
        let bench = try await Bench { $0.batchesPerSecondMax = 100 }
        let stream = bench.makeStream("s")
        let sessions = try (0..<2).map { _ in try bench.openSession(stream) }
        for session in sessions { for _ in 0..<300 { session.onMessage?(try Self.batch(10)) } }
        bench.pass(.seconds(1))
        for session in sessions {
            let count = try session.replies.count
            #expect((115...130).contains(count), "\(count) in the first second, of 100 and slack")
        }
        bench.pass(.seconds(2))
        #expect(try sessions.allSatisfy { try $0.replies.count == 300 })
    }

    @Test func singleAppendsBeyondARateAreRefused() async throws {
        let bench = try await Bench { $0.batchesPerSecondMax = 20 }
        let stream = bench.makeStream("s")
        let calls = try (0..<20).map { _ in try bench.openSession(stream, isPatient: false) }
        for call in calls { call.onMessage?(try Self.batch(10)) }
        bench.pass(.milliseconds(20))
        let refused = calls.count { $0.ended?.status == .rateLimited }
        let done = try count(calls)
        #expect((5...6).contains(done) && refused == 20 - done, "the slack of 250 ms is 5")
        let session = try bench.openSession(stream)
        session.onMessage?(try Self.batch(10))
        bench.pass(.milliseconds(20))
        #expect(try session.replies.map(\.start.seqNum) == [SeqNum(done)], "nothing else was done")
    }

    @Test func singleAppendsBeyondAStreamsBytesAreRefused() async throws {
        let bench = try await Bench { $0.streamBytesPerSecondMax = 1 << 20 }
        let stream = bench.makeStream("s")
        let calls = try (0..<4).map { _ in try bench.openSession(stream, isPatient: false) }
        for call in calls { call.onMessage?(try Self.batch(300_000)) }
        bench.pass(.milliseconds(50))
        #expect(try count(calls) == 1)
        #expect(calls.count { $0.ended?.status == .rateLimited } == 3)
        bench.pass(.seconds(1))
        let later = try bench.openSession(stream, isPatient: false)
        later.onMessage?(try Self.batch(300_000))
        bench.pass()
        #expect(try later.replies.count == 1)
    }
}
