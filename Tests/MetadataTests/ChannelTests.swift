// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

extension Conformance {
    @Test(arguments: Backend.allCases)
    func channelRegistersAndRenews(_ backend: Backend) async throws {
        try await backend.with { store in
            let first = try await store.registerChannel(
                ChannelRegistration(storageClass: "express", zone: "it's", address: "[::1]:7400"))
            let second = try await store.addChannel()
            #expect(first.number > 0 && second > first)
            let row = try #require(try await store.channel(first))
            #expect(row.storageClass == "express" && row.zone == "it's")
            #expect(row.address == "[::1]:7400" && row.state == .active)
            #expect(row.renewals == 0 && row.load == .idle && row.flushedEnd == 0)
            #expect(row.sealedAt == nil && row.startedMilliseconds > 0)

            let load = ChannelLoad(
                bytesPerSecond: u64Max, queueDelayMicroseconds: u64Max - 1, openStreamlets: 5)
            #expect(try await store.renewChannel(first, load: load))
            #expect(try await store.renewChannel(first, load: load))
            let renewed = try #require(try await store.channel(first))
            #expect(renewed.renewals == 2 && renewed.load == load)
            for nobody in [ChannelID(99), ChannelID(u64Max)] {
                #expect(try await store.channel(nobody) == nil)
                #expect(try await store.renewChannel(nobody, load: .idle) == false)
                #expect(try await store.declareDead(nobody, renewals: 0) == false)
                #expect(try await store.retireChannel(nobody) == false)
                #expect(
                    try await store.publishSeal(nobody, sealedAt: 0, flushedEnd: 0) == false)
                try await store.resignChannel(nobody)
            }
        }
    }

    @Test(arguments: Backend.allCases)
    func deathIsDeclaredByRenewals(_ backend: Backend) async throws {
        try await backend.with { store in
            let id = try await store.addChannel()
            #expect(try await store.renewChannel(id, load: .idle))
            for renewals in [0, 2, u64Max] {
                #expect(try await store.declareDead(id, renewals: renewals) == false)
            }
            #expect(try await store.channel(id)?.state == .active)
            #expect(try await store.declareDead(id, renewals: 1))
            #expect(try await store.channel(id)?.state == .dead)
            #expect(try await store.renewChannel(id, load: .idle) == false)
            #expect(try await store.channel(id)?.renewals == 1)
            #expect(try await store.declareDead(id, renewals: 77))

            let other = try await store.addChannel()
            try await store.resignChannel(other)
            #expect(try await store.channel(other)?.state == .dead)
            try await store.resignChannel(other)
            #expect(try await store.renewChannel(other, load: .idle) == false)
        }
    }

    @Test(arguments: Backend.allCases)
    func sealIsPublishedOnce(_ backend: Backend) async throws {
        try await backend.with { store in
            let id = try await store.addChannel()
            #expect(try await store.flush(flush(id, [], to: 5)) == .done)
            #expect(try await store.publishSeal(id, sealedAt: 9, flushedEnd: 5) == false)
            try await store.resignChannel(id)
            #expect(try await store.publishSeal(id, sealedAt: 9, flushedEnd: 4) == false)
            await expectError(.failed) {
                try await store.publishSeal(id, sealedAt: 4, flushedEnd: 5)
            }
            #expect(try await store.channel(id)?.state == .dead)
            #expect(try await store.publishSeal(id, sealedAt: 9, flushedEnd: 5))
            let row = try #require(try await store.channel(id))
            #expect(row.state == .sealed && row.sealedAt == 9)
            #expect(try await store.publishSeal(id, sealedAt: 9, flushedEnd: 5))
            #expect(try await store.publishSeal(id, sealedAt: 10, flushedEnd: 5) == false)
            #expect(try await store.channel(id)?.sealedAt == 9)
            #expect(try await store.declareDead(id, renewals: 3))
            #expect(try await store.channel(id)?.state == .sealed)
            try await store.resignChannel(id)
            #expect(try await store.channel(id)?.state == .sealed)

            let last = try await store.addChannel()
            try await store.resignChannel(last)
            #expect(try await store.publishSeal(last, sealedAt: u64Max, flushedEnd: 0))
            #expect(try await store.channel(last)?.sealedAt == u64Max)
        }
    }

    @Test(arguments: Backend.allCases)
    func channelRetiresWhenAllIsFlushed(_ backend: Backend) async throws {
        try await backend.with { store in
            let (stream, channel) = try await store.addOwnedStream()
            #expect(try await store.retireChannel(channel) == false)
            try await store.resignChannel(channel)
            #expect(try await store.retireChannel(channel) == false)
            #expect(try await store.publishSeal(channel, sealedAt: 4, flushedEnd: 0))
            #expect(try await store.retireChannel(channel) == false)
            // Everything is flushed, but a streamlet is open.
            #expect(
                try await store.flush(flush(channel, [part(stream, 0..<3)], to: 4, recovery: true))
                    == .done)
            #expect(try await store.retireChannel(channel) == false)
            #expect(
                try await store.flush(
                    flush(channel, [part(stream, 3..<3, closes: true)], to: 4, recovery: true))
                    == .done)
            #expect(try await store.retireChannel(channel))
            #expect(try await store.retireChannel(channel))
            #expect(try await store.channel(channel)?.state == .retired)
            #expect(try await store.publishSeal(channel, sealedAt: 4, flushedEnd: 4))
            #expect(try await store.declareDead(channel, renewals: 0))
            #expect(try await store.channel(channel)?.state == .retired)

            let short = try await store.addChannel()
            try await store.kill(short, sealedAt: 1)
            #expect(try await store.retireChannel(short) == false)
        }
    }

    @Test(arguments: Backend.allCases)
    func channelsAreListedByState(_ backend: Backend) async throws {
        try await backend.with { store in
            var ids: [ChannelID] = []
            for _ in 0..<4 { ids.append(try await store.addChannel()) }
            try await store.resignChannel(ids[1])
            try await store.kill(ids[2], sealedAt: 0)
            try await store.kill(ids[3], sealedAt: 0)
            #expect(try await store.retireChannel(ids[3]))
            #expect(try await store.channels([]).isEmpty)
            #expect(try await store.channels([.active]).map(\.id) == [ids[0]])
            #expect(try await store.channels([.retired, .dead]).map(\.id) == [ids[1], ids[3]])
            let all = try await store.channels(Set(ChannelState.allCases))
            #expect(all.map(\.id) == ids)
            #expect(all.map(\.state) == [.active, .dead, .sealed, .retired])
        }
    }

    @Test(arguments: Backend.allCases)
    func claimOpensTheNextStreamlet(_ backend: Backend) async throws {
        try await backend.with { store in
            let (id, channel) = try await store.addOwnedStream()
            let stream = try #require(try await store.stream(id)).stream
            let owner = Owner(
                streamlet: 0, channel: channel, address: "127.0.0.1:7400", channelIsActive: true)
            #expect(try await store.stream(id)?.owner == owner)
            #expect(try await store.claim(id, channel: channel) == .claimed(0, stream))

            let other = try await store.addChannel("127.0.0.1:7401")
            #expect(try await store.claim(id, channel: other) == .owned(owner))
            #expect(try await store.claim(streamID(99), channel: other) == .streamNotFound)
            #expect(try await store.claim(id, channel: ChannelID(u64Max)) == .channelNotActive)

            // A dead owner still owns it, until recovery has closed the streamlet.
            try await store.resignChannel(channel)
            #expect(try await store.claim(id, channel: channel) == .channelNotActive)
            var orphaned = owner
            orphaned.channelIsActive = false
            #expect(try await store.claim(id, channel: other) == .owned(orphaned))
            #expect(try await store.publishSeal(channel, sealedAt: 2, flushedEnd: 0))
            let recovery = flush(
                channel,
                [part(id, 0..<7, closes: true, state: state(7, token: "t", at: 3, trim: 2))],
                to: 2, recovery: true)
            #expect(try await store.flush(recovery) == .done)
            #expect(try await store.stream(id)?.owner == nil)

            guard case .claimed(1, let claimed) = try await store.claim(id, channel: other) else {
                Issue.record("not claimed")
                return
            }
            #expect(claimed.state == state(7, token: "t", at: 3, trim: 2))
            #expect(
                try await store.streamlets(of: id, before: nil, limit: 10) == [
                    Streamlet(
                        stream: id, number: 1, channel: other, start: 7, end: nil, state: .open),
                    Streamlet(
                        stream: id, number: 0, channel: channel, start: 0, end: 7, state: .closed),
                ])
            #expect(try await store.streamlets(of: id, before: nil, limit: 1).map(\.number) == [1])
            #expect(try await store.streamlets(of: id, before: 2, limit: 1).map(\.number) == [1])
            #expect(try await store.streamlets(of: id, before: 1, limit: 2).map(\.number) == [0])
            #expect(try await store.streamlets(of: id, before: 0, limit: 2).isEmpty)
            #expect(try await store.streamlets(of: streamID(99), before: nil, limit: 1).isEmpty)
            let closed = try await store.streamlets(of: channel, [.closed, .aborted])
            #expect(closed.map(\.stream) == [id])
            #expect(try await store.streamlets(of: channel, [.open, .prepared]).isEmpty)
        }
    }

    @Test(arguments: Backend.allCases)
    func streamletsOfChannelComeByStream(_ backend: Backend) async throws {
        try await backend.with { store in
            try await store.addBasin()
            let channel = try await store.addChannel()
            for low in [5, 1, u64Max, 3] as [UInt64] {
                try await store.addStream(low)
                _ = try await store.claim(streamID(low), channel: channel)
            }
            let found = try await store.streamlets(of: channel, [.open])
            #expect(found.map(\.stream) == [1, 3, 5, u64Max].map(streamID))
        }
    }

    @Test(arguments: Backend.allCases)
    func leaseChangesHandsOnlyWhenStale(_ backend: Backend) async throws {
        try await backend.with { store in
            #expect(
                try await store.holdLease("cop", holder: "a", stale: nil)
                    == Lease(holder: "a", renewals: 1))
            #expect(
                try await store.holdLease("cop", holder: "a", stale: nil)
                    == Lease(holder: "a", renewals: 2))
            let held = Lease(holder: "a", renewals: 2)
            #expect(try await store.holdLease("cop", holder: "b", stale: nil) == held)
            #expect(try await store.holdLease("cop", holder: "b", stale: 1) == held)
            #expect(try await store.holdLease("cop", holder: "b", stale: u64Max) == held)
            #expect(
                try await store.holdLease("cop", holder: "b", stale: 2)
                    == Lease(holder: "b", renewals: 3))
            #expect(try await store.holdLease("cop", holder: "a", stale: nil).holder == "b")
            try await store.releaseLease("cop", holder: "a")
            #expect(try await store.holdLease("cop", holder: "a", stale: nil).holder == "b")
            try await store.releaseLease("cop", holder: "b")
            // What an old challenger saw never comes again.
            #expect(
                try await store.holdLease("cop", holder: "c", stale: nil)
                    == Lease(holder: "c", renewals: 4))
            #expect(
                try await store.holdLease("other", holder: "b", stale: nil)
                    == Lease(holder: "b", renewals: 1))
            try await store.releaseLease("none", holder: "b")
        }
    }
}
