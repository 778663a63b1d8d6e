// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport
import Testing

/// A service that keeps its calls for the test to look at.
final class Desk: CallService {
    struct Served {
        let call: any Call
        let method: RPC.Method
        let payload: Bytes
        let deadline: Nanoseconds?
        let log: CallLog
    }
    private(set) var served: [Served] = []
    var onServe: ((any Call, RPC.Method, Bytes) -> Void)?
    /// Bytes are consumed as they come.
    var consumes = true

    func serve(_ call: any Call, method: RPC.Method, payload: Bytes, deadline: Nanoseconds?) {
        let log = CallLog(call, consumes: consumes)
        served.append(
            Served(call: call, method: method, payload: payload, deadline: deadline, log: log))
        onServe?(call, method, payload)
    }

    var last: Served { served[served.count - 1] }
}

/// What an end of a call was told.
final class CallLog {
    private(set) var messages: [Bytes] = []
    private(set) var isFinished = false
    private(set) var status: Status?
    private(set) var payload = Bytes()
    private(set) var sendables = 0
    private(set) var ends = 0

    init(_ call: any Call, consumes: Bool = true) {
        call.onMessage = { [weak call] in
            self.messages.append($0)
            if consumes { call?.consumed($0.count) }
        }
        call.onFinishedSending = { self.isFinished = true }
        call.onSendable = { self.sendables += 1 }
        call.onEnd = {
            self.ends += 1
            self.status = $0
            self.payload = $1
        }
    }

    var messageBytes: Int { byteCount(messages) }
}

/// Two connections back to back.
struct Cell {
    let loop = ManualLoop()
    let desk = Desk()
    let near: RPCConnection
    let far: RPCConnection
    let nearLink: PipeLink
    let farLink: PipeLink

    init(settings: RPCSettings = RPCSettings(), pieceBytes: Int = .max, starts: Bool = true) {
        (nearLink, farLink) = PipeLink.pair(loop)
        nearLink.pieceBytes = pieceBytes
        farLink.pieceBytes = pieceBytes
        near = RPCConnection(
            link: nearLink, loop: loop, identity: PeerIdentity(role: .frontend, id: 1),
            isInitiator: true, settings: settings)
        far = RPCConnection(
            link: farLink, loop: loop, identity: PeerIdentity(role: .channel, id: 2),
            isInitiator: false, service: desk, settings: settings)
        guard starts else { return }
        near.start()
        far.start()
        loop.settle()
    }
}

/// A connection against a peer that the test plays.
struct Duel {
    let loop = ManualLoop()
    let desk = Desk()
    let connection: RPCConnection
    let raw: RawPeer
    let link: PipeLink
    let log = ReasonLog()

    final class ReasonLog { var reason: String? }

    init(isInitiator: Bool = false, settings: RPCSettings = RPCSettings(), greets: Bool = true) {
        let (near, far) = PipeLink.pair(loop)
        link = near
        raw = RawPeer(far)
        connection = RPCConnection(
            link: near, loop: loop, identity: PeerIdentity(role: .channel, id: 3),
            isInitiator: isInitiator, service: desk, settings: settings)
        connection.onClosed = { [log] in log.reason = $0 }
        connection.start()
        if greets { raw.hello() }
        loop.settle()
    }
}

func bytes(_ count: Int, _ fill: UInt8 = 7) -> Bytes {
    Bytes([UInt8](repeating: fill, count: count))
}

func text(_ string: String) -> Bytes { Bytes(utf8: string) }
