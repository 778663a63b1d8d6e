// SPDX-License-Identifier: Apache-2.0

import CopRole
import Log
import Metadata
import ObjectStorage
import Observability
import Primitives
import Records
import TestSupport
import Testing

/// A cell in memory, with channels that are no more than their logs.
final class TestCell {
    let loop = ManualLoop()
    let metadata: MemoryMetadata
    let store = MemoryStore()
    let fault = Fault()
    let random = RandomSource.seeded(7)
    let provisioner = FakeProvisioner()
    private var cops: [CopRole] = []

    init() throws {
        let loop = loop
        metadata = MemoryMetadata(now: { loop.wallMilliseconds })
        try loop.value { [metadata] in
            _ = try await metadata.createBasin(
                BasinCreation(
                    name: "test-basin", config: BasinConfig(), location: nil, creationKey: nil))
        }
    }

    var bucket: Bucket { Bucket(name: "main", store: FaultyStore(inner: store, fault: fault)) }

    func cop(_ adjust: (inout CopLimits) -> Void = { _ in }) -> CopRole {
        var limits = CopLimits()
        adjust(&limits)
        let cop = CopRole(
            world: CopWorld(
                loop: loop, metadata: FaultyMetadata(inner: metadata, fault: fault),
                buckets: [bucket], random: random, log: .silent, metrics: Metrics(role: "cop"),
                provisioner: provisioner),
            limits: limits)
        cops.append(cop)
        return cop
    }

    /// From now on each call to the store or the metadata takes up to 20 ms.
    func slowDown(seed: UInt64) {
        let random = RandomSource.seeded(seed)
        fault.pause = { [loop] in await loop.sleep(random.within(0...(.milliseconds(20)))) }
    }

    func channel() throws -> TestChannel { try TestChannel(self) }

    func stream(_ name: String) throws -> StreamID {
        let id = StreamID(random: random)
        let creation = StreamCreation(
            id: id, basin: "test-basin", name: name, wish: StreamConfigWish(), creationKey: nil)
        _ = try loop.value { [metadata] in try await metadata.createStream(creation) }
        return id
    }

    func row(_ channel: ChannelID) throws -> ChannelRow {
        let row = try loop.value { [metadata] in try await metadata.channel(channel) }
        return try #require(row)
    }

    func lookup(_ stream: StreamID) throws -> StreamLookup {
        let found = try loop.value { [metadata] in try await metadata.stream(stream) }
        return try #require(found)
    }

    func put(_ key: String, _ body: [Bytes]) throws -> PutResult {
        try loop.value { [store] in try await store.put(key, body, ifAbsent: true) }
    }

    /// Every record of a stream as segments hold it, each verified: sequence numbers and bodies.
    func records(_ stream: StreamID) throws -> [String] {
        let page = try loop.value { [metadata] in
            try await metadata.segments(of: stream, from: .seqNum(0), limit: 1_000)
        }
        var found: [String] = []
        for row in page.segments {
            let range = Int(row.offset)..<Int(row.offset + row.length)
            let bytes = try loop.value { [store] in
                try await store.get(row.object, range: range).bytes
            }
            let segment = try Segment(bytes, checksum: row.checksum)
            try segment.checkRecords()
            #expect(segment.index.span.start == row.start)
            #expect(segment.index.span.endSeqNum == row.endSeqNum)
            var walk = StoredRecords(segment.records)
            while let record = try walk.next() {
                found.append("\(record.seqNum):\(segment.records[record.body].lossyText)")
            }
        }
        return found
    }
}

/// The log of one channel, written by hand.
final class TestChannel {
    let cell: TestCell
    let id: ChannelID
    private(set) var next: ChunkIndex = 0
    private var tails: [StreamID: StreamPosition] = [:]

    init(_ cell: TestCell) throws {
        self.cell = cell
        id = try cell.loop.value { [metadata = cell.metadata] in
            try await metadata.registerChannel(
                ChannelRegistration(storageClass: "express", zone: "a", address: "127.0.0.1:1"))
        }
    }

    func renew() throws -> Bool {
        try cell.loop.value { [id, metadata = cell.metadata] in
            try await metadata.renewChannel(id, load: .idle)
        }
    }

