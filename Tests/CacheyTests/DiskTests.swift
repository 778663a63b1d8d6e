// SPDX-License-Identifier: Apache-2.0

import Foundation
import Metadata
import ObjectStorage
import Observability
import Primitives
import TestSupport
import Testing

@testable import Cachey
@testable import CacheyRole

@Suite struct DiskRecordTests {
    private let context = DiskRecord.Context(cell: ID128(high: 1, low: 2), pageBytes: 100)

    private func record(_ key: PageKey, _ page: CachedPage) throws -> Bytes {
        try #require(DiskRecord.encode(key, page, context)).joined()
    }

    @Test(arguments: [1, 99, 100])
    func aPageComesBack(_ count: Int) throws {
        let page = page(count, of: 300 + count, bucket: "b-1")
        let key = PageKey(bucketSet: "a,b-1", object: "seg/ü/1", number: 3)
        let bytes = try record(key, page)
        #expect(DiskRecord.page(in: bytes, of: key, context) == page)
        let (head, isOurs) = try #require(DiskRecord.decode(bytes, context))
        #expect(isOurs && head.key == key && head.recordBytes == bytes.count)
    }

    @Test func longNamesFitAndLongerOnesAreRefused() throws {
        let long = String(repeating: "x", count: 1_024)
        let key = PageKey(bucketSet: long, object: long, number: 0)
        let page = page(1, bucket: long)
        let bytes = try record(key, page)
        #expect(DiskRecord.page(in: bytes, of: key, context) == page)
        #expect(bytes.count - 1 == DiskRecord.headBytesMax)
        #expect(
            DiskRecord.encode(
                PageKey(bucketSet: "b", object: long + "x", number: 0), page, context) == nil)
    }

    @Test func everyDamageIsAMiss() throws {
        let key = key(0)
        let bytes = try record(key, page(50))
        for index in 0..<bytes.count {
            var damaged = bytes.array
            damaged[index] ^= 0x10
            #expect(DiskRecord.page(in: Bytes(damaged), of: key, context) == nil, "byte \(index)")
            #expect(DiskRecord.page(in: bytes.prefix(index), of: key, context) == nil)
        }
        #expect(DiskRecord.page(in: bytes, of: CacheyTests.key(1), context) == nil, "another page")
    }

    /// Nothing that was damaged is taken for a page, and no record claims more than there is.
    @Test func fuzzDamagedRecords() throws {
        let key = PageKey(bucketSet: "a,b", object: "seg/00/1", number: 2)
        let whole = try record(key, page(70, of: 270, bucket: "b"))
        var damage = Damage(seed: 12)
        for _ in 0..<fuzzIterations {
            let damaged = damage.damaged(whole)
            let page = DiskRecord.page(in: damaged, of: key, context)
            #expect((page != nil) == (damaged == whole))
            #expect(DiskRecord.decode(damage.noise(countMax: 120), context) == nil)
            guard let (record, _) = DiskRecord.decode(damaged, context) else { continue }
            #expect(record.headBytes <= damaged.count)
            #expect(record.contentLength <= context.pageBytes)
        }
    }

    @Test func otherCellsAndPageSizesAreNotOurs() throws {
        let bytes = try record(key(0), page(50))
        for other in [
            DiskRecord.Context(cell: ID128(high: 1, low: 3), pageBytes: 100),
            DiskRecord.Context(cell: ID128(high: 1, low: 2), pageBytes: 200),
        ] {
            #expect(DiskRecord.page(in: bytes, of: key(0), other) == nil)
            #expect(try #require(DiskRecord.decode(bytes, other)).isOurs == false)
        }
    }
}

@Suite struct DiskIndexTests {
    private func fill(_ index: inout DiskIndex, _ number: Int, _ bytes: Int) -> [UInt64] {
        var removed: [UInt64] = []
        while true {
            switch index.reserve(bytes) {
            case .never: return removed
            case .afterRemoving(let block):
                removed.append(block)
                index.remove(block: block)
            case .at(let block, let offset):
                index.insert(
                    key(number), DiskIndex.Place(block: block, offset: offset, bytes: bytes))
                return removed
            }
        }
    }

    @Test func theOldestBlockMakesRoom() {
        var index = DiskIndex(bytesMax: 800)
        for number in 0..<100 {
            _ = fill(&index, number, 30)
            #expect(index.bytes <= 800)
        }
        #expect(index.find(key(99)) != nil && index.find(key(0)) == nil)
        #expect(index.pageCount <= 26 && index.pageCount >= 20)
        #expect(index.isFresh(key(99)) && !index.isFresh(key(0)))
        let oldest = (0..<100).first { index.find(key($0)) != nil }!
        #expect(!index.isFresh(key(oldest)))
        #expect(index.reserve(401) == .never)
    }

