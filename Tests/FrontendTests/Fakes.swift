// SPDX-License-Identifier: Apache-2.0

import Glibc
import HTTP
import Primitives

/// A loop whose time passes only when a test says so. Everything runs on the test's own thread, so
/// tests that use it are synchronous functions.
final class ManualLoop: Loop, TaskExecutor, @unchecked Sendable {
    // Safety: touched by the thread that made it only, which `enqueue` and `execute` check.
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
    private(set) var now: Nanoseconds = 0
    /// The wall clock at `now` 0.
    var wallStartMilliseconds: UInt64 = 1_700_000_000_000

    var wallMilliseconds: UInt64 { wallStartMilliseconds + UInt64(now / 1_000_000) }
    var isCurrent: Bool { pthread_equal(pthread_self(), thread) != 0 }
    var taskExecutor: any TaskExecutor { self }

    func enqueue(_ job: consuming ExecutorJob) {
        precondition(isCurrent, "a job came from another thread")
        ready.append(.job(UnownedJob(job)))
    }

    func execute(_ work: @escaping @Sendable () -> Void) {
        precondition(isCurrent, "work came from another thread")
        ready.append(.closure(work))
    }

    func scheduleUnchecked(
        _ delay: Nanoseconds, _ work: @escaping @Sendable () -> Void
    ) -> Timer {
        let timer = Timer()
        alarmsSet += 1
        alarms.append(Alarm(at: now + delay, number: alarmsSet, timer: timer, work: work))
        return timer
    }

    /// Runs all that can run without time passing.
    func settle() {
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
    func advance(_ span: Nanoseconds) {
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

    /// Lets time pass until `done`, at most `span`; whether it came to that.
    @discardableResult
    func run(atMost span: Nanoseconds = .seconds(120), until done: () -> Bool) -> Bool {
        let end = now + span
        settle()
        while !done() {
            guard let next = nextAlarm(), next.at <= end else { return false }
            advance(max(next.at - now, 0))
        }
        return true
    }

    private func nextAlarm() -> Alarm? {
        alarms.removeAll { $0.timer.isCancelled }
        return alarms.min { ($0.at, $0.number) < ($1.at, $1.number) }
    }
}

/// A request made up by a test, and what became of its response.
final class FakeExchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)? { didSet { deliver() } }
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?

    private(set) var status: Int?
    private(set) var responseHeaders: [(name: String, value: String)] = []
    private(set) var written: [Bytes] = []
    private(set) var isFinished = false
    private(set) var isAborted = false
    private(set) var isReading = true
    /// While true, what is written counts as unsent until `takeUnsent`.
    var holdsUnsent = false
    private(set) var unsentBytes = 0

    private var pending: [Bytes] = []
    private var bodyEnded = false
    private var endDelivered = false
    private var isServed = false

    /// `target` is a raw path with an optional query; header names in lower case.
    init(
        _ method: String, _ target: String, headers: [(name: String, value: String)] = [],
        isHTTP2: Bool = true
    ) {
        let question = target.firstIndex(of: "?")
        request = HTTPRequest(
            method: method, path: String(target[..<(question ?? target.endIndex)]),
            query: question.map { String(target[target.index(after: $0)...]) } ?? "",
            headers: headers, isHTTP2: isHTTP2)
    }

    // MARK: The client's side

    /// Hands the request to `service`, as a transport would.
    func serve(by service: any HTTPService) {
        service.serve(self)
        isServed = true
        deliver()
    }

    func feed(_ bytes: Bytes) {
        pending.append(bytes)
        deliver()
    }

    func endBody() {
        bodyEnded = true
        deliver()
    }

    func hangUp() {
        guard !isFinished && !isAborted else { return }
        isAborted = true
        onAbort?()
    }

    /// The client takes all that is unsent.
    func takeUnsent() {
        unsentBytes = 0
        onWritable?()
    }

    func responseHeader(_ name: String) -> String? {
        responseHeaders.first { $0.name == name }?.value
    }

    /// The response's body so far.
    var body: Bytes { written.joined() }
    var bodyText: String { body.lossyText }

    private func deliver() {
        guard isServed, isReading, !isAborted, !isFinished else { return }
        while isReading, !pending.isEmpty, let onBody { onBody(pending.removeFirst()) }
        if isReading && pending.isEmpty && bodyEnded && !endDelivered {
            endDelivered = true
            onBodyEnd?()
        }
    }

    // MARK: The service's side

    func setReading(_ reading: Bool) {
        isReading = reading
        if reading { deliver() }
    }

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(self.status == nil, "a response has one head")
        self.status = status
        responseHeaders = headers
    }

    func write(_ parts: [Bytes]) {
        precondition(status != nil && !isFinished, "a body stands between its head and its end")
        written.append(contentsOf: parts)
        if holdsUnsent { unsentBytes += byteCount(parts) }
    }

    func finish() {
        precondition(status != nil && !isFinished, "a response ends once")
        isFinished = true
    }

    func abort() { isAborted = true }
}
