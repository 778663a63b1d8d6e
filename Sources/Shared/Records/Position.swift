// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// A sequence number: where a record stands in its stream, counted from 0.
package typealias SeqNum = UInt64

/// Milliseconds since the Unix epoch.
package typealias TimestampMillis = UInt64

/// A place in a stream. As a tail: the next sequence number to be assigned, and the timestamp of
/// the last record (`{0, 0}` for a stream that was never written).
package struct StreamPosition: Hashable, Sendable {
    package var seqNum: SeqNum
    package var timestamp: TimestampMillis

    package static let zero = StreamPosition(seqNum: 0, timestamp: 0)

    package init(seqNum: SeqNum, timestamp: TimestampMillis) {
        self.seqNum = seqNum
        self.timestamp = timestamp
    }
}

extension ByteWriter {
    package mutating func write(_ position: StreamPosition) {
        write(position.seqNum)
        write(position.timestamp)
    }
}

extension ByteReader {
    package mutating func readPosition() throws(DecodeError) -> StreamPosition {
        StreamPosition(seqNum: try read(), timestamp: try read())
    }
}
