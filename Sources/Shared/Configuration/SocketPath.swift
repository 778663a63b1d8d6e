// SPDX-License-Identifier: Apache-2.0

/// The path of a unix domain socket, which addresses tell as `unix:/path`.
package struct SocketPath: Sendable, Equatable {
    package let path: String
    /// Bytes of the longest path that the system takes.
    package static let bytesMax = 107
    private static let scheme = "unix:"

    package init(_ path: String) { self.path = path }

    /// Of an address; nil where it is of another kind.
    package init?(address: String) {
        guard address.hasPrefix(Self.scheme + "/") else { return nil }
        path = String(address.dropFirst(Self.scheme.count))
    }

    package var address: String { Self.scheme + path }
    package var isShortEnough: Bool { path.utf8.count <= Self.bytesMax }
}
