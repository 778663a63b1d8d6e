// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import RPC
import Records
import TestSupport
import Testing

@testable import FrontendRole

/// Inputs that come in part.
@Suite struct BegunFramesTests {
    private func bench(bytesMax: Int) throws -> DataBench {
        var limits = FrontendLimits(rootToken: nil)
        limits.processInFlightBytesMax = bytesMax
        let bench = try DataBench(limits: limits)
        try bench.activate()
        return bench
    }

    /// Feeds `bytes` in pieces, some time apart, as long as the session is read.
    private func trickle(
        _ bytes: Bytes, _ session: FakeExchange, _ bench: DataBench, pieces: Int,
        every delay: Nanoseconds
    ) {
        let size = (bytes.count + pieces - 1) / pieces
        for piece in 0..<pieces {
            session.feed(bytes.dropFirst(piece * size).prefix(size))
            bench.loop.advance(delay)
        }
    }

    @Test func anInputHasItsTime() throws {
        let bench = try bench(bytesMax: 1 << 20)
        let session = bench.appendSession()
        let input = inputFrame(["whole"])
        session.feed([input, input.prefix(9)].joined())
        bench.loop.advance(.seconds(59))
        #expect(!session.isFinished && bench.records.path.begun.bytes == 9)
        bench.loop.advance(.seconds(2))
        let frames = try Frames(session)
        #expect(session.isFinished && frames.terminal?.status == 408)
        #expect(try frames.acks.map(\.end.seqNum) == [1])
        #expect(bench.records.path.begun.bytes == 0)
    }

    @Test func eachInputHasATimeOfItsOwn() throws {
        let bench = try bench(bytesMax: 1 << 20)
        let session = bench.appendSession()
        let input = inputFrame(["a body of some length"])
        for _ in 0..<4 { trickle(input, session, bench, pieces: 3, every: .seconds(18)) }
        // Parts of two inputs in every piece.
        let two = [input, input].joined()
        session.feed(two.prefix(input.count / 2))
        for _ in 0..<4 {
            bench.loop.advance(.seconds(40))
            session.feed(two.dropFirst(input.count / 2).prefix(input.count))
        }
        bench.loop.settle()
        #expect(try Frames(session).acks.map(\.end.seqNum) == Array(1...8))
        #expect(!session.isFinished)
        session.hangUp()
        bench.loop.settle()
        #expect(bench.records.path.begun.bytes == 0)
    }

    /// Clients that send most of an input and then nothing hold twice the limit at most, and hold
    /// nobody else up for long.
    @Test func theyAreBoundedTogether() throws {
        let bytesMax = 8 << 20
        let bench = try bench(bytesMax: bytesMax)
        let begun = bench.records.path.begun
        let piece = Bytes([UInt8](repeating: 0, count: 100_000))
        let slow = (0..<200).map { _ in
            let session = bench.appendSession()
            session.feed(SessionFrame.header(payloadBytes: 2_000_000))
            return session
        }
        var most = 0
        for _ in 0..<19 {
            for session in slow { session.feed(piece) }
            bench.loop.settle()
            most = max(most, begun.bytes)
        }
        #expect(most >= bytesMax)
        // One that is refused comes again, as SDKs do.
        let input = inputFrame([String(repeating: "x", count: 900_000)])
        var session = bench.appendSession()
        var seconds = 0
        while try Frames(session).acks.isEmpty, seconds < 120 {
            if seconds == 0 || session.isFinished {
                session = bench.appendSession()
                trickle(input, session, bench, pieces: 9, every: 0)
            }
            seconds += 1
            bench.loop.advance(.seconds(1))
            most = max(most, begun.bytes)
        }
        #expect(seconds < 50, "it did not just outlive the others")
        #expect(most <= 2 * bytesMax + 2_000_000 + piece.count)
        bench.loop.advance(.seconds(240))
        #expect(slow.allSatisfy(\.isFinished) && begun.bytes == 0)
    }
}
