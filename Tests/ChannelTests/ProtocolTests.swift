// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import RPC
import Records
import Simulation
import Testing

@testable import ChannelRole

/// Where a reply of the metadata is late, somebody else may know more than the channel does.
@Suite struct ProtocolTests {
    @Test func noTailIsShownWhileACloseIsUnderWay() async throws {
        let (tail, plan) = try await askWhileClosing(mutant: nil)
        #expect(tail == .notOwner && plan == .notOwner)
        let mutated = try await askWhileClosing(mutant: .tailWhileClosing)
        #expect(mutated == (.ok, .ok), "the test sees the mutant")
    }

    /// Asks for a tail and a plan once another channel has the stream, and the first does not know.
    private func askWhileClosing(mutant: ChannelMutant?) async throws -> (Status?, Status?) {
        let bench = try await Bench(latency: .milliseconds(200)) {
            $0.dormancyNanoseconds = .seconds(1)
            $0.mutant = mutant
        }
        let stream = bench.makeStream("s")
        let activation = bench.call(.activate, ActivateRequest(stream: stream))
        bench.pass(.milliseconds(500))
        #expect(activation.ended?.status == .ok)
        // Until the close has had its effect, and its reply is on the way.
        var waited: Nanoseconds = 0
        while try await bench.metadata.stream(stream)?.owner != nil, waited < .seconds(3) {
            bench.pass(.milliseconds(10))
            waited += .milliseconds(10)
        }
        let other = try await bench.metadata.registerChannel(
            ChannelRegistration(storageClass: "express", zone: "local", address: "sim:2"))
        guard case .claimed = try await bench.metadata.claim(stream, channel: other) else {
            Issue.record("the streamlet was not closed")
            return (nil, nil)
        }
        let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
        let plan = bench.call(
            .plan, PlanRequest(stream: stream, streamlet: 0, start: .seqNum(0), limit: 10))
        bench.pass(.seconds(1))
        return (tail.ended?.status, plan.ended?.status)
    }

    @Test func aRefreshWaitsForAClaimThatReadAnOlderRow() async throws {
        let bench = try await Bench(latency: .milliseconds(200))
        let stream = bench.makeStream("s")
        let activation = bench.call(.activate, ActivateRequest(stream: stream))
        // The claim has had its effect; its reply, with the row of then, is on the way.
        bench.pass(.milliseconds(300))
        #expect(activation.ended == nil)
        let row = try #require(try await bench.metadata.stream(stream)).stream
        var config = row.config
        config.timestampingMode = .clientRequire
        _ = try await bench.metadata.updateStream(stream, version: row.version, config: config)
        let refresh = bench.call(
            .refresh, RefreshRequest(stream: stream, version: row.version + 1, deleted: false))
        bench.pass(.seconds(2))
        #expect(refresh.ended?.status == .ok, "the change was not applied here")
        let session = bench.call(.append, AppendOpen(stream: stream, streamlet: 0))
        session.onMessage?(try Bench.batch("a"))
        bench.pass(.milliseconds(50))
        #expect(session.ended?.status == .timestampMissing)
    }

    @Test func aDeletionClosesAStreamletWhoseClaimWasLost() async throws {
        let bench = try await Bench()
        let stream = bench.makeStream("s")
        let channel = try #require(bench.role.channel)
        _ = try await bench.metadata.claim(stream, channel: channel)
        _ = try await bench.metadata.deleteStream(basin: "test-basin", name: "s")
        let refresh = bench.call(
            .refresh, RefreshRequest(stream: stream, version: 1, deleted: true))
        bench.pass(.seconds(1))
        #expect(refresh.ended?.status == .ok)
        #expect(try await bench.metadata.stream(stream)?.owner == nil)
    }

    @Test func aProbeKnowsItsOwnChunksAboveAHole() async throws {
        let bench = try await Bench {
            $0.lingerNanoseconds = 0...0
            $0.renewNanoseconds = .seconds(3_600)
        }
        let stream = bench.makeStream("s")
        let session = try bench.openSession(stream)
        let channel = try #require(bench.role.channel)
        bench.store.holdReplies()
        session.onMessage?(try Bench.batch("a"))
        bench.pass()
        session.onMessage?(try Bench.batch("b"))
        bench.pass()
        // Both have landed; the channel knows it of the second alone.
        bench.store.release(LogKeys.chunk(channel, 1))
        bench.pass()
        bench.stall(.seconds(4))
        let tail = bench.call(.tail, TailRequest(stream: stream, streamlet: 0))
        bench.pass(.milliseconds(10))
        #expect(bench.exits.reasons == [], "its own chunks are no seal")
        #expect(tail.ended?.status == .ok)
        #expect(try TailReply(try #require(tail.ended).payload).tail == .zero)
    }

    @Test func aZombieRefusesNothingByItsOldConfiguration() async throws {
        let bench = try await Bench { $0.renewNanoseconds = .seconds(3_600) }
        let stream = bench.makeStream("s") { $0.timestampingMode = .clientRequire }
        let session = try bench.openSession(stream)
        let channel = try #require(bench.role.channel)
        let seal = Seal(
            header: ChunkHeader(
                kind: .seal, channel: channel, index: 0, putID: ID128(high: 1, low: 1),
                storageClass: 0, createdMilliseconds: 0),
            owner: "test", reason: "test")
        _ = try await bench.store.inner.put(
            LogKeys.chunk(channel, 0), [seal.encoded()], ifAbsent: true)
        bench.stall(.seconds(4))
        session.onMessage?(try Bench.batch("a"))
        bench.pass(.milliseconds(10))
        #expect(session.ended?.status == .unavailable)
    }

    @Test func aChannelThatIsUnsureForADayExits() async throws {
        var lease = LeaseGuard<Int>(waitNanosecondsMax: 100, countMax: 3)
        lease.renewed(sentAt: 0, duration: .seconds(3), at: 0, wallMilliseconds: 5_000) { _ in }
        let day: Nanoseconds = .seconds(24 * 3_600)
        #expect(!lease.isUnsureTooLong(at: .seconds(2), wallMilliseconds: .max))
        #expect(!lease.isUnsureTooLong(at: .seconds(9), wallMilliseconds: 9_000))
        #expect(lease.isUnsureTooLong(at: day + .seconds(3), wallMilliseconds: 9_000))
        #expect(lease.isUnsureTooLong(at: .seconds(9), wallMilliseconds: 5_000 + 86_400_000))
        #expect(!lease.isUnsureTooLong(at: .seconds(9), wallMilliseconds: 0), "a clock may go back")
    }

    @Test func anIdleChannelThatIsUnsureFindsItsSeal() async throws {
        let bench = try await Bench { $0.renewNanoseconds = .seconds(3_600) }
        let stream = bench.makeStream("s")
        _ = try bench.activate(stream)
        let follow = bench.call(.follow, FollowRequest(stream: stream, streamlet: 0, start: 0))
        let channel = try #require(bench.role.channel)
        let seal = Seal(
            header: ChunkHeader(
                kind: .seal, channel: channel, index: 0, putID: ID128(high: 1, low: 1),
                storageClass: 0, createdMilliseconds: 0),
            owner: "test", reason: "test")
        _ = try await bench.store.inner.put(
            LogKeys.chunk(channel, 0), [seal.encoded()], ifAbsent: true)
        bench.pass(.seconds(5))
        #expect(bench.exits.reasons.count == 1)
        #expect(follow.ended?.status == .notOwner, "who follows must look anew")
    }
}
