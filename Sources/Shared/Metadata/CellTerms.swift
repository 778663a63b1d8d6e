// SPDX-License-Identifier: Apache-2.0

/// What all processes of a cell go by, kept in one place so that they cannot differ.
package protocol CellTerms: Sendable {
    /// How long objects stay that nothing refers to any more. Ask at least once a minute.
    func planWait() async throws(MetadataError) -> PlanWait
    /// Changes it, to so many milliseconds. It takes effect once nobody believes otherwise.
    func setPlanWait(_ milliseconds: UInt64) async throws(MetadataError)
}

/// How long objects stay for the reads that planned with them, in milliseconds. The two differ
/// only while the wait changes.
package struct PlanWait: Sendable, Equatable {
    /// What readers may count on.
    package var shortest: UInt64
    /// What those who delete must wait.
    package var longest: UInt64

    package init(shortest: UInt64, longest: UInt64) {
        self.shortest = shortest
        self.longest = longest
    }

    package static let standard = PlanWait(shortest: 600_000, longest: 600_000)
    /// How much longer than itself a wait goes on counting once it is changed.
    static let askMillisecondsMax: UInt64 = 60_000
}

extension MemoryMetadata: CellTerms {
    package func planWait() async throws(MetadataError) -> PlanWait {
        step { $0.terms.planWait(now: now()) }
    }

    package func setPlanWait(_ milliseconds: UInt64) async throws(MetadataError) {
        step { state in
            let isEmpty =
                state.channels.isEmpty && state.housekeeping.garbage.isEmpty
                && state.streams.values.allSatisfy(\.segments.isEmpty)
            state.terms.set(milliseconds, isEmpty: isEmpty, now: now())
        }
    }
}

/// The part of `MemoryState` that holds the cell's terms.
struct MemoryTerms {
    private var planWait = PlanWait.standard.longest
    private var changing = PlanWait.standard
    private var since: UInt64?

    func planWait(now: UInt64) -> PlanWait {
        let end = since.map { $0 + changing.longest + PlanWait.askMillisecondsMax }
        if let end, now < end { return changing }
        return PlanWait(shortest: planWait, longest: planWait)
    }

    mutating func set(_ wait: UInt64, isEmpty: Bool, now: UInt64) {
        guard wait != planWait else { return }
        let believed = planWait(now: now)
        planWait = wait
        guard !isEmpty else { return }
        changing = PlanWait(
            shortest: min(believed.shortest, wait), longest: max(believed.longest, wait))
        since = now
    }
}