    func claim(_ stream: StreamID) throws {
        let result = try cell.loop.value { [id, metadata = cell.metadata] in
            try await metadata.claim(stream, channel: id)
        }
        guard case .claimed(_, let row) = result else {
            Issue.record("not claimed: \(result)")
            return
        }
        tails[stream] = row.state.tail
    }

    /// Stores the next chunk: the bodies of some streams' records; `fence …` and `trim …` are
    /// commands.
    @discardableResult
    func write(
        _ fragments: [(stream: StreamID, bodies: [String])], dependency: Dependency? = nil
    ) throws -> PutResult {
        try cell.put(LogKeys.chunk(id, next), chunk(fragments, dependency))
    }

    /// The parts of the next chunk, which counts as written.
    func chunk(
        _ fragments: [(stream: StreamID, bodies: [String])], _ dependency: Dependency? = nil
    ) throws -> [Bytes] {
        var builder = ChunkBuilder(
            ChunkHeader(
                kind: .chunk, channel: id, index: next, putID: ID128(random: cell.random),
                storageClass: 0, createdMilliseconds: cell.loop.wallMilliseconds))
        for (stream, bodies) in fragments {
            let first = try #require(tails[stream])
            var tail = first
            var metered: UInt32 = 0
            var records = ByteWriter()
            var start: TimestampMillis = 0
            for (number, body) in bodies.enumerated() {
                tail.timestamp += 10
                if number == 0 { start = tail.timestamp }
                let fields = Self.fields(body)
                fields.withUnsafeBytes { bytes in
                    let room = StoredRecord.elementBytesMax(fieldsBytes: bytes.count)
                    records.advance(
                        StoredRecord.write(
                            fields: bytes, seqNum: tail.seqNum, timestamp: tail.timestamp,
                            to: records.reserve(room)))
                    metered += UInt32(RecordShape(storedFields: bytes)?.meteredBytes ?? 0)
                }
                tail.seqNum += 1
            }
            let entry = FragmentEntry(
                stream: stream, streamlet: 0, kind: .records, firstSeqNum: first.seqNum,
                count: UInt32(bodies.count), firstTimestamp: start, lastTimestamp: tail.timestamp,
                meteredBytes: metered, dependency: dependency)
            let added = builder.add(entry, [records.finish()])
            #expect(added != nil)
            tails[stream] = tail
        }
        next += 1
        return builder.finish()
    }

    /// Stored fields: a body, or one of the two commands.
    private static func fields(_ body: String) -> Bytes {
        var writer = ByteWriter()
        func field(_ tag: UInt8, _ content: Bytes) {
            writer.write(tag)
            writer.writeVarint(UInt64(content.count))
            writer.write(content)
        }
        let words = body.split(separator: " ")
        if words.first == "fence" || words.first == "trim" {
            var value = ByteWriter()
            value.write(UInt8(0x12))
            value.writeVarint(UInt64(words[0].utf8.count))
            value.write(utf8: String(words[0]))
            field(0x1A, value.finish())
            if words[0] == "fence" {
                field(0x22, Bytes(utf8: String(words[1])))
            } else {
                var point = ByteWriter()
                point.writeBigEndian(UInt64(words[1]) ?? 0)
                field(0x22, point.finish())
            }
        } else {
            field(0x22, Bytes(utf8: body))
        }
        return writer.finish()
    }
}

final class FakeProvisioner: Provisioner {
    final class Process: ProvisionedProcess {
        let label: String
        let ended: (String) -> Void
        var drained = false
        var killed = false
        var hasEnded = false
        init(_ label: String, _ ended: @escaping (String) -> Void) {
            self.label = label
            self.ended = ended
        }
        func drain() { drained = true }
        func kill() { killed = true }
    }
    var started: [Process] = []
    var fails = false

    func start(
        _ kind: ProcessKind, number: Int, ended: @escaping (String) -> Void
    ) throws(ProvisionError) -> any ProvisionedProcess {
        if fails { throw ProvisionError("no such program") }
        let process = Process("\(kind.rawValue)-\(number)", ended)
        started.append(process)
        return process
    }
}
