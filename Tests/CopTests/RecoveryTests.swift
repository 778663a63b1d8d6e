// SPDX-License-Identifier: Apache-2.0

import CopRole
import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

@Suite struct RecoveryTests {
    /// Two streams over three chunks, in two of which one lies in pieces, with commands; a third
    /// stream without records.
    private func logged() throws -> (TestCell, TestChannel, [StreamID]) {
        let cell = try TestCell()
        let channel = try cell.channel()
        let streams = try ["a", "b", "c"].map { try cell.stream($0) }
        for stream in streams { try channel.claim(stream) }
        try channel.write([(streams[0], ["a0"]), (streams[1], ["b0"]), (streams[0], ["a1"])])
        try channel.write([(streams[0], ["fence mine", "a3"])])
        try channel.write(
            [(streams[1], ["b1", "trim 1"]), (streams[0], ["a4"]), (streams[1], ["b3"])])
        return (cell, channel, streams)
    }

    private func expectRecovered(
        _ cell: TestCell, _ channel: TestChannel, _ streams: [StreamID]
    ) throws {
        let row = try cell.row(channel.id)
        #expect(row.state == .retired)
        #expect(row.sealedAt == 3)
        #expect(row.flushedEnd == 3)
        #expect(try cell.records(streams[0]) == ["0:a0", "1:a1", "2:mine", "3:a3", "4:a4"])
        #expect(
            try cell.records(streams[1]).suffix(3) == ["1:b1", "2:\0\0\0\0\0\0\0\u{1}", "3:b3"])
        #expect(try cell.records(streams[2]).isEmpty)
        let a = try cell.lookup(streams[0])
        #expect(a.owner == nil)
        #expect(a.stream.state.tail == StreamPosition(seqNum: 5, timestamp: 50))
        #expect(a.stream.state.fencingToken == "mine")
        #expect(a.stream.state.fencingTokenPosition == 3)
        let b = try cell.lookup(streams[1])
        #expect(b.owner == nil)
        #expect(b.stream.state.tail == StreamPosition(seqNum: 4, timestamp: 40))
        #expect(b.stream.state.trimPoint == 1)
        #expect(try cell.lookup(streams[2]).owner == nil)
    }

    @Test func nothingAcknowledgedIsLost() throws {
        let (cell, channel, streams) = try logged()
        let cop = cell.cop()
        cop.start()
        cell.loop.run(for: .seconds(30))
        try expectRecovered(cell, channel, streams)
        // The streams go on elsewhere, behind what was recovered.
        let other = try cell.channel()
        try other.claim(streams[0])
    }

    @Test func anEmptyLogIsSealedAndItsStreamletsClose() throws {
        let cell = try TestCell()
        let channel = try cell.channel()
        let stream = try cell.stream("a")
        try channel.claim(stream)
        cell.cop().start()
        cell.loop.run(for: .seconds(30))
        let row = try cell.row(channel.id)
        #expect(row.state == .retired)
        #expect(row.sealedAt == 0)
        #expect(try cell.lookup(stream).owner == nil)
        #expect(try channel.write([(stream, ["late"])]) == .exists)
    }

    /// Counts the calls of an undisturbed recovery, then fails each in turn.
    @Test(arguments: Fault.Moment.allCases)
    func aFailureOfAnyStepIsMadeGood(_ moment: Fault.Moment) throws {
        let (calm, _, _) = try logged()
        calm.cop().start()
        calm.loop.run(for: .seconds(8))
        let calls = calm.fault.calls
        #expect(calls > 20)
        for call in 1...calls {
            let (cell, channel, streams) = try logged()
            cell.fault.failing = (call, moment)
            cell.cop().start()
            cell.loop.run(for: .seconds(40))
            try expectRecovered(cell, channel, streams)
        }
    }

    @Test func smallWindowsAndGroupsComeToTheSame() throws {
        let (cell, channel, streams) = try logged()
        cell.cop {
            $0.recoveryBytesMax = 1
            $0.flushPartsMax = 1
            $0.segmentObjectBytesMax = 1
        }.start()
        cell.loop.run(for: .seconds(30))
        try expectRecovered(cell, channel, streams)
    }

    @Test func twoCopsThatRecoverAtOnceDoNoHarm() throws {
        for seed in 0..<100 as Range<UInt64> {
            let (cell, channel, streams) = try logged()
            cell.slowDown(seed: seed)
            try cell.loop.value { [metadata = cell.metadata] in
                try await metadata.resignChannel(channel.id)
            }
            let first = cell.cop()
            first.start()
            cell.loop.run { first.isActive }
            // The first goes on with its recovery, although the lease is the second's now.
            try cell.loop.value { [metadata = cell.metadata] in
                let lease = try await metadata.holdLease("cop", holder: "x", stale: nil)
                _ = try await metadata.holdLease("cop", holder: "x", stale: lease.renewals)
                try await metadata.releaseLease("cop", holder: "x")
            }
            let second = cell.cop()
            second.start()
            cell.loop.run { second.isActive }
            #expect(try cell.row(channel.id).state != .retired, "both are at work")
            cell.loop.run(for: .seconds(60))
            try expectRecovered(cell, channel, streams)
        }
    }

    /// The channel is alive after all, and goes on while its log is being sealed: what it could
    /// store, and therefore acknowledge, in order, is recovered, and nothing else.
    @Test func aZombieRacesTheSeal() throws {
        var sealsFirst = 0
        for seed in 0..<100 as Range<UInt64> {
            let (cell, channel, streams) = try logged()
            try cell.loop.value { [metadata = cell.metadata] in
                try await metadata.resignChannel(channel.id)
            }
            cell.slowDown(seed: seed)
            cell.cop().start()
            let random = RandomSource.seeded(seed + 1_000)
            var stored = 0
            for number in 0..<4 {
                cell.loop.run(for: random.within(0...(.milliseconds(60))))
                guard try channel.write([(streams[0], ["z\(number)"])]) == .created else { break }
                stored += 1
            }
            if stored < 4 { sealsFirst += 1 }
            cell.loop.run(for: .seconds(60))
            #expect(try cell.row(channel.id).state == .retired)
            #expect(try cell.row(channel.id).sealedAt == 3 + UInt64(stored))
            #expect(try cell.records(streams[0]).count == 5 + stored)
            if stored == 4 {
                #expect(try channel.write([(streams[0], ["late"])]) == .exists)
            }
        }
        #expect((1..<100).contains(sealsFirst), "the race goes either way")
    }

    /// A chunk beyond a hole was never acknowledged, since the one below it was not durable.
    @Test func whatLiesBeyondAHoleIsNotRecovered() throws {
        let (cell, channel, streams) = try logged()
        _ = try channel.chunk([(streams[0], ["a5"])])
        try channel.write([(streams[0], ["a6"])])
        cell.cop().start()
        cell.loop.run(for: .seconds(30))
        try expectRecovered(cell, channel, streams)
    }

    @Test func whatIsFlushedAlreadyIsNotTakenTwice() throws {
        let (cell, channel, streams) = try logged()
        try cell.loop.value { [metadata = cell.metadata] in
            // The channel's own last flush: stream b up to its first record, nothing of a.
            let row = SegmentRow(
                stream: streams[1], start: StreamPosition(seqNum: 0, timestamp: 10), endSeqNum: 1,
                lastTimestamp: 10, bucket: "main", object: "seg/00/none", offset: 0, length: 1,
                meteredBytes: 10, checksum: 0)
            let state = StreamState(
                tail: StreamPosition(seqNum: 1, timestamp: 10), fencingToken: "",
                fencingTokenPosition: 0, trimPoint: 0)
            let part = Flush.Part(
                stream: streams[1], streamlet: 0, from: 0, state: state, closes: false,
                segments: [row])
            let result = try await metadata.flush(
                Flush(channel: channel.id, isRecovery: false, parts: [part], flushedEnd: 0))
            #expect(result == .done)
        }
        cell.cop().start()
        cell.loop.run(for: .seconds(30))
        #expect(try cell.row(channel.id).state == .retired)
        let page = try cell.loop.value { [metadata = cell.metadata] in
            try await metadata.segments(of: streams[1], from: .seqNum(0), limit: 10)
        }
        #expect(page.segments.map(\.start.seqNum) == [0, 1])
        #expect(page.segments.map(\.endSeqNum) == [1, 4])
    }

    @Test func aStreamThatCannotGoOnHoldsUpNoOther() throws {
        let (cell, channel, streams) = try logged()
        try channel.write(
            [(streams[1], ["speculative"])],
            dependency: Dependency(channel: ChannelID(99), index: 5))
        try channel.write([(streams[0], ["a5"])])
        cell.cop().start()
        cell.loop.run(for: .seconds(30))
        #expect(try cell.lookup(streams[0]).owner == nil)
        #expect(try cell.lookup(streams[0]).stream.state.tail.seqNum == 6)
        #expect(try cell.lookup(streams[1]).owner != nil)
        #expect(try cell.lookup(streams[1]).stream.state.tail.seqNum == 4)
        let row = try cell.row(channel.id)
        #expect(row.state == .sealed)
        #expect(row.flushedEnd == 0)
    }

    @Test func aForeignObjectInTheLogStopsTheRecovery() throws {
        let (cell, channel, streams) = try logged()
        _ = try cell.put(LogKeys.chunk(channel.id, 3), [Bytes(utf8: "what is this?")])
        cell.cop().start()
        cell.loop.run(for: .seconds(30))
        #expect(try cell.row(channel.id).state == .dead)
        #expect(try cell.lookup(streams[0]).owner != nil)
    }

    @Test func everyChunkOfTheLogMustBeThere() throws {
        let (cell, channel, streams) = try logged()
        try cell.loop.value { [metadata = cell.metadata, store = cell.store] in
            try await metadata.resignChannel(channel.id)
            _ = try await metadata.publishSeal(channel.id, sealedAt: 3, flushedEnd: 0)
            try await store.delete(LogKeys.chunk(channel.id, 1))
        }
        cell.cop().start()
        cell.loop.run(for: .seconds(30))
        #expect(try cell.row(channel.id).state == .sealed)
        #expect(try cell.lookup(streams[0]).owner != nil)
    }
}
