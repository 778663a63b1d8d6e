// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import TestSupport
import Testing

@testable import CacheyRole

@Suite struct BoundsTests {
    @Test func memoryIsBounded() throws {
        let bench = try Bench { $0.memoryBytesMax = 20_000 }
        bench.put("o", 100_000)
        let call = bench.fetched("o", 0..<100_000)
        #expect(call.ended?.status == .ok && call.body.count == 100_000)
        #expect(bench.role.pages.memory.bytes <= 20_000)
        #expect(bench.role.pages.memory.count > 10)
    }

    @Test func getsAreBounded() throws {
        let bench = try Bench { $0.getsMax = 4 }
        bench.put("o", 50_000)
        bench.bucket.usual = .serve(after: .seconds(1))
        let calls = (0..<50).map { bench.fetch("o", $0 * 1_000..<$0 * 1_000 + 1) }
        bench.loop.advance(.seconds(20))
        #expect(bench.bucket.runningMost == 4)
        #expect(calls.allSatisfy { $0.ended?.status == .ok })
    }

    @Test func tooManyFlightsAreRefused() throws {
        let bench = try Bench {
            $0.flightsMax = 2
            $0.waitersMax = 3
        }
        bench.put("o", 50_000)
        bench.bucket.usual = .serve(after: .seconds(1))
        let first = bench.fetch("o", 0..<1)
        let second = bench.fetch("o", 1_000..<1_001)
        #expect(bench.fetch("o", 2_000..<2_001).ended?.status == .overloaded)
        let third = bench.fetch("o", 0..<9)
        #expect(bench.fetch("o", 0..<9).ended?.status == .overloaded)
        bench.loop.advance(.seconds(2))
        for call in [first, second, third] { #expect(call.ended?.status == .ok) }
    }

    @Test func tooManySessionsAreRefused() throws {
        let bench = try Bench { $0.sessionsMax = 2 }
        bench.put("o", 10)
        bench.bucket.usual = .serve(after: .seconds(1))
        let calls = (0..<2).map { _ in bench.fetch("o", 0..<1) }
        #expect(bench.fetch("o", 0..<1).ended?.status == .overloaded)
        let exchange = bench.http("GET", "/fetch/b/o", [("range", "bytes=0-0")])
        #expect(exchange.status == 503)
        bench.loop.advance(.seconds(2))
        #expect(calls.allSatisfy { $0.ended?.status == .ok })
    }

    @Test func aReaderThatDoesNotReadHoldsLittle() throws {
        let bench = try Bench()
        let object = bench.put("o", 50_000)
        let call = FakeCall()
        call.holdsUnsent = true
        bench.begin(call, "o", 0..<50_000)
        bench.loop.advance(.milliseconds(100))
        #expect(call.messages.count == 1 && bench.gets <= 3)
        call.takeUnsent()
        bench.loop.advance(.milliseconds(100))
        #expect(call.messages.count == 2)
        call.holdsUnsent = false
        call.takeUnsent()
        bench.loop.advance(.seconds(1))
        #expect(call.ended?.status == .ok && call.body == object)
    }

    @Test func aReaderThatNeverReadsIsGivenUp() throws {
        let bench = try Bench { $0.stallNanoseconds = .seconds(10) }
        bench.put("o", 50_000)
        let call = FakeCall()
        call.holdsUnsent = true
        bench.begin(call, "o", 0..<50_000)
        bench.loop.advance(.seconds(9))
        #expect(call.ended == nil)
        bench.loop.advance(.seconds(2))
        #expect(call.ended?.status == .deadlineExceeded && bench.role.sessions.count == 0)
    }

    @Test func deadlinesHold() throws {
        let bench = try Bench()
        bench.put("o", 100)
        bench.bucket.usual = .serve(after: .seconds(5))
        let call = bench.fetch("o", 0..<100, deadline: .seconds(1))
        bench.loop.advance(.milliseconds(1_001))
        #expect(call.ended?.status == .deadlineExceeded)
        #expect(bench.role.pages.flights.waiterCount == 0)
    }

    /// Sessions share the room of three pages; all get through, whatever the order.
    @Test(arguments: [1, 2, 3, 7])
    func servedPagesAreBounded(_ room: Int) throws {
        let bench = try Bench {
            $0.servedBytesMax = room * Bench.pageBytes
            $0.memoryBytesMax = 0
        }
        let object = bench.put("o", 10_500)
        bench.bucket.usual = .serve(after: .milliseconds(10))
        let calls = (0..<10).map { bench.fetch("o", $0 * 100..<10_500) }
        #expect(bench.role.pages.flights.waiterCount <= room)
        // One of them never reads, and one leaves while it waits.
        calls[3].holdsUnsent = true
        calls[9].onEnd?(.cancelled, Bytes())
        bench.loop.advance(.seconds(8))
        for (index, call) in calls.enumerated() where index != 3 && index != 9 {
            // Alone with the one that does not read, nobody gets on.
            if room == 1, call.ended == nil { continue }
            #expect(call.ended?.status == .ok && call.body == object[index * 100..<10_500])
        }
        calls[3].holdsUnsent = false
        calls[3].takeUnsent()
        bench.loop.advance(.seconds(20))
        for (index, call) in calls.enumerated() where index != 9 {
            #expect(call.ended?.status == .ok && call.body == object[index * 100..<10_500])
        }
        #expect(bench.role.sessions.count == 0)
    }

    @Test func drainingRefusesAndFinishes() throws {
        let bench = try Bench()
        let object = bench.put("o", 3_000)
        bench.bucket.usual = .serve(after: .seconds(1))
        let call = bench.fetch("o", 0..<3_000)
        var isDrained = false
        bench.loop.spawn { [role = bench.role] in
            await role.drain(within: .seconds(30))
            isDrained = true
        }
        bench.loop.settle()
        #expect(!bench.role.isReady && !isDrained)
        #expect(bench.fetch("o", 0..<1).ended?.status == .draining)
        #expect(bench.http("GET", "/fetch/b/o", [("range", "bytes=0-0")]).status == 503)
        bench.loop.advance(.seconds(5))
        #expect(isDrained && call.ended?.status == .ok && call.body == object)
    }

    @Test func drainingEndsInTime() throws {
        let bench = try Bench()
        bench.put("o", 3_000)
        bench.bucket.usual = .serve(after: .seconds(3_600))
        let call = bench.fetch("o", 0..<3_000)
        var isDrained = false
        bench.loop.spawn { [role = bench.role] in
            await role.drain(within: .seconds(3))
            isDrained = true
        }
        bench.loop.advance(.seconds(4))
        #expect(isDrained && bench.role.sessions.count == 0)
        #expect(call.messages.isEmpty)
    }
}

@Suite struct EnrolmentTests {
    @Test func cacheysRenewLeaveAndStrikeTheDead() throws {
        let bench = try Bench { $0.forgetNanoseconds = .seconds(20) }
        let registry = bench.registry
        func rows() throws -> [CacheyRow] {
            var found: [CacheyRow] = []
            try bench.run { found = try await registry.cacheys(zone: nil) }
            return found
        }
        #expect(try rows().map(\.address) == ["c:1"])
        try bench.run {
            _ = try await registry.registerCachey(CacheyRegistration(zone: "z", address: "d:1"))
        }
        bench.loop.advance(.seconds(10))
        #expect(try rows().map(\.address) == ["c:1", "d:1"])
        #expect(try rows()[0].renewals >= 9)
        bench.loop.advance(.seconds(30))
        #expect(try rows().map(\.address) == ["c:1"], "the other one never renewed")

        // Struck by mistake, it comes back under another id.
        let id = try rows()[0].id
        try bench.run { try await registry.removeCachey(id, renewals: nil) }
        bench.loop.advance(.seconds(3))
        #expect(try rows().map(\.address) == ["c:1"] && rows()[0].id > id)

        try bench.run { [role = bench.role] in await role.drain() }
        bench.loop.advance(.seconds(5))
        #expect(try rows() == [])
    }

