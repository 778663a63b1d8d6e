// SPDX-License-Identifier: Apache-2.0

package import Primitives
private import Synchronization

/// What a store has done since it was opened.
package struct StoreStatistics: Sendable, Equatable {
    package enum Operation: Int, CaseIterable, Sendable { case put, get, head, list, delete }

    package enum Outcome: Int, CaseIterable, Sendable {
        case done
        /// A conditional put that found an object.
        case exists
        case notFound
        /// Invalid, denied, or beyond the object's end.
        case refused
        case unavailable
        case failed
    }

    private var ended = [UInt64](
        repeating: 0, count: Operation.allCases.count * Outcome.allCases.count)
    private var nanoseconds = [UInt64](repeating: 0, count: Operation.allCases.count)
    /// Calls that have begun and not ended, queued ones included.
    package private(set) var inFlight = 0
    /// Requests sent again within a call.
    package private(set) var retries: UInt64 = 0
    /// Bytes of objects that were stored, and that were read.
    package private(set) var bytesStored: UInt64 = 0
    package private(set) var bytesFetched: UInt64 = 0

    package init() {}

    /// How many calls ended like that.
    package func count(_ operation: Operation, _ outcome: Outcome) -> UInt64 {
        ended[operation.rawValue * Outcome.allCases.count + outcome.rawValue]
    }

    /// The time that all calls took together, in nanoseconds.
    package func nanoseconds(_ operation: Operation) -> UInt64 { nanoseconds[operation.rawValue] }

    fileprivate mutating func begin() { inFlight += 1 }

    fileprivate mutating func end(
        _ operation: Operation, _ outcome: Outcome, _ elapsed: Nanoseconds, _ bytes: Int
    ) {
        inFlight -= 1
        ended[operation.rawValue * Outcome.allCases.count + outcome.rawValue] += 1
        nanoseconds[operation.rawValue] += UInt64(max(elapsed, 0))
        guard outcome == .done else { return }
        switch operation {
        case .put: bytesStored += UInt64(bytes)
        case .get: bytesFetched += UInt64(bytes)
        case .head, .list, .delete: break
        }
    }

    fileprivate mutating func addRetry() { retries += 1 }
}

/// A store that counts what it does.
package protocol MeasuredStore: ObjectStore {
    var statistics: StoreStatistics { get }
}

/// Where a store counts.
package final class StoreMeter: Sendable {
    private let total = Mutex(StoreStatistics())

    package init() {}

    package var snapshot: StoreStatistics { total.withLock { $0 } }

    /// Counts a call that begins; the value goes to `end`.
    package func begin() -> Nanoseconds {
        total.withLock { $0.begin() }
        return SystemClock.monotonicNanoseconds
    }

    package func end(
        _ operation: StoreStatistics.Operation, since start: Nanoseconds,
        _ outcome: StoreStatistics.Outcome, bytes: Int = 0
    ) {
        let elapsed = SystemClock.monotonicNanoseconds - start
        total.withLock { $0.end(operation, outcome, elapsed, bytes) }
    }

    package func end(
        _ operation: StoreStatistics.Operation, since start: Nanoseconds, _ error: StoreError
    ) {
        end(operation, since: start, error.kind.outcome)
    }

    package func addRetry() { total.withLock { $0.addRetry() } }
}

extension StoreError.Kind {
    fileprivate var outcome: StoreStatistics.Outcome {
        switch self {
        case .notFound: .notFound
        case .rangeNotSatisfiable, .invalidRequest, .denied: .refused
        case .unavailable: .unavailable
        case .failed: .failed
        }
    }
}
