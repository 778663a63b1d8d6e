// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import ObjectStorage
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite struct TimedCallTests {
    private final class Gate: Sendable {
        private let semaphore = DispatchSemaphore(value: 0)
        let begun = Atomic<Int>(0)

        func pass() {
            begun.add(1, ordering: .relaxed)
            semaphore.wait()
        }
        func open() { semaphore.signal() }
    }

    private func failure(_ result: Result<Void, StoreError>) -> StoreError? {
        if case .failure(let error) = result { error } else { nil }
    }

    @Test(arguments: [true, false]) func aCallThatHangsEnds(isChange: Bool) async throws {
        let calls = try TimedCalls(threads: 1, queuedMax: 4, limit: .milliseconds(200))
        let gate = Gate()
        async let first = calls.run(isChange: isChange) { gate.pass() }
        let begin = ContinuousClock.now
        while gate.begun.load(ordering: .relaxed) == 0 {
            try #require(ContinuousClock.now - begin < .seconds(30))
            await Task.yield()
        }
        let behind = failure(await calls.run(isChange: isChange) { gate.pass() })
        let hung = failure(await first)
        #expect(ContinuousClock.now - begin < .seconds(60))
        #expect(hung?.kind == .unavailable && hung?.outcomeUnknown == isChange)
        #expect(behind?.kind == .unavailable && behind?.outcomeUnknown == false)
        gate.open()
        // The thread that hung must wake first.
        while let failure = failure(await calls.run(isChange: isChange) {}) {
            try #require(ContinuousClock.now - begin < .seconds(60), "\(failure)")
        }
        #expect(gate.begun.load(ordering: .relaxed) == 1, "what was given up never begins")
    }

    @Test func manyCallsInTurn() async throws {
        let calls = try TimedCalls(threads: 2, queuedMax: 4, limit: .seconds(2))
        for round in 0..<2_000 {
            #expect(await calls.run(isChange: true) { round } == .success(round))
        }
        // The watch ends and begins again.
        try await Task.sleep(for: .milliseconds(600))
        #expect(await calls.run(isChange: false) { 7 } == .success(7))
    }

    /// Opening a pipe that nobody writes to hangs, as files on a server that is gone do.
    @Test func aStoreWhoseDiskHangs() async throws {
        let scratch = try ScratchFolder()
        var limits = FolderStore.Limits()
        limits.threads = 1
        limits.callNanosecondsMax = .milliseconds(200)
        let store = try FolderStore(path: scratch.path, limits: limits)
        #expect(mkfifo(scratch.path + "/k@", 0o600) == 0)
        let error = await #expect(throws: StoreError.self) { try await store.get("k", range: nil) }
        #expect(error?.kind == .unavailable && error?.outcomeUnknown == false)
        let behind = await #expect(throws: StoreError.self) {
            try await store.put("other", [], ifAbsent: true)
        }
        #expect(behind?.kind == .unavailable && behind?.outcomeUnknown == false)
        #expect(store.statistics.inFlight == 0)
        let writer = open(scratch.path + "/k@", O_WRONLY)
        close(writer)
        let begin = ContinuousClock.now
        var tries = 0
        while (try? await store.put("mine-\(tries)", [], ifAbsent: true)) != .created {
            tries += 1
            try #require(ContinuousClock.now - begin < .seconds(60))
        }
        #expect(access(scratch.path + "/other@", F_OK) != 0, "what was given up never begins")
    }
}
