// SPDX-License-Identifier: Apache-2.0

/// Nanoseconds: of an interval, or of a loop's clock.
package typealias Nanoseconds = Int64

extension Nanoseconds {
    package static func milliseconds(_ n: Int64) -> Nanoseconds { n * 1_000_000 }
    package static func seconds(_ n: Int64) -> Nanoseconds { n * 1_000_000_000 }
}

/// One thread's event loop: an operating-system thread in production, a simulated process else.
///
/// A role's hot state belongs to one loop and is touched only there, without locks. Its classes are
/// therefore not `Sendable`; the loop, which checks that it is called on itself, is the one place
/// where a closure over such state crosses into a timer or a task.
package protocol Loop: AnyObject, Sendable {
    /// A monotonic clock that also counts the time a machine was suspended.
    var now: Nanoseconds { get }
    /// The wall clock, in milliseconds since the Unix epoch. For records and people, never for
    /// safety.
    var wallMilliseconds: UInt64 { get }
    /// Whether the caller runs on this loop.
    var isCurrent: Bool { get }
    /// Runs `work` on the loop, soon. From any thread.
    func execute(_ work: @escaping @Sendable () -> Void)
    /// Runs `work` on the loop after `delay`. From the loop only: use `after`.
    func scheduleUnchecked(_ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void) -> Timer
    /// Where the loop's asynchronous control work runs: on the loop itself.
    var taskExecutor: any TaskExecutor { get }
}

/// A scheduled piece of work that can still be called off, on its loop.
// Safety: read and written on its loop only.
package final class Timer: @unchecked Sendable {
    private var onCancel: (() -> Void)?
    package private(set) var isCancelled = false

    package init(onCancel: (() -> Void)? = nil) { self.onCancel = onCancel }

    package func cancel() {
        isCancelled = true
        onCancel?()
        onCancel = nil
    }
}

extension Loop {
    /// Runs `work` on the loop after `delay` nanoseconds, unless the timer is cancelled first.
    @discardableResult
    package func after(_ delay: Nanoseconds, _ work: @escaping () -> Void) -> Timer {
        precondition(isCurrent, "a timer is set on its own loop")
        let bound = LoopBound(work)
        return scheduleUnchecked(max(delay, 0)) { bound.value() }
    }

    /// Runs `work` on the loop once the present piece of work is done.
    package func soon(_ work: @escaping () -> Void) {
        precondition(isCurrent, "called on another loop")
        let bound = LoopBound(work)
        execute { bound.value() }
    }

    /// Starts asynchronous control work on this loop. The work owns its errors; it ends with the
    /// process at the latest.
    package func spawn(_ body: @escaping () async -> Void) {
        precondition(isCurrent, "spawned on another loop")
        let bound = LoopBound(body)
        Task(executorPreference: taskExecutor) { await bound.value() }
    }

    /// Waits for `delay` nanoseconds.
    package func sleep(_ delay: Nanoseconds) async {
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            _ = after(delay) { waiter.resume() }
        }
    }

    /// Runs `body` and returns its value, or nil once `limit` has passed: then the value comes too
    /// late and is dropped.
    package func withDeadline<Value: Sendable>(
        _ limit: Nanoseconds, _ body: @escaping () async -> Value
    ) async -> Value? {
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Value?, Never>) in
            let race = Race(waiter)
            let timer = after(limit) { race.finish(nil) }
            spawn {
                let value = await body()
                timer.cancel()
                race.finish(value)
            }
        }
    }
}

/// A piece of work of one loop that is done again and again. Its closures are made once, so that
/// asking for it takes no memory. Confined to its loop.
package final class Errand {
    private final class State {
        let work: () -> Void
        var isPlanned = false

        init(_ work: @escaping () -> Void) { self.work = work }
    }
    private let loop: any Loop
    private let state: State
    private let run: @Sendable () -> Void

    /// Whoever has an errand is in `work` weakly.
    package init(on loop: any Loop, _ work: @escaping () -> Void) {
        self.loop = loop
        let state = State(work)
        let bound = LoopBound(state)
        self.state = state
        run = {
            bound.value.isPlanned = false
            bound.value.work()
        }
    }

    /// Does the work once the present piece of work is done: once, however often it is asked.
    package func soon() {
        guard !state.isPlanned else { return }
        state.isPlanned = true
        loop.execute(run)
    }

    /// Does the work after `delay` nanoseconds, unless the timer is cancelled first.
    package func after(_ delay: Nanoseconds) -> Timer {
        loop.scheduleUnchecked(max(delay, 0), run)
    }
}

/// The first of several outcomes wins.
private final class Race<Value: Sendable> {
    private var waiter: UnsafeContinuation<Value?, Never>?

    init(_ waiter: UnsafeContinuation<Value?, Never>) { self.waiter = waiter }

    func finish(_ value: Value?) {
        waiter?.resume(returning: value)
        waiter = nil
    }
}

/// Carries a value of one loop through code that may run anywhere, back to that loop.
// Safety: whoever makes one sees to it that `value` is touched on its loop only.
package struct LoopBound<Value>: @unchecked Sendable {
    package let value: Value
    package init(_ value: Value) { self.value = value }
}

/// A value that the first caller sets and everyone waits for, on one loop.
package final class Signal<Value: Sendable> {
    package private(set) var value: Value?
    private var waiters: [UnsafeContinuation<Value, Never>] = []

    package init() {}

    package func set(_ value: Value) {
        guard self.value == nil else { return }
        self.value = value
        let waiters = waiters
        self.waiters = []
        for waiter in waiters { waiter.resume(returning: value) }
    }

    package func wait() async -> Value {
        if let value { return value }
        return await withUnsafeContinuation { waiters.append($0) }
    }
}
