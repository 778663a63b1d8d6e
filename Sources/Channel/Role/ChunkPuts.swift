// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Log
internal import ObjectStorage
internal import Primitives

/// The PUTs of a log's chunks: several at once, each in a task that takes the next chunk once it is
/// done with one. A task of its own for each would take memory for each.
///
/// The log's window bounds the chunks under way, and so the tasks. They end when the log fails, or
/// with the process; one that waits keeps nothing of a log that was dropped.
final class ChunkPuts {
    /// How the PUT of a chunk ended.
    var onEnd: (ChunkIndex, Result<PutOnceOutcome, StoreError>) -> Void = { _, _ in }
    private let store: any ObjectStore
    private let loop: any Loop
    private let random: RandomSource
    private let backoff: Backoff
    /// Chunks that no task has taken yet: each has one that is about to.
    private var due: Deque<(index: ChunkIndex, key: String, body: [Bytes])> = []
    private var idle: [UnsafeContinuation<Void, Never>] = []
    private var isOver = false

    init(_ store: any ObjectStore, _ loop: any Loop, _ random: RandomSource, _ backoff: Backoff) {
        self.store = store
        self.loop = loop
        self.random = random
        self.backoff = backoff
    }

    func begin(_ index: ChunkIndex, _ key: String, _ body: [Bytes]) {
        due.append((index, key, body))
        if let task = idle.popLast() {
            task.resume()
        } else {
            loop.spawn { [weak self] in
                while await self?.putWhatIsDue() == true {
                    await withUnsafeContinuation { task in
                        if let self { self.idle.append(task) } else { task.resume() }
                    }
                }
            }
        }
    }

    /// No more chunks come: the tasks end with those that are under way.
    func end() {
        isOver = true
        let tasks = idle
        idle = []
        for task in tasks { task.resume() }
    }

    /// Whether more may come.
    private func putWhatIsDue() async -> Bool {
        while let (index, key, body) = due.popFirst() {
            let result = await put(key, body)
            onEnd(index, result)
        }
        return !isOver
    }

    private func put(_ key: String, _ body: [Bytes]) async -> Result<PutOnceOutcome, StoreError> {
        do throws(StoreError) {
            return .success(
                try await store.putOnce(
                    key, body, identity: ChunkHeader.identity, loop: loop, random: random,
                    backoff: backoff))
        } catch {
            return .failure(error)
        }
    }
}
