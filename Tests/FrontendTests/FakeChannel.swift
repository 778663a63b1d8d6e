// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Primitives
import RPC
import Records
import TestSupport

/// The caller's end of a call that a test's channel serves.
final class FakeCall: Call {
    var onMessage: ((Bytes) -> Void)?
    var onFinishedSending: (() -> Void)?
    var onEnd: ((Status, Bytes) -> Void)?
    var onSendable: (() -> Void)?
    let unsentBytes = 0
    let method: RPC.Method
    private let loop: any Loop
    /// What the channel does with the caller's messages, once it serves the call.
    var receive: ((Bytes) -> Void)? {
        didSet {
            while let receive, !early.isEmpty { receive(early.removeFirst()) }
        }
    }
    var callerFinished: (() -> Void)?
    var callerCancelled: (() -> Void)?
    private var early: [Bytes] = []
    private(set) var isOver = false
    /// Its channel has refused a batch, and takes no more.
    var isRefused = false
    private(set) var consumedBytes = 0
    private(set) var isFinishedSending = false

    init(_ method: RPC.Method, _ loop: any Loop) {
        self.method = method
        self.loop = loop
    }

    func send(_ message: Bytes) {
        if isOver { return }
        if let receive { receive(message) } else { early.append(message) }
    }
    func consumed(_ count: Int) { consumedBytes += count }
    func finishSending() {
        isFinishedSending = true
        callerFinished?()
    }
    func cancel() {
        isOver = true
        callerCancelled?()
    }

    // The channel's side; every delivery is a turn of the loop of its own.
    func push(_ message: Bytes) {
        loop.soon { if !self.isOver { self.onMessage?(message) } }
    }
    func end(_ status: Status, _ payload: Bytes) {
        loop.soon {
            guard !self.isOver else { return }
            self.isOver = true
            self.onEnd?(status, payload)
        }
    }
}

final class FakeCalls: CallClient {
    let loop: ManualLoop
    var channels: [String: FakeChannel] = [:]
    private(set) var calls: [FakeCall] = []
    /// True for calls that the test answers itself.
    var holds: (FakeCall) -> Bool = { _ in false }

    init(_ loop: ManualLoop) { self.loop = loop }

    func call(
        _ address: String, _ method: RPC.Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call {
        let call = FakeCall(method, loop)
        calls.append(call)
        if holds(call) { return call }
        loop.soon {
            guard let channel = self.channels[address] else {
                return call.end(.notConnected, Bytes())
            }
            channel.serve(call, payload)
        }
        return call
    }

    func count(_ method: RPC.Method) -> Int { calls.count { $0.method == method } }
}

/// A channel in memory: sequences at once, stores each stable batch as a chunk of its own.
final class FakeChannel {
    struct Stored {
        var start: StreamPosition
        var count: Int
        var meteredBytes: Int
        var end: StreamPosition
        var records: Bytes
        var object: String
    }
    final class Streamlet {
        let stream: Stream
        let number: StreamletNumber
        var assigned: StreamPosition
        var stable: StreamPosition
        var flushedEnd: SeqNum
        var trimPoint: SeqNum
        /// Stable, and not flushed.
        var stored: [Stored] = []
        var token: String
        var follows: [FakeCall] = []
        var appends: [FakeCall] = []
        /// Answers that wait for their batch to become stable.
        var waiting: [() -> Void] = []

        init(_ stream: Stream, _ number: StreamletNumber) {
            self.stream = stream
            self.number = number
            assigned = stream.state.tail
            stable = stream.state.tail
            flushedEnd = stream.state.tail.seqNum
            trimPoint = stream.state.trimPoint
            token = stream.state.fencingToken
        }
    }

