// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// One frame of an S2S session.
///
///     u24  length, big-endian: the flag byte and the payload
///     u8   flags: terminal 0x80, zstd 0x20, gzip 0x40, reconnect advised 0x10
///     payload: one protobuf message; of a terminal frame a big-endian u16 status and JSON
package struct SessionFrame: Sendable, Equatable {
    package enum Compression: UInt8, Sendable, CaseIterable {
        case none = 0
        case zstd = 0x20
        case gzip = 0x40
    }

    package var isTerminal: Bool
    package var advisesReconnect: Bool
    package var compression: Compression
    /// As it crossed the wire: still compressed, if `compression` says so.
    package var payload: Bytes

    package init(
        payload: Bytes, compression: Compression = .none, isTerminal: Bool = false,
        advisesReconnect: Bool = false
    ) {
        self.payload = payload
        self.compression = compression
        self.isTerminal = isTerminal
        self.advisesReconnect = advisesReconnect
    }

    /// The length field's bounds are 1 and this, in bytes.
    package static let lengthMax = 2_097_152
    /// Bytes of a payload, compressed or not.
    package static let payloadBytesMax = lengthMax - 1
    package static let headerBytes = 4
    /// Messages smaller than this go out uncompressed.
    package static let compressionBytesMin = 1_024

    static let terminalFlag: UInt8 = 0x80
    static let compressionMask: UInt8 = 0x60
    static let reconnectFlag: UInt8 = 0x10
}

// MARK: Encoding

extension SessionFrame {
    /// The four bytes in front of a payload that is written on its own, uncopied.
    package static func header(
        payloadBytes: Int, compression: Compression = .none, advisesReconnect: Bool = false
    ) -> Bytes {
        var writer = ByteWriter(capacity: headerBytes)
        writer.writeFrameHeader(
            payloadBytes: payloadBytes, compression: compression,
            advisesReconnect: advisesReconnect)
        return writer.finish()
    }

    /// The frame that ends a session in failure: an HTTP status and the JSON of a unary error.
    package static func terminal(status: Int, body: Bytes) -> Bytes {
        // A body that no frame holds is cut: the status matters more than the message.
        let body = body.prefix(payloadBytesMax - 2)
        var writer = ByteWriter(capacity: headerBytes + 2 + body.count)
        writer.writeFrameHeader(flags: terminalFlag, payloadBytes: 2 + body.count)
        writer.writeBigEndian(UInt16(status))
        writer.write(body)
        return writer.finish()
    }
}

extension ByteWriter {
    /// A frame's header, in front of its payload of `payloadBytes` bytes.
    package mutating func writeFrameHeader(
        payloadBytes: Int, compression: SessionFrame.Compression = .none,
        advisesReconnect: Bool = false
    ) {
        let advice = advisesReconnect ? SessionFrame.reconnectFlag : 0
        writeFrameHeader(flags: compression.rawValue | advice, payloadBytes: payloadBytes)
    }

    fileprivate mutating func writeFrameHeader(flags: UInt8, payloadBytes: Int) {
        precondition(
            payloadBytes >= 0 && payloadBytes <= SessionFrame.payloadBytesMax,
            "a payload fits a frame")
        writeBigEndian(UInt32(payloadBytes + 1) << 8 | UInt32(flags))
    }
}

// MARK: Decoding

/// Why the bytes of a session are not frames. Everything of it is `bad_frame` to a client.
package enum SessionFrameError: Error, Sendable, Equatable {
    case emptyFrame
    case tooLong(Int)
    case unknownCompression
    /// The bytes ended inside a frame.
    case cutOff
}

