// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import Primitives

/// One thread, one virtual clock, one seed: whatever runs in a simulation runs here.
///
/// Every simulated process has a loop, which is first in, first out, as an event loop is; the seed
/// decides which loop goes next. When nothing can run, time jumps to the next timer. The same seed
/// gives the same trace, to the byte.
package final class Scheduler {
    private struct Timed {
        let at: Nanoseconds
        let sequence: UInt64
        let loop: SimLoop
        let timer: Timer
        let work: () -> Void
    }

    package private(set) var now: Nanoseconds = 0
    /// Draws everything that is left to chance.
    package let random: RandomSource
    package let trace: Trace
    /// The wall clock at virtual time 0, in milliseconds.
    package let epochMilliseconds: UInt64 = 1_700_000_000_000
    fileprivate var runnable: [SimLoop] = []
    private var timers = BinaryHeap<Timed> { ($0.at, $0.sequence) < ($1.at, $1.sequence) }
    private var sequence: UInt64 = 0
    fileprivate var current: SimLoop?
    private var steps = 0
    package var stepCount: Int { steps }

    package init(seed: UInt64, trace: Trace) {
        random = RandomSource.seeded(seed)
        self.trace = trace
    }

    /// A loop of a new process.
    package func makeLoop(_ name: String) -> SimLoop { SimLoop(name, self) }

    /// Runs until `done`, or until `limit` steps were taken or `deadline` has passed in virtual
    /// time. True if it was `done`.
    package func run(until deadline: Nanoseconds, steps limit: Int, _ done: () -> Bool) -> Bool {
        while !done() {
            steps += 1
            guard steps <= limit, now <= deadline else { return false }
            if runnable.isEmpty {
                guard let next = timers.popFirst() else { return false }
                now = max(now, next.at)
                if next.loop.isAlive && !next.timer.isCancelled { next.loop.add(.work(next.work)) }
                continue
            }
            let at = runnable.count == 1 ? 0 : Int(random.below(UInt64(runnable.count)))
            let loop = runnable[at]
            current = loop
            loop.runNext(step: steps)
            current = nil
            loop.rest()
        }
        return true
    }

    /// Time passes at once, and nothing runs meanwhile: every process is paused.
    package func jump(_ duration: Nanoseconds) { now += duration }

    fileprivate func schedule(
        _ delay: Nanoseconds, on loop: SimLoop, _ work: @escaping () -> Void
    ) -> Timer {
        let timer = Timer()
        sequence += 1
        timers.insert(
            Timed(at: now + delay, sequence: sequence, loop: loop, timer: timer, work: work))
        return timer
    }

    fileprivate func forget(_ loop: SimLoop) { runnable.removeAll { $0 === loop } }
    fileprivate func wake(_ loop: SimLoop) { runnable.append(loop) }
}

/// The loop of one simulated process, and the executor of its asynchronous work. When the process
/// crashes, everything that is queued or due on it is dropped.
// Safety: a simulation is one thread, and nothing in it outlives it.
package final class SimLoop: Loop, TaskExecutor, @unchecked Sendable {
    fileprivate enum Item {
        case work(() -> Void)
        case job(UnownedJob)
    }

    package let name: String
    private unowned let scheduler: Scheduler
    private var queue: Deque<Item> = []
    package private(set) var isAlive = true
    /// A paused process runs nothing: what is due meanwhile waits.
    private(set) var isPaused = false
    private var isRunnable = false
    /// How far this process's wall clock is off, in milliseconds.
    package var wallOffset: Int64 = 0 {
        didSet { wallOffsetBefore = oldValue }
    }
    /// The same, before it last changed.
    package private(set) var wallOffsetBefore: Int64 = 0

    fileprivate init(_ name: String, _ scheduler: Scheduler) {
        self.name = name
        self.scheduler = scheduler
    }

    package var now: Nanoseconds { scheduler.now }
    package var wallMilliseconds: UInt64 {
        UInt64(Int64(scheduler.epochMilliseconds) + scheduler.now / 1_000_000 + wallOffset)
    }
    package var isCurrent: Bool { scheduler.current === self || scheduler.current == nil }
    package var taskExecutor: any TaskExecutor { self }

    package func execute(_ work: @escaping @Sendable () -> Void) { add(.work(work)) }

    /// `execute`, from elsewhere in the same simulation.
    package func run(_ work: @escaping () -> Void) { add(.work(work)) }

    /// Runs `work` after `delay`, unless the process has crashed by then.
    package func run(after delay: Nanoseconds, _ work: @escaping () -> Void) {
        _ = scheduler.schedule(delay, on: self, work)
    }

    package func scheduleUnchecked(
        _ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void
    ) -> Timer {
        scheduler.schedule(delay, on: self, work)
    }

    package func enqueue(_ job: consuming ExecutorJob) { add(.job(UnownedJob(job))) }

    /// Ends the process here and now.
    package func crash() {
        isAlive = false
        queue = []
        stop()
    }

    /// Freezes the process, as SIGSTOP does, a hypervisor, or a collector of garbage; its clock
    /// goes on.
    package func pause() {
        isPaused = true
        stop()
    }

    package func resume() {
        isPaused = false
        wake()
    }

    fileprivate func add(_ item: Item) {
        guard isAlive else { return }
        queue.append(item)
        wake()
    }

    private func wake() {
        guard !isRunnable, !isPaused, isAlive, !queue.isEmpty else { return }
        isRunnable = true
        scheduler.wake(self)
    }

    private func stop() {
        isRunnable = false
        scheduler.forget(self)
    }

    /// Its turn is over.
    fileprivate func rest() {
        if isRunnable && queue.isEmpty { stop() }
    }

    fileprivate func runNext(step: Int) {
        guard let item = queue.popFirst() else { return }
        scheduler.trace.step(step, at: scheduler.now, name)
        switch item {
        case .work(let work): work()
        case .job(let job): job.runSynchronously(on: asUnownedTaskExecutor())
        }
    }
}

/// A priority queue: the smallest element first.
struct BinaryHeap<Element> {
    private var elements: [Element] = []
    private let precedes: (Element, Element) -> Bool

    init(_ precedes: @escaping (Element, Element) -> Bool) { self.precedes = precedes }

    mutating func insert(_ element: Element) {
        elements.append(element)
        var child = elements.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard precedes(elements[child], elements[parent]) else { return }
            elements.swapAt(child, parent)
            child = parent
        }
    }

    mutating func popFirst() -> Element? {
        guard let first = elements.first else { return nil }
        let last = elements.removeLast()
        guard !elements.isEmpty else { return first }
        elements[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < elements.count && precedes(elements[child], elements[least]) {
                least = child
            }
            if least == parent { return first }
            elements.swapAt(least, parent)
            parent = least
        }
    }
}
