// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Records
import TestSupport
import Testing

@Suite struct ChunkTests {
    let header = ChunkHeader(
        kind: .chunk, channel: ChannelID(3), index: 9, putID: ID128(high: 7, low: 8),
        storageClass: 2, createdMilliseconds: 1_700_000_000_000)

    private func example() -> (parts: [Bytes], entries: [FragmentEntry]) {
        var builder = ChunkBuilder(header)
        var entries: [FragmentEntry] = []
        let open = OpenPayload(
            basin: "my-basin", name: "a/stream", state: someState, configVersion: 4)
        entries += builder.mustAdd(
            FragmentEntry(stream: stream(1), streamlet: 0, kind: .open, at: someState.tail),
            [open.encoded()])
        let first = Run(1, count: 5, from: 12)
        entries += builder.mustAdd(first.entry(stream(1)), first.slices(3))
        let second = Run(2, count: 1)
        let dependency = Dependency(channel: ChannelID(2), index: 0)
        entries += builder.mustAdd(
            second.entry(stream(2), streamlet: 6, dependency: dependency), [second.bytes])
        entries += builder.mustAdd(
            FragmentEntry(stream: stream(1), streamlet: 0, kind: .close, at: someState.tail),
            [ClosePayload(state: someState).encoded()])
        return (builder.finish(), entries)
    }

