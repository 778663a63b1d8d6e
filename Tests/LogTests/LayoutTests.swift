// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Records
import Testing

/// Pins every byte of the formats to what docs/formats.md says: what is stored must stay readable.
@Suite struct LayoutTests {
    private func text(_ bytes: Bytes) -> String { bytes.lossyText }

    @Test func chunk() throws {
        let header = ChunkHeader(
            kind: .chunk, channel: ChannelID(0x11), index: 0x22,
            putID: ID128(high: 0x33, low: 0x44), storageClass: 0x55, createdMilliseconds: 0x66)
        let run = Run(1, count: 3, from: 9)
        let dependency = Dependency(channel: ChannelID(0x88), index: 0x99)
        var builder = ChunkBuilder(header)
        let added = builder.add(
            run.entry(stream(5), streamlet: 0x77, dependency: dependency), [run.bytes])
        #expect(added != nil)
        let bytes = builder.finish().joined()
        #expect(text(bytes[0..<4]) == "MWAL")
        #expect(bytes[4..<8] == [1, 0, 1, 0x55])
        #expect(bytes.load(UInt64.self, at: 8) == 0x11)
        #expect(bytes.load(UInt64.self, at: 16) == 0x22)
        #expect(bytes.load(UInt64.self, at: 24) == 0x33)
        #expect(bytes.load(UInt64.self, at: 32) == 0x44)
        #expect(bytes.load(UInt64.self, at: 40) == 0x66)
        #expect(bytes.load(UInt32.self, at: 48) == 0)
        #expect(bytes.load(UInt32.self, at: 52) == CRC32C.of(bytes[0..<52]))
        let end = 56 + run.bytes.count
        #expect(bytes[56..<end] == run.bytes)
        let index = bytes[end..<end + 88]
        #expect(index.load(UInt64.self, at: 0) == stream(5).id.high)
        #expect(index.load(UInt64.self, at: 8) == stream(5).id.low)
        #expect(index.load(UInt64.self, at: 16) == 9)
        #expect(index.load(UInt64.self, at: 24) == run.positions[0].timestamp)
        #expect(index.load(UInt64.self, at: 32) == run.positions[2].timestamp)
        #expect(index.load(UInt64.self, at: 40) == 0x88)
        #expect(index.load(UInt64.self, at: 48) == 0x99)
        #expect(index.load(UInt32.self, at: 56) == 0x77)
        #expect(index.load(UInt32.self, at: 60) == 3)
        #expect(index.load(UInt32.self, at: 64) == 56)
        #expect(index.load(UInt32.self, at: 68) == UInt32(run.bytes.count))
        #expect(index.load(UInt32.self, at: 72) == UInt32(run.metered))
        #expect(index.load(UInt32.self, at: 76) == CRC32C.of(run.bytes))
        #expect(index.load(UInt64.self, at: 80) == 1)
        let trailer = bytes.dropFirst(end + 88)
        #expect(trailer.count == 24)
        #expect(trailer.load(UInt32.self, at: 0) == UInt32(end))
        #expect(trailer.load(UInt32.self, at: 4) == 88)
        #expect(trailer.load(UInt32.self, at: 8) == 1)
        #expect(trailer.load(UInt32.self, at: 12) == bytes.load(UInt32.self, at: 52))
        #expect(trailer.load(UInt32.self, at: 16) == CRC32C.of(bytes[end..<end + 88 + 16]))
        #expect(text(trailer[20..<24]) == "MDXE")
        #expect(FragmentEntry.Kind.allCases.map(\.rawValue) == [1, 2, 3, 4])
    }

