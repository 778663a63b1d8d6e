// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Testing

@Suite struct ObjectClassTests {
    private let header = ChunkHeader(
        kind: .chunk, channel: ChannelID(3), index: 9, putID: ID128(high: 1, low: 2),
        storageClass: 0, createdMilliseconds: 5)

    @Test func aSealIsToldFromAChunk() throws {
        let key = LogKeys.chunk(ChannelID(3), 9)
        let run = Run(1, count: 3)
        var builder = ChunkBuilder(header)
        let added = builder.add(run.entry(stream(5), streamlet: 7), [run.bytes])
        #expect(added != nil)
        let parts = builder.finish()
        #expect(ObjectClass(key: key, head: try #require(parts.first)) == .chunk)
        let seal = Seal(header: header, owner: "cop", reason: "dead").encoded()
        #expect(ObjectClass(key: key, head: seal) == .seal)
        #expect(ObjectClass(key: key, head: Bytes()) == .chunk)
    }

    @Test(arguments: [
        (LogKeys.segment(ID128(high: 7, low: 8)), ObjectClass.segment),
        ("seg/", .segment), ("doctor/probe", .other), ("wal", .other), ("x/wal/1", .other),
    ])
    func keysTellTheRest(_ key: String, _ expected: ObjectClass) {
        let seal = Seal(header: header, owner: "", reason: "").encoded()
        #expect(ObjectClass(key: key, head: seal) == expected)
    }
}