    @Test func roundTrip() throws {
        let (parts, entries) = example()
        let whole = parts.joined()
        let chunk = try Chunk(whole)
        #expect(chunk.header == header)
        #expect(chunk.entries == entries)
        #expect(chunk.entries.map(\.kind) == [.open, .records, .records, .close])
        let open = try OpenPayload(chunk.fragment(entries[0]))
        #expect(open.name == "a/stream")
        #expect(open.state == someState)
        let first = Run(1, count: 5, from: 12)
        #expect(chunk.fragment(entries[1]) == first.bytes)
        #expect(entries[1].endSeqNum == 17)
        #expect(entries[2].dependency == Dependency(channel: ChannelID(2), index: 0))
        #expect(entries[1].dependency == nil)
        for entry in entries { try entry.checkRecords(chunk.fragment(entry)) }
        #expect(
            whole[ChunkHeader.identity.putID].load(UInt64.self, at: 0) == 7
                && whole[ChunkHeader.identity.putID].load(UInt64.self, at: 8) == 8)
        #expect(try ChunkHeader(whole.prefix(ChunkHeader.identity.prefixBytes)) == header)
        guard case .chunk = try LogSlot(whole) else {
            Issue.record("not a chunk")
            return
        }
    }

    @Test func slicesAreNotCopied() {
        var builder = ChunkBuilder(header)
        let run = Run(1, count: 4)
        let slices = run.slices(2)
        builder.mustAdd(run.entry(stream(1)), slices)
        let parts = builder.finish()
        #expect(parts.count == 4)
        #expect(parts[1].base == slices[0].base)
        #expect(parts[2].base == slices[1].base)
    }

    @Test func theIndexAlone() throws {
        let (parts, entries) = example()
        let whole = parts.joined()
        let trailer = whole.dropFirst(whole.count - ChunkTable.trailerBytes)
        let needed = try ChunkTable.tailBytes(trailer, objectSize: whole.count)
        #expect(needed == entries.count * FragmentEntry.byteCount + ChunkTable.trailerBytes)
        for extra in [0, 1, 100] {
            let tail = whole.dropFirst(whole.count - needed - extra)
            #expect(try ChunkTable(tail: tail, objectSize: whole.count).entries == entries)
        }
        let short = whole.dropFirst(whole.count - needed + 1)
        #expect(throws: DecodeError(.truncated, at: 0)) {
            try ChunkTable(tail: short, objectSize: whole.count)
        }
        #expect(throws: DecodeError.self) {
            try ChunkTable(tail: whole, objectSize: whole.count + 1)
        }
        let entry = entries[1]
        try entry.verify(whole[entry.range])
        #expect(throws: DecodeError(.checksum, at: 0)) {
            try entry.verify(whole[entry.range.lowerBound + 1..<entry.range.upperBound + 1])
        }
    }

    @Test func everyByteCounts() {
        expectFragile(example().parts.joined()) { try Chunk($0) }
        expectFragile(example().parts.joined()) { try LogSlot($0) }
    }

    @Test func headersAndIndexesDoNotMix() {
        var other = header
        other.putID = ID128(high: 7, low: 9)
        var writer = ByteWriter()
        other.encode(into: &writer)
        let parts = [writer.finish()] + example().parts.dropFirst()
        #expect(
            throws: DecodeError(.malformed("header and index are not of one chunk"), at: 0)
        ) { try Chunk(parts.joined()) }
    }

    @Test func limits() {
        var builder = ChunkBuilder(header)
        let one = Run(1, count: 1)
        for i in 0..<Chunk.fragmentsMax {
            builder.mustAdd(one.entry(stream(UInt64(i))), [one.bytes])
        }
        builder.mustAdd(one.entry(stream(0)), [one.bytes], fits: false)
        let count = builder.fragmentCount
        #expect(count == Chunk.fragmentsMax)
        let chunk = try? Chunk(builder.finish().joined())
        #expect(chunk?.entries.count == Chunk.fragmentsMax)

        let overhead = ChunkHeader.byteCount + FragmentEntry.byteCount + ChunkTable.trailerBytes
        let room = Chunk.byteCountMax - overhead
        let empty = ChunkBuilder(header)
        #expect(empty.hasRoom(for: room))
        #expect(!empty.hasRoom(for: room + 1))
        var full = ChunkBuilder(header)
        let mark = FragmentEntry(stream: stream(1), streamlet: 0, kind: .open, at: .zero)
        full.mustAdd(mark, [Bytes([UInt8](repeating: 0, count: room + 1))], fits: false)
        let isEmpty = full.isEmpty
        #expect(isEmpty)
        full.mustAdd(mark, [Bytes([UInt8](repeating: 0, count: room))])
        let hasRoom = full.hasRoom(for: 1)
        #expect(!hasRoom)
        let whole = full.finish().joined()
        #expect(whole.count == Chunk.byteCountMax)
        #expect((try? Chunk(whole)) != nil)
    }

    @Test func recordsThatContradictTheIndex() throws {
        let run = Run(3, count: 4, from: 5)
        let entry = run.entry(stream(1))
        try entry.checkRecords(run.bytes)
        func refuses(_ change: (inout FragmentEntry) -> Void) {
            var changed = entry
            change(&changed)
            #expect(throws: DecodeError.self) { try changed.checkRecords(run.bytes) }
        }
        refuses { $0.firstSeqNum += 1 }
        refuses { $0.count += 1 }
        refuses { $0.count -= 1 }
        refuses { $0.firstTimestamp += 1 }
        refuses { $0.lastTimestamp += 1 }
        refuses { $0.meteredBytes += 1 }
    }

    @Test func payloads() throws {
        let open = OpenPayload(
            basin: "a-basin-name", name: "ü", state: someState, configVersion: .max)
        #expect(try OpenPayload(open.encoded()) == open)
        expectFragileLength(open.encoded()) { try OpenPayload($0) }
        let handoff = HandoffPayload(
            state: someState, configVersion: 1, targetChannel: ChannelID(4), targetStreamlet: 2)
        #expect(try HandoffPayload(handoff.encoded()) == handoff)
        expectFragileLength(handoff.encoded()) { try HandoffPayload($0) }
        let close = ClosePayload(state: .initial)
        #expect(try ClosePayload(close.encoded()) == close)
        expectFragileLength(close.encoded()) { try ClosePayload($0) }
    }

    private func expectFragileLength<T>(_ whole: Bytes, _ decode: (Bytes) throws -> T) {
        for length in 0..<whole.count {
            #expect((try? decode(whole.prefix(length))) == nil)
        }
        #expect((try? decode(Bytes(whole.array + [0]))) == nil)
    }

    @Test func seals() throws {
        let seal = Seal(header: header, owner: "cop 7", reason: "its lease ran out")
        #expect(seal.header.kind == .seal)
        let bytes = seal.encoded()
        #expect(try Seal(bytes) == seal)
        guard case .seal(seal) = try LogSlot(bytes) else {
            Issue.record("not a seal")
            return
        }
        #expect(try ChunkHeader(bytes.prefix(ChunkHeader.byteCount)).kind == .seal)
        #expect(throws: DecodeError.self) { try Chunk(bytes) }
        #expect(throws: DecodeError.self) { try Seal(example().parts.joined()) }
        expectFragile(bytes) { try Seal($0) }
        expectFragile(bytes) { try LogSlot($0) }
    }

    @Test func keys() {
        let key = LogKeys.chunk(ChannelID(12), 345)
        #expect(key == "wal/00000000000000000012/00000000000000000345")
        #expect(key.hasPrefix(LogKeys.logPrefix(ChannelID(12))))
        #expect(LogKeys.parseChunk(key)?.channel == ChannelID(12))
        #expect(LogKeys.parseChunk(key)?.index == 345)
        let last = LogKeys.chunk(ChannelID(.max), .max)
        #expect(LogKeys.parseChunk(last)?.index == .max)
        #expect(LogKeys.chunk(ChannelID(9), 0) < LogKeys.chunk(ChannelID(10), 0))
        for bad in [
            "", "wal/", "wal/12/345", key + "/", key + "0", "wal" + key,
            "wal/00000000000000000000/00000000000000000345",
            "wal/00000000000000000012/99999999999999999999",
            "wal/00000000000000000012/+0000000000000000345", key + ".r",
        ] { #expect(LogKeys.parseChunk(bad) == nil, "\(bad)") }
        var shards: Set<Substring> = []
        for i in 0..<500 as Range<UInt64> {
            let id = ID128(high: 0, low: i)
            let key = LogKeys.segment(id)
            #expect(LogKeys.parseSegment(key) == id)
            shards.insert(key.split(separator: "/")[1])
        }
        #expect(shards.count > 200, "neighbouring ids land in many shards")
        let key0 = LogKeys.segment(ID128(high: 0, low: 0))
        #expect(LogKeys.parseSegment(key0.uppercased()) == nil)
        #expect(LogKeys.parseSegment(key0 + "0") == nil)
        #expect(LogKeys.parseSegment("seg/zz/" + key0.suffix(32)) == nil)
    }

    @Test func fuzz() {
        var random = SplitMix64(seed: 1)
        let whole = example().parts.joined().array
        for _ in 0..<fuzzIterations {
            var bytes = whole
            for _ in 0..<1 + random.next() % 4 {
                let at = Int(random.next() % UInt64(bytes.count))
                bytes[at] = UInt8(truncatingIfNeeded: random.next())
            }
            // Several changes can hardly cancel out in every checksum they touch.
            let accepted = (try? Chunk(Bytes(bytes))) != nil
            #expect(accepted == (bytes == whole))
            let noise = (0..<Int(random.next() % 300)).map { _ in
                UInt8(truncatingIfNeeded: random.next())
            }
            #expect((try? LogSlot(Bytes(noise))) == nil)
            #expect((try? SegmentObject(Bytes(noise))) == nil)
        }
    }
}

extension ChunkBuilder {
    @discardableResult
    fileprivate mutating func mustAdd(
        _ entry: FragmentEntry, _ slices: [Bytes], fits: Bool = true
    ) -> [FragmentEntry] {
        let added = add(entry, slices)
        #expect((added != nil) == fits)
        return added.map { [$0] } ?? []
    }
}