    @Test func theLoadIsTold() throws {
        let bench = try Bench()
        bench.put("o", 1_000)
        for _ in 0..<40 {
            _ = bench.fetched("o", 0..<1_000)
            bench.loop.advance(.milliseconds(500))
        }
        var load: CacheyLoad?
        try bench.run { [registry = bench.registry] in
            load = try await registry.cacheys(zone: "local").first?.load
        }
        let rate = try #require(load).egressBytesPerSecond
        #expect(rate >= 1_800 && rate <= 2_200, "\(rate)")
    }
}

@Suite struct DiskTierTests {
    private func restarted(_ bench: Bench, _ disk: FakeDisk) throws -> Bench {
        let next = try Bench(
            loop: bench.loop, registry: bench.registry, ["b"], disk
        ) { $0.memoryBytesMax = 3_000 }
        next.bucket.objects = bench.bucket.objects
        next.loop.advance(.milliseconds(10))
        return next
    }

    private func bench(_ disk: FakeDisk, diskBytes: Int = 1 << 20) throws -> Bench {
        let bench = try Bench(disk: disk) {
            $0.memoryBytesMax = 3_000
            $0.diskBytesMax = diskBytes
        }
        bench.loop.advance(.milliseconds(10))
        return bench
    }

    @Test func theIndexIsBoundedHoweverSmallThePages() throws {
        let disk = FakeDisk(ManualLoop())
        let bench = try Bench(disk: disk) {
            $0.memoryBytesMax = 3_000
            $0.diskPagesMax = 16
        }
        bench.loop.advance(.milliseconds(10))
        for number in 0..<100 {
            bench.put("o\(number)", 10)
            #expect(bench.fetched("o\(number)", 0..<10).ended?.status == .ok)
            bench.loop.advance(.milliseconds(10))
            #expect((bench.role.pages.disk?.pageCount ?? 0) <= 16)
        }
        #expect((bench.role.pages.disk?.pageCount ?? 0) > 8, "only the oldest leave")
    }

