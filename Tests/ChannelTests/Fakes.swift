// SPDX-License-Identifier: Apache-2.0

import Log
import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import Records
import Simulation
import Synchronization
import Testing

@testable import ChannelRole

/// The server's end of a call, which notes what the channel does with it.
final class FakeCall: Call {
    var onMessage: ((Bytes) -> Void)?
    var onFinishedSending: (() -> Void)?
    var onEnd: ((Status, Bytes) -> Void)?
    var onSendable: (() -> Void)?
    var unsentBytes = 0
    private(set) var messages: [Bytes] = []
    private(set) var consumedBytes = 0
    private(set) var ended: (status: Status, payload: Bytes)?

    func send(_ message: Bytes) { messages.append(message) }
    func consumed(_ count: Int) { consumedBytes += count }
    func finishSending() {}
    func cancel() {}
    func end(_ status: Status, _ payload: Bytes) {
        precondition(ended == nil, "a call ends once")
        ended = (status, payload)
    }

    /// Of all messages, each of which may hold several.
    var replies: [AppendReply] {
        get throws {
            var replies: [AppendReply] = []
            for message in messages {
                var reader = ByteReader(message)
                repeat { replies.append(try AppendReply(decoding: &reader)) } while !reader.isAtEnd
            }
            return replies
        }
    }
    var pushes: [FollowPush] { get throws { try messages.map { try FollowPush($0) } } }
}

/// A store whose PUTs wait until the test lets each of them go, in any order.
final class HeldStore: ObjectStore {
    private struct State {
        var waiting: [String: UnsafeContinuation<Void, Never>] = [:]
        var isOpen = true
        /// Held PUTs have had their effect.
        var landsFirst = false
        var bodies: [[Bytes]] = []
    }
    let inner = MemoryStore()
    private let state = Mutex(State())

    /// From now on PUTs wait.
    func hold() { state.withLock { $0.isOpen = false } }

    /// From now on the replies of PUTs wait; their effects do not.
    func holdReplies() {
        state.withLock { state in
            state.isOpen = false
            state.landsFirst = true
        }
    }

    /// What was given to PUTs, as it was given.
    var bodies: [[Bytes]] { state.withLock(\.bodies) }

    var held: [String] { state.withLock { $0.waiting.keys.sorted() } }

    func release(_ key: String) {
        state.withLock { $0.waiting.removeValue(forKey: key) }?.resume()
    }

    func releaseAll() {
        let all = state.withLock { state in
            state.isOpen = true
            defer { state.waiting = [:] }
            return state.waiting
        }
        for key in all.keys.sorted() { all[key]?.resume() }
    }

    func put(_ key: String, _ body: [Bytes], ifAbsent: Bool) async throws(StoreError) -> PutResult {
        state.withLock { $0.bodies.append(body) }
        let landed: PutResult? =
            if state.withLock({ $0.landsFirst }) {
                try await inner.put(key, body, ifAbsent: ifAbsent)
            } else {
                nil
            }
        if state.withLock({ !$0.isOpen }) {
            await withUnsafeContinuation { waiter in
                state.withLock { $0.waiting[key] = waiter }
            }
        }
        if let landed { return landed }
        return try await inner.put(key, body, ifAbsent: ifAbsent)
    }

    func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try await inner.get(key, range: range)
    }
    func head(_ key: String) async throws(StoreError) -> ObjectInfo? { try await inner.head(key) }
    func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        try await inner.list(prefix: prefix, after: after, limit: limit)
    }
    func delete(_ key: String) async throws(StoreError) { try await inner.delete(key) }
}

/// One channel, on a virtual clock, with a store that can be held and metadata in memory.
final class Bench {
    let scheduler: Scheduler
    let loop: SimLoop
    let store = HeldStore()
    let metadata: MemoryMetadata
    let role: ChannelRole
    let world: ChannelWorld
    let exits = Exits()

    final class Exits { var reasons: [String] = [] }

