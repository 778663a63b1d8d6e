// SPDX-License-Identifier: Apache-2.0

import Primitives
import Testing

@Suite struct ObjectTableTests {
    private final class Thing: Identifiable {
        let id: UInt64
        init(_ id: UInt64) { self.id = id }
    }

    /// Ids that go up by two, as those of one end of a connection do, and random ones; both in a
    /// table that grows to hundreds and shrinks again.
    @Test(arguments: [true, false])
    func agreesWithADictionary(_ isOrdered: Bool) {
        var table = ObjectTable<Thing>()
        var model: [UInt64: Thing] = [:]
        var random = SplitMix64(seed: 3)
        var nextID: UInt64 = 1
        #expect(table[1] == nil && table.isEmpty)
        for step in 0..<20_000 {
            let grows = step / 1_000 % 2 == 0
            if random.next() % 4 < (grows ? 3 : 1) {
                let id = isOrdered ? nextID : random.next()
                nextID += 2
                let thing = Thing(id)
                table.insert(thing)
                model[id] = thing
            } else if let id = model.keys.sorted().dropFirst(Int(random.next() % 40)).first {
                let (wasThere, isThere) = (table.remove(id), table.remove(id))
                #expect(wasThere && !isThere)
                model[id] = nil
            }
            let asked = isOrdered ? random.next() % (nextID + 4) : model.keys.first ?? 0
            #expect(table[asked] === model[asked])
            #expect(table.count == model.count)
        }
        #expect(table.all.map(\.id).sorted() == model.keys.sorted())
        let slots = (0..<table.capacity).compactMap { table.at($0)?.id }
        #expect(slots.sorted() == model.keys.sorted())
        for id in model.keys { table.remove(id) }
        #expect(table.isEmpty && table[1] == nil && table.all.isEmpty && table.capacity == 16)
    }

    private struct Crowded: TableKey {
        let number: UInt64
        var tableBits: UInt64 { number % 2 }
    }
    private final class Neighbour: Identifiable {
        let id: Crowded
        init(_ id: Crowded) { self.id = id }
    }

    /// Ids that all belong into two slots.
    @Test func holesAreFilledFromBehind() {
        let ids = (0..<12).map { Crowded(number: $0) }
        for first in ids {
            for second in ids {
                var table = ObjectTable<Neighbour>()
                for id in ids { table.insert(Neighbour(id)) }
                table.remove(first)
                table.remove(second)
                for id in ids { #expect((table[id] == nil) == (id == first || id == second)) }
            }
        }
    }
}
