// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Primitives
import Synchronization
import Testing

@testable import ObjectStorage

/// Large objects, which a folder store writes past the page cache.
@Suite struct DirectWriteTests {
    static let block = DirectPart.blockBytes
    static let buffer = DirectWriter.bufferBytes
    static let least = DirectPart.objectBytesMin
    /// Around every border that the way of writing has.
    static let sizes = [
        0, 1, block - 1, block, block + 1, buffer - 1, buffer, buffer + 1, least - 1, least,
        least + 1, least + block - 1, least + block, least + block + 1, least + buffer - 1,
        least + buffer, least + buffer + 1, (8 << 20) + 3,
    ]

    @Test(arguments: sizes, [true, false])
    func everySizeComesBack(size: Int, ifAbsent: Bool) async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path)
        let body = Self.body(size, seed: UInt64(size))
        #expect(try await store.put("a/b", body, ifAbsent: ifAbsent) == .created)
        try await Self.expect(body, at: "a/b", in: store)
        let status = try FileManager.default.attributesOfItem(atPath: scratch.path + "/a/b@")
        #expect(status[.size] as? Int == size)
        #expect(scratch.files == ["a/b@"])
    }

    @Test(arguments: [true, false]) func largeObjectsGoDirect(ifAbsent: Bool) async throws {
        let kernel = Kernel()
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let small = Self.body(Self.least - 1, seed: 1)
        _ = try await store.put("small", small, ifAbsent: ifAbsent)
        #expect(kernel.seen.isEmpty)
        let large = Self.body(Self.least + 3 * Self.block + 17, seed: 2)
        _ = try await store.put("large", large, ifAbsent: ifAbsent)
        #expect(
            kernel.seen == [
                .setDirect(true), .write(Self.buffer), .write(Self.buffer),
                .write(3 * Self.block), .setDirect(false),
            ])
        try await Self.expect(large, at: "large", in: store)
    }

    @Test func whatNeedNotBeDurableGoesTheUsualWay() async throws {
        let kernel = Kernel()
        let scratch = try ScratchFolder()
        let store = try FolderStore(
            path: scratch.path, isDurable: false, directCalls: kernel.calls)
        _ = try await store.put("k", Self.body(Self.least, seed: 1), ifAbsent: true)
        #expect(kernel.seen.isEmpty)
    }

    /// The flag of the file is one that the kernel knows.
    @Test func theFlag() throws {
        let scratch = try ScratchFolder()
        let file = open(scratch.path + "/f", O_WRONLY | O_CREAT, 0o600)
        defer { close(file) }
        let isDirect = DirectCalls.system.setDirect(file, true)
        #expect((fcntl(file, F_GETFL) & DirectCalls.direct != 0) == isDirect)
        #expect(DirectCalls.system.setDirect(file, false))
        #expect(fcntl(file, F_GETFL) & DirectCalls.direct == 0)
    }

    /// Whether the flag is refused, or the first piece.
    @Test(arguments: [true, false]) func aFileSystemThatCannot(early: Bool) async throws {
        let kernel = Kernel { call, _ in
            if early { return call == .setDirect(true) ? .fails(EINVAL) : .passes }
            return call.isWrite ? .fails(EINVAL) : .passes
        }
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let body = Self.body(Self.least + 5, seed: 3)
        for key in ["a", "b"] {
            #expect(try await store.put(key, body, ifAbsent: key == "a") == .created)
            try await Self.expect(body, at: key, in: store)
        }
        let once: [Kernel.Call] =
            early
            ? [.setDirect(true)]
            : [.setDirect(true), .write(Self.buffer), .setDirect(false)]
        #expect(kernel.seen == once, "it is asked once")
    }

    /// What was taken of a piece, if the disk did not take all of it.
    @Test(arguments: [0, 1, 2], [0, 1, 512, block, 2 * block - 1])
    func shortWrites(number: Int, taken: Int) async throws {
        let kernel = Kernel { call, writes in
            call.isWrite && writes == number ? .takes(taken) : .passes
        }
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let body = Self.body(Self.least + 2 * Self.block + 9, seed: 4)
        #expect(try await store.put("k", body, ifAbsent: true) == .created)
        try await Self.expect(body, at: "k", in: store)
        #expect(kernel.seen.filter(\.isWrite).count == number + 1, "the rest goes the usual way")
        #expect(kernel.seen.last == .setDirect(false))
    }

    @Test func aLaterPieceIsRefused() async throws {
        let kernel = Kernel { call, writes in
            call.isWrite && writes == 1 ? .fails(EINVAL) : .passes
        }
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let body = Self.body(Self.least + 9, seed: 5)
        for key in ["a", "b"] {
            #expect(try await store.put(key, body, ifAbsent: true) == .created)
            try await Self.expect(body, at: key, in: store)
        }
        #expect(kernel.seen.filter { $0 == .setDirect(true) }.count == 2, "it is tried again")
    }

    @Test func interrupted() async throws {
        let kernel = Kernel { call, writes in
            call.isWrite && writes % 2 == 0 ? .fails(EINTR) : .passes
        }
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let body = Self.body(Self.least, seed: 6)
        #expect(try await store.put("k", body, ifAbsent: true) == .created)
        try await Self.expect(body, at: "k", in: store)
        #expect(kernel.seen.filter(\.isWrite).count == 4)
    }

    @Test(arguments: [0, 1], [ENOSPC, EIO, EFBIG])
    func aDiskThatFails(number: Int, code: Int32) async throws {
        let kernel = Kernel { call, writes in
            call.isWrite && writes == number ? .fails(code) : .passes
        }
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let body = Self.body(Self.least, seed: 7)
        let error = await #expect(throws: StoreError.self) {
            try await store.put("k", body, ifAbsent: true)
        }
        #expect(error?.kind == .failed && error?.outcomeUnknown == false)
        #expect(error?.message.hasPrefix("write of k: ") == true)
        #expect(scratch.files.isEmpty)
        #expect(try await store.put("k", body, ifAbsent: false) == .created)
        try await Self.expect(body, at: "k", in: store)
    }

    @Test func manyAtOnce() async throws {
        let scratch = try ScratchFolder()
        let stores = try (0..<2).map { _ in try FolderStore(path: scratch.path) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<24 {
                group.addTask {
                    let store = stores[writer % 2]
                    let body = Self.body(Self.least + writer * 4_099, seed: UInt64(writer))
                    #expect(try await store.put("k/\(writer)", body, ifAbsent: true) == .created)
                    try await Self.expect(body, at: "k/\(writer)", in: store)
                }
            }
            try await group.waitForAll()
        }
    }

    /// Several writes have a buffer each, and later ones the same.
    @Test func buffersOfSeveralWrites() async throws {
        let writers = 4
        let meeting = Meeting(of: writers)
        let buffers = Mutex<[UInt]>([])
        let calls = DirectCalls(
            setDirect: { file, isDirect in
                _ = DirectCalls.system.setDirect(file, isDirect)
                return true
            },
            write: { file, bytes, count in
                meeting.attend()
                buffers.withLock { $0.append(UInt(bitPattern: bytes)) }
                return DirectCalls.system.write(file, bytes, count)
            })
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: calls)
        for round in 0..<2 {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for writer in 0..<writers {
                    group.addTask {
                        let body = Self.body(2 * Self.buffer, seed: UInt64(writer))
                        _ = try await store.put("\(round)/\(writer)", body, ifAbsent: true)
                        try await Self.expect(body, at: "\(round)/\(writer)", in: store)
                    }
                }
                try await group.waitForAll()
            }
        }
        let seen = buffers.withLock { $0 }
        #expect(seen.count == 4 * writers && Set(seen).count == writers)
        for start in stride(from: 0, to: seen.count, by: writers) {
            #expect(Set(seen[start..<start + writers]).count == writers)
        }
    }

    /// A part that begins at a block's boundary, in memory and in the object, is taken from there.
    @Test(arguments: [0, 1, block - 1, 40_000])
    func whatLiesWellIsNotGathered(rest: Int) async throws {
        let whole = Self.body(Self.least + 300_000, seed: 8).joined()
        let storage = ByteStorage.make(capacity: 3 * Self.least)
        let origin = Self.block - Int(bitPattern: storage.base) % Self.block
        let lengths = [70 * Self.block, 190 * Self.block + rest]
        // The second part has a page of its own between itself and the first.
        let offsets = [origin, origin + 71 * Self.block]
        var body: [Bytes] = []
        for (offset, length) in zip(offsets, lengths) {
            let source = whole[byteCount(body)..<byteCount(body) + length]
            (storage.base + offset).copyMemory(from: source.base, byteCount: length)
            body.append(
                Bytes(
                    owner: storage, base: UnsafeRawPointer(storage.base + offset), count: length))
        }
        let seen = Mutex<[Int]>([])
        let base = Int(bitPattern: storage.base)
        let kernel = Kernel()
        let system = kernel.calls
        let calls = DirectCalls(
            setDirect: system.setDirect,
            write: { file, bytes, count in
                seen.withLock { $0.append(Int(bitPattern: bytes) - base) }
                return system.write(file, bytes, count)
            })
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: calls)
        _ = try await store.put("k", body, ifAbsent: true)
        try await Self.expect(body, at: "k", in: store)
        #expect(seen.withLock(\.self) == offsets)
        let blocks = (190 * Self.block + rest) / Self.block * Self.block
        #expect(kernel.seen.filter(\.isWrite) == [.write(70 * Self.block), .write(blocks)])
    }

    /// What does not lie well is gathered up to where it does, and small pieces in any case.
    @Test func whatLiesWellBehindOthersIsNotGathered() async throws {
        let storage = ByteStorage.make(capacity: 4 * Self.least)
        let origin = Self.block - Int(bitPattern: storage.base) % Self.block
        memset(storage.base, 7, storage.byteCapacity)
        func part(_ offset: Int, _ length: Int) -> Bytes {
            Bytes(
                owner: storage, base: UnsafeRawPointer(storage.base + origin + offset),
                count: length)
        }
        let kernel = Kernel()
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, directCalls: kernel.calls)
        let piece = DirectPart.bytesMin
        let body = [
            part(11, Self.block), part(0, Self.buffer), part(9, piece), part(0, Self.least),
            part(0, piece), part(0, piece - 1),
        ]
        _ = try await store.put("k", body, ifAbsent: true)
        try await Self.expect(body, at: "k", in: store)
        // The second gathering ends within the part of 1 MiB, which goes on as it lies.
        let gathered = Self.buffer - piece - Self.block
        #expect(
            kernel.seen.filter(\.isWrite) == [
                .write(Self.buffer), .write(Self.buffer), .write(Self.least - gathered),
                .write(piece), .write(piece - Self.block),
            ])
    }

    /// Bytes that differ everywhere, in many parts that begin and end anywhere.
    private static func body(_ size: Int, seed: UInt64) -> [Bytes] {
        var state = seed
        let words = (0..<(size / 8 + 1)).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state
        }
        let whole = words.withUnsafeBytes { Bytes(copying: $0) }.prefix(size)
        let lengths = [1, 0, 4_095, 7, 65_521, 4_097, 300_007, 13, 1_000_003]
        var parts: [Bytes] = []
        var start = 0
        while start < size {
            let end = min(size, start + lengths[parts.count % lengths.count])
            parts.append(whole[start..<end])
            start = end
        }
        return parts
    }

    private static func expect(
        _ body: [Bytes], at key: String, in store: FolderStore,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let found = try await store.get(key, range: nil)
        #expect(found.objectSize == byteCount(body), sourceLocation: sourceLocation)
        var start = 0
        for part in body where start + part.count <= found.bytes.count {
            let isSame = memcmp(found.bytes.base + start, part.base, part.count) == 0
            #expect(isSame, "from byte \(start)", sourceLocation: sourceLocation)
            start += part.count
        }
        #expect(start == byteCount(body), sourceLocation: sourceLocation)
        withExtendedLifetime(found) {}
    }
}

