// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// A connection's calls by their ids: an open-addressed table of references, which every frame asks
/// once. Ids are given out in order, so that a product spreads them well.
struct CallTable {
    /// A power of two; half of it is used at most.
    private var slots: ContiguousArray<ConnectionCall?> = []
    private(set) var count = 0

    private static let capacityMin = 16

    var isEmpty: Bool { count == 0 }

    subscript(id: UInt64) -> ConnectionCall? {
        count == 0 ? nil : slots[slot(of: id)]
    }

    /// In no order that means anything.
    var all: [ConnectionCall] { slots.compactMap(\.self) }

    /// Adds a call, whose id is not there yet.
    mutating func insert(_ call: ConnectionCall) {
        if (count + 1) * 2 > slots.count { resize(max(slots.count * 2, Self.capacityMin)) }
        let free = slot(of: call.id)
        precondition(slots[free] == nil, "an id is used once")
        slots[free] = call
        count += 1
    }

    /// Removes the call with this id; false if there is none.
    mutating func remove(_ id: UInt64) -> Bool {
        guard count > 0 else { return false }
        var hole = slot(of: id)
        guard slots[hole] != nil else { return false }
        slots[hole] = nil
        count -= 1
        // What was pushed behind the hole by a collision comes closer to where it belongs.
        var next = following(hole)
        while let call = slots[next] {
            let home = home(of: call.id)
            if distance(from: home, to: hole) < distance(from: home, to: next) {
                slots[hole] = call
                slots[next] = nil
                hole = next
            }
            next = following(next)
        }
        if slots.count > Self.capacityMin, count * 8 < slots.count { resize(slots.count / 2) }
        return true
    }

    private mutating func resize(_ capacity: Int) {
        let old = slots
        slots = ContiguousArray(repeating: nil, count: capacity)
        for case let call? in old { slots[slot(of: call.id)] = call }
    }

    /// Where the call is, or would be.
    private func slot(of id: UInt64) -> Int {
        var slot = home(of: id)
        while let other = slots[slot], other.id != id { slot = following(slot) }
        return slot
    }

    private func home(of id: UInt64) -> Int {
        Int(truncatingIfNeeded: id &* 0x9E37_79B9_7F4A_7C15 >> 32) & (slots.count - 1)
    }

    private func following(_ slot: Int) -> Int { (slot + 1) & (slots.count - 1) }

    private func distance(from home: Int, to slot: Int) -> Int {
        (slot - home) & (slots.count - 1)
    }
}
