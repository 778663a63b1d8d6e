// SPDX-License-Identifier: Apache-2.0

internal import CSupport
package import Primitives
private import Synchronization

/// What a driver has done since it was made.
package struct StatementStatistics: Sendable, Equatable {
    package enum Outcome: Int, CaseIterable, Sendable { case done, retriable, unavailable, failed }

    private var ended = [UInt64](repeating: 0, count: Outcome.allCases.count)
    /// Statements that were given to the driver and have not ended, queued ones included.
    package private(set) var inFlight = 0
    /// How long statements took, however they ended, their wait for a connection included.
    package private(set) var durations = Durations()

    package init() {}

    /// How many statements ended like that.
    package func count(_ outcome: Outcome) -> UInt64 { ended[outcome.rawValue] }

    fileprivate mutating func begin() { inFlight += 1 }

    fileprivate mutating func end(_ outcome: Outcome, _ elapsed: Nanoseconds) {
        inFlight -= 1
        ended[outcome.rawValue] += 1
        durations.record(elapsed)
    }
}

/// Where a driver counts, from whatever threads its callers run on.
final class StatementMeter: Sendable {
    private let total = Mutex(StatementStatistics())

    var snapshot: StatementStatistics { total.withLock { $0 } }

    /// Counts a statement that begins; the value goes to `end`.
    func begin() -> Nanoseconds {
        total.withLock { $0.begin() }
        return millrace_boottime_nanoseconds()
    }

    func end(since start: Nanoseconds, _ outcome: Job.Outcome) {
        let elapsed = millrace_boottime_nanoseconds() - start
        let outcome: StatementStatistics.Outcome =
            switch outcome {
            case .success: .done
            case .failure(let failure):
                switch failure.kind {
                case .retriable: .retriable
                case .unavailable: .unavailable
                case .failed: .failed
                }
            }
        total.withLock { $0.end(outcome, elapsed) }
    }
}