    @Test func whatCannotGoToDiskIsNotKeptForIt() throws {
        let disk = FakeDisk(ManualLoop())
        disk.listingFails = true
        let bench = try Bench(disk: disk) { $0.memoryBytesMax = 3_000 }
        let object = bench.put("o", 20_000)
        for _ in 0..<2 {
            #expect(bench.fetched("o", 0..<20_000).body == object)
            bench.loop.advance(.seconds(60))
            #expect(bench.role.pages.disk?.queuedBytes == 0)
        }
        #expect(disk.writes == 0)
    }

    @Test func pagesComeFromDiskAfterMemory() throws {
        let disk = FakeDisk(ManualLoop())
        let bench = try bench(disk)
        let object = bench.put("o", 20_000)
        #expect(bench.fetched("o", 0..<20_000).ended?.status == .ok)
        bench.loop.advance(.milliseconds(10))
        #expect(disk.writes == 20, "each page is written once")
        let again = bench.fetched("o", 0..<20_000)
        #expect(again.ended?.status == .ok && again.body == object)
        #expect(bench.gets == 20 && bench.role.metrics.count(.disk) >= 17)
        bench.loop.advance(.milliseconds(10))
        #expect(disk.writes == 20, "what leaves memory again is there already")
    }

    @Test func pagesSurviveARestart() throws {
        let disk = FakeDisk(ManualLoop())
        let first = try bench(disk)
        let object = first.put("o", 20_500)
        _ = first.fetched("o", 0..<20_500)
        first.loop.advance(.milliseconds(10))
        let second = try restarted(first, disk)
        let call = second.fetched("o", 0..<20_500)
        #expect(call.ended?.status == .ok && call.body == object && second.gets == 0)
        #expect(second.role.metrics.count(.disk) == 21)
        // A later run writes to blocks of its own.
        second.put("p", 1_000)
        _ = second.fetched("p", 0..<1_000)
        second.loop.advance(.milliseconds(10))
        let third = try restarted(second, disk)
        #expect(third.fetched("p", 0..<1_000).ended?.status == .ok && third.gets == 0)
        #expect(third.role.pages.disk?.pageCount == 22)
    }