    @Test func sealAndState() throws {
        let header = ChunkHeader(
            kind: .chunk, channel: ChannelID(1), index: 2, putID: ID128(high: 3, low: 4),
            storageClass: 0, createdMilliseconds: 5)
        let bytes = Seal(header: header, owner: "ab", reason: "c").encoded()
        #expect(bytes[6] == 2)
        #expect(bytes[56..<67] == [2, 0, 0, 0, 0x61, 0x62, 1, 0, 0, 0, 0x63])
        #expect(bytes.load(UInt32.self, at: 67) == CRC32C.of(bytes[0..<67]))
        #expect(bytes.count == 71)
        let close = ClosePayload(state: someState).encoded()
        #expect(close.load(UInt64.self, at: 0) == 12)
        #expect(close.load(UInt64.self, at: 8) == 34)
        #expect(close.load(UInt32.self, at: 16) == 6)
        #expect(text(close[20..<26]) == "töken")
        #expect(close.load(UInt64.self, at: 26) == 5)
        #expect(close.load(UInt64.self, at: 34) == 7)
        let handoff = HandoffPayload(
            state: someState, configVersion: 8, targetChannel: ChannelID(9), targetStreamlet: 10)
        #expect(handoff.encoded()[0..<42] == close)
        #expect(
            handoff.encoded().dropFirst(42)
                == [8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0])
    }

    @Test func segmentObject() throws {
        var builder = SegmentObjectBuilder(
            SegmentObjectHeader(
                id: ID128(high: 0x11, low: 0x22), channel: ChannelID(0x33),
                createdMilliseconds: 0x44))
        let run = Run(1, count: 3, from: 9)
        let state = SegmentState(
            basin: "b", name: "n", configVersion: 7, state: someState, closes: true)
        let added = try builder.add(
            stream: stream(5), streamlet: 0x55, records: [run.bytes], state: state)
        let placement = try #require(added)
        let bytes = builder.finish().parts.joined()
        #expect(text(bytes[0..<4]) == "MSEG")
        #expect(bytes[4..<8] == [1, 0, 0, 0])
        #expect(bytes.load(UInt64.self, at: 8) == 0x11)
        #expect(bytes.load(UInt64.self, at: 16) == 0x22)
        #expect(bytes.load(UInt64.self, at: 24) == 0x33)
        #expect(bytes.load(UInt64.self, at: 32) == 0x44)
        #expect(bytes.load(UInt32.self, at: 40) == 0)
        #expect(bytes.load(UInt32.self, at: 44) == CRC32C.of(bytes[0..<44]))
        let segment = bytes[placement.range]
        #expect(placement.offset == 48)
        let n = run.bytes.count
        #expect(segment.prefix(n) == run.bytes)
        #expect(segment.load(UInt64.self, at: n) == 9)
        #expect(segment.load(UInt64.self, at: n + 8) == run.positions[0].timestamp)
        #expect(segment.load(UInt64.self, at: n + 16) == 0)
        #expect(segment.load(UInt32.self, at: n + 24) == 0)
        #expect(segment.load(UInt32.self, at: n + 28) == CRC32C.of(run.bytes))
        let stateBytes = 5 + 5 + 8 + 42 + 1
        #expect(segment.load(UInt32.self, at: n + 32) == 1)
        #expect(segment.load(UInt64.self, at: n + 42) == 7)
        #expect(segment[n + 32 + stateBytes - 1] == 1)
        let footer = segment.dropFirst(n + 32 + stateBytes)
        #expect(footer.count == 80)
        checkSpan(footer, run)
        #expect(footer.load(UInt32.self, at: 60) == UInt32(n))
        #expect(footer.load(UInt32.self, at: 64) == 1)
        #expect(footer.load(UInt32.self, at: 68) == UInt32(stateBytes))
        #expect(footer.load(UInt32.self, at: 72) == placement.checksum)
        #expect(CRC32C.of(segment[n..<segment.count - 8]) == placement.checksum)
        #expect(text(footer[76..<80]) == "MSGF")
        let directory = bytes[placement.range.upperBound..<placement.range.upperBound + 80]
        checkSpan(directory, run)
        #expect(directory.load(UInt32.self, at: 60) == 48)
        #expect(directory.load(UInt32.self, at: 64) == UInt32(placement.length))
        #expect(directory.load(UInt32.self, at: 68) == placement.checksum)
        #expect(directory.load(UInt64.self, at: 72) == 3)
        #expect(text(bytes.dropFirst(bytes.count - 4)) == "MSGE")
    }

    private func checkSpan(_ bytes: Bytes, _ run: Run) {
        #expect(bytes.load(UInt64.self, at: 0) == stream(5).id.high)
        #expect(bytes.load(UInt64.self, at: 8) == stream(5).id.low)
        #expect(bytes.load(UInt64.self, at: 16) == 9)
        #expect(bytes.load(UInt64.self, at: 24) == 12)
        #expect(bytes.load(UInt64.self, at: 32) == run.positions[0].timestamp)
        #expect(bytes.load(UInt64.self, at: 40) == run.positions[2].timestamp)
        #expect(bytes.load(UInt64.self, at: 48) == UInt64(run.metered))
        #expect(bytes.load(UInt32.self, at: 56) == 0x55)
    }

    @Test func shards() {
        var outer = SplitMix64(seed: 5)
        var inner = SplitMix64(seed: outer.next() ^ 6)
        let digits = String(inner.next() >> 56, radix: 16)
        let shard = (digits.count < 2 ? "0" : "") + digits
        #expect(
            LogKeys.segment(ID128(high: 5, low: 6))
                == "seg/\(shard)/00000000000000050000000000000006")
    }
}
