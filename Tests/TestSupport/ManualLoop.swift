// SPDX-License-Identifier: Apache-2.0

internal import Glibc
package import Primitives

/// A loop whose time passes only when a test says so: what waits costs nothing. Everything runs on
/// the test's own thread, so tests that use it are synchronous functions.
// Safety: touched by the thread that made it only, which `enqueue` and `execute` check.
package final class ManualLoop: Loop, TaskExecutor, @unchecked Sendable {
    private enum Work {
        case job(UnownedJob)
        case closure(@Sendable () -> Void)
    }
    private struct Alarm {
        let at: Nanoseconds
        let number: Int
        let timer: Timer
        let work: @Sendable () -> Void
    }
    private let thread = pthread_self()
    private var ready: [Work] = []
    private var alarms: [Alarm] = []
    private var alarmsSet = 0
    package private(set) var now: Nanoseconds = 0
    /// The wall clock at `now` 0.
    package var wallStartMilliseconds: UInt64 = 1_700_000_000_000

    package var wallMilliseconds: UInt64 { wallStartMilliseconds + UInt64(now / 1_000_000) }
    package var isCurrent: Bool { pthread_equal(pthread_self(), thread) != 0 }
    package var taskExecutor: any TaskExecutor { self }

    package init() {}

    package func enqueue(_ job: consuming ExecutorJob) {
        precondition(isCurrent, "a job came from another thread")
        ready.append(.job(UnownedJob(job)))
    }

    package func execute(_ work: @escaping @Sendable () -> Void) {
        precondition(isCurrent, "work came from another thread")
        ready.append(.closure(work))
    }

    package func scheduleUnchecked(
        _ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void
    ) -> Timer {
        let timer = Timer()
        alarmsSet += 1
        alarms.append(Alarm(at: now + delay, number: alarmsSet, timer: timer, work: work))
        return timer
    }

    /// Runs all that can run without time passing.
    package func settle() {
        while !ready.isEmpty {
            let batch = ready
            ready = []
            for work in batch {
                switch work {
                case .job(let job): job.runSynchronously(on: asUnownedTaskExecutor())
                case .closure(let closure): closure()
                }
            }
        }
    }

    /// Lets `span` pass, running what falls due in order.
    package func advance(_ span: Nanoseconds) {
        let end = now + span
        settle()
        while let next = nextAlarm(), next.at <= end {
            alarms.removeAll { $0.number == next.number }
            now = max(now, next.at)
            next.work()
            settle()
        }
        now = end
    }

    /// Lets `span` pass.
    package func run(for span: Nanoseconds) { advance(span) }

    /// The value of asynchronous work, which must end by itself within an hour.
    package func value<Value: Sendable>(
        _ body: @escaping () async throws -> Value
    ) throws -> Value {
        var result: Result<Value, any Error>?
        spawn {
            do { result = .success(try await body()) } catch { result = .failure(error) }
        }
        run(atMost: .seconds(3_600)) { result != nil }
        guard let result else { fatalError("the work never ended") }
        return try result.get()
    }

    /// Lets time pass until `done`, at most `span`; whether it came to that.
    @discardableResult
    package func run(atMost span: Nanoseconds = .seconds(120), until done: () -> Bool) -> Bool {
        let end = now + span
        settle()
        while !done() {
            guard let next = nextAlarm(), next.at <= end else { return false }
            advance(max(next.at - now, 0))
        }
        return true
    }

    /// Timers that are set and not cancelled.
    package var timerCount: Int { alarms.count { !$0.timer.isCancelled } }

    private func nextAlarm() -> Alarm? {
        alarms.removeAll { $0.timer.isCancelled }
        return alarms.min { ($0.at, $0.number) < ($1.at, $1.number) }
    }
}
