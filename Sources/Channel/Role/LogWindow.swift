// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// The chunks of a log whose PUT is under way: at most W, stable in index order only.
///
/// PUTs finish in any order; a chunk is *stable* once it and every chunk below it are durable. One
/// seal therefore ends the log for any number of chunks in flight: what lies above a hole was never
/// stable, and nobody was told of it.
struct LogWindow {
    private struct Slot {
        let startedAt: Nanoseconds
        var isDurable = false
    }

    private var slots: Deque<Slot> = []
    /// Chunks below this one are stable; it is the lowest that is not known to be durable.
    private(set) var stableEnd: ChunkIndex = 0
    let widthMax: Int

    init(widthMax: Int) {
        precondition(widthMax > 0, "something must be in flight")
        self.widthMax = widthMax
    }

    /// The index that the next chunk gets.
    var nextIndex: ChunkIndex { stableEnd + ChunkIndex(slots.count) }
    var isEmpty: Bool { slots.isEmpty }
    var isFull: Bool { slots.count >= widthMax }
    var count: Int { slots.count }

    /// The PUT of the next chunk begins.
    mutating func begin(at now: Nanoseconds) -> ChunkIndex {
        precondition(!isFull, "the window is full")
        slots.append(Slot(startedAt: now))
        return stableEnd + ChunkIndex(slots.count - 1)
    }

    /// The PUT of `index` succeeded. Returns the new `stableEnd`, and how long this PUT took.
    mutating func complete(
        _ index: ChunkIndex, at now: Nanoseconds
    ) -> (stableEnd: ChunkIndex, took: Nanoseconds) {
        precondition(index >= stableEnd && index < nextIndex, "chunk \(index) is not in flight")
        let at = Int(index - stableEnd)
        precondition(!slots[at].isDurable, "chunk \(index) completed twice")
        slots[at].isDurable = true
        let took = now - slots[at].startedAt
        while let first = slots.first, first.isDurable {
            slots.removeFirst()
            stableEnd += 1
        }
        return (stableEnd, took)
    }
}
