// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import Primitives
import Records
import Testing

@testable import BgTaskRole

@Suite struct LastWordsTests {
    private let header = SegmentObjectHeader(
        id: ID128(high: 1, low: 2), channel: nil, createdMilliseconds: 3)

    private func word() throws -> LastWords.Word {
        var stream = StreamState.initial
        stream.tail = StreamPosition(seqNum: 9, timestamp: 9)
        stream.trimPoint = 9
        let state = SegmentState(
            basin: "test-basin", name: "orders", configVersion: 1, state: stream, closes: false)
        var builder = SegmentObjectBuilder(header)
        let placement = try builder.add(
            stream: StreamID(ID128(high: 5, low: 6)), streamlet: 0, records: [], state: state)
        return (try #require(placement), state)
    }

    @Test func wordsStandInOneObject() throws {
        let parts = try LastWords.object([try word(), try word()], header)
        let object = try SegmentObject(parts.joined())
        #expect(object.segments.map(\.index.state?.name) == ["orders", "orders"])
    }

    @Test func aWordThatDoesNotFitIsNotLostSilently() throws {
        let words = try Array(repeating: word(), count: SegmentObject.segmentsMax + 1)
        #expect(throws: TaskError.self) { try LastWords.object(words, header) }
    }
}