    /// `latency`: how long the channel's requests to the metadata take, there and again back.
    init(
        latency: Nanoseconds? = nil, _ adjust: (inout ChannelLimits) -> Void = { _ in }
    ) async throws {
        let scheduler = Scheduler(seed: 1, trace: Trace())
        self.scheduler = scheduler
        loop = scheduler.makeLoop("channel")
        metadata = MemoryMetadata { 1_700_000_000_000 }
        var limits = ChannelLimits(address: "sim:1")
        adjust(&limits)
        let metadata = metadata
        world = ChannelWorld(
            loop: loop,
            metadata: latency.map {
                SimMetadata(inner: metadata, scheduler: scheduler, latency: $0)
            } ?? metadata,
            buckets: [Bucket(name: "b", store: store)],
            random: .seeded(1), log: .silent, metrics: Metrics(role: "channel"),
            exit: { [exits] in exits.reasons.append($0) })
        role = ChannelRole(world: world, limits: limits)
        do {
            _ = try await metadata.createBasin(
                BasinCreation(
                    name: "test-basin", config: BasinConfig(), location: nil, creationKey: nil))
        }
        run { try await self.role.start() }
    }

    /// Runs asynchronous work on the channel's loop until it is done.
    func run(_ body: @escaping () async throws -> Void) {
        var done = false
        var failure: (any Error)?
        loop.spawn {
            do { try await body() } catch { failure = error }
            done = true
        }
        let finished = scheduler.run(until: scheduler.now + .seconds(60), steps: 1_000_000) { done }
        #expect(finished && failure == nil, "\(failure.map { "\($0)" } ?? "did not finish")")
    }

    /// Lets time pass.
    func pass(_ duration: Nanoseconds = .milliseconds(1)) {
        var over = false
        _ = loop.after(duration) { over = true }
        _ = scheduler.run(until: .max, steps: 10_000_000) { over }
    }

    /// The process is paused: time passes, and nothing of it runs.
    func stall(_ duration: Nanoseconds) { scheduler.jump(duration) }

    /// What the channel's metrics say now.
    func gauge(_ name: String) throws -> Double {
        let lines = world.metrics.render().split(separator: "\n")
        let line = try #require(lines.first { $0.hasPrefix("millrace_channel_\(name) ") })
        return try #require(Double(line.split(separator: " ")[1]))
    }

    func makeStream(
        _ name: String, _ adjust: (inout StreamConfigWish) -> Void = { _ in }
    ) -> StreamID {
        var wish = StreamConfigWish()
        adjust(&wish)
        let id = StreamID(ID128(high: 7, low: UInt64(name.utf8.reduce(0) { $0 * 31 + UInt64($1) })))
        run { [metadata] in
            _ = try await metadata.createStream(
                StreamCreation(
                    id: id, basin: "test-basin", name: name, wish: wish, creationKey: nil))
        }
        return id
    }

    /// Makes a call and returns its server's end.
    @discardableResult
    func call(_ method: Method, _ payload: some ByteCodable) -> FakeCall {
        let call = FakeCall()
        role.serve(call, method: method, payload: payload.encoded(), deadline: nil)
        return call
    }

    func activate(_ stream: StreamID) throws -> ActivateReply {
        let call = call(.activate, ActivateRequest(stream: stream))
        pass()
        let ended = try #require(call.ended)
        #expect(ended.status == .ok)
        return try ActivateReply(ended.payload)
    }

    func openSession(_ stream: StreamID, isPatient: Bool = true) throws -> FakeCall {
        let reply = try activate(stream)
        return call(
            .append,
            AppendOpen(stream: stream, streamlet: reply.streamlet, isPatient: isPatient))
    }

    static func batch(
        _ bodies: String..., match: SeqNum? = nil, token: String? = nil, timestamp: UInt64? = nil
    ) throws -> Bytes {
        var builder = PreparedBatchBuilder()
        for body in bodies {
            try builder.add(timestamp: timestamp, headers: [], body: Bytes(utf8: body))
        }
        return try builder.finish(
            AppendConditions(matchSeqNum: match, fencingToken: token)
        ).encoded()
    }

    static func fence(_ token: String) throws -> Bytes {
        var builder = PreparedBatchBuilder()
        try builder.add(
            timestamp: nil, headers: [RecordHeader(name: Bytes(), value: Bytes(utf8: "fence"))],
            body: Bytes(utf8: token))
        return try builder.finish(.none).encoded()
    }
}