    let loop: ManualLoop
    let metadata: MemoryMetadata
    let store: MemoryStore
    let address: String
    private(set) var id = ChannelID(1)
    var streamlets: [StreamID: Streamlet] = [:]
    /// False holds appends back until `stabilise`.
    var isStableAtOnce = true
    /// What every append of a batch ends with, if set.
    var appendStatus: Status?
    /// Whole batches that a follow may begin behind the tail.
    var window = 2
    /// Sees what is appended.
    var onAppend: (Bytes) -> Void = { _ in }
    /// Sees live pushes, and may put them elsewhere in memory.
    var onPush: (Bytes) -> Bytes = { $0 }
    private(set) var activations = 0
    /// Of appends.
    private(set) var messages = 0
    private var objects = 0

    init(_ loop: ManualLoop, _ metadata: MemoryMetadata, _ store: MemoryStore, address: String) {
        self.loop = loop
        self.metadata = metadata
        self.store = store
        self.address = address
    }

    func register() async throws {
        id = try await metadata.registerChannel(
            ChannelRegistration(storageClass: "express", zone: "z", address: address))
    }

    func serve(_ call: FakeCall, _ payload: Bytes) {
        loop.spawn { [self] in
            do {
                try await serveThrowing(call, payload)
            } catch {
                call.end(.malformed, Bytes())
            }
        }
    }

    private func serveThrowing(_ call: FakeCall, _ payload: Bytes) async throws {
        switch call.method {
        case .append:
            let open = try AppendOpen(payload)
            guard let streamlet = find(open.stream, open.streamlet) else {
                return call.end(.notOwner, Bytes())
            }
            streamlet.appends.append(call)
            call.callerFinished = { call.end(.ok, Bytes()) }
            call.receive = { [self] in append($0, streamlet, call) }
        case .tail:
            let request = try TailRequest(payload)
            guard let streamlet = find(request.stream, request.streamlet) else {
                return call.end(.notOwner, Bytes())
            }
            call.end(.ok, TailReply(tail: streamlet.stable).encoded())
        case .plan: try plan(call, PlanRequest(payload))
        case .follow: try follow(call, FollowRequest(payload))
        case .activate: try await activate(call, ActivateRequest(payload))
        case .refresh:
            let request = try RefreshRequest(payload)
            call.end(streamlets[request.stream] == nil ? .notOwner : .ok, Bytes())
        case .drain: call.end(.ok, Bytes())
        case .fetch: call.end(.unknownMethod, Bytes())
        }
    }

    private func find(_ stream: StreamID, _ number: StreamletNumber) -> Streamlet? {
        streamlets[stream].flatMap { $0.number == number ? $0 : nil }
    }

    // MARK: Appends

    private func append(_ message: Bytes, _ streamlet: Streamlet, _ call: FakeCall) {
        messages += 1
        onAppend(message)
        var reader = ByteReader(message)
        repeat {
            guard let batch = try? PreparedBatch(decoding: &reader),
                let records = try? PreparedRecords(batch)
            else { return call.end(.malformed, Bytes()) }
            append(records, streamlet, call)
        } while !reader.isAtEnd
    }

    private func append(_ records: PreparedRecords, _ streamlet: Streamlet, _ call: FakeCall) {
        if call.isOver || call.isRefused { return }
        let batch = records.batch
        if let appendStatus { return call.end(appendStatus, Bytes()) }
        if let match = batch.conditions.matchSeqNum, match != streamlet.assigned.seqNum {
            let next = streamlet.assigned.seqNum
            call.isRefused = true
            return whenStable(streamlet) {
                call.end(.rejected, AppendRejection.seqNumMismatch(next: next).encoded())
            }
        }
        let stored = sequence(records, streamlet)
        whenStable(streamlet) { [self] in
            become(stable: stored, streamlet)
            call.push(
                AppendReply(start: stored.start, end: stored.end, tail: streamlet.stable).encoded())
        }
    }

    private func whenStable(_ streamlet: Streamlet, _ work: @escaping () -> Void) {
        streamlet.waiting.append(work)
        if isStableAtOnce { stabilise(streamlet) }
    }