/// Where so many threads meet, again and again: none goes on before all are there.
private final class Meeting: @unchecked Sendable {
    private let barrier = UnsafeMutablePointer<pthread_barrier_t>.allocate(capacity: 1)

    init(of count: Int) { pthread_barrier_init(barrier, nil, UInt32(count)) }

    deinit {
        pthread_barrier_destroy(barrier)
        barrier.deallocate()
    }

    func attend() { pthread_barrier_wait(barrier) }
}

/// A kernel that answers direct calls as it is told to, and else like the real one.
private final class Kernel: Sendable {
    enum Call: Equatable {
        case setDirect(Bool)
        case write(Int)

        var isWrite: Bool { if case .write = self { true } else { false } }
    }
    enum Answer {
        case passes
        case fails(Int32)
        /// The real one writes so many bytes, by the usual way.
        case takes(Int)
    }
    private struct State {
        var seen: [Call] = []
        var writes = 0
    }
    private let state = Mutex(State())
    private let answer: @Sendable (Call, _ writesBefore: Int) -> Answer

    init(_ answer: @escaping @Sendable (Call, Int) -> Answer = { _, _ in .passes }) {
        self.answer = answer
    }

    var seen: [Call] { state.withLock(\.seen) }

    var calls: DirectCalls {
        DirectCalls(
            setDirect: { file, isDirect in
                if case .fails(let code) = self.next(.setDirect(isDirect)) {
                    errno = code
                    return false
                }
                // So that it passes where the scratch folder is on a file system that cannot.
                _ = DirectCalls.system.setDirect(file, isDirect)
                return true
            },
            write: { file, bytes, count in
                #expect(count % DirectPart.blockBytes == 0 && count > 0)
                #expect(Int(bitPattern: bytes) % DirectPart.blockBytes == 0)
                switch self.next(.write(count)) {
                case .passes:
                    return DirectCalls.system.write(file, bytes, count)
                case .fails(let code):
                    errno = code
                    return -1
                case .takes(let taken):
                    _ = DirectCalls.system.setDirect(file, false)
                    defer { _ = DirectCalls.system.setDirect(file, true) }
                    return DirectCalls.system.write(file, bytes, taken)
                }
            })
    }

    private func next(_ call: Call) -> Answer {
        let writes = state.withLock { state in
            state.seen.append(call)
            defer { if call.isWrite { state.writes += 1 } }
            return state.writes
        }
        return answer(call, writes)
    }
}
