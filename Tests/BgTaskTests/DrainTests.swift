// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Metadata
import Primitives
import TestSupport
import Testing

@Suite struct DrainTests {
    @Test func noRenewalUnderWayTakesALeaseBack() throws {
        let cell = try TestCell()
        let worker = cell.worker()
        worker.start()
        cell.loop.run(for: .seconds(20))
        #expect(worker.leasesHeld == 33)
        // Renewals that take long; what follows them does not.
        cell.fault.pause = { [loop = cell.loop] in await loop.sleep(.seconds(5)) }
        cell.loop.run(for: .seconds(9))
        cell.fault.pause = nil
        try cell.value { await worker.drain() }
        cell.loop.run(for: .seconds(10))
        let leases = try cell.value { [metadata = cell.metadata] in
            try await metadata.leases(prefix: "bgtask")
        }
        #expect(leases.count == 34, "one for each part, and a seat")
        #expect(leases.filter { $0.holder != nil } == [])
    }
}
