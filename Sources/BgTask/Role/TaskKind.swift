// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// What background work there is.
package enum TaskKind: String, Sendable, CaseIterable {
    /// Deletes flushed chunks, each log from its beginning on, in the end its seal, and then what
    /// the metadata keep of its channel.
    case logCollection = "wal-gc"
    /// Deletes segment objects that no segment refers to any more.
    case objectCollection = "segment-gc"
    /// Unlinks segments below their stream's trim point.
    case trim
    /// Raises trim points over segments that have expired.
    case retention
    /// Has deleted streams closed, unlinks their segments, and frees their names.
    case streamDeletion = "stream-deletion"
    /// Deletes the streams of deleted basins, and then the basins.
    case basinDeletion = "basin-deletion"
    /// Deletes streams that are empty, and are to be deleted then.
    case deleteOnEmpty = "delete-on-empty"
    /// Merges runs of small segments of one stream.
    case compaction
    /// Finds objects that nothing refers to, and never will.
    case orphanSweep = "orphan-sweep"

    /// How many parts the task has in a cell that cuts its keys into `partitions`.
    func parts(_ partitions: Int) -> Int { self == .basinDeletion ? 1 : partitions }
}

/// One part of the keys that a task goes through.
struct Partition: Hashable {
    let number: Int
    /// A power of two up to 256.
    let count: Int

    /// Streams by the first bits of their ids.
    var streams: ClosedRange<StreamID> {
        let bits = UInt64(count.trailingZeroBitCount)
        guard bits > 0 else {
            return StreamID(ID128(high: 0, low: 0))...StreamID(ID128(high: .max, low: .max))
        }
        let low = UInt64(number) << (64 - bits)
        let high = low | (UInt64.max >> bits)
        return StreamID(ID128(high: low, low: 0))...StreamID(ID128(high: high, low: .max))
    }

    /// Shards of segment objects.
    var shards: Range<Int> {
        let width = 256 / count
        return number * width..<(number + 1) * width
    }

    /// The keys of those shards.
    var segmentKeys: Range<String> {
        let end = shards.upperBound == 256 ? "seg0" : Self.shardPrefix(shards.upperBound)
        return Self.shardPrefix(shards.lowerBound)..<end
    }

    static func shardPrefix(_ shard: Int) -> String {
        "seg/" + (shard < 16 ? "0" : "") + String(shard, radix: 16)
    }
}
