// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

private let allStreams =
    StreamID(ID128(high: 0, low: 0))...StreamID(ID128(high: .max, low: .max))
private let allKeys = "seg/"..<"seg0"

private func row(
    _ low: UInt64, _ range: Range<SeqNum>, object: String? = nil, length: UInt64 = 17
) -> SegmentRow {
    var row = segment(streamID(low), range)
    row.object = object ?? "seg/00/\(low)-\(range.lowerBound)"
    row.length = length
    return row
}

private func part(_ rows: [SegmentRow], closes: Bool = false, trim: SeqNum = 0) -> Flush.Part {
    Flush.Part(
        stream: rows[0].stream, streamlet: 0, from: rows[0].start.seqNum,
        state: state(rows[rows.count - 1].endSeqNum, trim: trim), closes: closes, segments: rows)
}

extension Backend {
    fileprivate func keep(
        _ body: (any HousekeepingStore) async throws -> Void
    ) async throws {
        try await with { store in
            try await body(try #require(store as? any HousekeepingStore))
        }
    }
}

extension HousekeepingStore {
    /// Streams whose segments of 10 records each are flushed: their number, by stream.
    fileprivate func addFlushed(
        _ counts: [UInt64: Int], wish: StreamConfigWish = StreamConfigWish(),
        closes: Bool = true, trim: SeqNum = 0
    ) async throws -> ChannelID {
        try await addBasin()
        let channel = try await addChannel()
        var parts: [Flush.Part] = []
        for (low, count) in counts.sorted(by: { $0.key < $1.key }) {
            try await addStream(low, wish: wish)
            _ = try await claim(streamID(low), channel: channel)
            let rows = (0..<UInt64(count)).map { row(low, $0 * 10..<($0 + 1) * 10) }
            parts.append(part(rows, closes: closes, trim: trim))
        }
        let one = MetadataTests.flush(channel, parts, to: 5)
        #expect(try await flush(one) == .done)
        return channel
    }

    fileprivate func due(_ work: StreamWork) async throws -> [StreamID] {
        let scan = try await scanStreams(for: work, in: allStreams, after: nil, limit: 100)
        #expect(scan.next == nil)
        return scan.items
    }

    fileprivate func garbage() async throws -> [String: Garbage.Phase] {
        let scan = try await scanGarbage(allKeys, after: nil, limit: 100)
        return Dictionary(uniqueKeysWithValues: scan.items.map { ($0.object.key, $0.phase) })
    }

    fileprivate func starts(_ low: UInt64) async throws -> [SeqNum] {
        try await segments(of: streamID(low), from: .seqNum(0), limit: 100)
            .segments.map(\.start.seqNum)
    }
}

extension Conformance {
    @Test(arguments: Backend.allCases)
    func scansGoOnWhereTheyStopped(_ backend: Backend) async throws {
        try await backend.keep { store in
            _ = try await store.addFlushed([1: 1, 2: 1, 3: 1, 4: 1, 5: 1], trim: 10)
            #expect(try await store.due(.trim) == [1, 2, 3, 4, 5].map(streamID))
            #expect(try await store.unlinkTrimmed(streamID(2), limit: 10) == 1)
            var found: [StreamID] = []
            var after: StreamID?
            var steps = 0
            repeat {
                let scan = try await store.scanStreams(
                    for: .trim, in: allStreams, after: after, limit: 2)
                found += scan.items
                after = scan.next
                steps += 1
            } while after != nil
            #expect(found == [1, 3, 4, 5].map(streamID))
            #expect(steps == 3)
            let some = try await store.scanStreams(
                for: .trim, in: streamID(3)...streamID(4), after: nil, limit: 10)
            #expect(some == Scan([streamID(3), streamID(4)], next: nil))
            let none = try await store.scanStreams(
                for: .trim, in: StreamID(ID128(high: 0, low: 0))...StreamID(ID128(high: 9, low: 0)),
                after: nil, limit: 1)
            #expect(none == Scan([], next: nil))
        }
    }

    @Test(arguments: Backend.allCases)
    func trimUnlinksWholeSegments(_ backend: Backend) async throws {
        try await backend.keep { store in
            _ = try await store.addFlushed([1: 5, 2: 2], trim: 0)
            let channel = try await store.addChannel()
            guard
                case .claimed(let number, _) = try await store.claim(
                    streamID(1), channel: channel)
            else { throw MetadataError(.failed) }
            #expect(try await store.due(.trim).isEmpty)
            #expect(try await store.unlinkTrimmed(streamID(1), limit: 10) == 0)
            // A trim in the middle of the fourth segment.
            let trim = Flush.Part(
                stream: streamID(1), streamlet: number, from: 50, state: state(50, trim: 35),
                closes: false, segments: [])
            #expect(try await store.flush(flush(channel, [trim], to: 1)) == .done)
            #expect(try await store.due(.trim) == [streamID(1)])
            #expect(try await store.unlinkTrimmed(streamID(1), limit: 2) == 2)
            #expect(try await store.starts(1) == [20, 30, 40])
            #expect(try await store.unlinkTrimmed(streamID(1), limit: 2) == 1)
            #expect(try await store.unlinkTrimmed(streamID(1), limit: 2) == 0)
            #expect(try await store.starts(1) == [30, 40])
            #expect(try await store.due(.trim).isEmpty)
            #expect(
                try await store.garbage()
                    == [
                        "seg/00/1-0": .unlinked, "seg/00/1-10": .unlinked, "seg/00/1-20": .unlinked,
                    ])
            #expect(try await store.unlinkTrimmed(streamID(9), limit: 2) == 0)
        }
    }

