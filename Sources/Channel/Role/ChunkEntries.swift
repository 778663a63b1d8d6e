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

    /// How its records should lie in its object.
    func layout(_ limits: ChannelLimits) -> ChunkLayout {
        let pieces = records.extentCount(.asAdded)
        let more = pieces - records.extentCount(.byFragment)
        if more == 0 { return .asAdded }
        guard bytes >= limits.asAddedBytesMin,
            fragmentCount + more <= limits.chunkFragmentsMax,
            bytes + overhead + more * FragmentEntry.byteCount <= limits.chunkBytesMax
        else { return .byFragment }
        // Who reads unflushed records asks for each piece.
        let areFew = pieces <= 2 * records.extentCount(.byFragment)
        return areFew || pieces * limits.stretchBytesMin <= bytes ? .asAdded : .byFragment
    }
}

/// How records lie in a chunk's object.
enum ChunkLayout {
    /// In the order in which they were added, and as they lie in memory: nothing need be gathered.
    case asAdded
    /// Each streamlet's in one piece, however many batches of others came in between: fewer entries
    /// in the index, and fewer pieces for a reader to fetch.
    case byFragment
}

extension FragmentEntry {
    init(open streamlet: OpenStreamlet) {
        let tail = streamlet.stable.tail
        self.init(
            stream: streamlet.id, streamlet: streamlet.number, kind: .open, at: tail,
            dependency: streamlet.dependency)
    }

    init(records extent: ChunkRecords.Extent, of streamlet: OpenStreamlet) {
        self.init(
            stream: streamlet.id, streamlet: streamlet.number, kind: .records,
            firstSeqNum: extent.start.seqNum, count: extent.count,
            firstTimestamp: extent.start.timestamp, lastTimestamp: extent.lastTimestamp,
            meteredBytes: extent.meteredBytes, dependency: streamlet.dependency)
    }
}

extension ChunkBuilder {
    /// Ends a fragment that is known to fit.
    @discardableResult
    mutating func endFitting() -> FragmentEntry {
        guard let entry = end() else { preconditionFailure("what was let in fits the chunk") }
        return entry
    }
}

extension OpenPayload {
    /// Two names, a state, and their lengths, at most.
    static let byteCountMax = 1_024
}
