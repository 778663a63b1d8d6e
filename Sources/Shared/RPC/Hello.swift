// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Which program an end of a connection is. The number is on the wire.
package enum PeerRole: UInt8, Sendable, CaseIterable {
    case frontend = 1
    case channel = 2
    case cachey = 3
    case cop = 4
    case bgtask = 5
    /// A test, a benchmark, a tool.
    case other = 255
}

/// Who an end of a connection is.
package struct PeerIdentity: Sendable, Equatable {
    package var role: PeerRole
    /// A channel's id; a number of the process's choice else.
    package var id: UInt64

    package init(role: PeerRole, id: UInt64) {
        self.role = role
        self.id = id
    }
}

/// The first frame's payload: the protocol's version, who speaks, and how many bytes it lets the
/// other end have in flight.
package struct Hello: ByteCodable {
    package var version: UInt16
    package var identity: PeerIdentity
    package var callWindowBytes: UInt32
    package var connectionWindowBytes: UInt32

    /// Both ends must speak the same version: a cell is upgraded one role at a time only between
    /// releases that share it.
    package static let currentVersion: UInt16 = 3
    package static let frameBytesMax = 256
    private static let magic: UInt32 = 0x4352_4C4D

    package init(
        version: UInt16 = currentVersion, identity: PeerIdentity, callWindowBytes: UInt32,
        connectionWindowBytes: UInt32
    ) {
        self.version = version
        self.identity = identity
        self.callWindowBytes = callWindowBytes
        self.connectionWindowBytes = connectionWindowBytes
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(Self.magic)
        writer.write(version)
        writer.write(identity.role.rawValue)
        writer.write(UInt8(0))
        writer.write(identity.id)
        writer.write(callWindowBytes)
        writer.write(connectionWindowBytes)
    }

    /// Of a strange version only the version is read.
    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        guard try reader.read(UInt32.self) == Self.magic else {
            throw reader.malformed("not a peer of this protocol")
        }
        version = try reader.read()
        guard version == Self.currentVersion else {
            identity = PeerIdentity(role: .other, id: 0)
            callWindowBytes = 0
            connectionWindowBytes = 0
            _ = try reader.read(reader.remaining)
            return
        }
        let role = try reader.read(UInt8.self)
        _ = try reader.read(UInt8.self)
        identity = PeerIdentity(
            role: PeerRole(rawValue: role) ?? .other, id: try reader.read(UInt64.self))
        callWindowBytes = try reader.read()
        connectionWindowBytes = try reader.read()
        let windows = 1...UInt32(1 << 30)
        guard windows.contains(callWindowBytes), windows.contains(connectionWindowBytes) else {
            throw reader.malformed("window of \(callWindowBytes), \(connectionWindowBytes) bytes")
        }
    }
}

/// The bounds and times of a connection.
package struct RPCSettings: Sendable {
    /// What the other end may have in flight towards this one.
    package var callWindowBytes = RPCLimits.callWindowBytes
    package var connectionWindowBytes = RPCLimits.connectionWindowBytes
    package var frameBytesMax = RPCLimits.frameBytesMax
    /// Calls open at once, per connection and direction; one more is ended `.overloaded`.
    package var callsMax = 16_384
    /// Bytes that wait in this end for credit, over all calls of a connection (or, before there is
    /// one, of an address). Beyond it the call that holds the most ends: `.overloaded` if nothing
    /// of it was sent, `.indefinite` otherwise.
    package var heldBytesMax = 64 << 20
    /// Bytes that the network has not taken. What credit allows is below it by far: a peer that
    /// lets it be passed does not read, and is cut off.
    package var linkBytesMax = 64 << 20
    package var connectTimeout: Nanoseconds = .seconds(3)
    package var helloTimeout: Nanoseconds = .seconds(5)
    /// A silent peer is pinged after this time, and given up after twice as long.
    package var pingInterval: Nanoseconds = .seconds(5)
    /// A client closes a connection that had no call for this long.
    package var idleTimeout: Nanoseconds = .seconds(60)
    /// A drained connection is closed this long after its last call, if the peer has not done it.
    package var drainLinger: Nanoseconds = .seconds(1)
    /// Calls that wait for a connection, per address; one more is ended `.overloaded`.
    package var waitingCallsMax = 4_096
    /// Connections that a server accepts at once; one more is closed.
    package var connectionsMax = 4_096

    package init() {}
}
