// SPDX-License-Identifier: Apache-2.0

import BgTaskRole
import Log
import Metadata
import Primitives
import Records
import TestSupport
import Testing

/// What a cell keeps in its metadata does not grow with its age.
@Suite struct ForgettingTests {
    private func rows(_ cell: TestCell) throws -> (channels: Int, streamlets: Int) {
        try cell.value { [metadata = cell.metadata] in
            var streamlets = 0
            for id in try await metadata.allStreams() {
                streamlets += try await metadata.streamlets(of: id, before: nil, limit: 10_000)
                    .count
            }
            return (
                try await metadata.channels(Set(ChannelState.allCases)).count, streamlets
            )
        }
    }

    @Test func streamsThatComeAndGoOnManyChannelsLeaveNothing() throws {
        let cell = try TestCell()
        let streams = try (0..<3).map { try cell.addStream("s\($0)") }
        let worker = cell.worker {
            $0.changeRows = 2
            $0.partitions = 2
        }
        for _ in 0..<4 {
            let writer = try cell.writer()
            // Each stream wakes up, and goes dormant.
            for _ in 0..<5 {
                for stream in streams { try writer.claim(stream) }
                try writer.write(streams)
                writer.closing = Set(streams)
                try writer.flush()
            }
            #expect(try rows(cell).streamlets == streams.count, "those of the last flush")
            try writer.retire()
            cell.loop.run(for: .seconds(601))
            let dry = try cell.pass(worker, [.logCollection], isDryRun: true)
            #expect(dry[.forgottenStreamlet] == streams.count)
            let done = try cell.pass(worker, [.logCollection])
            #expect(done[.forgottenStreamlet] == streams.count)
            #expect(try rows(cell).streamlets == 0)
            try cell.pass(worker, [.logCollection])
        }
        cell.loop.run(for: .seconds(601))
        try cell.pass(worker, [.logCollection])
        // As long as there are seals, there are their channels.
        #expect(try rows(cell).channels == 4)
        cell.loop.run(for: .seconds(31 * 86_400))
        cell.rules.allowsSeals = true
        let dry = try cell.pass(worker, [.logCollection], isDryRun: true)
        #expect(dry[.forgottenChannel] == 4)
        #expect(try cell.pass(worker, [.logCollection])[.forgottenChannel] == 4)
        #expect(try rows(cell) == (0, 0))
        #expect(try cell.keys("wal/") == [])
        #expect(try cell.pass(worker, [.logCollection]) == [:])
        // The streams go on where they were.
        let writer = try cell.writer()
        #expect(writer.id == ChannelID(5))
        try writer.claim(streams[0])
        try writer.write([streams[0]])
        try writer.flush()
        #expect(try cell.lookup(streams[0])?.owner?.streamlet == 20)
        #expect(try Check(cell).missing == [])
    }

    /// The worker dies at each step of a channel's end, before the step took effect or after.
    @Test(arguments: Fault.Moment.allCases)
    func aChannelIsForgottenWhicheverStepFails(_ moment: Fault.Moment) throws {
        var call = 1
        while true {
            let cell = try TestCell()
            let stream = try cell.addStream("orders")
            let writer = try cell.writer()
            try writer.claim(stream)
            try writer.write([stream])
            try writer.retire()
            cell.rules.allowsSeals = true
            cell.fault.failing = (call, moment)
            cell.fault.isFatal = true
            for _ in 0..<3 {
                do {
                    try cell.pass(cell.worker { $0.partitions = 1 }, [.logCollection])
                } catch {
                    #expect(cell.fault.calls >= call, "\(error)")
                }
                cell.loop.run(for: .seconds(31 * 86_400))
            }
            let hasFailed = cell.fault.calls >= call
            cell.fault.failing = nil
            for _ in 0..<3 {
                try cell.pass(cell.worker(), [.logCollection])
                cell.loop.run(for: .seconds(31 * 86_400))
            }
            #expect(try rows(cell) == (0, 0), "\(moment) call \(call)")
            #expect(try cell.keys("wal/") == [], "\(moment) call \(call)")
            guard hasFailed else { break }
            call += 1
        }
        #expect(call > 10, "\(call) steps")
    }
}
