// SPDX-License-Identifier: Apache-2.0

package import Primitives
internal import Records

extension Flush {
    /// The first stream whose part contradicts itself or comes twice; nil if the flush can be
    /// asked for at all. Both stores refuse such a flush as not contiguous.
    package var misshapenStream: StreamID? {
        var seen = Set<StreamID>()
        return parts.first { !seen.insert($0.stream).inserted || !$0.isContiguous }?.stream
    }
}

extension Flush.Part {
    /// Whether the segments cover `from ..< state.tail.seqNum` in order, but for what lies below
    /// the trim point.
    package var isContiguous: Bool {
        guard from <= state.tail.seqNum else { return false }
        var next = from
        for segment in segments {
            let start = segment.start.seqNum
            let follows = start == next || (start > next && start <= state.trimPoint)
            guard segment.stream == stream, follows, segment.endSeqNum > start else { return false }
            next = segment.endSeqNum
        }
        let end = state.tail.seqNum
        return next == end || (next < end && end <= state.trimPoint)
    }
}
