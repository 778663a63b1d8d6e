// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives

/// The workers of a cell, as one of them sees them.
///
/// A worker makes itself known by a seat: a lease like any other, so that workers may come and go
/// and leave no more rows than there are seats. Who finds all of them taken works on what nobody
/// else wants.
struct Crew {
    static let prefix = "bgtask-seat/"
    static let seatsMax = 32
    private var seats: [Seat]

    private struct Seat {
        var lease: TaskLease
        /// Somebody else has it, and seems to live.
        var isTaken = false
    }

    init(holder: String, lease: Nanoseconds, margin: Nanoseconds) {
        seats = (0..<Self.seatsMax).map { number in
            Seat(
                lease: TaskLease(
                    name: "\(Self.prefix)\(number)", holder: holder, lease: lease, margin: margin))
        }
    }

    /// How many of `parts` each worker should hold at most, so that all are held.
    func share(of parts: Int, at now: Nanoseconds) -> Int {
        let others = seats.count { $0.isTaken && !$0.lease.isHeld(at: now) }
        return (parts + others) / (others + 1)
    }

    /// The leases as they stand, by their names.
    mutating func observe(
        _ found: [String: NamedLease], began: Nanoseconds, ended: Nanoseconds
    ) {
        for index in seats.indices {
            let row = found[seats[index].lease.name]
            seats[index].lease.observe(other: row, began: began, ended: ended)
            seats[index].isTaken =
                row?.holder != nil && row?.holder != seats[index].lease.holder
                && seats[index].lease.stale == nil
        }
    }

    /// The seat that this worker has, and else those that it may take.
    func wanted(at now: Nanoseconds) -> [Int] {
        if let own = held(at: now) { return [own] }
        return seats.indices.filter { !seats[$0].isTaken }
    }

    func held(at now: Nanoseconds) -> Int? {
        seats.indices.first { seats[$0].lease.isHeld(at: now) }
    }

    subscript(seat: Int) -> TaskLease {
        get { seats[seat].lease }
        set { seats[seat].lease = newValue }
    }
}
