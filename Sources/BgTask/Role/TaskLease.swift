// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives

/// The lease on one partition of one task, as this worker knows it.
///
/// A lease is counted in renewals, and passes when a challenger saw the same number for its whole
/// time to live, by the challenger's own clock. It saves work, and is no safeguard: a worker that
/// was paused and goes on with a lost lease does no harm.
struct TaskLease {
    let name: String
    let holder: String
    private let lease: Nanoseconds
    private let margin: Nanoseconds
    /// When the last renewal that succeeded began.
    private var heldSince: Nanoseconds?
    private var sighting: (lease: Lease, since: Nanoseconds)?
    private var lastRead: Nanoseconds?
    /// The renewals to name, of a holder whose lease has passed.
    private(set) var stale: UInt64?

    static func name(_ kind: TaskKind, _ part: Int, of parts: Int) -> String {
        "\(prefix)\(kind.rawValue)/\(part)-of-\(parts)"
    }
    static let prefix = "bgtask/"
    /// Of the seats as well (`Crew`).
    static let commonPrefix = "bgtask"

    init(name: String, holder: String, lease: Nanoseconds, margin: Nanoseconds) {
        precondition(lease > 0 && margin >= 0)
        self.name = name
        self.holder = holder
        self.lease = lease
        self.margin = margin
    }

    func isHeld(at now: Nanoseconds) -> Bool { heldSince.map { now - $0 < lease } ?? false }

    /// The lease as it stood after a try to hold it.
    mutating func observe(_ found: Lease, began: Nanoseconds, ended: Nanoseconds) {
        stale = nil
        if found.holder == holder {
            heldSince = began
            sighting = nil
            return
        }
        heldSince = nil
        // Whatever kept this worker from reading may have kept the holder from renewing.
        if let lastRead, ended - lastRead > lease { sighting = nil }
        lastRead = ended
        guard let sighting, sighting.lease == found else {
            self.sighting = (found, ended)
            return
        }
        if began - sighting.since >= lease + margin { stale = found.renewals }
    }

    /// The lease as it was read, which renews nothing; nil if there is none yet.
    mutating func observe(other found: NamedLease?, began: Nanoseconds, ended: Nanoseconds) {
        guard found?.holder != holder else { return }
        guard let found, let other = found.holder else { return lost() }
        observe(Lease(holder: other, renewals: found.renewals), began: began, ended: ended)
    }

    /// The try failed: it says nothing about who holds the lease.
    mutating func lost() {
        stale = nil
        sighting = nil
        lastRead = nil
    }

    mutating func release() { heldSince = nil }
}
