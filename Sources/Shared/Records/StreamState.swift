// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What a stream's sequencer must know to go on: the state as of one position.
///
/// It travels with the position it applies to, and each part only ever moves forward by position,
/// so a late writer of an older position cannot undo a newer one.
package struct StreamState: Hashable, Sendable {
    /// Next sequence number, and the timestamp of the last record.
    package var tail: StreamPosition
    /// The fencing token in force; empty at first. At most 36 bytes of UTF-8.
    package var fencingToken: String
    /// One past the sequence number of the fence that set the token; 0 if none ever did.
    package var fencingTokenPosition: SeqNum
    /// The earliest sequence number to keep.
    package var trimPoint: SeqNum

    package static let initial = StreamState(
        tail: .zero, fencingToken: "", fencingTokenPosition: 0, trimPoint: 0)

    package init(
        tail: StreamPosition, fencingToken: String, fencingTokenPosition: SeqNum, trimPoint: SeqNum
    ) {
        self.tail = tail
        self.fencingToken = fencingToken
        self.fencingTokenPosition = fencingTokenPosition
        self.trimPoint = trimPoint
    }
}

extension ByteWriter {
    package mutating func write(_ state: StreamState) {
        write(state.tail)
        writeText(state.fencingToken)
        write(state.fencingTokenPosition)
        write(state.trimPoint)
    }
}

extension ByteReader {
    package mutating func readStreamState() throws(DecodeError) -> StreamState {
        StreamState(
            tail: try readPosition(),
            fencingToken: try readText(lengthMax: Limits.fencingTokenBytesMax),
            fencingTokenPosition: try read(), trimPoint: try read())
    }
}
