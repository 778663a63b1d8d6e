// SPDX-License-Identifier: Apache-2.0

package import BgTaskRole
package import CacheyRole
package import ChannelRole
package import CopRole

/// A cell with a known bug, which the simulator must notice.
package enum Mutant: Equatable, Sendable, CaseIterable, CustomStringConvertible {
    case channel(ChannelMutant)
    case cachey(CacheyMutant)
    case bgtask(BgTaskMutant)
    case cop(CopMutant)

    package static let allCases: [Mutant] =
        ChannelMutant.allCases.map(Mutant.channel) + CopMutant.allCases.map(Mutant.cop)
        + CacheyMutant.allCases.map(Mutant.cachey) + BgTaskMutant.allCases.map(Mutant.bgtask)

    /// Whether the roles were built with their known bugs.
    package static var areBuilt: Bool {
        #if MUTANTS
            true
        #else
            false
        #endif
    }

    package var description: String {
        switch self {
        case .channel(let bug): bug.rawValue
        case .cachey(let bug): bug.rawValue
        case .bgtask(let bug): bug.rawValue
        case .cop(let bug): bug.rawValue
        }
    }

    /// By its description.
    package init?(_ name: String) {
        guard let found = Self.allCases.first(where: { $0.description == name }) else { return nil }
        self = found
    }
}