/// Cuts a stream of bytes into frames.
///
/// A frame that is whole when `next` is asked, and in one piece, shares that piece's memory. What
/// came of one that is not whole is copied together, once: a small piece may be the only use of a
/// large read buffer. So call `next` until it returns nil, or else `detach`. A length out of bounds
/// is refused as soon as it is known, so that no more than one frame, and what came with it, is
/// ever held.
package struct SessionFrameDecoder {
    /// The first piece, unread from `at` on, and the pieces behind it from `laterRead` on.
    private var piece = Bytes()
    private var at = 0
    private var later: [Bytes] = []
    private var laterRead = 0
    /// The head of a frame that does not lie in one piece: its first `headCount` bytes.
    private var head: UInt32 = 0
    private var headCount = 0
    /// The payload of such a frame, as far as it came.
    private var begun: ByteWriter?
    /// Bytes that were appended and are not part of a frame that `next` returned.
    package private(set) var bufferedBytes = 0

    package init() {}

    package mutating func append(_ bytes: Bytes) {
        guard !bytes.isEmpty else { return }
        if piece.isEmpty { piece = bytes } else { later.append(bytes) }
        bufferedBytes += bytes.count
    }

    /// The next whole frame; nil until more bytes come. After an error the stream is unusable.
    package mutating func next() throws(SessionFrameError) -> SessionFrame? {
        if headCount == 0, unread >= SessionFrame.headerBytes {
            let head = piece.loadBigEndian(UInt32.self, at: at)
            let payload = at + SessionFrame.headerBytes
            let end = payload + (try Self.payloadBytes(head))
            if piece.count >= end {
                let frame = try Self.frame(head, piece[payload..<end])
                bufferedBytes -= end - at
                drop(end - at)
                return frame
            }
        }
        while headCount < SessionFrame.headerBytes, unread > 0 {
            head |= UInt32(piece[at]) << (24 - 8 * UInt32(headCount))
            headCount += 1
            drop(1)
        }
        guard headCount >= 3 else { return nil }
        let count = try Self.payloadBytes(head)
        guard headCount == SessionFrame.headerBytes else { return nil }
        var frame = try Self.frame(head, Bytes())
        guard let payload = readPayload(count) else { return nil }
        frame.payload = payload
        head = 0
        headCount = 0
        bufferedBytes -= SessionFrame.headerBytes + count
        return frame
    }

    /// Copies what is left of the pieces that were appended: they may share read buffers. Call it
    /// once for a piece, however often `next` is asked for what is left of it.
    package mutating func detach() {
        if unread > 0 {
            piece = piece.dropFirst(at).detached()
            at = 0
        }
        for at in laterRead..<later.count { later[at] = later[at].detached() }
    }

    /// No more bytes come: throws unless they ended between two frames. Call once `next` is nil.
    package func finish() throws(SessionFrameError) {
        if bufferedBytes > 0 { throw .cutOff }
    }

    /// The length of the payload that a head announces, of which three bytes are known.
    private static func payloadBytes(_ head: UInt32) throws(SessionFrameError) -> Int {
        let length = Int(head >> 8)
        guard length > 0 else { throw .emptyFrame }
        guard length <= SessionFrame.lengthMax else { throw .tooLong(length) }
        return length - 1
    }

    private static func frame(
        _ head: UInt32, _ payload: Bytes
    ) throws(SessionFrameError) -> SessionFrame {
        let flags = UInt8(truncatingIfNeeded: head)
        guard
            let compression = SessionFrame.Compression(
                rawValue: flags & SessionFrame.compressionMask)
        else { throw .unknownCompression }
        return SessionFrame(
            // An empty slice would keep its piece.
            payload: payload.isEmpty ? Bytes() : payload, compression: compression,
            isTerminal: flags & SessionFrame.terminalFlag != 0,
            advisesReconnect: flags & SessionFrame.reconnectFlag != 0)
    }

    /// The payload of `count` bytes; nil until it is whole.
    private mutating func readPayload(_ count: Int) -> Bytes? {
        if count == 0 { return Bytes() }
        if begun == nil, unread >= count {
            defer { drop(count) }
            return piece[at..<at + count]
        }
        // Whoever announces much and sends little gets little.
        var payload = begun ?? ByteWriter(capacity: min(count, 4 * unread))
        begun = nil
        while payload.count < count, unread > 0 {
            let part = piece[at..<at + min(unread, count - payload.count)]
            payload.write(part)
            drop(part.count)
        }
        if payload.count == count { return payload.finish() }
        begun = payload
        return nil
    }

    /// Bytes of the first piece.
    private var unread: Int { piece.count - at }

    /// Moves on by `count` bytes of the first piece.
    private mutating func drop(_ count: Int) {
        at += count
        guard unread == 0 else { return }
        piece = Bytes()
        at = 0
        guard laterRead < later.count else { return }
        piece = later[laterRead]
        later[laterRead] = Bytes()
        laterRead += 1
        if laterRead == later.count {
            later.removeAll(keepingCapacity: true)
            laterRead = 0
        } else if laterRead >= 64 {
            later.removeFirst(laterRead)
            laterRead = 0
        }
    }
}
