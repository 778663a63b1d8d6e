// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Primitives
internal import Records

/// A closed chunk whose records are in memory.
struct RetainedChunk {
    let index: ChunkIndex
    let bytes: Int
    let closedAt: Nanoseconds
    var records: ChunkRecords
}

/// The chunk that batches are gathered in.
struct OpenChunk {
    var records = ChunkRecords()
    var unannounced: [OpenStreamlet] = []
    var bytes = 0
    /// As `LogWriter.overhead`; that of an empty chunk fits every batch.
    var overhead = 0
    var recordCount = 0
    var firstAppendAt: Nanoseconds = 0
    /// When the timer is to close it, if nothing else does before.
    var dueAt = Nanoseconds.max
    /// It is to be closed at the end of this turn of the loop.
    var isDue = false

    var isEmpty: Bool { records.isEmpty }
    /// Something will close it in time.
    var isPlanned: Bool { isDue || dueAt < .max }
    var fragmentCount: Int { records.fragments.count + unannounced.count }
}

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
