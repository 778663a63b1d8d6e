// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Tells, by its own clock alone, which leases have certainly passed.
///
/// A lease that its holder counted from before it sent the renewal has passed once the same count
/// of renewals was seen for a whole time to live, from the end of the first reading that showed it
/// to the beginning of the last. The margin covers clocks that run at different speeds. Whatever
/// keeps cop from reading (Postgres is away, the machine slept) makes it start over: the holders
/// may have been kept from renewing by the same thing.
struct LeaseWatch<Key: Hashable> {
    private struct Sighting {
        var renewals: UInt64
        var since: Nanoseconds
    }
    private let lease: Nanoseconds
    private let margin: Nanoseconds
    private var sightings: [Key: Sighting] = [:]
    private var lastRead: Nanoseconds?

    init(lease: Nanoseconds, margin: Nanoseconds) {
        precondition(lease > 0 && margin >= 0)
        self.lease = lease
        self.margin = margin
    }

    /// A reading that began at `began` and ended at `ended` showed these holders and renewals.
    /// Returns those whose lease has passed, with the renewals to name.
    mutating func observe(
        _ holders: [(key: Key, renewals: UInt64)], began: Nanoseconds, ended: Nanoseconds
    ) -> [(key: Key, renewals: UInt64)] {
        precondition(ended >= began, "a reading ends after it begins")
        if let lastRead, ended - lastRead > lease { sightings = [:] }
        lastRead = ended
        var seen: [Key: Sighting] = [:]
        var stale: [(key: Key, renewals: UInt64)] = []
        for (key, renewals) in holders {
            if let sighting = sightings[key], sighting.renewals == renewals {
                seen[key] = sighting
                if began - sighting.since >= lease + margin { stale.append((key, renewals)) }
            } else {
                seen[key] = Sighting(renewals: renewals, since: ended)
            }
        }
        sightings = seen
        return stale
    }

    /// A reading failed: everybody gets a whole time to live from the next one that succeeds.
    mutating func lost() {
        sightings = [:]
        lastRead = nil
    }
}
