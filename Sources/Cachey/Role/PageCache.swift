// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// The pages in memory, bounded by bytes.
///
/// What is new waits in a small queue. Asked for again there, it moves to the main queue; else it
/// leaves and only its name is remembered, so that it enters the main queue if it comes back soon.
/// A scan passes through the small queue and leaves the main one alone, and a hit changes a counter
/// and moves nothing.
///
/// Source: J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache
/// eviction" (S3-FIFO), SOSP 2023.
struct PageCache {
    typealias Item = (key: PageKey, page: CachedPage)

    private final class Node {
        let key: PageKey
        let page: CachedPage
        let weight: Int
        /// Hits, up to 3.
        var hits: UInt8 = 0

        init(_ key: PageKey, _ page: CachedPage) {
            self.key = key
            self.page = page
            weight = key.weight + page.bytes.count
        }
    }

    private var nodes: [PageKey: Node] = [:]
    private var small: Deque<Node> = []
    private var main: Deque<Node> = []
    private var smallBytes = 0
    private var ghosts = GhostQueue()
    /// Pages with their keys.
    private(set) var bytes = 0
    let bytesMax: Int
    private let smallBytesMax: Int

    init(bytesMax: Int) {
        precondition(bytesMax >= 0)
        self.bytesMax = bytesMax
        smallBytesMax = bytesMax / 10
    }

    var count: Int { nodes.count }
    var ghostCount: Int { ghosts.count }

    /// The page, if it is here. Counts as a use.
    func hit(_ key: PageKey) -> CachedPage? {
        guard let node = nodes[key] else { return nil }
        node.hits = min(node.hits + 1, 3)
        return node.page
    }

    func contains(_ key: PageKey) -> Bool { nodes[key] != nil }

    /// Adds a page and returns what left for it: maybe the page itself, if it is too large.
    mutating func insert(_ key: PageKey, _ page: CachedPage) -> [Item] {
        guard nodes[key] == nil else { return [] }
        let node = Node(key, page)
        guard node.weight <= bytesMax else { return [(key, page)] }
        nodes[key] = node
        bytes += node.weight
        if ghosts.remove(key) {
            main.append(node)
        } else {
            small.append(node)
            smallBytes += node.weight
        }
        var left: [Item] = []
        while bytes > bytesMax, let out = evict() { left.append((out.key, out.page)) }
        // As many names are remembered as pages are here.
        ghosts.shrink(to: max(nodes.count, 16))
        return left
    }

    private mutating func evict() -> Node? {
        if smallBytes > smallBytesMax || main.isEmpty, let out = evictSmall() { return out }
        return evictMain() ?? evictSmall()
    }

    private mutating func evictSmall() -> Node? {
        while let node = small.popFirst() {
            smallBytes -= node.weight
            if node.hits > 1 {
                node.hits = 0
                main.append(node)
            } else {
                ghosts.insert(node.key)
                return remove(node)
            }
        }
        return nil
    }

    private mutating func evictMain() -> Node? {
        while let node = main.popFirst() {
            guard node.hits > 0 else { return remove(node) }
            node.hits -= 1
            main.append(node)
        }
        return nil
    }

    private mutating func remove(_ node: Node) -> Node {
        nodes[node.key] = nil
        bytes -= node.weight
        return node
    }
}

/// Names of pages that left lately, the oldest first.
private struct GhostQueue {
    private var order: Deque<(key: PageKey, turn: UInt64)> = []
    private var turns: [PageKey: UInt64] = [:]
    private var turn: UInt64 = 0

    var count: Int { turns.count }

    mutating func insert(_ key: PageKey) {
        turn += 1
        turns[key] = turn
        order.append((key, turn))
    }

    /// True if it was there.
    mutating func remove(_ key: PageKey) -> Bool { turns.removeValue(forKey: key) != nil }

    mutating func shrink(to limit: Int) {
        // What was removed still stands in the order, and counts.
        while order.count > limit, let (key, turn) = order.popFirst() {
            if turns[key] == turn { turns[key] = nil }
        }
    }
}
