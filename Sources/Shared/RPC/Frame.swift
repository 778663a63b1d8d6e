// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What a frame says. The number is on the wire.
package enum FrameKind: UInt8, Sendable {
    /// The first frame of either end: who it is, and the windows it grants.
    case hello = 1
    /// Opens a call: u32 milliseconds until its deadline (all ones: none), then the payload.
    case open = 2
    case message = 3
    /// The caller sends no more messages.
    case finish = 4
    /// The server ended the call; the frame's status, and a payload.
    case end = 5
    /// The caller gave the call up; the status says why.
    case cancel = 6
    /// Credit: entries of u64 call (0: the connection) and u32 bytes.
    case credit = 7
    case ping = 8
    case pong = 9
    /// The sender takes no new calls, and closes once the present ones are over.
    case drain = 10
}

/// One frame: a 16-byte header, then the payload. Little-endian:
/// u32 length of what follows it, u8 kind, u8 method, u16 status, u64 call.
package struct Frame: Sendable, Equatable {
    package var kind: FrameKind
    package var method: UInt8 = 0
    package var status: UInt16 = 0
    package var call: UInt64 = 0
    package var payload = Bytes()

    package static let headBytes = 16

    package init(
        _ kind: FrameKind, method: UInt8 = 0, status: UInt16 = 0, call: UInt64 = 0,
        payload: Bytes = Bytes()
    ) {
        self.kind = kind
        self.method = method
        self.status = status
        self.call = call
        self.payload = payload
    }
}

/// Why a peer's bytes are not frames.
package enum FrameError: Error, Sendable, Equatable {
    case length(UInt32)
    case kind(UInt8)
}

/// Cuts the bytes of a link into frames. A frame that lies in one piece is a slice of that piece;
/// one that came in several is copied once, into memory of its own length.
package struct FrameParser {
    /// Header and payload; a longer frame is an error, found from its header alone.
    package var frameBytesMax: Int
    private var input = Bytes()
    private var head: ByteStorage?
    private var headCount = 0
    private var frame: Frame?
    private var body: ByteStorage?
    private var bodyCount = 0

    package init(frameBytesMax: Int) { self.frameBytesMax = frameBytesMax }

    /// Bytes of our own that an incomplete frame occupies.
    package var partialBytes: Int { headCount + (body?.byteCapacity ?? 0) }

    /// Hands over the next bytes. All frames of the ones before must have been taken.
    package mutating func push(_ bytes: Bytes) {
        precondition(input.isEmpty, "frames were left behind")
        input = bytes
    }

    /// The next complete frame, or nil until more bytes are pushed.
    package mutating func next() throws(FrameError) -> Frame? {
        if body != nil { return continueBody() }
        guard let (frame, length) = try nextHead() else { return nil }
        if input.count >= length {
            var whole = frame
            whole.payload = take(length)
            return whole
        }
        self.frame = frame
        body = ByteStorage.make(capacity: length)
        bodyCount = 0
        bodyLength = length
        return continueBody()
    }

    private var bodyLength = 0

    private mutating func nextHead() throws(FrameError) -> (Frame, Int)? {
        if headCount == 0 && input.count >= Frame.headBytes {
            return try parseHead(take(Frame.headBytes))
        }
        guard !input.isEmpty else { return nil }
        let storage = head ?? ByteStorage.make(capacity: Frame.headBytes)
        head = storage
        let piece = take(min(Frame.headBytes - headCount, input.count))
        piece.withUnsafeBytes { copy($0, to: storage.base + headCount) }
        headCount += piece.count
        guard headCount == Frame.headBytes else { return nil }
        headCount = 0
        return try parseHead(
            Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: Frame.headBytes))
    }

    private func parseHead(_ bytes: Bytes) throws(FrameError) -> (Frame, Int) {
        let length = bytes.load(UInt32.self, at: 0)
        guard length >= Frame.headBytes - 4, Int(length) <= frameBytesMax - 4 else {
            throw .length(length)
        }
        guard let kind = FrameKind(rawValue: bytes[4]) else { throw .kind(bytes[4]) }
        let frame = Frame(
            kind, method: bytes[5], status: bytes.load(UInt16.self, at: 6),
            call: bytes.load(UInt64.self, at: 8))
        return (frame, Int(length) - (Frame.headBytes - 4))
    }

    private mutating func continueBody() -> Frame? {
        guard let storage = body, var whole = frame, !input.isEmpty else { return nil }
        let piece = take(min(bodyLength - bodyCount, input.count))
        piece.withUnsafeBytes { copy($0, to: storage.base + bodyCount) }
        bodyCount += piece.count
        guard bodyCount == bodyLength else { return nil }
        whole.payload = Bytes(
            owner: storage, base: UnsafeRawPointer(storage.base), count: bodyLength)
        body = nil
        frame = nil
        return whole
    }

    private mutating func take(_ count: Int) -> Bytes {
        defer { input = input.count == count ? Bytes() : input.dropFirst(count) }
        return input.prefix(count)
    }

    private func copy(_ bytes: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) {
        guard let source = bytes.baseAddress else { return }
        target.copyMemory(from: source, byteCount: bytes.count)
    }
}

/// Collects frames as the parts of one write. Headers stand in memory that many of them share;
/// payloads are passed on untouched.
package struct FrameWriter {
    package private(set) var parts: [Bytes] = []
    package private(set) var count = 0
    private var arena = ByteStorage.make(capacity: FrameWriter.arenaBytes)
    private var used = 0

    private static let arenaBytes = 4_096
    private static let prefixBytesMax = 4

    package init() {}

    /// Adds a frame. A `prefix` (of an open) stands between the header and the payload.
    package mutating func write(_ frame: Frame, prefix: UInt32? = nil) {
        if used + Frame.headBytes + Self.prefixBytesMax > arena.byteCapacity {
            arena = ByteStorage.make(capacity: Self.arenaBytes)
            used = 0
        }
        let headBytes = Frame.headBytes + (prefix == nil ? 0 : Self.prefixBytesMax)
        let base = arena.base + used
        let length = UInt32(headBytes - 4 + frame.payload.count)
        base.storeBytes(of: length.littleEndian, as: UInt32.self)
        base.storeBytes(of: frame.kind.rawValue, toByteOffset: 4, as: UInt8.self)
        base.storeBytes(of: frame.method, toByteOffset: 5, as: UInt8.self)
        base.storeBytes(of: frame.status.littleEndian, toByteOffset: 6, as: UInt16.self)
        base.storeBytes(of: frame.call.littleEndian, toByteOffset: 8, as: UInt64.self)
        if let prefix {
            base.storeBytes(of: prefix.littleEndian, toByteOffset: 16, as: UInt32.self)
        }
        used += headBytes
        append(head: Bytes(owner: arena, base: UnsafeRawPointer(base), count: headBytes))
        if !frame.payload.isEmpty { parts.append(frame.payload) }
        count += headBytes + frame.payload.count
    }

    /// What was collected; the writer is empty again.
    package mutating func take() -> [Bytes] {
        defer {
            parts = []
            count = 0
        }
        return parts
    }

    private mutating func append(head: Bytes) {
        // Headers that follow each other lie side by side: one part for all of them.
        if let last = parts.last, last.owner === head.owner, last.base + last.count == head.base {
            parts[parts.count - 1] = Bytes(
                owner: last.owner, base: last.base, count: last.count + head.count)
        } else {
            parts.append(head)
        }
    }
}
