// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// Where pages stand on disk: in memory only, read from the records when the process starts.
///
/// Blocks are written one after the other, and the oldest goes when there is no room: a queue, like
/// the one in memory. What is used again after it has left memory is written again (`isFresh`), and
/// so does not leave with its old block.
struct DiskIndex {
    struct Place: Equatable {
        let block: UInt64
        let offset: Int
        /// Of the whole record.
        let bytes: Int
    }
    enum Room: Equatable {
        case at(block: UInt64, offset: Int)
        /// This block must go first; ask again then.
        case afterRemoving(UInt64)
        /// The record is larger than a disk like this takes.
        case never
    }

    private struct Block {
        let number: UInt64
        var bytes: Int
        var keys: [PageKey] = []
    }

    private var blocks: Deque<Block> = []
    private var places: [PageKey: Place] = [:]
    /// Whether the last block takes more records.
    private var isOpen = false
    private var lastNumber: UInt64 = 0
    /// Of all blocks.
    private(set) var bytes = 0
    let bytesMax: Int
    /// What is on disk takes memory here, and small pages take most of it.
    let pagesMax: Int
    let blockBytes: Int

    init(bytesMax: Int, pagesMax: Int = .max) {
        precondition(bytesMax > 0 && pagesMax > 0)
        self.bytesMax = bytesMax
        self.pagesMax = pagesMax
        blockBytes = min(64 << 20, max(bytesMax / 8, 1))
    }

    private var blockPagesMax: Int { max(pagesMax / 8, 1) }

    var pageCount: Int { places.count }
    var blockCount: Int { blocks.count }

    func find(_ key: PageKey) -> Place? { places[key] }

    /// Whether the page is on disk, in the younger half of the blocks.
    func isFresh(_ key: PageKey) -> Bool {
        guard let place = places[key] else { return false }
        let middle = blocks.count / 2
        return blocks.isEmpty || place.block >= blocks[middle].number
    }

    /// Room for a record; what `.at` names is taken.
    mutating func reserve(_ recordBytes: Int) -> Room {
        guard recordBytes <= bytesMax / 2 else { return .never }
        if bytes + recordBytes > bytesMax || places.count >= pagesMax, let oldest = blocks.first {
            return .afterRemoving(oldest.number)
        }
        if !isOpen || blocks.last.map({ isFull($0, recordBytes) }) ?? true {
            lastNumber += 1
            blocks.append(Block(number: lastNumber, bytes: 0))
            isOpen = true
        }
        let last = blocks.count - 1
        let offset = blocks[last].bytes
        blocks[last].bytes += recordBytes
        bytes += recordBytes
        return .at(block: blocks[last].number, offset: offset)
    }

    private func isFull(_ block: Block, _ recordBytes: Int) -> Bool {
        block.bytes + recordBytes > blockBytes || block.keys.count >= blockPagesMax
    }

    /// The page stands there now.
    mutating func insert(_ key: PageKey, _ place: Place) {
        guard let index = blocks.lastIndex(where: { $0.number == place.block }) else { return }
        blocks[index].keys.append(key)
        places[key] = place
    }

    /// Nothing more is written to the last block: a write to it failed.
    mutating func closeBlock() { isOpen = false }

    /// The page is not there, or damaged.
    mutating func forget(_ key: PageKey, _ place: Place) {
        if places[key] == place { places[key] = nil }
    }

    /// Nothing in the block is served any more; it still takes room until `remove`.
    mutating func forget(block number: UInt64) {
        guard let index = blocks.firstIndex(where: { $0.number == number }) else { return }
        for key in blocks[index].keys where places[key]?.block == number { places[key] = nil }
        blocks[index].keys = []
        if index == blocks.count - 1 { isOpen = false }
    }

    /// The block is gone.
    mutating func remove(block number: UInt64) {
        forget(block: number)
        guard let index = blocks.firstIndex(where: { $0.number == number }) else { return }
        bytes -= blocks[index].bytes
        blocks.remove(at: index)
    }

    /// Adds a block that was found when the process started; in the order of their numbers.
    mutating func adopt(block number: UInt64, bytes count: Int) {
        precondition(number > lastNumber || blocks.isEmpty, "blocks are adopted in order")
        blocks.append(Block(number: number, bytes: count))
        bytes += count
        lastNumber = max(lastNumber, number)
        isOpen = false
    }
}
