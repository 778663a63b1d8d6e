// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// What a read asks for, as its client wrote it.
struct ReadQuery: Equatable {
    enum Origin: Equatable {
        case seqNum(SeqNum)
        case timestamp(TimestampMillis)
        /// So many records before the tail.
        case tailOffset(UInt64)
    }
    var origin: Origin = .tailOffset(0)
    /// Whether an origin beyond the tail means the tail.
    var clamp = false
    var limits = ReadLimits()
    /// Seconds to wait at the tail for more.
    var waitSeconds: UInt32?

    init() {}

    /// Errors: `bad_query`; `invalid` for what can be read but makes no sense.
    init(_ raw: String) throws(APIError) {
        let query = Query(raw)
        let seqNum: UInt64? = try Self.number(query, "seq_num")
        let timestamp: UInt64? = try Self.number(query, "timestamp")
        let tailOffset: UInt64? = try Self.number(query, "tail_offset")
        clamp = try Self.flag(query, "clamp")
        limits = ReadLimits(
            count: try Self.number(query, "count"), meteredBytes: try Self.number(query, "bytes"),
            until: try Self.number(query, "until"))
        waitSeconds = try Self.number(query, "wait")
        switch (seqNum, timestamp, tailOffset) {
        case (nil, nil, nil): break
        case (let value?, nil, nil): origin = .seqNum(value)
        case (nil, let value?, nil): origin = .timestamp(value)
        case (nil, nil, let value?): origin = .tailOffset(value)
        default:
            throw APIError(
                .invalid, "only one of `seq_num`, `timestamp` and `tail_offset` may be given")
        }
        if let timestamp, let until = limits.until, timestamp >= until {
            throw APIError(.invalid, "start `timestamp` exceeds or equal to `until`")
        }
    }

    /// The caps of a read that is answered in one piece.
    func cappedForUnary() -> ReadQuery {
        var capped = self
        capped.limits.count = min(limits.count ?? .max, UInt64(Limits.batchRecordsMax))
        capped.limits.meteredBytes = min(
            limits.meteredBytes ?? .max, UInt64(Limits.batchMeteredBytesMax))
        capped.waitSeconds = waitSeconds.map { min($0, Self.unaryWaitSecondsMax) }
        return capped
    }

    static let unaryWaitSecondsMax: UInt32 = 60

    /// Whether the read may stand at the tail at all.
    var mayFollow: Bool {
        (limits.count == nil && limits.meteredBytes == nil && limits.until == nil)
            || (waitSeconds ?? 0) > 0
    }

    /// Goes on behind an SSE event: `id` is `seq,count,bytes`. Errors: `bad_header`.
    mutating func resume(behind id: String) throws(APIError) {
        let parts = id.split(separator: ",", omittingEmptySubsequences: false)
        let numbers = parts.compactMap { UInt64($0.trimmingBlanks) }
        guard parts.count == 3, numbers.count == 3 else {
            throw APIError(.badHeader, "last-event-id must be `seq_num,count,bytes`")
        }
        let next = numbers[0].addingReportingOverflow(1)
        origin = .seqNum(next.overflow ? .max : next.partialValue)
        limits.count = limits.count.map { $0 - min($0, numbers[1]) }
        limits.meteredBytes = limits.meteredBytes.map { $0 - min($0, numbers[2]) }
    }

    // MARK: Where a read begins

    enum Place: Equatable {
        case seqNum(SeqNum)
        /// The first record that is not older; the tail if there is none.
        case timestamp(TimestampMillis)
        /// 416.
        case beyondTail
    }

    /// Where the read begins, given the stable tail.
    func place(tail: StreamPosition) -> Place {
        let wanted: SeqNum
        switch origin {
        case .timestamp(let timestamp):
            if timestamp <= tail.timestamp { return .timestamp(timestamp) }
            guard clamp else { return .beyondTail }
            wanted = tail.seqNum
        case .seqNum(let seqNum): wanted = seqNum
        case .tailOffset(let offset): wanted = tail.seqNum - min(offset, tail.seqNum)
        }
        if wanted < tail.seqNum { return .seqNum(wanted) }
        guard wanted == tail.seqNum || clamp, mayFollow else { return .beyondTail }
        return .seqNum(tail.seqNum)
    }

    // MARK: Values

    private static func text(_ query: Query, _ name: String) throws(APIError) -> String? {
        do throws(InvalidPercentEncoding) {
            return try query.value(name)
        } catch {
            throw APIError(.badQuery, "`\(name)` is not percent-encoded UTF-8")
        }
    }

    private static func number<Number: FixedWidthInteger>(
        _ query: Query, _ name: String
    ) throws(APIError) -> Number? {
        guard let text = try text(query, name) else { return nil }
        guard let value = Number(text) else {
            throw APIError(.badQuery, "`\(name)` must be an integer of 0 or more")
        }
        return value
    }

    private static func flag(_ query: Query, _ name: String) throws(APIError) -> Bool {
        switch try text(query, name) {
        case nil, "false": return false
        case "true": return true
        default: throw APIError(.badQuery, "`\(name)` must be `true` or `false`")
        }
    }
}
