// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Whether the other end of a link is alive: it must send something, be it a pong, and take what
/// it is sent. Silence beyond one interval asks for a ping; beyond two, the peer is dead.
struct Liveness {
    enum Verdict {
        case alive
        case quiet
        case dead(String)
    }

    /// When the peer was last heard.
    var heardAt: Nanoseconds
    /// Bytes handed to the link, ever.
    var written = 0
    private let interval: Nanoseconds
    private var taken = 0
    private var takenAt: Nanoseconds

    init(interval: Nanoseconds, now: Nanoseconds) {
        self.interval = interval
        heardAt = now
        takenAt = now
    }

    mutating func judge(at now: Nanoseconds, unsentBytes: Int) -> Verdict {
        if written - unsentBytes != taken || unsentBytes == 0 {
            taken = written - unsentBytes
            takenAt = now
        }
        if now - heardAt >= 2 * interval { return .dead("the peer is silent") }
        if now - takenAt >= 2 * interval { return .dead("the peer takes nothing") }
        return now - heardAt >= interval ? .quiet : .alive
    }
}
