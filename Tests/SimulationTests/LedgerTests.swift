// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import Testing

@testable import Simulation

/// The rules can be broken, each of them, and what is just allowed breaks none. Here those about
/// segments and their objects; those about logs are in `LedgerLogTests.swift`.
@Suite struct LedgerTests {
    static let planNanoseconds: Nanoseconds = .seconds(310)
    static let condemnedNanoseconds: Nanoseconds = .seconds(30)
    static let orphanNanoseconds: Nanoseconds = .seconds(1_200)

    /// The first thing that is found breaks `rule`, and says `what`; where there is no rule,
    /// nothing is found.
    static func expect(
        _ rule: String?, _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation,
        _ body: @escaping (LedgerYard) async throws -> Void
    ) throws {
        let found = try LedgerYard.findings(of: body)
        guard let rule else {
            #expect(found == [], sourceLocation: sourceLocation)
            return
        }
        let first = found.first ?? "nothing was found"
        #expect(first.hasPrefix("\(rule): "), "\(found)", sourceLocation: sourceLocation)
        #expect(first.contains(what), "\(found)", sourceLocation: sourceLocation)
    }

    // MARK: G1

    enum Stored: CaseIterable { case whole, absent, cut, damaged, another }

    @Test(arguments: Stored.allCases)
    func segmentsArePublishedOnceTheirObjectsAreDurableAndWhole(stored: Stored) throws {
        try Self.expect(stored == .whole ? nil : "G1", "is published, and is not there") { yard in
            let tenure = try await yard.open()
            let (body, row) = try yard.segment(tenure, 0..<3)
            var bytes = body.array
            bytes[Int(row.offset) + 12] ^= 1
            switch stored {
            case .whole: try await yard.put(row.object, body)
            case .absent: break
            case .cut:
                let end = Int(row.offset + row.length) - 1
                try await yard.put(row.object, body[0..<end])
            case .damaged: try await yard.put(row.object, Bytes(bytes))
            case .another:
                try await yard.put(row.object, yard.segment(tenure, 0..<3, mark: 2).body)
            }
            try await yard.flush(tenure, 0..<3, [row], flushedEnd: 0)
        }
    }

    @Test(arguments: [false, true])
    func noObjectGoesToWhichSegmentsRefer(isReferenced: Bool) throws {
        try Self.expect(isReferenced ? "G1" : nil, "goes, and 1 segments refer to it") { yard in
            let tenure = try await yard.open()
            let row = try await yard.write(tenure, 0..<3, chunk: 0)
            if !isReferenced {
                try await yard.flush(tenure, 3..<3, [], flushedEnd: 1, trimPoint: 3)
                _ = try await yard.metadata.unlinkTrimmed(tenure.stream, limit: 10)
                await yard.wait(Self.planNanoseconds)
                _ = try await yard.metadata.condemn(row.storedObject, age: 0)
                await yard.wait(Self.condemnedNanoseconds)
            }
            try await yard.store.delete(row.object)
        }
    }

