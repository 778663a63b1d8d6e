// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import Primitives
internal import RPC

/// What leaves the channel once the log lets it.
enum Exposure {
    /// A streamlet's records in a chunk: with them its tail moves, readers and followers see them.
    case records(FragmentPlace)
    /// Replies: a run of those of a chunk.
    case replies(ChunkIndex, run: UInt32)
    /// The end of a session that failed.
    case end(AppendSession, Status, Bytes)
}

/// The one gate through which everything passes that reveals a channel's state.
///
/// Sequencing runs ahead of durability: a batch has its numbers as soon as it arrives, and others
/// build on them. The gate sees to it that nobody outside learns of a position before the chunk
/// that holds it is *stable* (it and all chunks below it are durable), and that what depends on
/// another channel's handoff waits for that handoff's outcome as well. What was held for the same
/// chunk leaves in the order in which it came.
///
/// Sans-I/O: the owner says what became stable or failed, and performs what is let through.
struct ExposureGate<Exposure> {
    private struct Held {
        let exposure: Exposure
        let index: ChunkIndex
        let dependency: Dependency?
    }

    /// In ascending order of the chunk.
    private var held: Deque<Held> = []
    /// Stable, but a dependency is unresolved.
    private var dependent: [Held] = []
    private var committed: Set<Dependency> = []
    /// Chunks below this one are stable.
    private(set) var stableEnd: ChunkIndex = 0

    var count: Int { held.count + dependent.count }

    /// Holds `exposure` until chunk `index` is stable and `dependency` is committed; true if it may
    /// leave at once. `index` nil: it reveals nothing that is not stable.
    mutating func hold(
        _ exposure: Exposure, until index: ChunkIndex?, dependency: Dependency?
    ) -> Bool {
        let resolved = dependency.map { committed.contains($0) } ?? true
        guard let index, index >= stableEnd else {
            if resolved { return true }
            dependent.append(Held(exposure: exposure, index: 0, dependency: dependency))
            return false
        }
        // An exposure may wait for an earlier chunk than its predecessor does (a rejection by an
        // old fence): it still leaves in order of chunks.
        let one = Held(exposure: exposure, index: index, dependency: resolved ? nil : dependency)
        var at = held.endIndex
        while at > held.startIndex, held[at - 1].index > index { at -= 1 }
        if at == held.endIndex { held.append(one) } else { held.insert(one, at: at) }
        return false
    }

    /// Chunks below `end` are stable: lets through what waited for them, in order.
    mutating func advance(to end: ChunkIndex, _ release: (Exposure) -> Void) {
        precondition(end >= stableEnd, "what was stable stays stable")
        stableEnd = end
        while !held.isEmpty, held[held.startIndex].index < end {
            let first = held.removeFirst()
            if let dependency = first.dependency, !committed.contains(dependency) {
                dependent.append(first)
            } else {
                release(first.exposure)
            }
        }
    }

    /// The handoff that `dependency` names is durable: lets through what waited for it alone.
    mutating func commit(_ dependency: Dependency, _ release: (Exposure) -> Void) {
        committed.insert(dependency)
        let waiting = dependent
        dependent = []
        for one in waiting {
            if one.dependency == dependency {
                release(one.exposure)
            } else {
                dependent.append(one)
            }
        }
    }

    /// The log failed: hands back everything, to be answered as indefinite.
    mutating func fail(_ release: (Exposure) -> Void) {
        let all = dependent + held
        held = []
        dependent = []
        for one in all { release(one.exposure) }
    }
}
