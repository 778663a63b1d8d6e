// SPDX-License-Identifier: Apache-2.0

import Primitives
import Records
import TestSupport
import Testing

/// A random stream of records, as the naive implementation stores it.
struct NaiveRun {
    var records: [Naive.Record] = []
    var positions: [StreamPosition] = []
    var elements: [[UInt8]] = []

    init(seed: UInt64, count: Int, from seqNum: UInt64 = 0) {
        var random = SplitMix64(seed: seed)
        var timestamp: UInt64 = random.next() % 3
        for i in 0..<count {
            let record = Naive.record(&random)
            timestamp += random.next() % 3
            records.append(record)
            positions.append(
                StreamPosition(seqNum: seqNum + UInt64(i), timestamp: timestamp))
            elements.append(
                Naive.stored(record, seqNum: seqNum + UInt64(i), timestamp: timestamp))
        }
    }

    var bytes: Bytes { Bytes(elements.flatMap { $0 }) }
    /// Where each record begins, and the end.
    var offsets: [Int] { elements.reduce(into: [0]) { $0.append($0.last! + $1.count) } }
}

@Suite struct StoredRecordsTests {
    @Test(arguments: [0, 1, 126, 1 << 14, 1 << 40, UInt64.max - 20] as [UInt64])
    func sequencingMatchesTheNaiveEncoder(from seqNum: UInt64) throws {
        var random = SplitMix64(seed: seqNum)
        for mode in TimestampingMode.allCases {
            var input = Naive.Input()
            for _ in 0..<10 {
                var record = Naive.record(&random)
                if mode == .clientRequire { record.timestamp = Naive.number(&random) }
                input.records.append(record)
            }
            let batch = try AppendInputDecoder.decode(Bytes(Naive.canonical(input)))
            let now = Naive.number(&random)
            let assigner = TimestampAssigner(
                mode: mode, isUncapped: seqNum % 2 == 1, now: now, previous: 99)
            let sequenced = try SequencedBatch(batch, from: seqNum, timestamps: assigner)
            #expect(sequenced.isComplete && sequenced.count == 10)
            var previous: UInt64 = 99
            var expected: [UInt8] = []
            for (i, record) in input.records.enumerated() {
                var time = mode == .arrival ? now : record.timestamp ?? now
                if seqNum % 2 == 0 { time = min(time, now) }
                time = max(time, previous)
                previous = time
                if i == 0 {
                    #expect(sequenced.start == StreamPosition(seqNum: seqNum, timestamp: time))
                }
                expected += Naive.stored(record, seqNum: seqNum + UInt64(i), timestamp: time)
            }
            #expect(sequenced.storedBytes == expected.count)
            #expect(sequenced.stored().array == expected)
            #expect(
                sequenced.end == StreamPosition(seqNum: seqNum + 10, timestamp: previous))
        }
    }

    @Test func aRequiredTimestampIsRequired() throws {
        let input = Naive.Input(records: [Naive.Record(timestamp: 1), Naive.Record()])
        let batch = try AppendInputDecoder.decode(Bytes(Naive.canonical(input)))
        let assigner = TimestampAssigner(
            mode: .clientRequire, isUncapped: false, now: 5, previous: 0)
        let sequenced = try SequencedBatch(batch, from: 0, timestamps: assigner)
        #expect(!sequenced.isComplete)
    }

    @Test func timestampRules() {
        func next(
            _ mode: TimestampingMode, uncapped: Bool = false, previous: UInt64 = 10,
            _ client: UInt64?
        ) -> UInt64? {
            var assigner = TimestampAssigner(
                mode: mode, isUncapped: uncapped, now: 100, previous: previous)
            return assigner.next(client)
        }
        #expect(next(.arrival, 50) == 100)
        #expect(next(.arrival, previous: 200, nil) == 200)
        #expect(next(.clientPrefer, 50) == 50)
        #expect(next(.clientPrefer, nil) == 100)
        #expect(next(.clientPrefer, 5) == 10)
        #expect(next(.clientPrefer, 500) == 100)
        #expect(next(.clientPrefer, uncapped: true, 500) == 500)
        #expect(next(.clientPrefer, previous: 300, 500) == 300)
        #expect(next(.clientRequire, 50) == 50)
        #expect(next(.clientRequire, 0) == 10)
        #expect(next(.clientRequire, nil) == nil)
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func walks(seed: UInt64) throws {
        let run = NaiveRun(seed: seed, count: 30, from: seed * 10)
        let bytes = run.bytes
        var walk = StoredRecords(bytes)
        for (i, record) in run.records.enumerated() {
            let found = try #require(try walk.next())
            #expect(found.position == run.positions[i])
            #expect(found.element == run.offsets[i]..<run.offsets[i + 1])
            #expect(found.meteredBytes == record.metered)
            #expect(found.isCommand == record.isCommand)
            #expect(bytes[found.body].array == record.body)
            #expect(try found.headers(in: bytes) == record.memory)
            if record.isCommand {
                _ = try Command(storedFields: bytes[found.fields])
            } else {
                #expect(throws: DecodeError.self) {
                    try Command(storedFields: bytes[found.fields])
                }
            }
        }
        #expect(try walk.next() == nil)
        let batch = try ReadBatch(bytes)
        #expect(batch.tail == nil)
        #expect(batch.records.map(\.seqNum) == run.positions.map(\.seqNum))
        #expect(batch.records.map(\.headers) == run.records.map(\.memory))
        #expect(batch.records.map(\.body.array) == run.records.map(\.body))
    }

    @Test func searches() throws {
        for seed in 0..<20 as Range<UInt64> {
            let run = NaiveRun(seed: seed, count: 20, from: 5)
            for seqNum in 0..<30 as Range<UInt64> {
                let i = run.positions.firstIndex { $0.seqNum >= seqNum } ?? 20
                #expect(
                    try StoredRecords.offset(in: run.bytes, seqNum: seqNum) == run.offsets[i])
            }
            for timestamp in 0..<70 as Range<UInt64> {
                let i = run.positions.firstIndex { $0.timestamp >= timestamp } ?? 20
                #expect(
                    try StoredRecords.offset(in: run.bytes, timestamp: timestamp)
                        == run.offsets[i])
            }
        }
    }

    @Test func cuts() throws {
        var random = SplitMix64(seed: 5)
        for seed in 0..<300 as Range<UInt64> {
            let run = NaiveRun(seed: seed, count: Int(random.next() % 12), from: 3)
            func maybe(_ bound: UInt64) -> UInt64? {
                random.next() % 2 == 0 ? nil : random.next() % bound
            }
            let limits = ReadLimits(count: maybe(12), meteredBytes: maybe(3_000), until: maybe(20))
            let bounds = ReadBatchBounds(
                recordsMax: Int(random.next() % 12) + 1,
                meteredBytesMax: Int(random.next() % 9_000) + 1,
                storedBytesMax: Int(random.next() % 9_000) + 1)
            let cut = try limits.cut(run.bytes, within: bounds)
            try check(cut, run, limits, bounds)
        }
    }

    /// The limits, one record at a time.
    private func check(
        _ cut: RecordCut, _ run: NaiveRun, _ limits: ReadLimits, _ bounds: ReadBatchBounds
    ) throws {
        var count = 0
        var metered = 0
        var stop = RecordCut.Stop.runEnded
        while true {
            if limits.count.map({ $0 == UInt64(count) }) ?? false
                || limits.meteredBytes.map({ $0 == UInt64(metered) }) ?? false
            {
                stop = .limitReached
                break
            }
            guard count < run.records.count else { break }
            let next = metered + run.records[count].metered
            if limits.meteredBytes.map({ UInt64(next) > $0 }) ?? false
                || limits.until.map({ run.positions[count].timestamp >= $0 }) ?? false
            {
                stop = .limitReached
                break
            }
            if count > 0,
                count == bounds.recordsMax || next > bounds.meteredBytesMax
                    || run.offsets[count + 1] > bounds.storedBytesMax
            {
                stop = .batchFull
                break
            }
            count += 1
            metered = next
        }
        #expect(cut.count == count)
        #expect(cut.meteredBytes == metered)
        #expect(cut.stop == stop)
        #expect(cut.last == (count == 0 ? nil : run.positions[count - 1]))
        #expect(cut.records == run.bytes[0..<run.offsets[count]])
        var rest = limits
        rest.subtract(cut)
        #expect(rest.count == limits.count.map { $0 - UInt64(count) })
        #expect(rest.meteredBytes == limits.meteredBytes.map { $0 - UInt64(metered) })
    }

    @Test func cutCorners() throws {
        let run = NaiveRun(seed: 1, count: 3)
        let metered = UInt64(run.records.reduce(0) { $0 + $1.metered })
        #expect(try ReadLimits(count: 0).cut(run.bytes).limitHit)
        #expect(try ReadLimits(meteredBytes: 0).cut(run.bytes).count == 0)
        #expect(try ReadLimits(meteredBytes: 7).cut(run.bytes).limitHit)
        #expect(try ReadLimits(meteredBytes: metered).cut(run.bytes).count == 3)
        #expect(try ReadLimits(meteredBytes: metered).cut(run.bytes).limitHit)
        #expect(try ReadLimits(meteredBytes: metered - 1).cut(run.bytes).count == 2)
        #expect(try ReadLimits(until: 0).cut(run.bytes).limitHit)
        #expect(try ReadLimits().cut(run.bytes).stop == .runEnded)
        #expect(try ReadLimits().cut(Bytes()).stop == .runEnded)
        #expect(try ReadLimits(count: 0).cut(Bytes()).limitHit)
    }

    @Test func truncationIsNoticed() throws {
        let run = NaiveRun(seed: 9, count: 4)
        let bytes = run.bytes
        for length in 0...bytes.count {
            var walk = StoredRecords(bytes[0..<length])
            var found = 0
            var failed = false
            do {
                while try walk.next() != nil { found += 1 }
            } catch {
                #expect(error.reason == .truncated, "\(error)")
                failed = true
            }
            let whole = run.offsets.lastIndex { $0 <= length }!
            #expect(found == whole)
            #expect(failed == (run.offsets[whole] != length))
        }
    }

    @Test(arguments: [
        "00", "12 00", "0A 80 00", "0A 02 08 00", "0A 03 08 81 00", "0A 02 10 00",
        "0A 04 10 01 08 01", "0A 02 22 00", "0A 06 22 01 61 22 01 61", "0A 02 28 01",
        "0A 04 1A 02 0A 00", "0A 06 1A 04 12 01 61 0A", "0A 0B 08 FF FF FF FF FF FF FF FF FF 02",
    ])
    func refusesWhatIsNotStored(_ text: String) {
        var walk = StoredRecords(hex(text))
        #expect(throws: DecodeError.self) { try walk.next() }
    }

    /// What places a batch checks it as well as what only reads it.
    private func isRefused(_ batch: PreparedBatch) -> Bool {
        let assigner = TimestampAssigner(mode: .arrival, isUncapped: true, now: 1, previous: 0)
        do {
            _ = try SequencedBatch(batch, from: 0, timestamps: assigner)
            return false
        } catch {
            return true
        }
    }

    @Test func fuzzHostilePreparedBatches() throws {
        var random = SplitMix64(seed: 21)
        for _ in 0..<fuzzIterations {
            let input = Naive.input(&random, records: 3)
            guard Naive.isValid(input) else { continue }
            var batch = try AppendInputDecoder.decode(Bytes(Naive.canonical(input)))
            var bytes = batch.records.array
            let at = Int(random.next() % UInt64(bytes.count))
            switch random.next() % 5 {
            case 0: bytes = Array(bytes.prefix(at))
            case 1: bytes[at] ^= 1 << UInt8(random.next() % 8)
            case 2: batch.count += random.next() % 2 == 0 ? 1 : -1
            case 3: batch.meteredBytes += random.next() % 2 == 0 ? 1 : -1
            default: bytes.append(0)
            }
            let changed = Bytes(bytes) != batch.records
            let lies =
                batch.count != input.records.count
                || batch.meteredBytes != input.records.reduce(0) { $0 + $1.metered }
            batch.records = Bytes(bytes)
            do {
                let records = try PreparedRecords(batch)
                // Only the content of names, values, bodies and timestamps may differ.
                #expect(!lies)
                #expect(!changed || records.batch.records.count == Naive.prepared(input).count)
                let assigner = TimestampAssigner(
                    mode: .clientPrefer, isUncapped: true, now: 1, previous: 0)
                let sequenced = try SequencedBatch(batch, from: 0, timestamps: assigner)
                #expect(sequenced.hasCommands == records.hasCommands)
                let read = try ReadLimits().cut(sequenced.stored())
                #expect(read.count == batch.count)
                #expect(read.meteredBytes == batch.meteredBytes)
            } catch {
                #expect(changed || lies)
                let isRefused = isRefused(batch)
                #expect(isRefused)
            }
        }
    }

    @Test func fuzz() {
        var random = SplitMix64(seed: 4)
        for seed in 0..<UInt64(fuzzIterations / 10) {
            var bytes = NaiveRun(seed: seed, count: 3).bytes.array
            for _ in 0..<1 + random.next() % 3 {
                bytes[Int(random.next() % UInt64(min(bytes.count, 300)))] =
                    UInt8(truncatingIfNeeded: random.next())
            }
            // What can be walked consists of whole records, and says the same once read again.
            var walk = StoredRecords(Bytes(bytes))
            var out: [UInt8] = []
            do {
                while let record = try walk.next() {
                    let again = Naive.Record(
                        headers: try record.headers(in: walk.run).map {
                            [$0.name.array, $0.value.array]
                        }, body: walk.run[record.body].array)
                    #expect(again.metered == record.meteredBytes)
                    out += Naive.stored(
                        again, seqNum: record.seqNum, timestamp: record.timestamp)
                }
                #expect(out == bytes)
            } catch {
                #expect(error.offset <= bytes.count)
            }
        }
    }
}
