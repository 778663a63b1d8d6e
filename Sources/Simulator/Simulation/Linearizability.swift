// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

/// Whether the operations on one stream, each at some moment between its start and its end, can be
/// told in one order that a single log would give.
///
/// A depth-first search over the orders (Wing and Gong; Lowe), that remembers where it was. An
/// append whose outcome is unknown may stand anywhere behind its start, or nowhere. `contents` is
/// what was read when everything was over: it says where each append must stand, if anywhere, which
/// keeps the search short without making it less strict.
struct Linearizability {
    enum Verdict: Equatable {
        case linearizable
        case not
        /// The search became too long.
        case undecided
    }

    private struct State: Hashable {
        var tail: SeqNum = 0
        var hash: UInt64 = 0
        var token: String?
    }

    private struct Node: Hashable {
        let done: [UInt64]
        let state: State
    }

    /// A start or an end, in a list from which linearized operations are taken out.
    private struct Entry {
        let operation: Int
        /// The entry of the end, at a start that has one.
        var end: Int?
        let isStart: Bool
        var previous = 0
        var next = 0
    }

    private let operations: [OperationLog.Operation]
    private let positions: [UInt64: SeqNum]
    private let stepsMax: Int
    /// The first is the list's head.
    private var entries: [Entry] = []

    /// `contents` holds the record hashes in order.
    init(_ operations: [OperationLog.Operation], contents: [UInt64], stepsMax: Int = 2_000_000) {
        var positions: [UInt64: SeqNum] = [:]
        for (seqNum, hash) in contents.enumerated() { positions[hash] = SeqNum(seqNum) }
        self.positions = positions
        self.stepsMax = stepsMax
        self.operations = operations.filter { operation in
            switch (operation.request, operation.outcome) {
            case (_, .failed): false
            case (.append(let append), .unknown): positions[append.hashes[0]] != nil
            case (_, .unknown): false
            default: true
            }
        }
    }

    mutating func check() -> Verdict {
        link()
        var required = operations.count { $0.finish != .max }
        var done = [UInt64](repeating: 0, count: operations.count / 64 + 1)
        var state = State()
        var seen: Set<Node> = []
        var path: [(entry: Int, state: State)] = []
        var at = entries[0].next
        var steps = 0
        while required > 0 {
            steps += 1
            if steps > stepsMax { return .undecided }
            let entry = entries[at]
            if entry.isStart, let next = step(state, operations[entry.operation]) {
                var after = done
                after[entry.operation / 64] |= 1 << UInt64(entry.operation % 64)
                if seen.insert(Node(done: after, state: next)).inserted {
                    path.append((at, state))
                    state = next
                    done = after
                    if entry.end != nil { required -= 1 }
                    remove(at)
                    at = entries[0].next
                    continue
                }
            }
            if entry.isStart {
                at = entry.next
                continue
            }
            // An operation has ended that had no place before: one before it must stand elsewhere.
            guard let last = path.popLast() else { return .not }
            let operation = entries[last.entry].operation
            done[operation / 64] &= ~(1 << UInt64(operation % 64))
            if entries[last.entry].end != nil { required += 1 }
            state = last.state
            restore(last.entry)
            at = entries[last.entry].next
        }
        return .linearizable
    }

    /// What follows if the operation stands here; nil if it cannot.
    private func step(_ state: State, _ operation: OperationLog.Operation) -> State? {
        switch (operation.request, operation.outcome) {
        case (.append(let append), let outcome):
            if let token = append.token, token != state.token { return nil }
            if let match = append.match, match != state.tail { return nil }
            if let position = positions[append.hashes[0]], position != state.tail { return nil }
            var after = state
            after.tail += SeqNum(append.hashes.count)
            after.hash = append.hashes.reduce(state.hash, XXH3.chain)
            if let token = append.setsToken { after.token = token }
            if case .appended(let tail) = outcome, tail != after.tail { return nil }
            return after
        case (_, .read(let tail, let hash)):
            return tail == state.tail && hash == state.hash ? state : nil
        case (_, .tail(let tail)): return tail == state.tail ? state : nil
        default: return state
        }
    }

    // MARK: The list

    private mutating func link() {
        var events: [(at: Int, operation: Int, isStart: Bool)] = []
        for (index, operation) in operations.enumerated() {
            events.append((operation.start, index, true))
            if operation.finish != .max { events.append((operation.finish, index, false)) }
        }
        events.sort { $0.at < $1.at }
        entries = [Entry(operation: -1, isStart: false)]
        var starts: [Int: Int] = [:]
        for event in events {
            entries.append(Entry(operation: event.operation, isStart: event.isStart))
            let at = entries.count - 1
            if event.isStart {
                starts[event.operation] = at
            } else if let start = starts[event.operation] {
                entries[start].end = at
            }
        }
        for at in entries.indices {
            entries[at].previous = at == 0 ? entries.count - 1 : at - 1
            entries[at].next = at == entries.count - 1 ? 0 : at + 1
        }
    }

    private mutating func remove(_ start: Int) {
        for at in [start, entries[start].end].compactMap({ $0 }) {
            entries[entries[at].previous].next = entries[at].next
            entries[entries[at].next].previous = entries[at].previous
        }
    }

    /// Undoes the last `remove`.
    private mutating func restore(_ start: Int) {
        for at in [entries[start].end, start].compactMap({ $0 }) {
            entries[entries[at].previous].next = at
            entries[entries[at].next].previous = at
        }
    }
}