    @Test func aPageThatWasWrittenAgainSurvivesItsOldBlock() {
        var index = DiskIndex(bytesMax: 800)
        _ = fill(&index, 0, 90)
        let old = index.find(key(0))!
        for number in 1..<6 { _ = fill(&index, number, 90) }
        _ = fill(&index, 0, 90)
        let new = index.find(key(0))!
        #expect(new != old)
        index.remove(block: old.block)
        #expect(index.find(key(0)) == new)
        index.forget(key(0), old)
        #expect(index.find(key(0)) == new)
        index.forget(key(0), new)
        #expect(index.find(key(0)) == nil)
    }

    @Test func aBlockThatFailedTakesNoMore() {
        var index = DiskIndex(bytesMax: 8_000)
        guard case .at(let first, 0) = index.reserve(10) else { return #expect(Bool(false)) }
        index.closeBlock()
        guard case .at(let second, 0) = index.reserve(10) else { return #expect(Bool(false)) }
        #expect(second > first && index.bytes == 20)
    }
}

/// The disk tier with files, as the program runs it.
@Suite(.serialized) struct FolderDiskTests {
    private func withFolder(_ body: (String) async throws -> Void) async throws {
        let path =
            FileManager.default.temporaryDirectory.path
            + "/millrace-cachey-\(UUID().uuidString)/pages"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(path)
    }

    @Test func blocksAreFiles() async throws {
        try await withFolder { path in
            let disk = try FolderDisk(path: path)
            #expect(try await disk.blocks() == [])
            try await disk.write([Bytes(utf8: "ab"), Bytes(utf8: "c")], block: 7, offset: 0)
            try await disk.write([Bytes(utf8: "d")], block: 7, offset: 3)
            try await disk.write([Bytes(utf8: "x")], block: .max, offset: 2)
            #expect(
                try await disk.blocks().sorted { $0.number < $1.number }
                    == [DiskBlock(number: 7, bytes: 4), DiskBlock(number: .max, bytes: 3)])
            #expect(try await disk.read(block: 7, 1..<3) == Bytes(utf8: "bc"))
            #expect(try await disk.read(block: 7, 2..<90) == Bytes(utf8: "cd"))
            #expect(try await disk.read(block: 7, 90..<91).isEmpty)
            try await disk.remove(block: 7)
            try await disk.remove(block: 7)
            await #expect(throws: DiskError.self) { try await disk.read(block: 7, 0..<1) }
        }
    }

    @Test func aFolderHasOneUser() async throws {
        try await withFolder { path in
            do {
                let disk = try FolderDisk(path: path)
                #expect(throws: DiskError.self) { try FolderDisk(path: path) }
                _ = try await disk.blocks()
            }
            _ = try FolderDisk(path: path)
        }
    }

    @Test func pagesSurviveARestart() async throws {
        try await withFolder { path in
            for round in 0..<3 {
                let loop = ThreadLoop()
                try await loop.run {
                    let disk = try FolderDisk(path: path)
                    let tier = FolderDiskTests.tier(disk, loop)
                    tier.start(cell: ID128(high: 1, low: 1))
                    if round == 0 {
                        for number in 0..<20 { tier.keep(key(number), page(1_000, of: 20_000)) }
                    }
                    for _ in 0..<60_000 where tier.pageCount < 20 || !tier.isIdle {
                        await loop.sleep(.milliseconds(1))
                    }
                    for number in 0..<20 {
                        let found = await withUnsafeContinuation { waiter in
                            tier.read(key(number)) { waiter.resume(returning: $0) }
                        }
                        #expect(found == page(1_000, of: 20_000), "round \(round) page \(number)")
                    }
                }
                loop.stop()
            }
        }
    }

    private static func tier(_ disk: FolderDisk, _ loop: any Loop) -> DiskTier {
        var limits = CacheyLimits(address: "c:1")
        limits.pageBytes = Bench.pageBytes
        limits.diskBytesMax = 1 << 20
        let metrics = Metrics(role: "cachey")
        return DiskTier(
            disk,
            world: CacheyWorld(
                loop: loop, registry: MemoryMetadata { 1 },
                buckets: [Bucket(name: "b", store: MemoryStore())], disk: disk, log: .silent,
                metrics: metrics),
            limits: limits, metrics: CacheyMetrics(metrics))
    }
}
