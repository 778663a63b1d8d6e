// SPDX-License-Identifier: Apache-2.0

/// What an `ObjectTable` finds an object by.
public protocol TableKey: Hashable {
    /// In which keys differ; a product spreads them.
    var tableBits: UInt64 { get }
}

extension UInt64: TableKey {
    @inlinable public var tableBits: UInt64 { self }
}

/// Objects by their ids: a table that is open-addressed and holds nothing but references, for there
/// may be half a million, or one may be asked for with every frame.
///
/// Ids are random or given out in order, so their bits are their hash, and the order of the slots
/// is the same in every run with the same ids. Public for the reason that `Bytes` is.
public struct ObjectTable<Object: AnyObject & Identifiable> where Object.ID: TableKey {
    /// A power of two; three quarters of it are used at most.
    @usableFromInline var slots: ContiguousArray<Object?> = []
    @usableFromInline var used = 0

    @inlinable static var capacityMin: Int { 16 }

    @inlinable
    public init() {}

    @inlinable public var count: Int { used }

    @inlinable public var isEmpty: Bool { count == 0 }

    /// How many slots there are; `at` takes their numbers from 0.
    @inlinable public var capacity: Int { slots.count }

    /// The object in a slot, which may be empty. Slots change with every insertion and removal.
    @inlinable
    public func at(_ slot: Int) -> Object? { slots[slot] }

    @inlinable public subscript(id: Object.ID) -> Object? {
        count == 0 ? nil : slots[slot(of: id)]
    }

    /// In no order that means anything.
    @inlinable public var all: [Object] { slots.compactMap(\.self) }

    /// Adds an object, whose id is not there yet.
    @inlinable
    public mutating func insert(_ object: Object) {
        if (count + 1) * 4 > slots.count * 3 { resize(max(slots.count * 2, Self.capacityMin)) }
        let free = slot(of: object.id)
        precondition(slots[free] == nil, "an id is in a table once")
        slots[free] = object
        used += 1
    }

    /// Removes the object with this id; false if there is none.
    @inlinable
    @discardableResult
    public mutating func remove(_ id: Object.ID) -> Bool {
        guard count > 0 else { return false }
        var hole = slot(of: id)
        guard slots[hole] != nil else { return false }
        slots[hole] = nil
        used -= 1
        // What was pushed behind the hole by a collision comes closer to where it belongs.
        var next = following(hole)
        while let object = slots[next] {
            let home = home(of: object.id)
            if distance(from: home, to: hole) < distance(from: home, to: next) {
                slots[hole] = object
                slots[next] = nil
                hole = next
            }
            next = following(next)
        }
        if slots.count > Self.capacityMin, count * 8 < slots.count { resize(slots.count / 2) }
        return true
    }

    @inlinable
    mutating func resize(_ capacity: Int) {
        let old = slots
        slots = ContiguousArray(repeating: nil, count: capacity)
        for case let object? in old { slots[slot(of: object.id)] = object }
    }

    /// Where the object is, or would be.
    @inlinable
    func slot(of id: Object.ID) -> Int {
        var slot = home(of: id)
        while let other = slots[slot], other.id != id { slot = following(slot) }
        return slot
    }

    @inlinable
    func home(of id: Object.ID) -> Int {
        Int(truncatingIfNeeded: (id.tableBits &* 0x9E37_79B9_7F4A_7C15) >> 32) & (slots.count - 1)
    }

    @inlinable
    func following(_ slot: Int) -> Int { (slot + 1) & (slots.count - 1) }

    @inlinable
    func distance(from home: Int, to slot: Int) -> Int {
        (slot - home) & (slots.count - 1)
    }
}
