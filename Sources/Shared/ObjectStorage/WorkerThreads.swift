// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import Synchronization

/// A few threads for calls that block: files have no other kind.
///
/// Work waits in one bounded queue, and ends in any order. Dropping the last reference lets the
/// threads finish what is queued and go.
package final class WorkerThreads: Sendable {
    package typealias Work = @Sendable () -> Void

    private let shared: Shared
    private let threadCount: Int

    /// Throws `.unavailable` where the system refuses threads.
    package init(threads: Int, queuedMax: Int) throws(StoreError) {
        precondition(threads >= 1 && queuedMax >= 1)
        shared = Shared(queuedMax: queuedMax)
        threadCount = threads
        for started in 0..<threads {
            let code = Self.start(shared)
            guard code == 0 else {
                shared.stop(threads: started)
                throw StoreError(.unavailable, "no thread for the object store (error \(code))")
            }
        }
    }

    deinit { shared.stop(threads: threadCount) }

    /// Runs `work` soon on one of the threads; false if the queue is full.
    package func submit(_ work: @escaping Work) -> Bool { shared.submit(work) }

    private static func start(_ shared: Shared) -> Int32 {
        let me = Unmanaged.passRetained(shared)
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { me in
                // Safety: the pointer is the reference that was retained for this thread.
                guard let me else { return nil }
                Unmanaged<Shared>.fromOpaque(me).takeRetainedValue().run()
                return nil
            }, me.toOpaque())
        if code == 0 { pthread_detach(thread) } else { me.release() }
        return code
    }

    private final class Shared: Sendable {
        private struct Queue {
            var work: [Work] = []
            var first = 0
            var isStopping = false
        }
        private let queue = Mutex(Queue())
        private let queuedMax: Int
        // Any thread may raise and await a semaphore.
        // Safety: it outlives the threads, each of which holds this object.
        nonisolated(unsafe) private let ready: UnsafeMutablePointer<sem_t>

        init(queuedMax: Int) {
            self.queuedMax = queuedMax
            ready = .allocate(capacity: 1)
            sem_init(ready, 0, 0)
        }

        deinit {
            sem_destroy(ready)
            ready.deallocate()
        }

        func submit(_ work: @escaping Work) -> Bool {
            let accepted = queue.withLock { queue in
                guard queue.work.count - queue.first < queuedMax, !queue.isStopping else {
                    return false
                }
                queue.work.append(work)
                return true
            }
            if accepted { sem_post(ready) }
            return accepted
        }

        func stop(threads: Int) {
            queue.withLock { $0.isStopping = true }
            for _ in 0..<threads { sem_post(ready) }
        }

        func run() {
            while true {
                while sem_wait(ready) != 0 {}
                guard let work = next() else { return }
                work()
            }
        }

        /// One piece of work per raised semaphore; nil once all is done and the threads may go.
        private func next() -> Work? {
            queue.withLock { queue in
                guard queue.first < queue.work.count else { return nil }
                let work = queue.work[queue.first]
                queue.first += 1
                if queue.first == queue.work.count {
                    queue.work.removeAll(keepingCapacity: true)
                    queue.first = 0
                } else if queue.first >= 1_024 {
                    queue.work.removeFirst(queue.first)
                    queue.first = 0
                }
                return work
            }
        }
    }
}
