// SPDX-License-Identifier: Apache-2.0

package import Records

/// What clients of one stream did and saw, and whether that can be true of one durable, totally
/// ordered log.
///
/// Checked as it grows: a position holds one record for ever, whoever saw it; a tail, a read or a
/// rejection shows at least what was acknowledged or seen before it was asked for; a record that
/// was certainly refused is never seen. Checked at the end: what was acknowledged is there, once.
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

    init(stream: String) { self.stream = stream }

    private func violate(_ text: String) { violations.append("\(stream): \(text)") }

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
        for record in records {
            if record.seqNum != next { violate("a read skips from \(next) to \(record.seqNum)") }
            note(record.body, at: record.seqNum)
            next = record.seqNum + 1
        }
        knownTail = max(knownTail, next)
    }

    /// The whole stream was read at the end.
    func finish(_ records: [(seqNum: SeqNum, body: String)]) {
        read(records, from: 0)
        if UInt64(records.count) < knownTail {
            violate("\(records.count) records are left of \(knownTail) that were known")
        }
    }

    private func note(_ body: String, at seqNum: SeqNum) {
        if let other = bodies[seqNum], other != body {
            violate("position \(seqNum) held '\(other)' and then '\(body)'")
        }
        if let other = positions[body], other != seqNum {
            violate("'\(body)' is at \(other) and at \(seqNum)")
        }
        if refused.contains(body) { violate("'\(body)' was refused and is at \(seqNum)") }
        bodies[seqNum] = body
        positions[body] = seqNum
    }
}
