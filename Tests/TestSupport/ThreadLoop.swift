// SPDX-License-Identifier: Apache-2.0

internal import Glibc
package import Primitives
private import Synchronization

/// A `Loop` on a thread of its own, for tests that need one and bring no transport.
///
/// Ends with `stop()`; what is still queued is dropped.
// Safety: `timers`, `nextTimer` and `thread` are touched by the loop's thread only, apart from
// `isCurrent`, which reads `thread` after `init` has waited for it to be set.
package final class ThreadLoop: Loop, TaskExecutor, @unchecked Sendable {
    private enum Item {
        case work(@Sendable () -> Void)
        case job(UnownedJob)
    }
    private struct Inbox {
        var items: [Item] = []
        var isStopping = false
    }
    private struct Waiting {
        let due: Nanoseconds
        let timer: Timer
        let work: @Sendable () -> Void
    }
    private let inbox = Mutex(Inbox())
    private let ready = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private let started = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private var thread = pthread_t()
    private var timers: [Waiting] = []

    package init() {
        sem_init(ready, 0, 0)
        sem_init(started, 0, 0)
        let me = Unmanaged.passRetained(self).toOpaque()
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { me in
                guard let me else { return nil }
                Unmanaged<ThreadLoop>.fromOpaque(me).takeRetainedValue().run()
                return nil
            }, me)
        precondition(code == 0, "a test has a thread")
        pthread_detach(thread)
        while sem_wait(started) != 0 {}
    }

    deinit {
        for semaphore in [ready, started] {
            sem_destroy(semaphore)
            semaphore.deallocate()
        }
    }

    package var now: Nanoseconds {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Nanoseconds(time.tv_sec) * 1_000_000_000 + Nanoseconds(time.tv_nsec)
    }

    package var wallMilliseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
    }

    package var isCurrent: Bool { pthread_equal(thread, pthread_self()) != 0 }
    package var taskExecutor: any TaskExecutor { self }

    package func execute(_ work: @escaping @Sendable () -> Void) { add(.work(work)) }
    package func enqueue(_ job: consuming ExecutorJob) { add(.job(UnownedJob(job))) }

    package func scheduleUnchecked(
        _ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void
    ) -> Timer {
        let timer = Timer()
        timers.append(Waiting(due: now + delay, timer: timer, work: work))
        return timer
    }

    /// Runs `body` on the loop and returns what it returns.
    package func run<Value: Sendable>(
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await Task(executorPreference: self) { try await body() }.value
    }

    package func stop() {
        inbox.withLock { $0.isStopping = true }
        sem_post(ready)
    }

    private func add(_ item: Item) {
        let isFirst = inbox.withLock { inbox in
            inbox.items.append(item)
            return inbox.items.count == 1
        }
        if isFirst { sem_post(ready) }
    }

    private func run() {
        thread = pthread_self()
        sem_post(started)
        while true {
            let (items, isStopping) = inbox.withLock { inbox in
                defer { inbox.items = [] }
                return (inbox.items, inbox.isStopping)
            }
            if isStopping { return }
            for item in items {
                switch item {
                case .work(let work): work()
                case .job(let job): job.runSynchronously(on: asUnownedTaskExecutor())
                }
            }
            fireTimers()
            if items.isEmpty { wait() }
        }
    }

    private func fireTimers() {
        let now = now
        let due = timers.filter { $0.due <= now }.sorted { $0.due < $1.due }
        guard !due.isEmpty else { return }
        timers.removeAll { $0.due <= now }
        for waiting in due where !waiting.timer.isCancelled { waiting.work() }
    }

    private func wait() {
        guard let next = timers.map(\.due).min() else {
            while sem_wait(ready) != 0 {}
            return
        }
        var until = timespec()
        clock_gettime(CLOCK_REALTIME, &until)
        let nanoseconds = until.tv_nsec + Int(max(next - now, 0))
        until.tv_sec += nanoseconds / 1_000_000_000
        until.tv_nsec = nanoseconds % 1_000_000_000
        _ = sem_timedwait(ready, &until)
    }
}
