// SPDX-License-Identifier: Apache-2.0

/// Pages that are being fetched, and who waits for each: nobody fetches a page that somebody else
/// is fetching.
///
/// Whoever leaves does not stop the flight: what it brings is kept for the next who asks. Failures
/// are for those who wait; nothing is remembered of them.
struct SingleFlight<Waiter> {
    enum Join: Equatable {
        /// The first: it is for the caller to start the flight.
        case leader
        case follower
        /// There are as many flights, or waiters, as there may be.
        case full
    }

    private struct Flight {
        var waiters: [(ticket: UInt64, waiter: Waiter)] = []
    }

    private var flights: [PageKey: Flight] = [:]
    private(set) var waiterCount = 0
    private var lastTicket: UInt64 = 0
    let flightsMax: Int
    let waitersMax: Int

    init(flightsMax: Int, waitersMax: Int) {
        precondition(flightsMax > 0 && waitersMax > 0)
        self.flightsMax = flightsMax
        self.waitersMax = waitersMax
    }

    var flightCount: Int { flights.count }

    /// Waits for a page. The ticket is for `leave`.
    mutating func join(_ key: PageKey, _ waiter: Waiter) -> (join: Join, ticket: UInt64) {
        let isNew = flights[key] == nil
        guard waiterCount < waitersMax, !isNew || flights.count < flightsMax else {
            return (.full, 0)
        }
        lastTicket += 1
        waiterCount += 1
        flights[key, default: Flight()].waiters.append((lastTicket, waiter))
        return (isNew ? .leader : .follower, lastTicket)
    }

    /// Waits no more.
    mutating func leave(_ key: PageKey, _ ticket: UInt64) {
        guard let index = flights[key]?.waiters.firstIndex(where: { $0.ticket == ticket }) else {
            return
        }
        flights[key]?.waiters.remove(at: index)
        waiterCount -= 1
    }

    /// The flight is over; those who still wait, in the order in which they came.
    mutating func land(_ key: PageKey) -> [(ticket: UInt64, waiter: Waiter)] {
        guard let flight = flights.removeValue(forKey: key) else { return [] }
        waiterCount -= flight.waiters.count
        return flight.waiters
    }
}
