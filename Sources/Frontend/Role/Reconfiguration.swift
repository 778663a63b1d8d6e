// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Reads a row, changes it, and writes it back if nobody else did meanwhile; again, if so.
struct Reconfiguration {
    /// Of one request. Two writers of one row hardly ever meet; a hundred may.
    private static let triesMax = 20
    let loop: any Loop
    let random: RandomSource

    /// `attempt` answers nil where it lost a race.
    func run<Value>(
        _ attempt: () async throws(APIError) -> Value?
    ) async throws(APIError) -> Value {
        for tries in 1...Self.triesMax {
            if let value = try await attempt() { return value }
            let ceiling = min(Nanoseconds.milliseconds(2) << Int64(tries), .milliseconds(200))
            await loop.sleep(random.within(0...ceiling))
        }
        throw APIError(.rateLimited, "too many changes to one configuration at once")
    }
}
