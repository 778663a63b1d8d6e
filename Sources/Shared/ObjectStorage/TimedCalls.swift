// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import Primitives
private import Synchronization

/// Calls that block, on a few threads, each of which ends in time for whoever waits for it.
///
/// Nothing ends a system call on a disk that hangs. So a call that takes too long is given up, and
/// its thread is left to it: a change that has begun may take effect all the same, or later; a call
/// that waits for a thread will never begin.
package final class TimedCalls: Sendable {
    private let threads: WorkerThreads
    private let watch: WorkerThreads
    private let pending: PendingCalls

    /// `limit` is for one call, its wait for a thread included.
    package init(
        threads: Int, queuedMax: Int, limit: Nanoseconds
    ) throws(StoreError) {
        self.threads = try WorkerThreads(threads: threads, queuedMax: queuedMax)
        // One watch that goes while the next one waits.
        watch = try WorkerThreads(threads: 1, queuedMax: 2)
        pending = PendingCalls(limit: limit)
    }

    /// Runs `work` on one of the threads; the caller goes on where it was. `isChange`: whether the
    /// outcome of work that was given up is unknown.
    package func run<Value: Sendable>(
        isChange: Bool, _ work: @escaping @Sendable () throws(StoreError) -> Value
    ) async -> Result<Value, StoreError> {
        await withUnsafeContinuation { waiter in
            let call = Call(waiter, isChange: isChange, of: pending, work)
            let needsWatch = pending.add(call)
            // A closure over one object takes no memory of its own.
            let isAccepted = threads.submit { call.run() }
            if !isAccepted {
                call.end(.failure(StoreError(.unavailable, "too many calls wait for the folder")))
            }
            if needsWatch {
                let isWatched = watch.submit { [pending] in pending.watch() }
                precondition(isWatched, "one watch at a time")
            }
        }
    }
}

/// What a watch does to a call whose time is over.
private protocol PendingCall: AnyObject, Sendable {
    func giveUp()
}

private final class Call<Value: Sendable>: PendingCall {
    private typealias Waiter = UnsafeContinuation<Result<Value, StoreError>, Never>
    private enum Phase {
        case waiting(Waiter)
        case running(Waiter)
        case over
    }
    private let phase: Mutex<Phase>
    private let isChange: Bool
    private let pending: PendingCalls
    private let work: @Sendable () throws(StoreError) -> Value

    init(
        _ waiter: UnsafeContinuation<Result<Value, StoreError>, Never>, isChange: Bool,
        of pending: PendingCalls, _ work: @escaping @Sendable () throws(StoreError) -> Value
    ) {
        phase = Mutex(.waiting(waiter))
        self.isChange = isChange
        self.pending = pending
        self.work = work
    }

    /// Does the work, if somebody still waits for it.
    func run() {
        guard begin() else { return }
        do throws(StoreError) {
            end(.success(try work()))
        } catch {
            end(.failure(error))
        }
    }

    private func begin() -> Bool {
        phase.withLock { phase in
            guard case .waiting(let waiter) = phase else { return false }
            phase = .running(waiter)
            return true
        }
    }

    func end(_ result: Result<Value, StoreError>) {
        pending.remove(self)
        take()?.waiter.resume(returning: result)
    }

    func giveUp() {
        guard let (waiter, hasBegun) = take() else { return }
        let error = StoreError(
            .unavailable, outcomeUnknown: isChange && hasBegun,
            hasBegun ? "the disk does not answer" : "no thread came free: the disk is slow")
        waiter.resume(returning: .failure(error))
    }

    /// The waiter, for the first who asks.
    private func take() -> (waiter: Waiter, hasBegun: Bool)? {
        phase.withLock { phase in
            defer { phase = .over }
            switch phase {
            case .waiting(let waiter): return (waiter, false)
            case .running(let waiter): return (waiter, true)
            case .over: return nil
            }
        }
    }
}

/// Calls that have not ended: as many as threads and queue hold.
private final class PendingCalls: Sendable {
    private struct State {
        var calls: [ObjectIdentifier: (deadline: Nanoseconds, call: any PendingCall)] = [:]
        var isWatched = false
    }
    private let state = Mutex(State())
    private let limit: Nanoseconds

    init(limit: Nanoseconds) { self.limit = limit }

    /// Whether nobody watches yet: then the caller sees to it.
    func add(_ call: any PendingCall) -> Bool {
        let deadline = SystemClock.monotonicNanoseconds + limit
        return state.withLock { state in
            state.calls[ObjectIdentifier(call)] = (deadline, call)
            defer { state.isWatched = true }
            return !state.isWatched
        }
    }

    func remove(_ call: any PendingCall) {
        state.withLock { _ = $0.calls.removeValue(forKey: ObjectIdentifier(call)) }
    }

    /// Gives up what is late, until nothing is pending.
    func watch() {
        let interval = min(max(limit / 8, .milliseconds(1)), .seconds(1))
        var isNeeded = true
        while isNeeded {
            var pause = timespec(
                tv_sec: Int(interval / 1_000_000_000), tv_nsec: Int(interval % 1_000_000_000))
            // A signal may end it early: no harm.
            nanosleep(&pause, nil)
            let now = SystemClock.monotonicNanoseconds
            let late = state.withLock { state in
                let late = state.calls.filter { $0.value.deadline <= now }
                for id in late.keys { state.calls[id] = nil }
                isNeeded = !state.calls.isEmpty
                state.isWatched = isNeeded
                return late.values.map(\.call)
            }
            for call in late { call.giveUp() }
        }
    }
}