    func stabilise(_ streamlet: Streamlet, _ count: Int = .max) {
        for work in streamlet.waiting.prefix(count) { work() }
        streamlet.waiting.removeFirst(min(count, streamlet.waiting.count))
    }

    private func sequence(_ records: PreparedRecords, _ streamlet: Streamlet) -> Stored {
        var writer = ByteWriter()
        var first: StreamPosition?
        for record in records {
            let timestamp = max(
                record.timestamp ?? loop.wallMilliseconds, streamlet.assigned.timestamp)
            let seqNum = streamlet.assigned.seqNum
            records.fields(of: record).withUnsafeBytes { fields in
                let room = StoredRecord.elementBytesMax(fieldsBytes: fields.count)
                let bytes = StoredRecord.write(
                    fields: fields, seqNum: seqNum, timestamp: timestamp, to: writer.reserve(room))
                writer.advance(bytes)
            }
            first = first ?? StreamPosition(seqNum: seqNum, timestamp: timestamp)
            streamlet.assigned = StreamPosition(seqNum: seqNum + 1, timestamp: timestamp)
        }
        objects += 1
        return Stored(
            start: first ?? .zero, count: records.count, meteredBytes: records.batch.meteredBytes,
            end: streamlet.assigned, records: writer.finish(),
            object: "wal/\(id)/\(objects)")
    }

    private func become(stable stored: Stored, _ streamlet: Streamlet) {
        streamlet.stored.append(stored)
        streamlet.stable = stored.end
        loop.spawn { [self] in
            _ = try? await store.put(stored.object, [stored.records], ifAbsent: true)
        }
        for follow in streamlet.follows { follow.push(onPush(push(stored))) }
    }

    private func push(_ stored: Stored) -> Bytes {
        FollowPush(
            firstSeqNum: stored.start.seqNum, count: UInt32(stored.count),
            meteredBytes: UInt32(stored.meteredBytes), tail: stored.end, records: stored.records
        ).encoded()
    }

    /// Appends from nowhere: somebody else's batch of `count` records.
    @discardableResult
    func write(
        _ stream: StreamID, count: Int, bodyBytes: Int = 4, timestamp: TimestampMillis? = nil
    ) throws -> StreamPosition {
        guard let streamlet = streamlets[stream] else { throw MissingStreamlet() }
        var builder = PreparedBatchBuilder()
        for _ in 0..<count {
            try builder.add(
                timestamp: timestamp, headers: [],
                body: Bytes([UInt8](repeating: 0x61, count: bodyBytes)))
        }
        let stored = sequence(try PreparedRecords(builder.finish()), streamlet)
        become(stable: stored, streamlet)
        return stored.end
    }

    struct MissingStreamlet: Error {}

    // MARK: Reads

    private func plan(_ call: FakeCall, _ request: PlanRequest) throws {
        guard let streamlet = find(request.stream, request.streamlet) else {
            return call.end(.notOwner, Bytes())
        }
        let wanted = streamlet.stored.filter { stored in
            switch request.start {
            case .seqNum(let seqNum): stored.end.seqNum > seqNum
            case .timestamp(let timestamp): stored.end.timestamp >= timestamp
            }
        }
        let pointers = wanted.prefix(Int(request.limit)).map { stored in
            ChunkPointer(
                object: stored.object, bucket: "b", start: stored.start,
                count: UInt32(stored.count), lastTimestamp: stored.end.timestamp, offset: 0,
                length: UInt32(stored.records.count))
        }
        call.end(
            .ok,
            PlanReply(
                tail: streamlet.stable, flushedEnd: streamlet.flushedEnd,
                trimPoint: streamlet.trimPoint, pointers: Array(pointers)
            ).encoded())
    }

