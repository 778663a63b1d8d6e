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
    private var durations = [Durations](repeating: Durations(), count: Operation.allCases.count)
    /// By class, then by outcome.
    private var puts: [UInt64]
    private var classBytesStored: [UInt64]
    /// Calls that have begun and not ended, queued ones included.
    package private(set) var inFlight = 0
    /// Requests sent again within a call.
    package private(set) var retries: UInt64 = 0
    /// Bytes of objects that were read.
    package private(set) var bytesFetched: UInt64 = 0

    package init(classCount: Int = 1) {
        puts = [UInt64](repeating: 0, count: classCount * Outcome.allCases.count)
        classBytesStored = [UInt64](repeating: 0, count: classCount)
    }

    /// Bytes of objects that were stored.
    package var bytesStored: UInt64 { classBytesStored.reduce(0, +) }

    /// How many calls ended like that.
    package func count(_ operation: Operation, _ outcome: Outcome) -> UInt64 {
        ended[operation.rawValue * Outcome.allCases.count + outcome.rawValue]
    }

    /// How many puts of objects of a class ended like that.
    package func puts(ofClass index: Int, _ outcome: Outcome) -> UInt64 {
        puts[index * Outcome.allCases.count + outcome.rawValue]
    }

    /// Bytes of objects of a class that were stored.
    package func bytesStored(ofClass index: Int) -> UInt64 { classBytesStored[index] }

    /// How long calls took, however they ended, their waits and retries included.
    package func durations(_ operation: Operation) -> Durations { durations[operation.rawValue] }

    fileprivate mutating func begin() { inFlight += 1 }

    fileprivate mutating func end(
        _ operation: Operation, _ outcome: Outcome, _ elapsed: Nanoseconds, bytesFetched: Int
    ) {
        inFlight -= 1
        ended[operation.rawValue * Outcome.allCases.count + outcome.rawValue] += 1
        durations[operation.rawValue].record(elapsed)
        self.bytesFetched += UInt64(bytesFetched)
    }

    fileprivate mutating func end(
        putOfClass index: Int, _ outcome: Outcome, _ elapsed: Nanoseconds, bytes: Int
    ) {
        end(.put, outcome, elapsed, bytesFetched: 0)
        puts[index * Outcome.allCases.count + outcome.rawValue] += 1
        if outcome == .done { classBytesStored[index] += UInt64(bytes) }
    }

    fileprivate mutating func addRetry() { retries += 1 }
}

/// A store that counts what it does.
package protocol MeasuredStore: ObjectStore {
    var statistics: StoreStatistics { get }
}

/// The classes of objects that puts are counted by. What they are is known to those who name the
/// objects, not here.
package struct ObjectClasses: Sendable {
    package let names: [String]
    private let index: @Sendable (_ key: String, _ head: Bytes) -> Int

    /// `index` tells which of the names an object has, by its key and its first bytes.
    package init(
        _ names: [String], index: @escaping @Sendable (_ key: String, _ head: Bytes) -> Int
    ) {
        precondition(!names.isEmpty, "every object has a class")
        self.names = names
        self.index = index
    }

    /// All objects are of one class.
    package static let one = ObjectClasses(["any"]) { _, _ in 0 }

    fileprivate func callAsFunction(_ key: String, _ body: [Bytes]) -> Int {
        index(key, body.first ?? Bytes())
    }
}

/// Where a store counts.
package final class StoreMeter: Sendable {
    package let classes: ObjectClasses
    private let total: Mutex<StoreStatistics>

    package init(classes: ObjectClasses = .one) {
        self.classes = classes
        total = Mutex(StoreStatistics(classCount: classes.names.count))
    }

    package var snapshot: StoreStatistics { total.withLock { $0 } }

    /// Counts a call that begins; the value goes to `end`.
    package func begin() -> Nanoseconds {
        total.withLock { $0.begin() }
        return SystemClock.monotonicNanoseconds
    }

    /// Counts the end of what is not a put; `bytes` of a get that succeeded.
    package func end(
        _ operation: StoreStatistics.Operation, since start: Nanoseconds,
        _ outcome: StoreStatistics.Outcome, bytes: Int = 0
    ) {
        let elapsed = SystemClock.monotonicNanoseconds - start
        total.withLock { $0.end(operation, outcome, elapsed, bytesFetched: bytes) }
    }

    package func end(
        _ operation: StoreStatistics.Operation, since start: Nanoseconds, _ error: StoreError
    ) {
        end(operation, since: start, error.kind.outcome)
    }

    /// Counts the end of a put.
    package func end(
        put key: String, _ body: [Bytes], since start: Nanoseconds,
        _ result: Result<PutResult, StoreError>
    ) {
        let elapsed = SystemClock.monotonicNanoseconds - start
        let outcome: StoreStatistics.Outcome =
            switch result {
            case .success(.created): .done
            case .success(.exists): .exists
            case .failure(let error): error.kind.outcome
            }
        let index = classes(key, body)
        total.withLock {
            $0.end(putOfClass: index, outcome, elapsed, bytes: byteCount(body))
        }
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
