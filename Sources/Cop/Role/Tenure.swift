// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives

/// Whether this cop is the active one: it holds the lease `cop`, or waits for it to pass.
///
/// Two cops may believe that they are active for a while (one was paused): everything that cop does
/// to channels and streamlets is a compare-and-set, so the lease saves work and is no safeguard.
struct Tenure {
    enum Change: Equatable {
        case none, gained, lost
    }
    static let name = "cop"

    let holder: String
    private(set) var isActive = false
    private var watch: LeaseWatch<String>
    /// Renewals of the other holder whose lease has passed.
    private(set) var stale: UInt64?

    init(holder: String, lease: Nanoseconds, margin: Nanoseconds) {
        self.holder = holder
        watch = LeaseWatch(lease: lease, margin: margin)
    }

    /// The lease as it stood after a try to hold it.
    mutating func observe(_ lease: Lease, began: Nanoseconds, ended: Nanoseconds) -> Change {
        let wasActive = isActive
        isActive = lease.holder == holder
        stale = nil
        if isActive {
            watch.lost()
        } else {
            stale =
                watch.observe(
                    [(lease.holder, lease.renewals)], began: began, ended: ended
                ).first?.renewals
        }
        return isActive == wasActive ? .none : isActive ? .gained : .lost
    }

    /// The try failed: it says nothing about who holds the lease.
    mutating func lost() {
        stale = nil
        watch.lost()
    }
}
