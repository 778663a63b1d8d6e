// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import RPC
import Records
import Testing

@testable import ChannelRole

@Suite struct AppendTests {
    @Test func acknowledgesWithPositions() async throws {
        let bench = try await Bench()
        let session = try bench.openSession(bench.makeStream("s"))
        session.onMessage?(try Bench.batch("a", "b"))
        session.onMessage?(try Bench.batch("c"))
        bench.pass()
        let replies = try session.replies
        #expect(replies.map(\.start.seqNum) == [0, 2])
        #expect(replies.map(\.end.seqNum) == [2, 3])
        #expect(replies.last?.tail.seqNum == 3)
        session.onFinishedSending?()
        #expect(session.ended?.status == .ok)
    }

    @Test func aMessageMayHoldSeveralBatches() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        let good = try [Bench.batch("a", "b"), Bench.batch("c", match: 2)].joined()
        let bad = try [Bench.batch("d"), Bench.batch("e", match: 9), Bench.batch("f")].joined()
        session.onMessage?(good)
        session.onMessage?(bad)
        bench.pass()
        #expect(try session.replies.map(\.start.seqNum) == [0, 2, 3])
        #expect(try session.replies.map(\.end.seqNum) == [2, 3, 4])
        #expect(session.messages.count == 1, "answers of one chunk share a message")
        #expect(session.ended?.status == .rejected)
        #expect(session.consumedBytes == good.count + bad.count)
        let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
        bench.pass()
        #expect(try TailReply(try #require(tail.ended).payload).tail.seqNum == 4)
        // Garbage behind a batch ends the session behind that batch's answer.
        let cut = try bench.openSession(stream)
        cut.onMessage?(try [Bench.batch("g"), Bench.batch("h").dropFirst(1)].joined())
        bench.pass()
        #expect(try cut.replies.map(\.end.seqNum) == [5])
        #expect(cut.ended?.status == .malformed)
    }

    /// Of two sessions in one chunk, each gets its own, in messages of bounded size.
    @Test func repliesOfAChunkShareMessagesPerSession() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let first = try bench.openSession(stream)
        let second = try bench.openSession(stream)
        var sent = 0
        for n in 0..<200 {
            let batch = try Bench.batch("\(n)")
            (n % 4 == 3 ? second : first).onMessage?(batch)
            sent += batch.count
        }
        #expect(first.messages.isEmpty && second.messages.isEmpty)
        bench.pass()
        let mine = (0..<200).filter { $0 % 4 != 3 }.map { SeqNum($0) }
        #expect(try first.replies.map(\.start.seqNum) == mine)
        #expect(try first.replies.map(\.end.seqNum) == mine.map { $0 + 1 })
        #expect(try first.replies.allSatisfy { $0.tail.seqNum == 200 })
        #expect(first.messages.map(\.count) == [64, 64, 22].map { $0 * AppendReply.byteCount })
        #expect(try second.replies.map(\.start.seqNum) == (0..<50).map { 4 * $0 + 3 })
        #expect(second.messages.count == 1)
        #expect(first.consumedBytes + second.consumedBytes == sent)
    }

    /// A batch with a command that fills its chunk: the chunk is closed before the command counts.
    @Test func aCommandInAFullChunkIsInTheStableState() async throws {
        let bench = try await Bench {
            $0.chunkBytesTarget = 1
            $0.flushNanoseconds = .milliseconds(100)
        }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        session.onMessage?(try Bench.fence("token"))
        session.onMessage?(try Bench.batch("b", token: "token"))
        bench.pass(.seconds(1))
        #expect(try session.replies.map(\.end.seqNum) == [1, 2, 3])
        let state = try #require(try await bench.metadata.stream(stream)).stream.state
        #expect(state.tail.seqNum == 3)
        #expect(state.fencingToken == "token" && state.fencingTokenPosition == 2)
    }

    /// A store gets large chunks in such parts as it can write without gathering them, whoever
    /// appended, and they are whole.
    @Test func largeChunksLieInBlocks() async throws {
        let bench = try await Bench { $0.windowBytesMax = 0 }
        let streams = ["s", "t", "u"].map { bench.makeStream($0) }
        let sessions = try streams.map { try bench.openSession($0) }
        let bodies = (0..<75).map { String(repeating: "\($0),", count: 30_000 + $0 * 7) }
        for (number, body) in bodies.enumerated() {
            sessions[number * number % 3].onMessage?(try Bench.batch(body))
            if number % 25 == 24 { bench.pass() }
        }
        let chunks = bench.store.bodies.filter { byteCount($0) >= DirectPart.objectBytesMin }
        try #require(chunks.count >= 2)
        for (number, parts) in chunks.enumerated() {
            // Behind what lies in slabs come the OPENs of streamlets, and the index.
            let inSlabs = parts.dropLast(number == 0 ? streams.count + 1 : 1)
            #expect(inSlabs.count >= 2)
            for part in inSlabs.dropLast() { #expect(part.count % DirectPart.blockBytes == 0) }
            for part in inSlabs.dropFirst(number == 0 ? 1 : 0) {
                #expect(Int(bitPattern: part.base) % DirectPart.blockBytes == 0)
            }
        }
        var found: [StreamID: [String]] = [:]
        for parts in bench.store.bodies {
            let chunk = try Chunk(parts.joined())
            for entry in chunk.entries where entry.kind == .records {
                try entry.checkRecords(chunk.fragment(entry))
                found[entry.stream, default: []] +=
                    try ReadBatch(chunk.fragment(entry)).records.map(\.body.lossyText)
            }
        }
        for (stream, id) in streams.enumerated() {
            let expected = bodies.enumerated().filter { $0.offset * $0.offset % 3 == stream }
            #expect((found[id] ?? []) == expected.map(\.element))
        }
    }

    /// Chunk n is held while n+1 to n+3 are durable: no acknowledgement; then all, in order.
    @Test func aHeldChunkHoldsEverythingBehindIt() async throws {
        let bench = try await Bench { $0.lingerNanoseconds = 0...0 }
        let session = try bench.openSession(bench.makeStream("s"))
        bench.store.hold()
        for body in ["a", "b", "c", "d"] {
            session.onMessage?(try Bench.batch(body))
            bench.pass()
        }
        let held = bench.store.held
        try #require(held.count == 4)
        for key in held.dropFirst().reversed() { bench.store.release(key) }
        bench.pass(.milliseconds(50))
        #expect(session.messages.isEmpty, "nothing behind a hole is acknowledged")
        #expect(session.consumedBytes == 0)
        bench.store.release(held[0])
        bench.pass()
        #expect(try session.replies.map(\.start.seqNum) == [0, 1, 2, 3])
    }

    @Test func atMostWChunksAreInFlightAndTheRestSharesOne() async throws {
        let bench = try await Bench { $0.lingerNanoseconds = 0...0 }
        let session = try bench.openSession(bench.makeStream("s"))
        bench.store.hold()
        for n in 0..<20 {
            session.onMessage?(try Bench.batch("\(n)"))
            bench.pass()
        }
        #expect(bench.store.held.count == 4)
        let open = try bench.gauge("open_chunk_bytes")
        let unstable = try bench.gauge("unstable_bytes")
        #expect(unstable > 0 && open > unstable, "sixteen batches wait behind four")
        #expect(try open + unstable == bench.gauge("unflushed_bytes"))
        bench.store.releaseAll()
        bench.pass(.milliseconds(5))
        #expect(try session.replies.count == 20)
        #expect(try bench.gauge("open_chunk_bytes") == 0 && bench.gauge("unstable_bytes") == 0)
        let keys = try await bench.store.list(prefix: "wal/", after: "", limit: 100).objects
        #expect(keys.count == 5, "what came while all slots were taken shares a chunk")
    }

    @Test func conditionsAreCheckedAgainstWhatIsAssigned() async throws {
        let bench = try await Bench()
        let session = try bench.openSession(bench.makeStream("s"))
        bench.store.hold()
        for n in 0..<3 {
            session.onMessage?(try Bench.batch("\(n)", match: SeqNum(n)))
            bench.pass()
        }
        bench.store.releaseAll()
        bench.pass()
        #expect(try session.replies.map(\.end.seqNum) == [1, 2, 3])
    }

    @Test func aRejectionWaitsForWhatItSaw() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let writer = try bench.openSession(stream)
        let other = try bench.openSession(stream)
        bench.store.hold()
        writer.onMessage?(try Bench.batch("a"))
        bench.pass()
        other.onMessage?(try Bench.batch("b", match: 0))
        bench.pass(.milliseconds(100))
        #expect(other.ended == nil, "the number it would show is not stable")
        bench.store.releaseAll()
        bench.pass()
        let ended = try #require(other.ended)
        #expect(ended.status == .rejected)
        #expect(try AppendRejection(ended.payload) == .seqNumMismatch(next: 1))
    }

    @Test func aTokenIsCheckedAgainstTheStateBeforeTheBatch() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.fence("t"))
        session.onMessage?(try Bench.batch("a", token: "t"))
        session.onMessage?(try Bench.batch("b"))
        bench.pass()
        #expect(try session.replies.count == 3)
        session.onMessage?(try Bench.batch("c", match: 99, token: "x"))
        bench.pass()
        let payload = try #require(session.ended?.payload)
        #expect(try AppendRejection(payload) == .fencingTokenMismatch(current: "t"))
    }

    /// Texts that look alike are not the same token.
    @Test func tokensAreComparedByBytes() async throws {
        let bench = try await Bench()
        let session = try bench.openSession(bench.makeStream("s"))
        session.onMessage?(try Bench.fence("\u{E9}"))
        session.onMessage?(try Bench.batch("a", token: "\u{E9}"))
        session.onMessage?(try Bench.batch("b", token: "e\u{301}"))
        bench.pass()
        #expect(try session.replies.count == 2)
        #expect(session.ended?.status == .rejected)
    }

    @Test func theFirstFailurePoisonsTheSession() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        session.onMessage?(try Bench.batch("a"))
        session.onMessage?(try Bench.batch("b", match: 7))
        session.onMessage?(try Bench.batch("c"))
        bench.pass()
        #expect(try session.replies.count == 1)
        #expect(session.ended?.status == .rejected)
        let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
        bench.pass()
        #expect(try TailReply(try #require(tail.ended).payload).tail.seqNum == 1)
    }

    @Test func aRequiredTimestampThatIsMissingAppendsNothing() async throws {
        let bench = try await Bench()
        let session = try bench.openSession(
            bench.makeStream("s") { $0.timestampingMode = .clientRequire })
        session.onMessage?(try Bench.batch("a", timestamp: 5))
        session.onMessage?(try Bench.batch("b"))
        bench.pass()
        #expect(try session.replies.map(\.start) == [StreamPosition(seqNum: 0, timestamp: 5)])
        #expect(session.ended?.status == .timestampMissing)
    }

    @Test func garbageEndsTheSessionAndNothingElse() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let bad = try bench.openSession(stream)
        let good = try bench.openSession(stream)
        bad.onMessage?([1, 2, 3])
        good.onMessage?(try Bench.batch("a"))
        bench.pass()
        #expect(bad.ended?.status == .malformed)
        #expect(try good.replies.count == 1)
    }

    @Test func aSealInTheWayMakesEverythingIndefiniteAndEndsTheProcess() async throws {
        let bench = try await Bench { $0.lingerNanoseconds = 0...0 }
        let session = try bench.openSession(bench.makeStream("s"))
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        let channel = try #require(bench.role.channel)
        let seal = Seal(
            header: ChunkHeader(
                kind: .seal, channel: channel, index: 1, putID: ID128(high: 1, low: 1),
                storageClass: 0, createdMilliseconds: 0),
            owner: "test", reason: "test")
        _ = try await bench.store.inner.put(
            LogKeys.chunk(channel, 1), [seal.encoded()], ifAbsent: true)
        session.onMessage?(try Bench.batch("b"))
        session.onMessage?(try Bench.batch("c"))
        bench.pass(.milliseconds(10))
        #expect(try session.replies.count == 1)
        #expect(session.ended?.status == .indefinite)
        #expect(bench.exits.reasons.count == 1)
        #expect(try await bench.metadata.channel(channel)?.state == .dead)
    }

    @Test func aLogThatIsNotEmptyIsRefused() async throws {
        let bench = try await Bench()
        let next = ChannelID(try #require(bench.role.channel).number + 1)
        _ = try await bench.store.inner.put(LogKeys.chunk(next, 0), [[1]], ifAbsent: true)
        var refused: ReopenedLog?
        let second = ChannelRole(world: bench.world, limits: ChannelLimits(address: "sim:2"))
        bench.run {
            do { try await second.start() } catch let error as ReopenedLog { refused = error }
        }
        #expect(refused?.channel == next)
        #expect(!second.isReady)
    }

    @Test func withoutRoomSessionsWaitAndNothingIsLost() async throws {
        let bench = try await Bench {
            $0.unflushedBytesMax = 100_000
            $0.flushBytes = 50_000
        }
        let session = try bench.openSession(bench.makeStream("s"))
        let body = String(repeating: "x", count: 10_000)
        for _ in 0..<50 { session.onMessage?(try Bench.batch(body)) }
        bench.pass()
        let early = try session.replies.count
        #expect(early < 10, "back-pressure: \(early) batches were taken at once")
        #expect(try bench.gauge("blocked_sessions") == 1)
        bench.pass(.seconds(5))
        #expect(try session.replies.map(\.start.seqNum) == Array(0..<50))
        // So it is where they came in one message.
        session.onMessage?(try (0..<50).map { _ in try Bench.batch(body) }.joined())
        bench.pass(.seconds(5))
        #expect(try session.replies.map(\.start.seqNum) == Array(0..<100))
    }
}
