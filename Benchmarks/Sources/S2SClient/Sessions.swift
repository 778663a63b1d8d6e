// SPDX-License-Identifier: Apache-2.0

/// A batch of equally long records, encoded once and sent many times. Each body begins with a
/// number that tells stream and position, written in when the batch is sent.
package struct BatchTemplate {
    package let records: Int
    package let bodyBytes: Int
    fileprivate var frame: [UInt8]
    fileprivate var numberOffsets: [Int] = []
    /// What follows the number in each body.
    package let filling: [UInt8]

    package init(records: Int, bodyBytes: Int, filling: [UInt8]) {
        precondition(bodyBytes == filling.count + 8)
        self.records = records
        self.bodyBytes = bodyBytes
        self.filling = filling
        frame = [0, 0, 0, 0]
        var prefix: [UInt8] = [0x1A]
        prefix.appendVarint(bodyBytes)
        for _ in 0..<records {
            frame.append(0x0A)
            frame.appendVarint(prefix.count + bodyBytes)
            frame += prefix
            numberOffsets.append(frame.count)
            frame += [UInt8](repeating: 0, count: 8) + filling
        }
        let length = UInt32(frame.count - 3)
        frame.replaceSubrange(0..<3, with: bigEndian(length)[1...])
    }

    package var bytes: Int { records * bodyBytes }

    fileprivate mutating func number(from first: UInt64) {
        frame.withUnsafeMutableBytes { frame in
            for (i, offset) in numberOffsets.enumerated() {
                frame.storeBytes(
                    of: first + UInt64(i), toByteOffset: offset, as: UInt64.self)
            }
        }
    }

    fileprivate func withFrame(_ body: (UnsafeRawBufferPointer) -> Void) {
        frame.withUnsafeBytes(body)
    }
}

/// The sequence numbers that an acknowledged batch got.
package struct Ack: Sendable {
    package var start: UInt64 = 0
    package var end: UInt64 = 0
}

/// One append session.
package final class AppendSession {
    /// In the order of the batches, with the time that the batch was sent.
    package var onAck: ((Ack, Int64) -> Void)?
    package private(set) var failure: ClientError?
    package private(set) var isOver = false
    private let exchange: Exchange
    private var frames = FrameReader()
    private var sentAt: [Int64] = []
    private var oldest = 0

    package init(_ connection: Connection, basin: String, stream: String) {
        exchange = connection.open(
            "POST", "/v1/streams/\(stream)/records",
            headers: [("s2-basin", basin), ("content-type", "s2s/proto")], ends: false)
        exchange.onData = { [unowned self] in take($0) }
        exchange.onEnd = { [unowned self] in end($0) }
    }

    /// Batches without an answer.
    package var inFlight: Int { sentAt.count - oldest }

    /// Sends a batch whose first body begins with `first`, the next with the number after.
    package func append(_ batch: inout BatchTemplate, number first: UInt64) {
        batch.number(from: first)
        sentAt.append(monotonicNanoseconds)
        batch.withFrame { exchange.send($0) }
    }

    /// Sends the command that has all records before `point` removed; it is a record itself.
    package func trim(to point: UInt64) {
        sentAt.append(monotonicNanoseconds)
        let command: [UInt8] = [0x12, 6, 0x12, 4] + Array("trim".utf8) + [0x1A, 8]
        let body = withUnsafeBytes(of: point.bigEndian) { Array($0) }
        let record = command + body
        let frame: [UInt8] = [0, 0, UInt8(record.count + 3), 0, 0x0A, UInt8(record.count)] + record
        frame.withUnsafeBytes { exchange.send($0) }
    }

    /// No more batches come; what was sent is still answered.
    package func finish() {
        exchange.send(UnsafeRawBufferPointer(start: nil, count: 0), ends: true)
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        if let status = exchange.status, status != 200 {
            return end(ClientError("status \(status): \(String(decoding: bytes, as: UTF8.self))"))
        }
        frames.take(bytes) { flags, body in
            if flags & 0x80 != 0 {
                let text = String(decoding: body.dropFirst(2), as: UTF8.self)
                return end(ClientError("the session ended: \(text)"))
            }
            acknowledge(body)
        }
    }

    private func acknowledge(_ body: UnsafeRawBufferPointer) {
        guard inFlight > 0 else { return end(ClientError("an ack for nothing")) }
        let sent = sentAt[oldest]
        oldest += 1
        if oldest == sentAt.count || oldest > 65_536 {
            sentAt.removeFirst(oldest)
            oldest = 0
        }
        var ack = Ack()
        var fields = Fields(body)
        while let (field, value) = fields.next() {
            guard case .bytes(let position) = value else { continue }
            var inner = Fields(position)
            while let (name, value) = inner.next() {
                guard name == 1, case .number(let number) = value else { continue }
                if field == 1 { ack.start = number }
                if field == 2 { ack.end = number }
            }
        }
        onAck?(ack, sent)
    }

    private func end(_ error: ClientError?) {
        isOver = true
        if failure == nil { failure = error }
        if failure == nil, inFlight > 0 { failure = ClientError("acks are missing") }
    }
}

