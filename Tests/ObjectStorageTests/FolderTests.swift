// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import ObjectStorage
import Primitives
import TestSupport
import Testing

@Suite struct FolderTests {
    @Test func pathsAreAsDocumented() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path + "/made/below")
        for key in ["wal/7/00012", "wal/7", "a b/.c", "x@"] {
            _ = try await store.put(key, [Bytes(utf8: key)], ifAbsent: true)
        }
        let files = Set(scratch.files)
        #expect(
            files == [
                "made/below/wal/7/00012@", "made/below/wal/7@", "made/below/a%20b/%2Ec@",
                "made/below/x%40@",
            ])
    }

    @Test func foreignFilesAreNotListed() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path)
        _ = try await store.put("k", [], ifAbsent: true)
        for name in ["README", "lost+found", "bad%2", "sp ace@", "@", "+"] {
            try Data().write(to: URL(fileURLWithPath: "\(scratch.path)/\(name)"))
        }
        let listing = try await store.list(prefix: "", after: "", limit: 10)
        #expect(listing.objects.map(\.key) == ["k"])
    }

    /// A crash leaves at most files in `#temporary`; an old one goes at the next start.
    @Test func temporaryFiles() async throws {
        let scratch = try ScratchFolder()
        _ = try FolderStore(path: scratch.path)
        let old = "\(scratch.path)/#temporary/old"
        let new = "\(scratch.path)/#temporary/new"
        for path in [old, new] { try Data([1]).write(to: URL(fileURLWithPath: path)) }
        let past = Date(timeIntervalSinceNow: -7_200)
        try FileManager.default.setAttributes([.modificationDate: past], ofItemAtPath: old)
        let folder = "\(scratch.path)/#temporary/0"
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: false)
        try FileManager.default.setAttributes([.modificationDate: past], ofItemAtPath: folder)
        let store = try FolderStore(path: scratch.path)
        #expect(scratch.files == ["#temporary/new"])
        #expect(FileManager.default.fileExists(atPath: folder), "the store's own, and in use")
        #expect(try await store.list(prefix: "", after: "", limit: 10).objects.isEmpty)
    }

    /// What a store makes is for its own user: records are in there.
    @Test(arguments: [true, false]) func nobodyElseMayRead(ifAbsent: Bool) async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path + "/made/below")
        _ = try await store.put("a/b", [Bytes(utf8: "x")], ifAbsent: ifAbsent)
        for path in ["made", "made/below", "made/below/#temporary", "made/below/a"] {
            #expect(try mode("\(scratch.path)/\(path)") == 0o700, "\(path)")
        }
        #expect(try mode(scratch.path + "/made/below/a/b@") == 0o600)
    }

    private func mode(_ path: String) throws -> Int? {
        try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    }

    /// As files from archives, and of broken clocks, may be.
    @Test func aFileOfNoTime() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path)
        _ = try await store.put("k", [Bytes(utf8: "x")], ifAbsent: true)
        let past = Date(timeIntervalSince1970: -86_400)
        let path = scratch.path + "/k@"
        try FileManager.default.setAttributes([.modificationDate: past], ofItemAtPath: path)
        #expect(try await store.head("k")?.modifiedMilliseconds == 0)
        let listing = try await store.list(prefix: "", after: "", limit: 10)
        #expect(listing.objects.map(\.modifiedMilliseconds) == [0])
    }

    /// New files begin in several folders, in turns, which are made as they are wanted.
    @Test func newFilesAreSpread() async throws {
        let scratch = try ScratchFolder()
        let temporary = "\(scratch.path)/#temporary"
        let store = try FolderStore(path: scratch.path)
        func put(_ count: Int) async throws -> Int {
            for _ in 0..<count {
                let key = "k/\(UUID().uuidString)"
                #expect(try await store.put(key, [Bytes(utf8: key)], ifAbsent: true) == .created)
                #expect(try await store.get(key, range: nil).bytes.lossyText == key)
            }
            return try FileManager.default.contentsOfDirectory(atPath: temporary).count
        }
        try #require(try await put(1) <= 1)
        let isSupported = try await put(1) == 2
        #expect(try await put(100) == (isSupported ? 64 : 0))
        // As an operator might.
        for name in try FileManager.default.contentsOfDirectory(atPath: temporary) {
            try FileManager.default.removeItem(atPath: "\(temporary)/\(name)")
        }
        #expect(try await put(3) == (isSupported ? 3 : 0))
        #expect(scratch.files.count == 105)
        for name in try FileManager.default.contentsOfDirectory(atPath: temporary) {
            #expect(try mode("\(temporary)/\(name)") == 0o700)
        }
    }

    @Test func nothingIsLeftBehind() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path)
        for ifAbsent in [true, true, false, false] {
            _ = try await store.put("a/b/c", [Bytes(utf8: "x")], ifAbsent: ifAbsent)
        }
        #expect(scratch.files == ["a/b/c@"])
        try await store.delete("a/b/c")
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["#temporary"])
    }

    /// Writers keep folders open; one that was removed when it became empty is made again.
    @Test func emptiedFoldersComeBack() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path, isDurable: false)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<8 {
                group.addTask {
                    for round in 0..<100 {
                        let key = "shared/folder/\(writer)-\(round)"
                        let result = try await store.put(key, [], ifAbsent: round % 2 == 0)
                        #expect(result == .created)
                        try await store.delete(key)
                    }
                }
            }
            try await group.waitForAll()
        }
        // As an operator might.
        _ = try await store.put("shared/folder/x", [], ifAbsent: true)
        try FileManager.default.removeItem(atPath: scratch.path + "/shared")
        #expect(try await store.put("shared/folder/x", [], ifAbsent: true) == .created)
        #expect(try await store.head("shared/folder/x") != nil)
    }

    @Test func twoProcessesShareAFolder() async throws {
        let scratch = try ScratchFolder()
        let stores = try (0..<2).map { _ in try FolderStore(path: scratch.path) }
        for round in 0..<50 {
            async let a = stores[0].put("log/\(round)", [Bytes(utf8: "a")], ifAbsent: true)
            async let b = stores[1].put("log/\(round)", [Bytes(utf8: "b")], ifAbsent: true)
            let results = try await [a, b]
            #expect(results.filter { $0 == .created }.count == 1)
        }
    }

    @Test func aFullQueueRefuses() async throws {
        let scratch = try ScratchFolder()
        var limits = FolderStore.Limits()
        limits.threads = 1
        limits.queuedMax = 2
        let store = try FolderStore(path: scratch.path, limits: limits)
        let body = [Bytes([UInt8](repeating: 1, count: 1 << 20))]
        let results = await withTaskGroup(of: StoreError?.self) { group in
            for n in 0..<40 {
                group.addTask {
                    do throws(StoreError) {
                        _ = try await store.put("k/\(n)", body, ifAbsent: true)
                        return nil
                    } catch {
                        return error
                    }
                }
            }
            return await group.reduce(into: [StoreError?]()) { $0.append($1) }
        }
        let refused = results.compactMap { $0 }
        #expect(!refused.isEmpty && refused.count < 40)
        #expect(refused.allSatisfy { $0.kind == .unavailable && !$0.outcomeUnknown })
        #expect(store.statistics.inFlight == 0)
        #expect(store.statistics.count(.put, .unavailable) == UInt64(refused.count))
    }

    @Test func putsAreCountedByClassAndOutcome() async throws {
        let scratch = try ScratchFolder()
        let classes = ObjectClasses(["long", "short"]) { key, head in
            key.hasPrefix("k/") && head.count > 3 ? 0 : 1
        }
        let meter = StoreMeter(classes: classes)
        let store = try FolderStore(path: scratch.path, meter: meter)
        let long = [Bytes(utf8: "long"), Bytes(utf8: "er")]
        _ = try await store.put("k/1", long, ifAbsent: true)
        _ = try await store.put("k/1", long, ifAbsent: true)
        _ = try await store.put("k/2", [Bytes(utf8: "x")], ifAbsent: true)
        _ = try await store.put("other", long, ifAbsent: false)
        try Data().write(to: URL(fileURLWithPath: scratch.path + "/wal"))
        await #expect(throws: StoreError.self) {
            try await store.put("wal/7", long, ifAbsent: false)
        }
        let counts = meter.snapshot
        #expect(counts == store.statistics)
        #expect(counts.puts(ofClass: 0, .done) == 1 && counts.puts(ofClass: 0, .exists) == 1)
        #expect(counts.puts(ofClass: 1, .done) == 2 && counts.puts(ofClass: 1, .failed) == 1)
        #expect(counts.bytesStored(ofClass: 0) == 6 && counts.bytesStored(ofClass: 1) == 7)
        #expect(counts.bytesStored == 13 && counts.inFlight == 0)
        #expect(counts.count(.put, .done) == 3 && counts.durations(.put).count == 5)
        #expect(counts.durations(.get).count == 0)
    }

    @Test func aFileInTheWay() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path)
        try Data().write(to: URL(fileURLWithPath: scratch.path + "/wal"))
        let error = await #expect(throws: StoreError.self) {
            try await store.put("wal/7", [Bytes(utf8: "x")], ifAbsent: true)
        }
        #expect(error?.kind == .failed && error?.outcomeUnknown == false)
        #expect(scratch.files == ["wal"])
        #expect(throws: StoreError.self) { try FolderStore(path: scratch.path + "/wal") }
    }

    /// A size limit stands for a full disk: a write ends half way.
    @Test func aFileBeyondTheLimit() async throws {
        let scratch = try ScratchFolder()
        let store = try FolderStore(path: scratch.path)
        signal(SIGXFSZ, SIG_IGN)
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
        let before = limit
        limit.rlim_cur = 64 << 20
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
        var restored = before
        defer { setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &restored) }
        let block = Bytes([UInt8](repeating: 7, count: 1 << 20))
        for ifAbsent in [true, false] {
            let error = await #expect(throws: StoreError.self) {
                try await store.put(
                    "big", [Bytes](repeating: block, count: 80), ifAbsent: ifAbsent)
            }
            #expect(error?.kind == .failed && error?.outcomeUnknown == false)
        }
        #expect(scratch.files.isEmpty)
        #expect(try await store.put("big", [block], ifAbsent: true) == .created)
    }

    /// Where we may mount: a disk that is full, and one that is read-only.
    @Test(.enabled(if: geteuid() == 0)) func aFullDisk() async throws {
        let scratch = try ScratchFolder()
        guard mount("tmpfs", scratch.path, "tmpfs", 0, "size=1m") == 0 else { return }
        defer { umount2(scratch.path, Int32(MNT_DETACH)) }
        let store = try FolderStore(path: scratch.path)
        let block = Bytes([UInt8](repeating: 7, count: 1 << 20))
        for ifAbsent in [true, false] {
            let error = await #expect(throws: StoreError.self) {
                try await store.put("big", [block, block], ifAbsent: ifAbsent)
            }
            #expect(error?.kind == .failed && error?.outcomeUnknown == false)
        }
        #expect(scratch.files.isEmpty)
        #expect(try await store.put("small", [block[0..<1_000]], ifAbsent: true) == .created)
        let readOnly = UInt(MS_REMOUNT | MS_RDONLY)
        #expect(mount("tmpfs", scratch.path, "tmpfs", readOnly, nil) == 0)
        let error = await #expect(throws: StoreError.self) {
            try await store.put("other", [], ifAbsent: true)
        }
        #expect(error?.kind == .failed && error?.outcomeUnknown == false)
        #expect(try await store.get("small", range: nil).objectSize == 1_000)
    }
}
