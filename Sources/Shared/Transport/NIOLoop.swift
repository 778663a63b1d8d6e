// SPDX-License-Identifier: Apache-2.0

internal import CSupport
package import NIOCore
internal import NIOPosix
package import Primitives
private import Synchronization

/// An event loop of SwiftNIO as a `Loop`: one thread, its sockets, timers and control tasks.
package final class NIOLoop: Loop {
    package let eventLoop: any EventLoop
    private let group: MultiThreadedEventLoopGroup
    private let executor: LoopExecutor

    /// Starts a thread of its own.
    package init() {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        eventLoop = group.next()
        executor = LoopExecutor(eventLoop)
    }

    package var now: Nanoseconds { millrace_boottime_nanoseconds() }
    package var wallMilliseconds: UInt64 { millrace_wall_milliseconds() }
    package var isCurrent: Bool { eventLoop.inEventLoop }
    package var taskExecutor: any TaskExecutor { executor }

    package func execute(_ work: @escaping @Sendable () -> Void) { eventLoop.execute(work) }

    package func scheduleUnchecked(
        _ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void
    ) -> Timer {
        let scheduled = eventLoop.scheduleTask(in: .nanoseconds(delay), work)
        return Timer(onCancel: { scheduled.cancel() })
    }

    /// Ends the thread; open sockets are closed. From outside of the loop.
    package func shutdown() async {
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            // An error means that it was shut down before, which is what is asked for.
            group.shutdownGracefully { _ in waiter.resume() }
        }
    }
}

/// Runs asynchronous control work on an event loop's thread.
private final class LoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop
    /// As many as there are calls of `runNext` to come: a closure over the job itself would take
    /// memory for each.
    private let jobs = Mutex(CircularBuffer<UnownedJob>())

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
        eventLoop.execute { self.runNext() }
    }

    private func runNext() {
        let job = jobs.withLock { $0.removeFirst() }
        job.runSynchronously(on: asUnownedTaskExecutor())
    }
}
