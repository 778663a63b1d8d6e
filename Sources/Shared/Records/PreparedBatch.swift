// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// An append batch that was validated and metered, in the form in which a frontend hands it to a
/// channel: all that is left to do is to put `seq_num` and `timestamp` in front of each record.
///
/// `records` holds, for each of `count` records, a 16-byte prefix and the record's stored fields
/// (headers as field 3, body as field 4 of `SequencedRecord`), back to back:
///
///     u32  length of the fields
///     u32  metered bytes; the highest bit marks a command, the next one a client timestamp
///     u64  client timestamp, 0 where there is none
package struct PreparedBatch: Sendable, Equatable {
    package var count: Int
    package var meteredBytes: Int
    package var records: Bytes
    package var conditions: AppendConditions

    package var hasConditions: Bool {
        conditions.matchSeqNum != nil || conditions.fencingToken != nil
    }

    package static let prefixBytes = 16
    package static let commandFlag: UInt32 = 1 << 31
    package static let timestampFlag: UInt32 = 1 << 30
    package static let meteredMask: UInt32 = timestampFlag - 1

    package init(count: Int, meteredBytes: Int, records: Bytes, conditions: AppendConditions) {
        self.count = count
        self.meteredBytes = meteredBytes
        self.records = records
        self.conditions = conditions
    }
}

/// What must hold for a batch to be appended; checked against the state before the batch.
package struct AppendConditions: Sendable, Hashable {
    package var matchSeqNum: SeqNum?
    package var fencingToken: String?

    package static let none = AppendConditions()

    package init(matchSeqNum: SeqNum? = nil, fencingToken: String? = nil) {
        self.matchSeqNum = matchSeqNum
        self.fencingToken = fencingToken
    }
}

/// A record that speaks to the stream itself: its only header has an empty name.
package enum Command: Sendable, Hashable {
    /// Sets the fencing token; an empty one clears it.
    case fence(token: String)
    /// Removes everything below this sequence number (at most the command's own plus one).
    case trim(below: SeqNum)
}