    @Test(arguments: Backend.allCases)
    func expiryRaisesTheTrimPoint(_ backend: Backend) async throws {
        try await backend.keep { store in
            var wish = StreamConfigWish()
            wish.retention = .age(seconds: u64Max)
            _ = try await store.addFlushed([1: 3, 2: 1], wish: wish)
            #expect(try await store.due(.expiry).isEmpty)
            #expect(try await store.expire(streamID(1)) == nil)
            var stream = try #require(try await store.stream(streamID(1))).stream
            stream.config.retention = .age(seconds: 0)
            _ = try await store.updateStream(stream.id, version: 1, config: stream.config)
            #expect(try await store.due(.expiry) == [streamID(1)])
            #expect(try await store.expire(streamID(1)) == 30)
            #expect(try await store.expire(streamID(1)) == nil)
            #expect(try await store.due(.expiry).isEmpty)
            // Nothing but the trim point moved: reads still see their plan's segments.
            let after = try #require(try await store.stream(streamID(1))).stream
            #expect(after.state == state(30, trim: 30))
            #expect(try await store.starts(1) == [0, 10, 20])
            #expect(try await store.garbage().isEmpty)
            #expect(try await store.due(.trim) == [streamID(1)])
            stream.config.retention = .infinite
            _ = try await store.updateStream(stream.id, version: 2, config: stream.config)
            #expect(try await store.expire(streamID(1)) == nil)
            #expect(try await store.expire(streamID(2)) == nil)
            #expect(try await store.expire(streamID(9)) == nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func emptyStreamsGoInTime(_ backend: Backend) async throws {
        try await backend.keep { store in
            var wish = StreamConfigWish()
            wish.deleteOnEmptyMinAgeSeconds = 1
            let channel = try await store.addFlushed([1: 1, 2: 1], wish: wish, trim: 10)
            try await store.addStream(3)
            try await store.addStream(4, wish: wish)
            #expect(try await store.due(.emptiness) == [1, 2, 4].map(streamID))
            // An open streamlet, and a stream that is to stay.
            _ = try await store.claim(streamID(2), channel: channel)
            #expect(try await store.due(.emptiness) == [1, 4].map(streamID))
            for low in [2, 3, 9] as [UInt64] {
                #expect(try await store.deleteIfEmpty(streamID(low)) == .no)
            }
            var tries = 0
            while try await store.deleteIfEmpty(streamID(4)) == .waiting, tries < 100_000 {
                tries += 1
            }
            #expect(tries > 0)
            #expect(try await store.stream(streamID(4))?.stream.deletedMilliseconds != nil)
            #expect(try await store.deleteIfEmpty(streamID(4)) == .no)
            // Another tail begins anew.
            #expect(try await store.deleteIfEmpty(streamID(1)) == .waiting)
            _ = try await store.claim(streamID(1), channel: channel)
            let more = Flush.Part(
                stream: streamID(1), streamlet: 1, from: 10, state: state(20, trim: 20),
                closes: true, segments: [])
            #expect(try await store.flush(flush(channel, [more], to: 6)) == .done)
            #expect(try await store.deleteIfEmpty(streamID(1)) == .waiting)
            #expect(try await store.stream(streamID(1))?.stream.deletedMilliseconds == nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func purgeWaitsForTheOwner(_ backend: Backend) async throws {
        try await backend.keep { store in
            let channel = try await store.addFlushed([1: 5], closes: false)
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .alive)
            _ = try await store.deleteStream(basin: "basin-one", name: "stream-1")
            #expect(try await store.due(.purge) == [streamID(1)])
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .open)
            #expect(try await store.starts(1).count == 5)
            let close = Flush.Part(
                stream: streamID(1), streamlet: 0, from: 50, state: state(50), closes: true,
                segments: [])
            #expect(try await store.flush(flush(channel, [close], to: 6)) == .done)
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .unlinked(2))
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .unlinked(2))
            await expectError(.deletionPending) { try await store.addStream(7, name: "stream-1") }
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .purged)
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .purged)
            #expect(try await store.garbage().count == 5)
            // The name is free, and another stream's.
            let again = try await store.addStream(7, name: "stream-1")
            #expect(again.state == .initial)
            #expect(try await store.purgeStream(streamID(1), limit: 2) == .purged)
            #expect(try await store.stream(streamID(7)) != nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func basinsGoLast(_ backend: Backend) async throws {
        try await backend.keep { store in
            _ = try await store.addFlushed([1: 1, 2: 0, 3: 1].filter { $0.value > 0 })
            try await store.addStream(2)
            #expect(try await store.purgeBasin("basin-one", limit: 2) == .alive)
            #expect(
                try await store.deletingBasins(after: "", limit: 10) == Page([], hasMore: false))
            _ = try await store.deleteBasin("basin-one")
            #expect(
                try await store.deletingBasins(after: "", limit: 10)
                    == Page(["basin-one"], hasMore: false))
            #expect(try await store.deletingBasins(after: "basin-one", limit: 1).items.isEmpty)
            #expect(try await store.purgeBasin("basin-one", limit: 2) == .waiting(marked: 2))
            #expect(try await store.purgeBasin("basin-one", limit: 2) == .waiting(marked: 1))
            #expect(try await store.purgeBasin("basin-one", limit: 2) == .waiting(marked: 0))
            for id in try await store.due(.purge) {
                #expect(try await store.purgeStream(id, limit: 10) == .purged)
            }
            #expect(try await store.basin("basin-one") != nil)
            #expect(try await store.purgeBasin("basin-one", limit: 2) == .purged)
            #expect(try await store.purgeBasin("basin-one", limit: 2) == .purged)
            #expect(try await store.basin("basin-one") == nil)
            try await store.addBasin()
        }
    }
}
