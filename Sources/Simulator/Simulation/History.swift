// SPDX-License-Identifier: Apache-2.0

package import Records

/// What clients of one stream did and saw, and whether that can be true of one durable, totally
/// ordered log.
///
/// Checked as it grows: a position holds one record for ever, whoever saw it; a tail, a read or a
/// rejection shows at least what was acknowledged or seen before it was asked for; a record that
/// was certainly refused is never seen. Checked at the end: what was acknowledged is there, once;
/// of each session's appends a prefix is there, in order; and the whole is linearizable.
package final class History {
    package private(set) var violations: [String] = []
    private let stream: String
    /// What is known of each position.
    private var bodies: [SeqNum: String] = [:]
    private var positions: [String: SeqNum] = [:]
    private var refused: Set<String> = []
    /// Everything below this was acknowledged or seen by somebody.
    package private(set) var knownTail: SeqNum = 0
    package private(set) var acknowledged = 0
    let log = OperationLog()
    /// No trim below a higher position was ever asked for.
    private(set) var trimAttempted: SeqNum = 0
    /// Trims are no part of the model, and their bodies look alike.
    private(set) var isTrimmed = false
    /// The batches of each session, in order.
    private var sessions: [[[String]]] = []
    /// Nil for a stream that is trimmed, or was never read to its end.
    package private(set) var verdict: String?

    init(stream: String) { self.stream = stream }

    func willTrim(below seqNum: SeqNum) {
        isTrimmed = true
        trimAttempted = max(trimAttempted, seqNum)
    }

    /// A session sent these batches, one behind the other.
    func sent(inOneSession batches: [[String]]) { sessions.append(batches) }

    func violate(_ text: String) { violations.append("\(stream): \(text)") }

    /// An append was acknowledged.
    func appended(_ records: [String], start: SeqNum, end: SeqNum, tail: SeqNum) {
        if end != start + UInt64(records.count) || tail < end {
            violate("an ack of \(records.count) records says \(start)..<\(end), tail \(tail)")
        }
        for (offset, body) in records.enumerated() { note(body, at: start + UInt64(offset)) }
        acknowledged += records.count
        knownTail = max(knownTail, tail)
    }

    /// An append was refused with a promise that it has no effect.
    func refused(_ records: [String]) {
        for body in records {
            refused.insert(body)
            if positions[body] != nil { violate("'\(body)' was refused and is there") }
        }
    }

    /// A tail was shown to somebody who asked when `known` was known.
    func sawTail(_ tail: SeqNum, known: SeqNum, by what: String) {
        if tail < known { violate("\(what) shows \(tail) although \(known) was known before") }
        knownTail = max(knownTail, tail)
    }

    /// A read returned records from `start` on.
    func read(_ records: [(seqNum: SeqNum, body: String)], from start: SeqNum) {
        var next = start
        // Only what may be trimmed may be passed over.
        if let first = records.first, first.seqNum > start, first.seqNum <= trimAttempted {
            next = first.seqNum
        }
        for record in records {
            if record.seqNum != next { violate("a read skips from \(next) to \(record.seqNum)") }
            note(record.body, at: record.seqNum)
            next = record.seqNum + 1
        }
        knownTail = max(knownTail, next)
    }

    /// The whole stream was read by somebody who asked when `known` was known.
    func readAll(_ records: [(seqNum: SeqNum, body: String)], known: SeqNum) {
        read(records, from: 0)
        let end = records.last.map { $0.seqNum + 1 } ?? 0
        if end < known { violate("the stream ends at \(end), although \(known) was known") }
    }

    /// The same, when all clients are done.
    func finish(_ records: [(seqNum: SeqNum, body: String)], known: SeqNum) {
        readAll(records, known: known)
        for session in sessions { checkOrder(session) }
        if !isTrimmed { checkLinearizability(records.map(\.body)) }
    }

    /// Nothing of a session is applied behind a batch that is not, and nothing out of order.
    private func checkOrder(_ batches: [[String]]) {
        var last: SeqNum?
        var missing: String?
        for body in batches.joined() {
            guard let position = positions[body] else {
                missing = missing ?? body
                continue
            }
            if let missing { violate("'\(body)' is there, and '\(missing)' before it is not") }
            if let last, position <= last { violate("'\(body)' is before its predecessor") }
            last = position
        }
    }

    private func checkLinearizability(_ bodies: [String]) {
        let contents = bodies.map(Self.hash)
        let final = log.begin(.read)
        log.end(
            final,
            .read(tail: SeqNum(contents.count), hash: contents.reduce(0, XXH3.chain)))
        var check = Linearizability(log.operations, contents: contents)
        let verdict = check.check()
        self.verdict = "\(verdict)"
        if verdict == .not { violate("the history is not linearizable") }
    }

    static func hash(_ body: String) -> UInt64 { XXH3.hash(Array(body.utf8)) }

    private func note(_ body: String, at seqNum: SeqNum) {
        if let other = bodies[seqNum], other != body {
            violate("position \(seqNum) held '\(other)' and then '\(body)'")
        }
        bodies[seqNum] = body
        // Commands to trim look alike.
        if body.hasPrefix(Self.trimPrefix) { return }
        if let other = positions[body], other != seqNum {
            violate("'\(body)' is at \(other) and at \(seqNum)")
        }
        if refused.contains(body) { violate("'\(body)' was refused and is at \(seqNum)") }
        positions[body] = seqNum
    }

    static let trimPrefix = "trim:"
}
