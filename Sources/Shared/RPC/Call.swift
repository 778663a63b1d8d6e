// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What a call asks of the other process. The number is on the wire.
package enum Method: UInt8, Sendable, CaseIterable {
    /// A session of appends to one stream: `AppendOpen`, then messages of one or more
    /// `PreparedBatch`, back to back, each batch answered by one `AppendReply`, in order; replies
    /// too may stand back to back in one message. The first failure ends the call.
    case append = 1
    /// `TailRequest`, ended by `TailReply`.
    case tail = 2
    /// `PlanRequest`, ended by `PlanReply`.
    case plan = 3
    /// `FollowRequest`, then `FollowPush` messages until the call ends.
    case follow = 4
    /// `ActivateRequest`, ended by `ActivateReply`.
    case activate = 5
    /// `RefreshRequest`, ended by nothing: the stream's row changed.
    case refresh = 6
    /// The channel flushes, closes its streamlets, and exits.
    case drain = 7
    /// `FetchRequest`, then the range's bytes as messages, in order; ended by `FetchReply`.
    case fetch = 8
}

/// How a call ended. The number is on the wire.
package enum Status: UInt16, Sendable, CaseIterable {
    case ok = 0
    // Of the connection itself.
    /// The caller gave up.
    case cancelled = 1
    case deadlineExceeded = 2
    /// The connection broke after the request may have been sent: the outcome is unknown.
    case connectionLost = 3
    /// There is no connection, and nothing was sent.
    case notConnected = 4
    /// The other process is about to exit and has done nothing.
    case draining = 5
    case unknownMethod = 6
    /// The payload does not decode, or a message is too large. Nothing was done for it.
    case malformed = 7
    /// A budget is spent; nothing was done.
    case overloaded = 8
    // Of the methods.
    /// The stream or streamlet is not this channel's (any more); nothing was done.
    case notOwner = 64
    /// An append's condition does not hold: the payload is an `AppendRejection`.
    case rejected = 65
    /// It may or may not have taken effect, or may yet.
    case indefinite = 66
    /// The channel cannot tell now; nothing was done.
    case unavailable = 67
    /// The start of a follow lies outside the recent window: the reader must catch up first.
    case notInWindow = 68
    /// The stream is being deleted.
    case streamDeleted = 69
    /// Some record lacks the timestamp that the stream requires; nothing was done.
    case timestampMissing = 70
    /// None of the buckets has the object.
    case objectNotFound = 71
    /// The range begins at or beyond the object's end.
    case rangeNotSatisfiable = 72
    /// The stream is ahead of a rate limit; nothing was done.
    case rateLimited = 73
}

/// One end of a call: an exchange of messages under one number, over a connection that many calls
/// share. Confined to its connection's loop.
///
/// The caller opens with a payload, may send messages, and finishes sending or cancels. The server
/// may send messages, and ends the call with a status and a payload. Each direction is bounded by
/// bytes: a message counts from its sending until its receiver calls `consumed`.
package protocol Call: AnyObject {
    /// A message from the other end. Its bytes count against the sender until `consumed`.
    var onMessage: ((Bytes) -> Void)? { get set }
    /// The server's end: the caller sends no more messages.
    var onFinishedSending: (() -> Void)? { get set }
    /// The call is over: the server ended it, the caller cancelled it, or the connection is gone.
    /// Called once; nothing follows. Not called for what this end did itself.
    var onEnd: ((Status, Bytes) -> Void)? { get set }
    /// `unsentBytes` fell to zero after `send` had to hold something back.
    var onSendable: (() -> Void)? { get set }
    /// Bytes of messages that wait in this end for the other end's credit.
    var unsentBytes: Int { get }
    /// Sends a message, now or when there is credit; in order. At most `RPCLimits.messageBytesMax`.
    func send(_ message: Bytes)
    /// As `send`, a message of `count` bytes that `write` writes where it is told, and `body`
    /// behind them: with credit at hand, neither memory is needed nor is anything copied. `write`
    /// is called once, before this returns, unless the call is over, and calls nothing of the
    /// connection.
    func send(_ count: Int, body: Bytes, _ write: (UnsafeMutableRawPointer) -> Void)
    /// Gives the other end credit for `count` bytes of messages that are dealt with.
    func consumed(_ count: Int)
    /// Caller: no more messages.
    func finishSending()
    /// Caller: gives the call up. The server is told.
    func cancel()
    /// Server: ends the call, behind the messages sent before.
    func end(_ status: Status, _ payload: Bytes)
}

extension Call {
    package func send(_ count: Int, body: Bytes, _ write: (UnsafeMutableRawPointer) -> Void) {
        var writer = ByteWriter(capacity: count + body.count)
        write(writer.reserve(count))
        writer.advance(count)
        writer.write(body)
        send(writer.finish())
    }
}

/// A process's own services: where calls from other processes arrive.
package protocol CallService: AnyObject {
    /// A call has come; the service sets its `on…` closures before it returns, or ends it.
    func serve(_ call: any Call, method: Method, payload: Bytes, deadline: Nanoseconds?)
}

package enum RPCLimits {
    /// Header and payload of one frame.
    package static let frameBytesMax = 4 << 20
    package static let messageBytesMax = frameBytesMax - 64
    /// A message that is written where it is sent from (`Call.send(_:body:_:)`) needs no memory of
    /// its own up to so many bytes before its body.
    package static let writtenBytesMax = 3_072
    /// Bytes of messages in flight per call and direction, beyond which a sender waits. One message
    /// may overshoot it.
    package static let callWindowBytes = 4 << 20
    /// The same per connection and direction.
    package static let connectionWindowBytes = 32 << 20
    /// The payload of an open, which needs no credit: where appends have taken it all until they
    /// are durable, questions go on. What bounds opens is the number of calls.
    package static let openBytesMax = 16 << 10
}