/// One read session.
package final class ReadSession {
    package struct Record {
        package let seqNum: UInt64
        package let body: UnsafeRawBufferPointer
    }

    /// For each record, in the order of its arrival.
    package var onRecord: ((Record) -> Void)?
    /// A heartbeat or the `tail` of a batch.
    package private(set) var tail: UInt64?
    package private(set) var failure: ClientError?
    package private(set) var isOver = false
    private let exchange: Exchange
    private var frames = FrameReader()

    /// `query` is what stands behind the question mark.
    package init(_ connection: Connection, basin: String, stream: String, query: String) {
        exchange = connection.open(
            "GET", "/v1/streams/\(stream)/records?\(query)",
            headers: [("s2-basin", basin), ("content-type", "s2s/proto")], ends: true)
        exchange.onData = { [unowned self] in take($0) }
        exchange.onEnd = { [unowned self] in end($0) }
    }

    package func cancel() {
        exchange.cancel()
        isOver = true
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        if let status = exchange.status, status != 200 {
            return end(ClientError("status \(status): \(String(decoding: bytes, as: UTF8.self))"))
        }
        frames.take(bytes) { flags, body in
            if flags & 0x80 != 0 {
                let text = String(decoding: body.dropFirst(2), as: UTF8.self)
                return end(ClientError("the session ended: \(text)"))
            }
            batch(body)
        }
    }

    private func batch(_ body: UnsafeRawBufferPointer) {
        var fields = Fields(body)
        while let (field, value) = fields.next() {
            guard case .bytes(let bytes) = value else { continue }
            if field == 1 { record(bytes) }
            if field == 2 {
                var inner = Fields(bytes)
                var position: UInt64 = 0
                while let (name, value) = inner.next() {
                    if name == 1, case .number(let number) = value { position = number }
                }
                tail = position
            }
        }
    }

    private func record(_ bytes: UnsafeRawBufferPointer) {
        var seqNum: UInt64 = 0
        var body = UnsafeRawBufferPointer(start: nil, count: 0)
        var fields = Fields(bytes)
        while let (field, value) = fields.next() {
            switch (field, value) {
            case (1, .number(let number)): seqNum = number
            case (4, .bytes(let bytes)): body = bytes
            default: break
            }
        }
        onRecord?(Record(seqNum: seqNum, body: body))
    }

    private func end(_ error: ClientError?) {
        isOver = true
        if failure == nil { failure = error }
    }
}

/// The answer to a request that is not a session.
package final class Reply {
    package private(set) var body: [UInt8] = []
    package private(set) var error: ClientError?
    package private(set) var isOver = false
    package var onEnd: (() -> Void)?
    private let exchange: Exchange

    package init(
        _ connection: Connection, _ method: String, _ path: String, basin: String? = nil,
        contentType: String = "application/json", body: [UInt8]? = nil
    ) {
        var headers = basin.map { [("s2-basin", $0)] } ?? []
        if body != nil { headers.append(("content-type", contentType)) }
        exchange = connection.open(method, path, headers: headers, ends: body == nil)
        exchange.onData = { [unowned self] in self.body.append(contentsOf: $0) }
        exchange.onEnd = { [unowned self] in
            error = $0
            isOver = true
            onEnd?()
        }
        if let body { body.withUnsafeBytes { exchange.send($0, ends: true) } }
    }

    package var status: Int { exchange.status ?? 0 }
    package var text: String { String(decoding: body, as: UTF8.self) }
}
