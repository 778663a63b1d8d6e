// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport
import Testing

@testable import CacheyRole

/// How many warm pages a cachey hands out: its own work, without a network.
@Suite struct SpeedTests {
    @Test func warmPagesPerSecond() throws {
        let bench = try Bench {
            $0.pageBytes = 1 << 20
            $0.memoryBytesMax = 64 << 20
        }
        bench.bucket.objects["seg/00/warm"] = Bytes([UInt8](repeating: 1, count: 16 << 20))
        _ = bench.fetched("seg/00/warm", 0..<16 << 20)
        let requests = (0..<16).map { page in
            FetchRequest(
                buckets: ["b"], object: "seg/00/warm", range: page << 20..<(page + 1) << 20
            ).encoded()
        }
        let count = 20_000
        var served = 0
        let duration = ContinuousClock().measure {
            for round in 0..<count {
                let call = FakeCall()
                bench.role.serve(
                    call, method: .fetch, payload: requests[round % 16], deadline: .seconds(3))
                if call.ended?.status == .ok { served += 1 }
            }
        }
        #expect(served == count)
        let perSecond =
            Double(count)
            / (Double(duration.components.attoseconds) / 1e18
                + Double(duration.components.seconds))
        print("warm pages per second: \(Int(perSecond))")
        #expect(perSecond > 1_000, "\(perSecond)")
    }
}