    @Test func damageIsAMiss() throws {
        let disk = FakeDisk(ManualLoop())
        let first = try bench(disk)
        let object = first.put("o", 20_000)
        _ = first.fetched("o", 0..<20_000)
        first.loop.advance(.milliseconds(10))
        let second = try restarted(first, disk)
        let block = try #require(disk.contents.keys.min())
        disk.damage(block, at: 500)
        let call = second.fetched("o", 0..<20_000)
        #expect(call.ended?.status == .ok && call.body == object)
        #expect(second.gets == 1 && second.role.metrics.diskCorruptions.value == 1)
    }

    @Test func aTornEndCostsOnlyItself() throws {
        let disk = FakeDisk(ManualLoop())
        let first = try bench(disk)
        let object = first.put("o", 20_000)
        _ = first.fetched("o", 0..<20_000)
        first.loop.advance(.milliseconds(10))
        let block = try #require(disk.contents.keys.max())
        let count = try #require(disk.contents[block]).count
        disk.cut(block, to: count - 900)
        let second = try restarted(first, disk)
        let call = second.fetched("o", 0..<20_000)
        #expect(call.ended?.status == .ok && call.body == object && second.gets == 1)
        // It was written again, to another block.
        second.loop.advance(.milliseconds(10))
        disk.cut(block, to: count - 1_050)
        let third = try restarted(second, disk)
        #expect(third.fetched("o", 0..<20_000).body == object && third.gets == 0)
    }

    @Test func blocksFullOfRubbishAreHarmless() throws {
        let disk = FakeDisk(ManualLoop())
        let random = RandomSource.seeded(7)
        let rubbish = Bytes((0..<50_000).map { _ in UInt8(truncatingIfNeeded: random.next()) })
        let writer = try Bench(disk: disk)
        try writer.run { try await disk.write([rubbish], block: 3, offset: 0) }
        let bench = try bench(disk)
        let object = bench.put("o", 3_000)
        #expect(bench.fetched("o", 0..<3_000).body == object)
        #expect((bench.role.pages.disk?.bytes ?? 0) >= 50_000, "it takes room all the same")
    }

    @Test func theDiskIsBounded() throws {
        let disk = FakeDisk(ManualLoop())
        let bench = try bench(disk, diskBytes: 40_000)
        bench.put("o", 300_000)
        for start in stride(from: 0, to: 300_000, by: 10_000) {
            _ = bench.fetched("o", start..<start + 10_000)
            bench.loop.advance(.milliseconds(5))
        }
        #expect(disk.bytesMost <= 40_000 && disk.bytesMost > 30_000)
        #expect(bench.role.pages.disk?.bytes == disk.bytes)
        // With a smaller bound at the next start, the surplus goes with the next write.
        let smaller = try Bench(loop: bench.loop, registry: bench.registry, ["b"], disk) {
            $0.diskBytesMax = 20_000
            $0.memoryBytesMax = 0
        }
        smaller.bucket.objects = bench.bucket.objects
        smaller.loop.advance(.milliseconds(10))
        _ = smaller.fetched("o", 0..<1_000)
        smaller.loop.advance(.milliseconds(10))
        #expect(disk.bytes <= 20_000)
    }

