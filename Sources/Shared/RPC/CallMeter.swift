// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Counts the calls that a client makes. Confined to the client's loop.
package final class CallMeter {
    package enum Outcome: Int, CaseIterable, Sendable {
        case ok
        /// The other process would not, or could not: a status of the method itself.
        case refused
        /// No connection, no time, no room.
        case failed
        /// The caller gave the call up.
        case cancelled

        init(_ status: Status?) {
            switch status {
            case .ok: self = .ok
            case nil, .cancelled: self = .cancelled
            case .some(let status) where status.rawValue >= Status.notOwner.rawValue:
                self = .refused
            default: self = .failed
            }
        }
    }

    private let loop: any Loop
    /// Calls that have begun and not ended, those that wait for a connection included.
    package private(set) var inFlight = 0
    /// By method, then by outcome.
    private var ended = [UInt64](repeating: 0, count: methodCount * Outcome.allCases.count)
    private var durations = [Durations](repeating: Durations(), count: methodCount)
    private static let methodCount = Int(Method.allCases.map(\.rawValue).max() ?? 0) + 1

    package init(loop: any Loop) { self.loop = loop }

    /// How many calls ended like that.
    package func count(_ method: Method, _ outcome: Outcome) -> UInt64 {
        ended[Int(method.rawValue) * Outcome.allCases.count + outcome.rawValue]
    }

    /// How long calls took, however they ended.
    package func durations(_ method: Method) -> Durations { durations[Int(method.rawValue)] }

    /// Counts a call that begins; the value goes to `end`.
    func begin() -> Nanoseconds {
        inFlight += 1
        return loop.now
    }

    /// `status`: nil if the caller gave it up.
    func end(_ method: Method, since start: Nanoseconds, _ status: Status?) {
        inFlight -= 1
        let method = Int(method.rawValue)
        ended[method * Outcome.allCases.count + Outcome(status).rawValue] += 1
        durations[method].record(loop.now - start)
    }
}
