// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// The network as a role sees it: byte links that arrive and are made. Confined to one loop.
package protocol Network: AnyObject {
    /// Accepts links at `address` (`host:port`, port 0 for any, or `unix:/path`) until the listener
    /// is closed.
    func listen(
        _ address: String, accept: @escaping (any Link) -> Void
    ) async throws(NetworkError) -> any Listener
    /// Makes a link to `address` within `timeout`.
    func connect(
        _ address: String, timeout: Nanoseconds
    ) async throws(NetworkError) -> any Link
}

package protocol Listener: AnyObject {
    /// `host:port` with the port that was bound, or `unix:/path`.
    var address: String { get }
    /// Stops accepting; accepted links live on.
    func close()
}

/// A reliable, ordered, two-way stream of bytes: a connection. Confined to one loop.
package protocol Link: AnyObject {
    /// Set once, before control returns to the loop; bytes that came earlier are not lost.
    var handler: (any LinkHandler)? { get set }
    /// The other end's address, for people.
    var peer: String { get }
    /// Bytes that were written and that the network has not taken yet.
    var unsentBytes: Int { get }
    /// Queues the parts, in order. Nothing is sent before `flush`.
    func write(_ parts: [Bytes])
    func flush()
    /// Whether bytes are taken from the network; the peer is held back while not.
    func setReading(_ reading: Bool)
    /// Ends the link now; what is queued may be lost. The handler hears `linkClosed`, once.
    func close()
}

package protocol LinkHandler: AnyObject {
    /// The next bytes, in pieces of any size.
    func linkReceived(_ bytes: Bytes)
    /// A burst of `linkReceived` is over: the time to flush what it made us write.
    func linkBurstEnded()
    /// The link is no more. Called once; nothing follows.
    func linkClosed(_ reason: String)
}

package struct NetworkError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
