// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Primitives
internal import Records

extension FragmentEntry {
    init(open streamlet: OpenStreamlet) {
        let tail = streamlet.stable.tail
        self.init(
            stream: streamlet.id, streamlet: streamlet.number, kind: .open, at: tail,
            dependency: streamlet.dependency)
    }

    init(records fragment: ChunkRecords.Fragment) {
        self.init(
            stream: fragment.streamlet.id, streamlet: fragment.streamlet.number, kind: .records,
            firstSeqNum: fragment.start.seqNum, count: fragment.count,
            firstTimestamp: fragment.start.timestamp, lastTimestamp: fragment.lastTimestamp,
            meteredBytes: fragment.meteredBytes, dependency: fragment.streamlet.dependency)
    }
}

extension OpenPayload {
    /// Two names, a state, and their lengths, at most.
    static let byteCountMax = 1_024
}
