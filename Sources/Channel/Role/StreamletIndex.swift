// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Open streamlets by their stream: a table that is open-addressed and holds nothing but
/// references, for there may be half a million.
///
/// Ids of streams are random, so their bits are their hash, and the order of the slots is the same
/// in every run with the same ids.
struct StreamletIndex {
    /// A power of two; three quarters of it are used at most.
    private var slots: ContiguousArray<OpenStreamlet?> = []
    private(set) var count = 0

    private static let capacityMin = 64

    /// How many slots there are; `at` takes their numbers from 0.
    var capacity: Int { slots.count }

    /// The streamlet in a slot, which may be empty. Slots change with every insertion and removal.
    func at(_ slot: Int) -> OpenStreamlet? { slots[slot] }

    subscript(stream: StreamID) -> OpenStreamlet? {
        count == 0 ? nil : slots[slot(of: stream)]
    }

    /// All of them, in the order of their ids.
    var sorted: [OpenStreamlet] { slots.compactMap { $0 }.sorted { $0.id < $1.id } }

    /// Adds a streamlet, whose stream is not there yet.
    mutating func insert(_ streamlet: OpenStreamlet) {
        if (count + 1) * 4 > slots.count * 3 { resize(max(slots.count * 2, Self.capacityMin)) }
        let free = slot(of: streamlet.id)
        precondition(slots[free] == nil, "a stream is in the index once")
        slots[free] = streamlet
        count += 1
    }

    mutating func remove(_ stream: StreamID) {
        guard count > 0 else { return }
        var hole = slot(of: stream)
        guard slots[hole] != nil else { return }
        slots[hole] = nil
        count -= 1
        // What was pushed behind the hole by a collision comes closer to where it belongs.
        var next = following(hole)
        while let streamlet = slots[next] {
            let home = home(of: streamlet.id)
            if distance(from: home, to: hole) < distance(from: home, to: next) {
                slots[hole] = streamlet
                slots[next] = nil
                hole = next
            }
            next = following(next)
        }
        if slots.count > Self.capacityMin, count * 8 < slots.count { resize(slots.count / 2) }
    }

    private mutating func resize(_ capacity: Int) {
        let old = slots
        slots = ContiguousArray(repeating: nil, count: capacity)
        for case let streamlet? in old { slots[slot(of: streamlet.id)] = streamlet }
    }

    /// Where the stream's streamlet is, or would be.
    private func slot(of stream: StreamID) -> Int {
        var slot = home(of: stream)
        while let other = slots[slot], other.id != stream { slot = following(slot) }
        return slot
    }

    private func home(of stream: StreamID) -> Int {
        let hash = (stream.id.high ^ stream.id.low) &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: hash >> 32) & (slots.count - 1)
    }

    private func following(_ slot: Int) -> Int { (slot + 1) & (slots.count - 1) }

    private func distance(from home: Int, to slot: Int) -> Int {
        (slot - home) & (slots.count - 1)
    }
}