    private func follow(_ call: FakeCall, _ request: FollowRequest) throws {
        guard let streamlet = find(request.stream, request.streamlet) else {
            return call.end(.notOwner, Bytes())
        }
        let recent = streamlet.stored.suffix(window)
        let missed = recent.filter { $0.start.seqNum >= request.start }
        let oldest = missed.first?.start.seqNum ?? streamlet.stable.seqNum
        guard oldest == request.start else { return call.end(.notInWindow, Bytes()) }
        if missed.isEmpty {
            call.push(
                FollowPush(
                    firstSeqNum: streamlet.stable.seqNum, count: 0, meteredBytes: 0,
                    tail: streamlet.stable, records: Bytes()
                ).encoded())
        }
        for stored in missed { call.push(push(stored)) }
        streamlet.follows.append(call)
        call.callerCancelled = { streamlet.follows.removeAll { $0 === call } }
    }

    // MARK: Streamlets

    private func activate(_ call: FakeCall, _ request: ActivateRequest) async throws {
        activations += 1
        switch try await metadata.claim(request.stream, channel: id) {
        case .claimed(let number, let stream):
            if streamlets[stream.id]?.number != number {
                streamlets[stream.id] = Streamlet(stream, number)
            }
            call.end(
                .ok,
                ActivateReply(streamlet: number, channel: id, address: address).encoded())
        case .owned(let owner):
            call.end(
                .ok,
                ActivateReply(
                    streamlet: owner.streamlet, channel: owner.channel, address: owner.address
                ).encoded())
        case .streamNotFound: call.end(.notOwner, Bytes())
        case .streamDeletionPending: call.end(.streamDeleted, Bytes())
        case .channelNotActive: call.end(.unavailable, Bytes())
        }
    }

    /// Moves what is stable into a segment; with `closes` the stream becomes dormant.
    func flush(_ stream: StreamID, closes: Bool = false) async throws {
        guard let streamlet = streamlets[stream] else { throw MissingStreamlet() }
        var segments: [SegmentRow] = []
        if !streamlet.stored.isEmpty {
            let object = "seg/\(ID128(high: 7, low: streamlet.flushedEnd))"
            var builder = SegmentObjectBuilder(
                SegmentObjectHeader(
                    id: ID128(high: 1, low: 2), channel: id, createdMilliseconds: 1))
            guard
                let placed = try builder.add(
                    stream: stream, streamlet: streamlet.number,
                    records: streamlet.stored.map(\.records), state: nil)
            else { throw MissingStreamlet() }
            _ = try await store.put(object, builder.finish().parts, ifAbsent: true)
            segments.append(
                SegmentRow(
                    stream: stream, start: placed.span.start, endSeqNum: placed.span.endSeqNum,
                    lastTimestamp: placed.span.lastTimestamp, bucket: "b", object: object,
                    offset: UInt64(placed.offset), length: UInt64(placed.length),
                    meteredBytes: placed.span.meteredBytes, checksum: placed.checksum))
        }
        let part = Flush.Part(
            stream: stream, streamlet: streamlet.number, from: streamlet.flushedEnd,
            state: StreamState(
                tail: streamlet.stable, fencingToken: "", fencingTokenPosition: 0,
                trimPoint: streamlet.trimPoint),
            closes: closes, segments: segments)
        let result = try await metadata.flush(
            Flush(channel: id, isRecovery: false, parts: [part], flushedEnd: 0))
        guard result == .done else { throw MissingStreamlet() }
        let objects = streamlet.stored.map(\.object)
        streamlet.stored = []
        streamlet.flushedEnd = streamlet.stable.seqNum
        if closes { lose(stream, .notOwner) }
        for object in objects { try await store.delete(object) }
    }

    /// The stream is not this channel's any more: its calls end.
    func lose(_ stream: StreamID, _ status: Status) {
        guard let streamlet = streamlets.removeValue(forKey: stream) else { return }
        for call in streamlet.follows + streamlet.appends { call.end(status, Bytes()) }
    }
}
