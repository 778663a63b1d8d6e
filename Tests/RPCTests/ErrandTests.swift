// SPDX-License-Identifier: Apache-2.0

import Primitives
import TestSupport
import Testing

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