    @Test(arguments: [false, true])
    func segmentsAreUnlinkedOnceTheyAreTrimmed(isTrimmed: Bool) throws {
        try Self.expect(isTrimmed ? nil : "G1", "is unlinked, and is not trimmed") { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<3, chunk: 0)
            try await yard.write(tenure, 3..<5, chunk: 1)
            try await yard.flush(
                tenure, 5..<5, [], flushedEnd: 2, trimPoint: isTrimmed ? 3 : 2,
                closes: !isTrimmed)
            if isTrimmed {
                let count = try await yard.metadata.unlinkTrimmed(tenure.stream, limit: 10)
                if count != 1 { throw YardError("\(count) segments were unlinked") }
            } else {
                // The metadata loses the first segment.
                try await yard.delete()
                _ = try await yard.rows.purgeStream(tenure.stream, limit: 1)
                await yard.ledger.unlinked(of: tenure.stream)
            }
        }
    }

    @Test func aFlushTakesNoSegmentAway() throws {
        try Self.expect("G1", "a flush takes segment 0..<3") { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<3, chunk: 0)
            let close = yard.flushed(tenure, 3..<3, [], flushedEnd: 1, closes: true)
            guard try await yard.rows.flush(close) == .done else { throw YardError("not closed") }
            try await yard.delete()
            _ = try await yard.rows.purgeStream(tenure.stream, limit: 1)
            await yard.ledger.flushed(close)
        }
    }

    enum Purged: CaseIterable { case whole, alive, open }

    @Test(arguments: Purged.allCases)
    func streamsArePurgedOnceTheyAreDeletedAndClosed(purged: Purged) throws {
        let what = "is purged, and \(purged == .alive ? "was not deleted" : "is open")"
        try Self.expect(purged == .whole ? nil : "G1", what) { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<3, chunk: 0)
            // The metadata purges only what it may: the ledger sees the stream as it was before.
            if purged == .open {
                try await yard.delete()
                await yard.ledger.willPurge(tenure.stream)
            }
            try await yard.flush(tenure, 3..<3, [], flushedEnd: 1, closes: true)
            if purged == .alive { await yard.ledger.willPurge(tenure.stream) }
            if purged != .open { try await yard.delete() }
            if purged == .whole {
                _ = try await yard.metadata.purgeStream(tenure.stream, limit: 10)
            } else {
                _ = try await yard.rows.purgeStream(tenure.stream, limit: 10)
                await yard.ledger.purged(tenure.stream)
            }
        }
    }

    enum Compacted: CaseIterable { case same, otherBytes, otherInputs, disordered }

    @Test(arguments: Compacted.allCases)
    func aCompactionHoldsJustWhatItReplaces(compacted: Compacted) throws {
        let what: String
        switch compacted {
        case .same: what = ""
        case .otherBytes: what = "has other records than what it replaces"
        case .otherInputs: what = "changes other segments"
        case .disordered: what = "does not hold what it replaces"
        }
        try Self.expect(compacted == .same ? nil : "G1", what) { yard in
            let tenure = try await yard.open()
            let first = try await yard.write(tenure, 0..<3, chunk: 0)
            let second = try await yard.write(tenure, 3..<5, chunk: 1)
            let (body, output) = try yard.segment(
                tenure, 0..<5, mark: compacted == .otherBytes ? 2 : 1)
            try await yard.put(output.object, body)
            if compacted == .same || compacted == .otherBytes {
                let isDone = try await yard.metadata.compact([first, second], into: output)
                if !isDone { throw YardError("not compacted") }
                return
            }
            // It is not what the ledger is told.
            _ = try await yard.rows.compact([first, second], into: output)
            let inputs = compacted == .otherInputs ? [first] : [second, first]
            await yard.ledger.compacted(inputs, into: output)
        }
    }

    @Test(arguments: [false, true])
    func allPublishedSegmentsAreThereInTheEnd(isLost: Bool) throws {
        var missing: [String] = []
        try Self.expect(nil) { yard in
            let tenure = try await yard.open()
            let row = try await yard.write(tenure, 0..<3, chunk: 0)
            if isLost { try await yard.objects.delete(row.object) }
            missing = await yard.ledger.missing()
        }
        #expect(missing.count == (isLost ? 1 : 0))
        #expect(missing.allSatisfy { $0.hasPrefix("G1: segment 0..<3") && $0.hasSuffix("missing") })
    }

    // MARK: G2

    /// A reader may still go by the row that went last.
    @Test(arguments: [-1, 0] as [Nanoseconds])
    func anObjectStaysWhilePlansReferToIt(later: Nanoseconds) throws {
        try Self.expect(later < 0 ? "G4" : nil, "is condemned while plans may refer to it") {
            yard in
            let row = try await Self.unlinkedRow(yard)
            await yard.wait(Self.planNanoseconds + later)
            _ = try await yard.metadata.condemn(row.storedObject, age: 0)
            await yard.wait(Self.condemnedNanoseconds)
            try await yard.store.delete(row.object)
            try await yard.metadata.forgetObject(row.storedObject)
        }
        let found = try LedgerYard.findings { yard in
            let row = try await Self.unlinkedRow(yard)
            _ = try await yard.metadata.condemn(row.storedObject, age: 0)
            await yard.wait(Self.planNanoseconds + later)
            try await yard.store.delete(row.object)
        }
        #expect(found.count == (later < 0 ? 2 : 1))
        #expect(later >= 0 || found.last?.hasPrefix("G2: seg/") == true)
        #expect(later >= 0 || found.last?.hasSuffix("309999ms behind its last segment") == true)
    }

    /// The row of a segment that was trimmed, of an object that has no other.
    private static func unlinkedRow(_ yard: LedgerYard) async throws -> SegmentRow {
        let tenure = try await yard.open()
        let row = try await yard.write(tenure, 0..<3, chunk: 0)
        try await yard.flush(tenure, 3..<3, [], flushedEnd: 1, trimPoint: 3)
        _ = try await yard.metadata.unlinkTrimmed(tenure.stream, limit: 10)
        return row
    }

    // MARK: G3

    enum Orphan: CaseIterable { case old, young, own, ofWrongClock, ofWrongerClock }

    @Test(arguments: Orphan.allCases) func whatIsYoungIsNoOrphan(orphan: Orphan) throws {
        let isBroken = orphan == .young || orphan == .ofWrongClock
        try Self.expect(isBroken ? "G3" : nil, "is taken for an orphan after") { yard in
            let tenure = try await yard.open()
            let (body, row) = try yard.segment(tenure, 0..<3)
            let writer = orphan == .own ? yard.store : yard.channelStore
            _ = try await writer.put(row.object, [body], ifAbsent: true)
            switch orphan {
            case .old: await yard.wait(Self.orphanNanoseconds)
            case .young: await yard.wait(Self.orphanNanoseconds - 1)
            case .own: break
            case .ofWrongClock, .ofWrongerClock:
                await yard.wait(.seconds(200))
                yard.worker.wallOffset = orphan == .ofWrongClock ? 999_999 : 1_000_000
            }
            try await yard.metadata.unlinkObject(row.storedObject)
        }
    }

    // MARK: G4

    enum Deleted: CaseIterable { case inOrder, uncondemned, atOnce, forgotten }

    @Test(arguments: Deleted.allCases)
    func objectsAreCondemnedThenDeletedThenForgotten(deleted: Deleted) throws {
        let what: String
        switch deleted {
        case .inOrder: what = ""
        case .uncondemned: what = "goes, and was not condemned"
        case .atOnce: what = "goes as soon as it is condemned"
        case .forgotten: what = "is forgotten before it is deleted"
        }
        try Self.expect(deleted == .inOrder ? nil : "G4", what) { yard in
            let row = try await Self.unlinkedRow(yard)
            await yard.wait(Self.planNanoseconds)
            if deleted != .uncondemned {
                _ = try await yard.metadata.condemn(row.storedObject, age: 0)
            }
            await yard.wait(Self.condemnedNanoseconds - (deleted == .atOnce ? 1 : 0))
            if deleted == .forgotten { try await yard.metadata.forgetObject(row.storedObject) }
            try await yard.store.delete(row.object)
            if deleted == .inOrder { try await yard.metadata.forgetObject(row.storedObject) }
        }
    }

    /// Else nobody would ever delete it.
    @Test(arguments: [false, true])
    func whatLosesItsLastSegmentIsGarbage(isForgotten: Bool) throws {
        try Self.expect(isForgotten ? "G4" : nil, "is forgotten with its last segment") { yard in
            let tenure = try await yard.open()
            let row = try await yard.write(tenure, 0..<3, chunk: 0)
            try await yard.flush(tenure, 3..<3, [], flushedEnd: 1, trimPoint: 3)
            _ = try await yard.rows.unlinkTrimmed(tenure.stream, limit: 10)
            if isForgotten {
                _ = try await yard.rows.condemn(row.storedObject, age: 0)
                try await yard.rows.forgetObject(row.storedObject)
            }
            await yard.ledger.unlinked(of: tenure.stream)
        }
    }

    // MARK: G6

    @Test(arguments: [false, true]) func aKeyNamesOneObjectForGood(isUsedAgain: Bool) throws {
        try Self.expect(isUsedAgain ? "G6" : nil, "names another object than before") { yard in
            let tenure = try await yard.open()
            let (body, row) = try yard.segment(tenure, 0..<3)
            try await yard.put(row.object, body)
            // A late copy of the same request is no other object.
            let other = isUsedAgain ? try yard.segment(tenure, 0..<3).body : body
            try await yard.put(row.object, other)
        }
    }

    /// Even where the first object is long gone.
    @Test func aKeyThatWasDeletedIsNotUsedAgain() throws {
        try Self.expect("G6", "names another object than before") { yard in
            let row = try await Self.unlinkedRow(yard)
            await yard.wait(Self.planNanoseconds)
            _ = try await yard.metadata.condemn(row.storedObject, age: 0)
            await yard.wait(Self.condemnedNanoseconds)
            try await yard.store.delete(row.object)
            try await yard.put(row.object, Bytes(utf8: "another"))
        }
    }

    @Test(arguments: [false, true])
    func aStreamsSegmentsArePublishedInOrder(isLate: Bool) throws {
        try Self.expect(isLate ? "G6" : nil, "is published behind what follows it") { yard in
            let tenure = try await yard.open()
            let (body, row) = try yard.segment(tenure, 3..<5)
            if isLate {
                // The metadata publishes in order: the ledger knew what follows, which is gone.
                yard.ledger.published[tenure.stream] = [row: 0]
                try await yard.rows.unlinkObject(row.storedObject)
            }
            try await yard.write(tenure, 0..<3, chunk: 0)
            try await yard.put(row.object, body)
            try await yard.flush(tenure, 3..<5, [row], flushedEnd: 1)
        }
    }
}
