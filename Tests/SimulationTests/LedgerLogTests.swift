// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import Testing

@testable import Simulation

/// The rules about logs can be broken, each of them, and what is just allowed breaks none.
@Suite struct LedgerLogTests {
    private static let sealNanoseconds: Nanoseconds = .seconds(30 * 86_400)

    private func expect(
        _ rule: String?, _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation,
        _ body: @escaping (LedgerYard) async throws -> Void
    ) throws {
        try LedgerTests.expect(rule, what, sourceLocation: sourceLocation, body)
    }

    // MARK: G2

    enum Chunk: CaseIterable { case flushed, unflushed, early, ofNobody }

    @Test(arguments: Chunk.allCases)
    func aChunkGoesOnceItIsFlushedAndNoPlanPointsIntoIt(chunk: Chunk) throws {
        let what: String
        switch chunk {
        case .flushed: what = ""
        case .unflushed: what = "goes, and the log is flushed below 1 only"
        case .early: what = "goes 309999ms behind its flush"
        case .ofNobody: what = "goes, whose channel never was"
        }
        try expect(chunk == .flushed ? nil : "G2", what) { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<3, chunk: 0)
            try await yard.put(LogKeys.chunk(tenure.channel, 1), yard.chunk(tenure, 3..<4, 1))
            let stranger = LedgerYard.Tenure(
                stream: tenure.stream, streamlet: 0, channel: ChannelID(99))
            try await yard.put(LogKeys.chunk(ChannelID(99), 0), yard.chunk(stranger, 0..<1, 0))
            await yard.wait(LedgerTests.planNanoseconds - (chunk == .early ? 1 : 0))
            let key =
                chunk == .ofNobody
                ? LogKeys.chunk(ChannelID(99), 0)
                : LogKeys.chunk(tenure.channel, chunk == .unflushed ? 1 : 0)
            try await yard.store.delete(key)
        }
    }

    /// Chunks of one stride may go in any order.
    @Test(arguments: [3, 4] as [ChunkIndex]) func aLogGoesFromItsStart(first: ChunkIndex) throws {
        try expect(first == 4 ? "G2" : nil, "and chunk 0 is there: a hole") { yard in
            let tenure = try await yard.open()
            for index in 0..<5 as Range<ChunkIndex> {
                try await yard.write(tenure, 2 * index..<2 * index + 2, chunk: index)
            }
            await yard.wait(LedgerTests.planNanoseconds)
            let rest = (0..<5).filter { $0 != first }
            for index in [first] + rest {
                try await yard.store.delete(LogKeys.chunk(tenure.channel, index))
            }
        }
    }

    enum Counted: CaseIterable { case flushed, ofDeleted, unflushed, absent, seal, noise }

    @Test(arguments: Counted.allCases)
    func aChunkCountsAsFlushedOnceAllOfItIs(counted: Counted) throws {
        let what: String
        switch counted {
        case .flushed, .ofDeleted: what = ""
        case .unflushed: what = "with records below 4 of a, which is flushed below 3"
        case .absent: what = "counts as flushed, and is not there"
        case .seal: what = "counts as flushed, and is a seal"
        case .noise: what = "counts as flushed, and cannot be read"
        }
        let isBroken = !what.isEmpty
        try expect(isBroken ? "G2" : nil, what) { yard in
            let tenure = try await yard.open()
            let key = LogKeys.chunk(tenure.channel, 0)
            let chunk = yard.chunk(tenure, 0..<4, 0)
            switch counted {
            case .flushed, .ofDeleted, .unflushed: try await yard.put(key, chunk)
            case .absent: break
            case .seal: try await yard.put(key, yard.seal(tenure, 0))
            // The header alone: what the key says is true.
            case .noise: try await yard.put(key, chunk[0..<ChunkHeader.byteCount])
            }
            if counted == .ofDeleted { try await yard.delete() }
            let isWhole = counted != .unflushed && counted != .ofDeleted
            let (body, row) = try yard.segment(tenure, isWhole ? 0..<4 : 0..<3)
            try await yard.put(row.object, body)
            try await yard.flush(tenure, isWhole ? 0..<4 : 0..<3, [row], flushedEnd: 1)
        }
    }

    // MARK: G4

    @Test(arguments: [1, 2] as [ChunkIndex]) func aLogIsForgottenOnceItIsDeleted(
        end: ChunkIndex
    ) throws {
        try expect(end == 2 ? "G4" : nil, "is forgotten below 2 and not deleted") { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<2, chunk: 0)
            try await yard.write(tenure, 2..<4, chunk: 1)
            try await yard.metadata.markLog(tenure.channel)
            await yard.wait(LedgerTests.planNanoseconds)
            try await yard.store.delete(LogKeys.chunk(tenure.channel, 0))
            try await yard.metadata.forgetLog(tenure.channel, below: end)
        }
    }

    @Test(arguments: [false, true])
    func aLogIsForgottenForGoodOnceNothingIsLeftOfIt(isLeft: Bool) throws {
        try expect(isLeft ? "G4" : nil, "is forgotten before wal/") { yard in
            let tenure = try await yard.open()
            try await yard.retire(tenure, tail: 0, end: 0)
            await yard.wait(Self.sealNanoseconds)
            if !isLeft { try await yard.store.delete(LogKeys.chunk(tenure.channel, 0)) }
            _ = try await yard.metadata.forgetChannel(tenure.channel)
        }
    }

    // MARK: G5

    enum Sealed: CaseIterable { case old, young, first, late, lateYoung }

    @Test(arguments: Sealed.allCases) func aSealOutlivesItsWriters(sealed: Sealed) throws {
        let isBroken = sealed != .old && sealed != .late
        let what =
            sealed == .first
            ? "00000000000000000001 goes before" : "goes, and its log may still be written to"
        try expect(isBroken ? "G5" : nil, what) { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<3, chunk: 0)
            try await yard.retire(tenure, tail: 3, end: 1)
            // A writer that knows nothing of the seal.
            try await yard.put(LogKeys.chunk(tenure.channel, 2), yard.chunk(tenure, 4..<5, 2))
            let isYoung = sealed == .young || sealed == .lateYoung
            await yard.wait(Self.sealNanoseconds - (isYoung ? 1 : 0))
            let keys = [0, 2, 1].map { LogKeys.chunk(tenure.channel, $0) }
            if sealed == .lateYoung || sealed == .late {
                return try await yard.store.delete(keys[1])
            }
            for key in sealed == .first ? keys.reversed() : keys {
                try await yard.store.delete(key)
            }
        }
    }

    @Test(arguments: [false, true]) func everySealIsThereInTheEnd(isSealed: Bool) throws {
        var missing: [String] = []
        try expect(nil) { yard in
            let tenure = try await yard.open()
            try await yard.retire(tenure, tail: 0, end: 0, isSealed: isSealed)
            missing = await yard.ledger.missing()
        }
        #expect(missing.count == (isSealed ? 0 : 1))
        #expect(missing.allSatisfy { $0.hasPrefix("G5: the seal wal/") })
    }

    // MARK: G7

    enum Object: CaseIterable {
        case chunk, seal, segment, probe
        case foreign, inLog, ofAnotherSlot, ofAnotherChannel, noise

        var isKnown: Bool {
            switch self {
            case .chunk, .seal, .segment, .probe: true
            case .foreign, .inLog, .ofAnotherSlot, .ofAnotherChannel, .noise: false
            }
        }
    }

    @Test(arguments: Object.allCases) func aLogHoldsChunksAndSealsOnly(object: Object) throws {
        let what: String
        switch object {
        case .foreign, .inLog: what = "is the key of nothing that we know"
        case .ofAnotherSlot: what = "holds slot 1 of channel 1"
        case .ofAnotherChannel: what = "holds slot 0 of channel 1"
        case .noise: what = "holds neither chunk nor seal"
        case .chunk, .seal, .segment, .probe: what = ""
        }
        try expect(object.isKnown ? nil : "G7", what) { yard in
            let tenure = try await yard.open()
            let noise = Bytes(utf8: "noise")
            let key = LogKeys.chunk(tenure.channel, 0)
            let chunk = yard.chunk(tenure, 0..<3, 0)
            switch object {
            case .chunk: try await yard.put(key, chunk)
            case .seal: try await yard.put(key, yard.seal(tenure, 0))
            case .segment:
                let (body, row) = try yard.segment(tenure, 0..<3)
                try await yard.put(row.object, body)
            case .probe: try await yard.put("doctor/clock-1", noise)
            case .foreign: try await yard.put("recovered/1", chunk)
            case .inLog: try await yard.put(LogKeys.logPrefix(tenure.channel) + "0", chunk)
            case .ofAnotherSlot: try await yard.put(key, yard.chunk(tenure, 0..<3, 1))
            case .ofAnotherChannel: try await yard.put(LogKeys.chunk(ChannelID(2), 0), chunk)
            case .noise: try await yard.put(key, noise)
            }
        }
    }

    // MARK: G8

    enum Dependence: CaseIterable { case flushed, sealed, unresolved, beyondSeal, ofNobody }

    @Test(arguments: Dependence.allCases)
    func whatDependsOnAnotherLogIsFlushedOnceThatHoldsIt(dependence: Dependence) throws {
        let isResolved = dependence == .flushed || dependence == .sealed
        try expect(
            isResolved ? nil : "G8", "counts as flushed, and what it depends on is not resolved"
        ) { yard in
            let source = try await yard.open("source")
            let target = try await yard.open("target")
            let index: ChunkIndex = dependence == .beyondSeal ? 1 : 0
            switch dependence {
            case .flushed: try await yard.write(source, 0..<2, chunk: 0)
            case .unresolved, .ofNobody: break
            case .sealed, .beyondSeal:
                // Recovery is yet to flush what the seal says is there.
                let key = LogKeys.chunk(source.channel, 0)
                try await yard.put(key, yard.chunk(source, 0..<2, 0))
                try await yard.metadata.resignChannel(source.channel)
                let isSealed = try await yard.metadata.publishSeal(
                    source.channel, sealedAt: 1, flushedEnd: 0)
                if !isSealed { throw YardError("not sealed") }
            }
            let channel = dependence == .ofNobody ? ChannelID(99) : source.channel
            let dependency = Dependency(channel: channel, index: index)
            try await yard.put(
                LogKeys.chunk(target.channel, 0),
                yard.chunk(target, 0..<3, 0, dependency: dependency))
            let (body, row) = try yard.segment(target, 0..<3)
            try await yard.put(row.object, body)
            try await yard.flush(target, 0..<3, [row], flushedEnd: 1)
        }
    }

    /// What begins a tenure depends on the other log, as its records do.
    @Test func aMarkThatDependsOnAnotherLogIsNotFlushedEither() throws {
        try expect("G8", "what it depends on is not resolved") { yard in
            let source = try await yard.open("source")
            let target = try await yard.open("target")
            try await yard.put(
                LogKeys.chunk(target.channel, 0),
                yard.mark(target, 0, Dependency(channel: source.channel, index: 0)))
            try await yard.flush(target, 0..<0, [], flushedEnd: 1)
        }
    }

    /// And neither is its chunk deleted.
    @Test func aChunkThatDependsOnAnotherLogStays() throws {
        try expect("G8", "goes, and what it depends on is not resolved") { yard in
            let source = try await yard.open("source")
            let target = try await yard.open("target")
            let dependency = Dependency(channel: source.channel, index: 0)
            let key = LogKeys.chunk(target.channel, 0)
            try await yard.put(key, yard.mark(target, 0, dependency))
            // The ledger is not told of the flush.
            let flush = yard.flushed(target, 0..<0, [], flushedEnd: 1)
            guard try await yard.rows.flush(flush) == .done else { throw YardError("not flushed") }
            try await yard.store.delete(key)
        }
    }
}
