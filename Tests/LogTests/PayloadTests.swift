// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Records
import TestSupport
import Testing

/// What the log says of streams besides their records comes back as it was, and its decoders bear
/// whatever comes.
@Suite struct PayloadTests {
    private let states: [StreamState] = [
        .initial,
        StreamState(
            tail: StreamPosition(seqNum: 9, timestamp: .max),
            fencingToken: String(repeating: "t", count: Limits.fencingTokenBytesMax),
            fencingTokenPosition: 7, trimPoint: 8),
    ]

    @Test func fuzzPayloads() throws {
        let name = String(repeating: "n", count: Limits.streamNameBytesMax)
        try fuzz(
            states.map { OpenPayload(basin: "basin-01", name: name, state: $0, configVersion: 3) })
        try fuzz(
            states.map {
                HandoffPayload(
                    state: $0, configVersion: .max, targetChannel: ChannelID(1),
                    targetStreamlet: .max)
            })
        try fuzz(states.map { ClosePayload(state: $0) })
        try fuzz(
            states.map {
                SegmentState(
                    basin: "basin-01", name: name, configVersion: 3, state: $0,
                    closes: $0.trimPoint > 0)
            })
    }

    @Test func fuzzSeals() throws {
        let header = ChunkHeader(
            kind: .seal, channel: ChannelID(3), index: 9, putID: ID128(high: 1, low: 2),
            storageClass: 0, createdMilliseconds: 5)
        let seal = Seal(header: header, owner: "cop", reason: "the lease ran out")
        let bytes = seal.encoded()
        #expect(try Seal(bytes) == seal)
        var damage = Damage(seed: 5)
        for _ in 0..<fuzzIterations {
            let damaged = damage.damaged(bytes)
            #expect(((try? Seal(damaged)) == nil) == (damaged != bytes))
            #expect((try? Seal(damage.noise(countMax: 200))) == nil)
            #expect((try? ChunkHeader(damage.noise(countMax: 80))) == nil)
        }
    }
}
