// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

/// Rows of what is over go, once nobody can ask for them any more; what counts them does not.
@Suite(.serialized) struct ForgettingTests {
    private func with(
        _ backend: Backend, _ body: (any HousekeepingStore) async throws -> Void
    ) async throws {
        try await backend.with { try await body(try #require($0 as? any HousekeepingStore)) }
    }

    @Test(arguments: Backend.allCases)
    func aChannelsNextFlushForgetsWhatItClosed(_ backend: Backend) async throws {
        try await with(backend) { store in
            let (id, channel) = try await store.addOwnedStream()
            func rows() async throws -> [StreamletNumber] {
                try await store.streamlets(of: id, before: nil, limit: 99).map(\.number)
            }
            let closing = flush(channel, [part(id, 0..<5, closes: true)], to: 1)
            #expect(try await store.flush(closing) == .done)
            guard case .claimed(1, _) = try await store.claim(id, channel: channel) else {
                Issue.record("the next streamlet has another number")
                return
            }
            // Its reply may have been lost: it is asked for again, and known.
            #expect(try await store.flush(closing) == .done)
            #expect(try await rows() == [1, 0])
            // Nor does another channel forget it, nor a flush that comes to nothing.
            let other = try await store.addChannel()
            #expect(try await store.flush(flush(other, [], to: 1)) == .done)
            let misfit = flush(channel, [part(id, number: 1, 6..<7)], to: 2)
            #expect(try await store.flush(misfit) == .notContiguous(id))
            #expect(try await store.flush(closing) == .done)
            // Nor one that brings nothing: it may be an old one that comes late.
            #expect(try await store.flush(flush(channel, [], to: 1)) == .done)
            let empty = flush(channel, [part(id, number: 1, 5..<5)], to: 1)
            #expect(try await store.flush(empty) == .done)
            #expect(try await rows() == [1, 0])

            let next = flush(channel, [part(id, number: 1, 5..<8, closes: true)], to: 2)
            #expect(try await store.flush(next) == .done)
            #expect(try await store.flush(next) == .done)
            #expect(try await rows() == [1])
            // However often it comes and goes.
            for number in 2..<40 as Range<StreamletNumber> {
                guard case .claimed(number, _) = try await store.claim(id, channel: channel) else {
                    Issue.record("streamlet \(number) has another number")
                    return
                }
                let end = SeqNum(number) + 7
                let again = flush(
                    channel, [part(id, number: number, end - 1..<end, closes: true)],
                    to: ChunkIndex(number) + 1)
                #expect(try await store.flush(again) == .done)
                #expect(try await rows() == [number])
            }
            let page = try await store.segments(of: id, from: .seqNum(0), limit: 99)
            #expect(page.lookup?.stream.state.tail.seqNum == 46 && page.segments.count == 40)
        }
    }

    @Test(arguments: Backend.allCases)
    func recoverersForgetNothing(_ backend: Backend) async throws {
        try await with(backend) { store in
            let (first, channel) = try await store.addOwnedStream()
            let second = try await store.addStream(2).id
            _ = try await store.claim(second, channel: channel)
            try await store.kill(channel, sealedAt: 3)
            let flushes = [first, second].map {
                flush(channel, [part($0, 0..<5, closes: true)], to: 3, recovery: true)
            }
            // Two of them, a step apart.
            for each in [0, 0, 1, 0, 1] {
                #expect(try await store.flush(flushes[each]) == .done)
            }
            #expect(try await store.streamlets(of: channel, [.closed]).count == 2)
        }
    }

    @Test(arguments: Backend.allCases)
    func aRetiredChannelGoesWithAllThatIsKeptOfIt(_ backend: Backend) async throws {
        try await with(backend) { store in
            let (id, channel) = try await store.addOwnedStream()
            let streams = [id, try await store.addStream(2).id, try await store.addStream(3).id]
            for stream in streams { _ = try await store.claim(stream, channel: channel) }
            try await store.kill(channel, sealedAt: 1)
            let parts = streams.map { part($0, 0..<5, closes: true) }
            #expect(try await store.flush(flush(channel, parts, to: 1, recovery: true)) == .done)
            try await store.markLog(channel)
            #expect(try await store.forgetStreamlets(of: channel, limit: 9) == 0)
            #expect(try await store.forgetChannel(channel) == false)
            #expect(try await store.retireChannel(channel))

            #expect(try await store.forgetStreamlets(of: channel, limit: 2) == 2)
            #expect(try await store.streamlets(of: channel, [.closed]).count == 1)
            #expect(try await store.channel(channel)?.state == .retired)
            // What is left goes along.
            #expect(try await store.forgetChannel(channel))
            #expect(try await store.forgetChannel(channel))
            #expect(try await store.forgetStreamlets(of: channel, limit: 9) == 0)
            #expect(try await store.channels(Set(ChannelState.allCases)).isEmpty)
            #expect(try await store.streamlets(of: id, before: nil, limit: 9).isEmpty)
            let logs = try await store.scanLogs(partition: 0, of: 1, after: nil, limit: 9)
            #expect(logs.items.isEmpty)

            // Whoever still is that channel is no channel.
            #expect(try await store.renewChannel(channel, load: .idle) == false)
            #expect(try await store.claim(id, channel: channel) == .channelNotActive)
            let late = flush(channel, [part(id, 5..<6)], to: 2)
            #expect(try await store.flush(late) == .channelNotActive)
            #expect(try await store.declareDead(channel, renewals: 0) == false)
            #expect(
                try await store.publishSeal(channel, sealedAt: 1, flushedEnd: 1) == false)
            #expect(try await store.retireChannel(channel) == false)
            try await store.markLog(channel)
            try await store.forgetLog(channel, below: 1)

            // No number comes again.
            let next = try await store.addChannel()
            #expect(next > channel)
            guard case .claimed(1, _) = try await store.claim(id, channel: next) else {
                Issue.record("the next streamlet has another number")
                return
            }
        }
    }

    @Test(arguments: Backend.allCases)
    func aCellWithoutChannelsIsNotNew(_ backend: Backend) async throws {
        try await with(backend) { store in
            let terms = try #require(store as? any CellTerms)
            let (id, channel) = try await store.addOwnedStream()
            try await store.kill(channel, sealedAt: 1)
            let last = flush(channel, [part(id, 0..<5, closes: true)], to: 1, recovery: true)
            #expect(try await store.flush(last) == .done)
            #expect(try await store.retireChannel(channel))
            #expect(try await store.forgetChannel(channel))
            try await terms.setPlanWait(3_000)
            #expect(try await terms.planWait() == PlanWait(shortest: 3_000, longest: 600_000))
        }
    }
}
