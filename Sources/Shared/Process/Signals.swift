// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Primitives

/// Signals, as one thread's blocking call instead of handlers.
///
/// The main thread blocks them before any other thread exists, so every thread inherits that, and
/// then waits for them: what a signal causes is ordinary code.
enum Signals {
    private static let ending = [SIGTERM, SIGINT, SIGHUP]
    /// A second request to end counts as impatience only after this long: one press of Ctrl-C may
    /// reach a process twice, from the terminal and from its parent.
    private static let impatience: Nanoseconds = .seconds(1)

    /// Call first, on the main thread.
    static func block() {
        // A parent may have had them ignored: then nobody could wait for them.
        for number in ending { signal(number, SIG_DFL) }
        signal(SIGPIPE, SIG_IGN)
        var set = endingSet()
        pthread_sigmask(SIG_BLOCK, &set, nil)
        logCrashes()
    }

    /// Calls `onFirst` at the first request to end, and ends the process at the next. Never
    /// returns.
    static func wait(clock: () -> Nanoseconds, onFirst: (String) -> Void) -> Never {
        var set = endingSet()
        var firstAt: Nanoseconds?
        while true {
            var number: Int32 = 0
            guard sigwait(&set, &number) == 0 else { continue }
            guard let begun = firstAt else {
                firstAt = clock()
                onFirst("signal \(number)")
                continue
            }
            if clock() - begun > impatience { Program.fail("interrupted again", code: 130) }
        }
    }

    private static func endingSet() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in ending { sigaddset(&set, number) }
        return set
    }

    /// A process that dies of a trap says so as a log line, then dies as it would have.
    private static func logCrashes() {
        for number in [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] {
            signal(number) { number in
                // Only what is safe in a handler: no allocation, one write.
                let line: StaticString = "{\"level\":\"error\",\"event\":\"crashed\",\"signal\":"
                write(STDERR_FILENO, line.utf8Start, line.utf8CodeUnitCount)
                withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 4) { digits in
                    digits[0] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: number / 10)
                    digits[1] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: number % 10)
                    digits[2] = UInt8(ascii: "}")
                    digits[3] = UInt8(ascii: "\n")
                    let start = number < 10 ? 1 : 0
                    _ = write(STDERR_FILENO, digits.baseAddress.map { $0 + start }, 4 - start)
                }
                signal(number, SIG_DFL)
                raise(number)
            }
        }
    }
}

/// A thread of its own for a call that blocks. The work must not throw or trap.
package func runOnThread(_ work: @escaping @Sendable () -> Void) {
    let box = Unmanaged.passRetained(ThreadWork(work))
    var thread = pthread_t()
    let result = pthread_create(
        &thread, nil,
        { argument in
            guard let argument else { return nil }
            Unmanaged<ThreadWork>.fromOpaque(argument).takeRetainedValue().work()
            return nil
        }, box.toOpaque())
    guard result == 0 else { Program.fail("no thread can be started (\(result))", code: 1) }
    pthread_detach(thread)
}

private final class ThreadWork {
    let work: @Sendable () -> Void
    init(_ work: @escaping @Sendable () -> Void) { self.work = work }
}
