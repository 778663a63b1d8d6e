// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct OwnerTests {
    @Test func ownersAreSoughtOnce() throws {
        let bench = try DataBench()
        var owners: [Owner] = []
        for _ in 0..<10 {
            bench.loop.spawn {
                let lookup = try? await bench.cell.lookup(
                    basin: DataBench.basin, name: "s", fresh: false)
                guard let lookup, let owner = try? await bench.cell.owner(for: lookup) else {
                    return
                }
                owners.append(owner)
            }
        }
        bench.loop.settle()
        #expect(owners.count == 10 && Set(owners).count == 1)
        #expect(bench.channel.activations == 1)
    }

    @Test func aWinnerIsAdopted() throws {
        let bench = try DataBench()
        let stale = try bench.run {
            try await bench.cell.lookup(basin: DataBench.basin, name: "s", fresh: true)
        }
        try bench.run {
            _ = try await bench.metadata.claim(bench.stream, channel: bench.channel.id)
        }
        let other = FakeChannel(bench.loop, bench.metadata, bench.store, address: "b:2")
        bench.calls.channels["b:2"] = other
        try bench.run { try await other.register() }
        for _ in 0..<5 {
            let owner = try bench.run { try await bench.cell.owner(for: stale) }
            #expect(owner.channel == bench.channel.id && owner.address == "a:1")
        }
    }

    @Test func aChannelThatCannotBeReachedIsPassedOver() throws {
        let bench = try DataBench()
        let other = FakeChannel(bench.loop, bench.metadata, bench.store, address: "b:2")
        bench.calls.channels["b:2"] = other
        try bench.run { try await other.register() }
        bench.calls.channels["a:1"] = nil
        for seed in 0..<8 as Range<UInt64> {
            let id = StreamID(ID128(high: 9, low: seed))
            let owner = try bench.run {
                let made = try await bench.metadata.createStream(
                    StreamCreation(
                        id: id, basin: DataBench.basin, name: "n\(seed)", wish: StreamConfigWish(),
                        creationKey: nil))
                return try await bench.cell.owner(
                    for: StreamLookup(stream: made.resource, owner: nil))
            }
            #expect(owner.address == "b:2")
        }
    }

    @Test func aDeadOwnersRecoveryIsAwaited() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let lookup = try bench.run {
            try await bench.metadata.resignChannel(bench.channel.id)
            return try await bench.cell.lookup(basin: DataBench.basin, name: "s", fresh: true)
        }
        #expect(lookup.owner?.channelIsActive == false)
        var failure: APIError?
        bench.loop.spawn {
            do throws(APIError) {
                _ = try await bench.cell.owner(for: lookup)
            } catch {
                failure = error
            }
        }
        bench.loop.advance(.seconds(9))
        #expect(failure == nil)
        bench.loop.advance(.seconds(2))
        #expect(failure?.code == .unavailable)
    }

    @Test func refreshReachesTheOwner() throws {
        let bench = try DataBench()
        try bench.activate()
        let lookup = try bench.run {
            try await bench.cell.lookup(basin: DataBench.basin, name: "s", fresh: true)
        }
        #expect(try bench.run { await bench.cell.refresh(lookup, deleted: false) })
        #expect(bench.calls.count(.refresh) == 1)
        var dormant = lookup
        dormant.owner = nil
        #expect(try bench.run { await bench.cell.refresh(dormant, deleted: true) })
        #expect(bench.calls.count(.refresh) == 1)
        // Out of reach: true once the streamlet is closed, false if that takes too long.
        bench.calls.channels["a:1"] = nil
        var outcome: Bool?
        bench.loop.spawn { outcome = await bench.cell.refresh(lookup, deleted: true) }
        bench.loop.advance(.seconds(3))
        #expect(outcome == nil)
        try bench.run { try await bench.channel.flush(bench.stream, closes: true) }
        bench.loop.advance(.seconds(1))
        #expect(outcome == true)
    }

    @Test func anUnreachableOwnerLeavesARefreshUndecided() throws {
        let bench = try DataBench()
        try bench.activate()
        let lookup = try bench.run {
            try await bench.cell.lookup(basin: DataBench.basin, name: "s", fresh: true)
        }
        bench.calls.channels["a:1"] = nil
        #expect(try !bench.run { await bench.cell.refresh(lookup, deleted: false) })
    }

    @Test func unusedStreamsAreForgotten() throws {
        let bench = try DataBench()
        try bench.activate()
        // Behind the cache's back, so that it can be told from the metadata.
        try bench.run {
            _ = try await bench.metadata.deleteStream(basin: DataBench.basin, name: "s")
        }
        func isRemembered() -> Bool {
            let found = try? bench.run {
                try await bench.cell.lookup(basin: DataBench.basin, name: "s", fresh: false)
            }
            return found != nil
        }
        for _ in 0..<10 {
            #expect(isRemembered(), "it is in use")
            bench.loop.advance(.seconds(100))
        }
        #expect(isRemembered())
        bench.loop.advance(.seconds(250))
        #expect(!isRemembered())
    }

    @Test func assignmentsSpreadBeforeLoadReportsCome() throws {
        let bench = try DataBench()
        try bench.run {
            for number in 2...4 {
                let other = FakeChannel(
                    bench.loop, bench.metadata, bench.store, address: "c:\(number)")
                try await other.register()
            }
        }
        var picks: [String: Int] = [:]
        for _ in 0..<400 {
            let row = try bench.run {
                await bench.cell.directory.pick(storageClass: "express", excluding: [])
            }
            picks[try #require(row).address, default: 0] += 1
        }
        #expect(picks.count == 4 && picks.values.allSatisfy { (85...115).contains($0) })
    }
}
