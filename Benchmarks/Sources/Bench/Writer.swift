// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import S2SClient

/// What records of the benchmarks consist of: a number that tells stream and position, and bytes
/// that do not compress.
enum Content {
    static let bodyBytes = 1_024
    static let filling: [UInt8] = {
        var state: UInt64 = 0x9E37_79B9_7F4A_7C15
        return (0..<bodyBytes - 8).map { _ in
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return UInt8(truncatingIfNeeded: state)
        }
    }()

    static func template(records: Int) -> BatchTemplate {
        BatchTemplate(records: records, bodyBytes: bodyBytes, filling: filling)
    }

    /// Whether a record of the stream with this tag holds what was appended there.
    static func matches(_ record: ReadSession.Record, tag: UInt64) -> Bool {
        guard record.body.count == bodyBytes else { return false }
        let number = record.body.loadUnaligned(as: UInt64.self)
        return number == tag + record.seqNum
            && filling.withUnsafeBytes {
                memcmp($0.baseAddress!, record.body.baseAddress! + 8, $0.count) == 0
            }
    }
}

/// Keeps a window of batches in flight on one session, each sent as an earlier one is acknowledged.
final class Writer {
    let stream: String
    let tag: UInt64
    private let session: AppendSession
    private var batch: BatchTemplate
    private let window: Int
    private var sent: UInt64 = 0
    private(set) var acked: UInt64 = 0
    private(set) var failure: ClientError?
    /// Where trims stand, each a record of its own.
    private var trims: Set<UInt64> = []
    /// The first record that the last acknowledged trim keeps.
    private(set) var trimPoint: UInt64?
    private var nextTrimPoint: UInt64 = 0
    var isStopping = false
    var onAck: ((_ sentAt: Int64, _ ackedAt: Int64, _ records: Int) -> Void)?

    init(
        _ target: Target, _ connection: Connection, stream: String, tag: UInt64, records: Int,
        window: Int
    ) {
        self.stream = stream
        self.tag = tag << 40
        self.window = window
        batch = Content.template(records: records)
        session = AppendSession(connection, basin: target.basin, stream: stream)
        session.onAck = { [unowned self] in take($0, $1) }
    }

    var isDone: Bool { failure != nil || session.failure != nil || session.inFlight == 0 }

    var error: ClientError? { failure ?? session.failure }

    /// Batches without an ack.
    var inFlight: Int { session.inFlight }

    /// Sends until the window is full.
    func pump() {
        while !isStopping, session.inFlight < window, !session.isOver { sendOne() }
    }

    func sendOne() {
        session.append(&batch, number: tag + sent)
        sent += UInt64(batch.records)
    }

    /// Has all records before this one removed.
    func trim(to point: UInt64) {
        trims.insert(sent)
        nextTrimPoint = point
        session.trim(to: point)
        sent += 1
    }

    /// Whether a record is what was appended at its position.
    func wrote(_ record: ReadSession.Record) -> Bool {
        trims.contains(record.seqNum)
            ? record.body.count == 8 : Content.matches(record, tag: tag)
    }

    func finish() { session.finish() }

    private func take(_ ack: Ack, _ sentAt: Int64) {
        let isTrim = trims.contains(acked)
        let count = isTrim ? 1 : UInt64(batch.records)
        if isTrim { trimPoint = nextTrimPoint }
        if ack.start != acked || ack.end != acked + count {
            failure = ClientError("\(stream): acked \(ack.start)…\(ack.end) after \(acked)")
        }
        acked += count
        onAck?(sentAt, monotonicNanoseconds, Int(count))
        pump()
    }
}
