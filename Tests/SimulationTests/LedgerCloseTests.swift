// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import Records
import Testing

@testable import Simulation

/// What the ledger finds besides breaches of its rules: retention, reads that miss, and in the end
/// what is left over.
@Suite struct LedgerCloseTests {
    /// What is found begins or ends with `what`; nothing is found where that is nil.
    private func expect(
        _ what: String?, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: @escaping (LedgerYard) async throws -> Void
    ) throws {
        let found = try LedgerYard.findings(of: body)
        #expect(found.count == (what == nil ? 0 : 1), "\(found)", sourceLocation: sourceLocation)
        let isMeant = found.allSatisfy { $0.contains(what ?? "") }
        #expect(isMeant, "\(found)", sourceLocation: sourceLocation)
    }

    enum Expiry: CaseIterable { case due, early, never, beyond }

    @Test(arguments: Expiry.allCases)
    func recordsExpireWhenTheyAreOldEnough(expiry: Expiry) throws {
        let what: String?
        switch expiry {
        case .due: what = nil
        case .early: what = "expires 59998ms behind its publication"
        case .never: what = "a expires below 3, and never should"
        case .beyond: what = "a expires beyond its tail"
        }
        try expect(what) { yard in
            let retention = expiry == .never ? RetentionPolicy.infinite : .age(seconds: 60)
            let tenure = try await yard.open(retention: retention)
            try await yard.write(tenure, 0..<3, chunk: 0)
            await yard.wait(expiry == .early ? .milliseconds(59_998) : .seconds(60))
            if expiry == .due {
                let boundary = try await yard.metadata.expire(tenure.stream) ?? 0
                if boundary != 3 { throw YardError("expired below \(boundary)") }
            } else {
                // The metadata would not.
                await yard.ledger.expired(tenure.stream, below: expiry == .beyond ? 4 : 3)
            }
        }
    }

    enum Emptiness: CaseIterable { case empty, open, full }

    @Test(arguments: Emptiness.allCases)
    func onlyWhatIsEmptyAndClosedIsDeletedAsEmpty(emptiness: Emptiness) throws {
        let what: String?
        switch emptiness {
        case .empty: what = nil
        case .open: what = "a is deleted as empty, and is open"
        case .full: what = "a is deleted as empty, and is not"
        }
        try expect(what) { yard in
            let tenure = try await yard.open()
            try await yard.write(tenure, 0..<3, chunk: 0)
            try await yard.flush(
                tenure, 3..<3, [], flushedEnd: 1, trimPoint: emptiness == .full ? 2 : 3,
                closes: emptiness != .open)
            await yard.ledger.deletedAsEmpty(tenure.stream)
        }
    }

    enum Miss: CaseIterable { case deleted, lost, unheardOf, unheardOfByWorker }

    /// A plan may be too old, but it never named what was not there.
    @Test(arguments: Miss.allCases, ["frontend", "cachey"])
    func readersMissWhatWasDeletedOnly(miss: Miss, kind: String) throws {
        let what: String?
        switch miss {
        case .deleted, .unheardOfByWorker: what = nil
        case .lost: what = "which segments refer to"
        case .unheardOf: what = "which never was there"
        }
        try expect(what) { yard in
            let tenure = try await yard.open()
            let row = try await yard.write(tenure, 0..<3, chunk: 0)
            var key = LogKeys.chunk(tenure.channel, 0)
            if miss == .deleted {
                await yard.wait(LedgerTests.planNanoseconds)
                try await yard.store.delete(key)
            } else if miss == .lost {
                key = row.object
                try await yard.objects.delete(key)
            } else {
                key = LogKeys.chunk(tenure.channel, 7)
            }
            let reader = miss == .unheardOfByWorker ? yard.store : yard.store(of: kind)
            do throws(StoreError) {
                _ = try await reader.get(key, range: 0..<10)
                throw StoreError(.failed, "\(key) is there")
            } catch {
                if error.kind != .notFound { throw error }
            }
        }
    }

    /// What is left over of a stream that was written to, deleted and purged, at each stage.
    @Test func whatNothingRefersToIsLeftOver() throws {
        var left: [[String]] = []
        try expect(nil) { yard in
            func look() async { left.append(await yard.ledger.leftovers(sealsToo: false)) }
            let tenure = try await yard.open()
            let row = try await yard.write(tenure, 0..<3, chunk: 0)
            await look()
            try await yard.retire(tenure, tail: 3, end: 1)
            await look()
            await yard.wait(LedgerTests.planNanoseconds)
            try await yard.store.delete(LogKeys.chunk(tenure.channel, 0))
            await look()
            try await yard.delete()
            await look()
            _ = try await yard.metadata.purgeStream(tenure.stream, limit: 10)
            await look()
            await yard.wait(LedgerTests.planNanoseconds)
            _ = try await yard.metadata.condemn(row.storedObject, age: 0)
            await yard.wait(LedgerTests.condemnedNanoseconds)
            try await yard.store.delete(row.object)
            await look()
            try await yard.metadata.forgetObject(row.storedObject)
            await look()
            left.append(await yard.ledger.leftovers(sealsToo: true))
        }
        // The key of the one segment is not known here.
        let found = left.map { $0.map { $0.replacing(/seg\/[0-9a-f\/]+/, with: "seg") } }
        let (log, stream) = ("wal/00000000000000000001/0000000000000000000", "stream ")
        #expect(found[0] == ["channel 1 is active"])
        #expect(found[1] == ["\(log)0 is left over"])
        #expect(found[2] == [], "the seal may stay for a month")
        #expect(found[3].count == 1 && found[3].allSatisfy { $0.hasPrefix(stream) })
        #expect(found[4] == ["seg is left over", "seg is unlinked garbage"])
        #expect(found[5] == ["seg is condemned garbage"])
        #expect(found[6] == [])
        #expect(found[7] == ["channel 1 is retired", "\(log)1 is left over"])
    }

    /// With all of it trimmed, one object still says where a stream ends.
    @Test func aLiveStreamsLastWordIsNotLeftOver() throws {
        var left: [[String]] = []
        try expect(nil) { yard in
            let tenure = try await yard.open()
            try await yard.flush(tenure, 0..<3, [], flushedEnd: 0, trimPoint: 3)
            let (former, old) = try yard.lastWord(tenure, tail: 2)
            let (key, body) = try yard.lastWord(tenure, tail: 3)
            try await yard.put(key, body)
            left.append(await yard.ledger.leftovers(sealsToo: false))
            try await yard.put(former, old)
            left.append(await yard.ledger.leftovers(sealsToo: false))
            try await yard.delete()
            left.append(await yard.ledger.leftovers(sealsToo: false))
        }
        let counts = left.map { $0.count { $0.hasSuffix("is left over") } }
        #expect(counts == [0, 1, 2], "\(left)")
    }
}
