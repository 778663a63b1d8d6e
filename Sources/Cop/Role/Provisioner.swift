// SPDX-License-Identifier: Apache-2.0

/// What kinds of process cop can have started.
package enum ProcessKind: String, Sendable, Hashable, CaseIterable {
    case channel
    case cachey
    case bgtask
    case frontend
}

/// Starts processes of the cell: as children on one host, or elsewhere. Confined to one loop.
package protocol Provisioner: AnyObject {
    /// Starts the `number`th process of a kind, counted from 1. `ended` is called once, later, with
    /// how the process ended.
    func start(
        _ kind: ProcessKind, number: Int, ended: @escaping (String) -> Void
    ) throws(ProvisionError) -> any ProvisionedProcess
}

/// A process that was started and has not been reported as ended.
package protocol ProvisionedProcess: AnyObject {
    /// For people: a process id, a unit's name.
    var label: String { get }
    /// Asks the process to finish its work and end.
    func drain()
    /// Ends the process at once.
    func kill()
}

package struct ProvisionError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
