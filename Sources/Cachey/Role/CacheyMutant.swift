// SPDX-License-Identifier: Apache-2.0

/// Bugs that are known to serve wrong bytes. The simulator switches one of them on to show that it
/// would notice; nothing else ever does.
package enum CacheyMutant: String, Sendable, CaseIterable {
    /// What the disk gives is served as it is.
    case pageUnverified
    /// A page in memory is taken for that of any object.
    case objectIgnored
}
