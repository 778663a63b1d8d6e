// SPDX-License-Identifier: Apache-2.0

import Glibc
import Primitives

/// A loop with virtual time: nothing runs, and no time passes, unless the test says so.
final class ManualLoop: Loop, @unchecked Sendable {
    // Safety: made, run and asked on one test's thread; `isCurrent` checks it.
    private let thread = pthread_self()
    private(set) var now: Nanoseconds = 1_000_000_000
    private var ready: [() -> Void] = []
    private var timers: [(at: Nanoseconds, number: Int, timer: Timer, work: () -> Void)] = []
    private var timersMade = 0
    private lazy var executor = Executor(self)

    var wallMilliseconds: UInt64 { UInt64(now / 1_000_000) }
    var isCurrent: Bool { pthread_equal(thread, pthread_self()) != 0 }
    var taskExecutor: any TaskExecutor { executor }

    func execute(_ work: @escaping @Sendable () -> Void) {
        precondition(isCurrent, "called from another thread")
        ready.append(work)
    }

    func scheduleUnchecked(_ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void) -> Timer {
        precondition(isCurrent, "called from another thread")
        let timer = Timer()
        timersMade += 1
        timers.append((now + delay, timersMade, timer, work))
        return timer
    }

    /// Runs everything that can run now.
    func run() {
        while !ready.isEmpty {
            let batch = ready
            ready = []
            for work in batch { work() }
        }
    }

    /// Lets time pass, timers firing in order.
    func advance(_ delay: Nanoseconds) {
        let end = now + delay
        run()
        while true {
            timers.removeAll { $0.timer.isCancelled }
            guard let next = timers.min(by: { ($0.at, $0.number) < ($1.at, $1.number) }),
                next.at <= end
            else { break }
            timers.removeAll { $0.number == next.number }
            now = max(now, next.at)
            next.work()
            run()
        }
        now = end
    }

    /// Timers that are set and not cancelled.
    var timerCount: Int { timers.filter { !$0.timer.isCancelled }.count }

    private final class Executor: TaskExecutor, @unchecked Sendable {
        // Safety: like its loop.
        private unowned let loop: ManualLoop

        init(_ loop: ManualLoop) { self.loop = loop }

        func enqueue(_ job: consuming ExecutorJob) {
            let job = UnownedJob(job)
            loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
        }
    }
}
