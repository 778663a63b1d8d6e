// SPDX-License-Identifier: Apache-2.0

internal import CCurl
internal import CCurlSupport
internal import Glibc
package import Primitives
internal import Synchronization

/// A request as libcurl gets it.
package struct CurlRequest: Sendable {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case put = "PUT"
        case delete = "DELETE"
    }

    /// What may depend on the moment at which the request is sent.
    package struct Head: Sendable {
        package var url: String
        /// `name: value`
        package var headers: [String]

        package init(url: String, headers: [String]) {
            self.url = url
            self.headers = headers
        }
    }

    package var method: Method
    package var body: [Bytes]
    /// Called on the driver's thread when the request is sent: a signature costs time, and wants to
    /// be fresh.
    package var head: @Sendable () -> Head
    /// The longest body that a reply may have, in bytes.
    package var replyBytesMax: Int
    /// Not sent before this time has passed.
    package var delay: Nanoseconds
    /// From the end of that delay to the reply's last byte.
    package var deadline: Nanoseconds

    package init(
        method: Method, body: [Bytes] = [], replyBytesMax: Int, delay: Nanoseconds = 0,
        deadline: Nanoseconds, head: @escaping @Sendable () -> Head
    ) {
        self.method = method
        self.body = body
        self.head = head
        self.replyBytesMax = replyBytesMax
        self.delay = delay
        self.deadline = deadline
    }
}

package struct CurlReply: Sendable {
    package var status = 0
    package var body = Bytes()
    package var contentLength: Int?
    /// The number behind the slash of `Content-Range`.
    package var objectSize: Int?
    package var lastModified = ""
    package var date = ""
    package var requestID = ""
    /// The request went out more than once: the connection that was to be used had been closed.
    package var wasSentAgain = false
}

package struct CurlFailure: Error, Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// Too many requests wait; or the driver has been stopped.
        case refused
        case cancelled
        case timedOut
        case notConnected
        case connectionLost
        /// The reply is longer than it may be.
        case replyTooLong
        /// The certificate, the URL, or an error of libcurl's that waiting does not cure.
        case broken
    }
    package let kind: Kind
    /// Whether some of the request may have reached the server.
    package let wasSent: Bool
    package let message: String
}

/// A request on its way. Touched by the driver's thread only, once it was submitted.
// Safety: its creator writes it before it goes through the driver's locked inbox; after that
// the driver's thread alone does. `isCancelled` is atomic.
final class CurlTransfer: @unchecked Sendable {
    typealias Waiter = UnsafeContinuation<Result<CurlReply, CurlFailure>, Never>

    let request: CurlRequest
    let bodyBytes: Int
    let isCancelled = Atomic<Bool>(false)
    var waiter: Waiter?
    /// By the driver's clock; set when it takes the transfer over.
    var due: Nanoseconds = 0
    var deadline: Nanoseconds = 0
    var easy: UnsafeMutableRawPointer?
    var headerList: UnsafeMutablePointer<curl_slist>?

    private(set) var reply = CurlReply()
    private(set) var isReplyTooLong = false
    private(set) var sentAny = false
    private var storage: ByteStorage?
    private var received = 0
    private var part = 0
    private var partOffset = 0

    init(_ request: CurlRequest) {
        self.request = request
        bodyBytes = byteCount(request.body)
    }

    func finish(_ result: Result<CurlReply, CurlFailure>) {
        waiter?.resume(returning: result)
        waiter = nil
    }

    /// The reply with its body; the status comes from libcurl.
    func finishedReply(status: Int) -> CurlReply {
        reply.status = status
        if let storage, received > 0 {
            reply.body = Bytes(
                owner: storage, base: UnsafeRawPointer(storage.base), count: received)
        }
        storage = nil
        return reply
    }

    /// Fills `room` with what comes next of the body.
    func read(into room: UnsafeMutableRawBufferPointer) -> Int {
        sentAny = true
        guard let target = room.baseAddress else { return 0 }
        var filled = 0
        while filled < room.count, part < request.body.count {
            let bytes = request.body[part]
            let n = min(room.count - filled, bytes.count - partOffset)
            if n > 0 { (target + filled).copyMemory(from: bytes.base + partOffset, byteCount: n) }
            filled += n
            partOffset += n
            if partOffset == bytes.count {
                part += 1
                partOffset = 0
            }
        }
        return filled
    }

    /// Goes to `offset` of the body, to send it again.
    func seek(to offset: Int) -> Bool {
        guard offset >= 0, offset <= bodyBytes else { return false }
        if sentAny { reply.wasSentAgain = true }
        part = 0
        partOffset = offset
        while part < request.body.count, partOffset >= request.body[part].count {
            partOffset -= request.body[part].count
            part += 1
        }
        return true
    }

    /// Takes bytes of the reply; false if they are too many.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let source = bytes.baseAddress, !bytes.isEmpty else { return true }
        guard received + bytes.count <= request.replyBytesMax else {
            isReplyTooLong = true
            return false
        }
        let target = room(for: received + bytes.count)
        (target.base + received).copyMemory(from: source, byteCount: bytes.count)
        received += bytes.count
        return true
    }

    /// Memory for `needed` bytes, those received so far kept.
    private func room(for needed: Int) -> ByteStorage {
        if let storage, storage.byteCapacity >= needed { return storage }
        let expected = min(reply.contentLength ?? 16_384, request.replyBytesMax)
        let larger = ByteStorage.make(capacity: max(needed, expected, received * 2))
        if let storage { larger.base.copyMemory(from: storage.base, byteCount: received) }
        storage = larger
        return larger
    }

    /// Takes one line of the reply's head.
    func receiveHeader(_ line: UnsafeRawBufferPointer) {
        if line.starts(with: "HTTP/".utf8) {
            // Of an interim reply or of a try before; what it said is void.
            let wasSentAgain = reply.wasSentAgain
            reply = CurlReply()
            reply.wasSentAgain = wasSentAgain
            return
        }
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { return }
        let name = String(decoding: line[..<colon], as: UTF8.self).lowercased()
        var value: String {
            let text = line[(colon + 1)...].drop { $0 == 0x20 || $0 == 0x09 }
            let end = text.lastIndex { $0 > 0x20 } ?? text.startIndex - 1
            return String(decoding: text[...end], as: UTF8.self)
        }
        switch name {
        case "content-length": reply.contentLength = Int(value).flatMap { $0 >= 0 ? $0 : nil }
        case "content-range":
            reply.objectSize = value.split(separator: "/").last.flatMap { Int($0) }
                .flatMap { $0 >= 0 ? $0 : nil }
        case "last-modified": reply.lastModified = value
        case "date": reply.date = value
        case "x-amz-request-id": reply.requestID = value
        default: break
        }
    }
}
