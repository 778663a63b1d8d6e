// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// A loop with virtual time, on the thread that runs it: what waits costs nothing.
package final class VirtualLoop: Loop, TaskExecutor, @unchecked Sendable {
    // Safety: everything happens on the one thread of its test.
    package private(set) var now: Nanoseconds = 1_000_000_000
    private var jobs: [() -> Void] = []
    private var timers: [(due: Nanoseconds, number: Int, timer: Timer, work: () -> Void)] = []
    private var timersSet = 0
    private var isRunning = false

    package var wallMilliseconds: UInt64 { 1_700_000_000_000 + UInt64(now / 1_000_000) }
    package var isCurrent: Bool { true }
    package var taskExecutor: any TaskExecutor { self }

    package init() {}

    package func execute(_ work: @escaping @Sendable () -> Void) { jobs.append(work) }

    package func scheduleUnchecked(
        _ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void
    ) -> Timer {
        let timer = Timer()
        timersSet += 1
        timers.append((now + delay, timersSet, timer, work))
        return timer
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.append { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }

    /// Does all that is due within `span` from now.
    package func run(for span: Nanoseconds) {
        let end = now + span
        run {
            self.now >= end
        } until: {
            end
        }
        now = max(now, end)
    }

    /// Runs until `condition` holds; false if nothing is left to do, or after an hour.
    @discardableResult
    package func run(until condition: @escaping () -> Bool) -> Bool {
        let end = now + .seconds(3_600)
        run(condition) { end }
        return condition()
    }

    private func run(_ condition: () -> Bool, until end: () -> Nanoseconds) {
        precondition(!isRunning, "a loop does not run within itself")
        isRunning = true
        defer { isRunning = false }
        while !condition() {
            if !jobs.isEmpty {
                jobs.removeFirst()()
                continue
            }
            timers.removeAll { $0.timer.isCancelled }
            guard let next = timers.min(by: { ($0.due, $0.number) < ($1.due, $1.number) }),
                next.due <= end()
            else { return }
            timers.removeAll { $0.number == next.number }
            now = max(now, next.due)
            next.work()
        }
    }

    /// The value of asynchronous work, which must end by itself.
    package func value<Value: Sendable>(
        _ body: @escaping () async throws -> Value
    ) throws -> Value {
        var result: Result<Value, any Error>?
        spawn {
            do { result = .success(try await body()) } catch { result = .failure(error) }
        }
        run { result != nil }
        guard let result else { fatalError("the work never ended") }
        return try result.get()
    }
}
