// SPDX-License-Identifier: Apache-2.0

import Primitives
import TestSupport
import Testing

@testable import RPC

@Suite struct CallTableTests {
    /// Whoever has the calls does nothing for them.
    private final class Owner: CallOwner {
        func callHeld(_ call: ConnectionCall, _ cost: Int) {}
        func callSends(
            _ call: ConnectionCall, _ count: Int, body: Bytes,
            _ write: (UnsafeMutableRawPointer) -> Void
        ) -> Bool { false }
        func callConsumed(_ call: ConnectionCall, _ count: Int) {}
        func callCancelled(_ call: ConnectionCall, _ status: Status) {}
    }

    @Test func agreesWithADictionary() {
        let owner = Owner()
        var table = CallTable()
        var model: [UInt64: ConnectionCall] = [:]
        var random = SplitMix64(seed: 3)
        var nextID: UInt64 = 1
        #expect(table[1] == nil && table.isEmpty)
        for step in 0..<20_000 {
            // Grows to hundreds and shrinks again; ids go up by two, as those of one end do.
            let grows = step / 1_000 % 2 == 0
            if random.next() % 4 < (grows ? 3 : 1) {
                let call = ConnectionCall(from: .append)
                call.attach(owner, id: nextID, credit: 0)
                table.insert(call)
                model[nextID] = call
                nextID += 2
            } else if let id = model.keys.sorted().dropFirst(Int(random.next() % 40)).first {
                let (wasThere, isThere) = (table.remove(id), table.remove(id))
                #expect(wasThere && !isThere)
                model[id] = nil
            }
            let asked = random.next() % (nextID + 4)
            #expect(table[asked] === model[asked])
            #expect(table.count == model.count)
        }
        #expect(table.all.map(\.id).sorted() == model.keys.sorted())
        for id in model.keys {
            let wasThere = table.remove(id)
            #expect(wasThere)
        }
        #expect(table.isEmpty && table[1] == nil && table.all.isEmpty)
    }
}

@Suite struct ErrandTests {
    @Test func isDoneOncePerTurnHoweverOftenItIsAsked() {
        let loop = ManualLoop()
        var count = 0
        let errand = Errand(on: loop) { count += 1 }
        errand.soon()
        errand.soon()
        #expect(count == 0)
        loop.settle()
        #expect(count == 1)
        errand.soon()
        loop.settle()
        #expect(count == 2)
    }

    @Test func mayBeAskedForWhileItIsDone() {
        let loop = ManualLoop()
        var count = 0
        var again: Errand?
        let errand = Errand(on: loop) {
            count += 1
            if count < 3 { again?.soon() }
        }
        again = errand
        errand.soon()
        loop.settle()
        #expect(count == 3)
        again = nil
    }

    @Test func waitsForItsTimer() {
        let loop = ManualLoop()
        var count = 0
        let errand = Errand(on: loop) { count += 1 }
        _ = errand.after(.milliseconds(2))
        let cancelled = errand.after(.milliseconds(3))
        cancelled.cancel()
        loop.advance(.milliseconds(1))
        #expect(count == 0)
        loop.advance(.milliseconds(5))
        #expect(count == 1)
    }
}
