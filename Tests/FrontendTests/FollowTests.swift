// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct FollowTests {
    @Test func aFollowHoldsItsRecordsAlone() throws {
        let bench = try DataBench()
        try bench.fill([1])
        let buffers = ReadBuffers()
        bench.channel.onPush = { buffers.read($0) }
        let read = bench.session("seq_num=0")
        for _ in 0..<100 {
            try bench.channel.write(bench.stream, count: 1)
            bench.loop.settle()
        }
        #expect(try Frames(read).seqNums == Array(0..<101))
        #expect(buffers.heldBytes <= 65_536)
        // What is remembered is what a second reader gets.
        let second = bench.session("seq_num=50")
        try bench.channel.write(bench.stream, count: 1)
        bench.loop.settle()
        #expect(try Frames(second).seqNums == Array(50..<102))
        #expect(bench.calls.count(.follow) == 1)
    }
}