    @Test func aBrokenDiskCostsOnlyHits() throws {
        let disk = FakeDisk(ManualLoop())
        disk.writesFail = true
        let bench = try bench(disk)
        let object = bench.put("o", 50_000)
        #expect(bench.fetched("o", 0..<50_000).body == object)
        bench.loop.advance(.milliseconds(10))
        #expect(disk.writes == 1, "after a failure it is left alone")
        disk.writesFail = false
        bench.loop.advance(.seconds(31))
        #expect(bench.fetched("o", 0..<50_000).body == object)
        bench.loop.advance(.milliseconds(10))
        #expect(disk.writes > 40)
        disk.removalsFail = true
        #expect(bench.fetched("o", 0..<50_000).body == object)
    }

    @Test func aHungDiskIsNotWaitedFor() throws {
        let disk = FakeDisk(ManualLoop())
        let bench = try bench(disk)
        let object = bench.put("o", 20_000)
        _ = bench.fetched("o", 0..<20_000)
        bench.loop.advance(.milliseconds(10))
        disk.readDelay = .seconds(3_600)
        let call = bench.fetch("o", 0..<1_000)
        bench.loop.advance(.milliseconds(1_900))
        #expect(call.ended == nil)
        bench.loop.advance(.milliseconds(200))
        #expect(call.ended?.status == .ok && call.body == object[0..<1_000])
    }

    @Test func anotherCellsPagesAreNotServed() throws {
        let disk = FakeDisk(ManualLoop())
        let first = try bench(disk)
        first.put("o", 1_000)
        _ = first.fetched("o", 0..<1_000)
        first.loop.advance(.milliseconds(10))
        let tier = DiskTier(
            disk, world: first.world, limits: first.limits, metrics: first.role.metrics)
        tier.start(cell: ID128(high: 9, low: 9))
        first.loop.advance(.milliseconds(10))
        #expect(tier.pageCount == 0 && tier.bytes > 1_000)
    }
}

@Suite struct NamesTests {
    /// The names and labels of all that is measured.
    private func series(_ bench: Bench) -> Set<String> {
        let lines = bench.http("GET", "/metrics").body.lossyText.split(separator: "\n")
        let samples = lines.filter { !$0.hasPrefix("#") }
        return Set(samples.map { String($0[..<($0.lastIndex(of: " ") ?? $0.endIndex)]) })
    }

    private func scoreCount(_ bench: Bench) -> Int? {
        let scores = Mirror(reflecting: bench.role.pages.downloads.scores)
        let entries = scores.children.first { $0.label == "entries" }
        return (entries?.value as? [BucketScores.Entry])?.count
    }

    @Test func whatClientsMakeUpIsNotRemembered() throws {
        let bench = try Bench(buckets: ["b", "c"])
        let range = (name: "range", value: "bytes=0-99")
        let before = series(bench)
        #expect(before.count > 50 && scoreCount(bench) == 2)
        var statuses: [Int: Int] = [:]
        var answers: [Status: Int] = [:]
        for number in 0..<100 {
            let (object, bucket) = ("object-\(number)", "bucket-\(number)")
            if number % 2 == 0 { bench.put(object, 100) }
            let path = "/fetch/kind-\(number)/\(object)"
            for names in [[bucket], [bucket, "b"], ["c", bucket]] {
                let headers = names.map { (name: "c0-bucket", value: $0) }
                let status = bench.http("GET", path, [range] + headers).status ?? 0
                statuses[status, default: 0] += 1
                let call = bench.fetched(object, 0..<100, names)
                answers[call.ended?.status ?? .malformed, default: 0] += 1
            }
            // Without any, the kind is the bucket's name.
            statuses[bench.http("GET", path, [range]).status ?? 0, default: 0] += 1
        }
        #expect(statuses == [400: 200, 206: 100, 404: 100])
        #expect(answers == [.unavailable: 100, .ok: 100, .objectNotFound: 100])
        #expect(series(bench) == before)
        #expect(scoreCount(bench) == 2)
    }
}
