// SPDX-License-Identifier: Apache-2.0

import CacheyRole
import Glibc
import HTTP
import ObjectStorage
import Primitives
import RPC
import Synchronization
import TestSupport

/// A bucket that does what a test says, request by request.
// Safety: touched by the test's thread only.
final class FakeBucket: ObjectStore, @unchecked Sendable {
    enum Reply {
        case serve(after: Nanoseconds)
        case fail(StoreError.Kind, after: Nanoseconds)
        /// Bytes that are not the range that was asked for.
        case wrong
    }
    let loop: ManualLoop
    var objects: [String: Bytes] = [:]
    /// For the next requests, in order; then `usual`.
    var replies: [Reply] = []
    var usual = Reply.serve(after: .milliseconds(1))
    private(set) var gets: [(key: String, range: Range<Int>)] = []
    private(set) var running = 0
    private(set) var runningMost = 0

    init(_ loop: ManualLoop) { self.loop = loop }

    func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        guard let range else { throw StoreError(.invalidRequest, "a cachey asks for pages") }
        gets.append((key, range))
        running += 1
        runningMost = max(runningMost, running)
        defer { running -= 1 }
        switch replies.isEmpty ? usual : replies.removeFirst() {
        case .fail(let kind, let delay):
            await loop.sleep(delay)
            throw StoreError(kind, "scripted")
        case .wrong:
            let object = objects[key] ?? Bytes()
            return ObjectSlice(bytes: object.prefix(3), objectSize: object.count)
        case .serve(let delay):
            await loop.sleep(delay)
            guard let object = objects[key] else { throw StoreError(.notFound, key) }
            guard range.lowerBound < object.count else {
                throw StoreError(.rangeNotSatisfiable, key)
            }
            let end = min(range.upperBound, object.count)
            return ObjectSlice(
                bytes: object[range.lowerBound..<end].detached(), objectSize: object.count)
        }
    }

    func put(_ key: String, _ body: [Bytes], ifAbsent: Bool) async throws(StoreError) -> PutResult {
        throw StoreError(.denied, "a cachey only reads")
    }
    func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        throw StoreError(.denied, "a cachey only gets")
    }
    func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        throw StoreError(.denied, "a cachey only gets")
    }
    func delete(_ key: String) async throws(StoreError) {
        throw StoreError(.denied, "a cachey only reads")
    }
}

/// A disk in memory, which outlives the cachey that uses it.
// Safety: touched by the test's thread only.
final class FakeDisk: PageDisk, @unchecked Sendable {
    let loop: ManualLoop
    private(set) var contents: [UInt64: [UInt8]] = [:]
    var writesFail = false
    var removalsFail = false
    var listingFails = false
    var readDelay: Nanoseconds = 0
    private(set) var writes = 0
    private(set) var reads = 0
    private(set) var bytesMost = 0

    init(_ loop: ManualLoop) { self.loop = loop }

    var bytes: Int { contents.values.reduce(0) { $0 + $1.count } }

    func damage(_ block: UInt64, at offset: Int) { contents[block]?[offset] ^= 1 }
    func cut(_ block: UInt64, to count: Int) {
        contents[block] = contents[block].map { Array($0.prefix(count)) }
    }

    func blocks() async throws(DiskError) -> [DiskBlock] {
        if listingFails { throw DiskError("the disk is gone") }
        return contents.map { DiskBlock(number: $0, bytes: $1.count) }
    }

    func write(_ parts: [Bytes], block: UInt64, offset: Int) async throws(DiskError) {
        writes += 1
        if writesFail { throw DiskError("the disk is full") }
        var content = contents[block] ?? []
        let new = parts.joined().array
        if content.count < offset { content += Array(repeating: 0, count: offset - content.count) }
        content.replaceSubrange(offset..<min(offset + new.count, content.count), with: new)
        contents[block] = content
        bytesMost = max(bytesMost, bytes)
    }

    func read(block: UInt64, _ range: Range<Int>) async throws(DiskError) -> Bytes {
        reads += 1
        if readDelay > 0 { await loop.sleep(readDelay) }
        guard let content = contents[block] else { throw DiskError("no such block") }
        return Bytes(
            Array(
                content[min(range.lowerBound, content.count)..<min(range.upperBound, content.count)]
            ))
    }

    func remove(block: UInt64) async throws(DiskError) {
        if removalsFail { throw DiskError("the disk is read-only") }
        contents[block] = nil
    }
}

/// The server's end of a call.
final class FakeCall: Call {
    var onMessage: ((Bytes) -> Void)?
    var onFinishedSending: (() -> Void)?
    var onEnd: ((Status, Bytes) -> Void)?
    var onSendable: (() -> Void)?
    var unsentBytes = 0
    /// While true, what is sent counts as unsent until `takeUnsent`.
    var holdsUnsent = false
    private(set) var messages: [Bytes] = []
    private(set) var ended: (status: Status, payload: Bytes)?

    var body: Bytes { messages.joined() }
    func takeUnsent() {
        unsentBytes = 0
        onSendable?()
    }

    func send(_ message: Bytes) {
        precondition(ended == nil, "nothing follows the end")
        messages.append(message)
        if holdsUnsent { unsentBytes += message.count }
    }
    func consumed(_ count: Int) {}
    func finishSending() {}
    func cancel() {}
    func end(_ status: Status, _ payload: Bytes) {
        precondition(ended == nil, "a call ends once")
        ended = (status, payload)
    }
}

/// A request made up by a test, and what became of its response.
final class FakeExchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)?
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?
    private(set) var status: Int?
    private(set) var headers: [(name: String, value: String)] = []
    private(set) var trailers: [(name: String, value: String)] = []
    private(set) var written: [Bytes] = []
    private(set) var isFinished = false
    private(set) var isAborted = false
    var holdsUnsent = false
    private(set) var unsentBytes = 0

    init(
        _ method: String, _ path: String, _ headers: [(name: String, value: String)] = [],
        isHTTP2: Bool = true
    ) {
        request = HTTPRequest(
            method: method, path: path, query: "", headers: headers, isHTTP2: isHTTP2)
    }

    var body: Bytes { written.joined() }
    func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
    func takeUnsent() {
        unsentBytes = 0
        onWritable?()
    }
    func hangUp() {
        isAborted = true
        onAbort?()
    }

    func setReading(_ reading: Bool) {}
    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(self.status == nil, "a response has one head")
        self.status = status
        self.headers = headers
    }
    func write(_ parts: [Bytes]) {
        precondition(status != nil && !isFinished, "a body stands between its head and its end")
        written += parts
        if holdsUnsent { unsentBytes += byteCount(parts) }
    }
    func finish() { finish(trailers: []) }
    func finish(trailers: [(name: String, value: String)]) {
        precondition(status != nil && !isFinished, "a response ends once")
        isFinished = true
        self.trailers = trailers
    }
    func abort() { isAborted = true }
}
