// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import ObjectStorage
import Primitives
import TestSupport
import Testing

/// What the waits rest on: not on the worker's own clock, nor on its own settings alone.
@Suite struct WaitTests {
    private func flushed(unsureMilliseconds: UInt64? = nil) throws -> (TestCell, TestWriter) {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer(unsureMilliseconds: unsureMilliseconds)
        try writer.claim(stream)
        for _ in 0..<3 { try writer.write([stream]) }
        try writer.flush()
        return (cell, writer)
    }

    @Test func theMetadataTellsHowLongObjectsStay() throws {
        let (cell, _) = try flushed()
        let worker = cell.worker(terms: cell.metadata) { $0.planNanoseconds = 0 }
        try cell.pass(worker, [.logCollection])
        try cell.value { [metadata = cell.metadata] in try await metadata.setPlanWait(5_000) }
        // Some readers may go by what was said before.
        cell.loop.run(for: .seconds(599))
        #expect(try cell.pass(worker, [.logCollection]) == [:])
        cell.loop.run(for: .seconds(2))
        #expect(try cell.pass(worker, [.logCollection]) == [.deletedChunk: 3])
    }

    @Test(arguments: [0, 7_200_000, 0 &- 7_200_000 as UInt64])
    func orphansAgeByTheStoresClock(ahead: UInt64) throws {
        let (cell, writer) = try flushed()
        cell.storeClock.ahead = ahead
        try writer.write(writer.streams)
        _ = try writer.store()
        let worker = cell.worker()
        cell.loop.run(for: .seconds(3_598))
        #expect(try cell.pass(worker, [.orphanSweep]) == [:])
        cell.loop.run(for: .seconds(4))
        #expect(try cell.pass(worker, [.orphanSweep]) == [.unlinkedOrphan: 1])
        #expect(try cell.keys("doctor/") == [])
    }

    @Test(arguments: [(nil, 30 * 86_400), (60_000, 1_800), (1, 10)] as [(UInt64?, Int64)])
    func sealsStayAsLongAsTheirChannelMayComeBack(unsure: UInt64?, stay: Int64) throws {
        let (cell, writer) = try flushed(unsureMilliseconds: unsure)
        try writer.retire()
        cell.rules.allowsSeals = true
        let worker = cell.worker {
            $0.sealNanoseconds = .seconds(10)
            $0.planNanoseconds = 0
        }
        for _ in 0..<2 { try cell.pass(worker, [.logCollection]) }
        let seal = [LogKeys.chunk(writer.id, writer.next)]
        #expect(try cell.keys("wal/") == seal)
        cell.loop.run(for: .seconds(stay - 1))
        try cell.pass(worker, [.logCollection])
        #expect(try cell.keys("wal/") == seal)
        cell.loop.run(for: .seconds(3))
        #expect(try cell.pass(worker, [.logCollection]) == [.deletedSeal: 1, .forgottenChannel: 1])
        #expect(try cell.keys("wal/") == [])
    }

    @Test func manyChunksGoAtOnceAndStrideByStride() throws {
        let cell = try TestCell()
        let stream = try cell.addStream("orders")
        let writer = try cell.writer()
        try writer.claim(stream)
        for _ in 0..<200 { try writer.write([stream]) }
        try writer.flush()
        let worker = cell.worker {
            $0.planNanoseconds = 0
            $0.requestsPerSecond = 1_000_000
        }
        try cell.pass(worker, [.logCollection])
        cell.fault.pause = { [loop = cell.loop] in await loop.sleep(.milliseconds(50)) }
        let start = cell.loop.now
        #expect(try cell.pass(worker, [.logCollection]) == [.deletedChunk: 200])
        // One after the other they would take ten seconds.
        #expect(cell.loop.now - start < .seconds(2))
        #expect(cell.rules.violations == [])
    }

    @Test func oneFailureEndsTheOthersInOrder() throws {
        let (cell, _) = try flushed()
        let worker = cell.worker { $0.planNanoseconds = 0 }
        try cell.pass(worker, [.logCollection])
        cell.fault.failing = (cell.fault.calls + 3, .before)
        #expect(try cell.pass(worker, [.logCollection]) == [.deletedChunk: 2, .failed: 1])
        // The log is passed over once, and has its turn again behind the others.
        while try !cell.keys("wal/").isEmpty { try cell.pass(worker, [.logCollection]) }
        #expect(cell.rules.violations == [])
    }
}
