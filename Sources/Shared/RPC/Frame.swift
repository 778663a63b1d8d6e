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
    /// How much of the input was taken.
    private var at = 0
    private var head: ByteStorage?
    private var headCount = 0
    /// The frame of which more bytes are to come.
    private var begun: Head?
    private var body: ByteStorage?
    private var bodyCount = 0
    private var bodyLength = 0
    /// The memory of the last frame that came in pieces, to be used again once it is free.
    private var spare: ByteStorage?

    private static let spareBytesMax = 256 << 10

    /// What a header says.
    private struct Head {
        let kind: FrameKind
        let method: UInt8
        let status: UInt16
        let call: UInt64
        /// Of the payload.
        let length: Int

        func frame(_ payload: Bytes) -> Frame {
            Frame(kind, method: method, status: status, call: call, payload: payload)
        }
    }

    package init(frameBytesMax: Int) { self.frameBytesMax = frameBytesMax }

    /// Bytes of our own that an incomplete frame occupies.
    package var partialBytes: Int { headCount + (body == nil ? 0 : bodyLength) }

    /// Hands over the next bytes. All frames of the ones before must have been taken.
    package mutating func push(_ bytes: Bytes) {
        precondition(at == input.count, "frames were left behind")
        input = bytes
        at = 0
    }

    /// The next complete frame, or nil until more bytes are pushed.
    package mutating func next() throws(FrameError) -> Frame? {
        let left = input.count - at
        if left >= Frame.headBytes, headCount == 0, body == nil {
            // Nearly every one lies in one piece.
            let head = try parseHead(input.base + at)
            if left - Frame.headBytes >= head.length {
                at += Frame.headBytes
                return head.frame(take(head.length))
            }
        }
        return try nextOfSeveralPieces()
    }

    private mutating func nextOfSeveralPieces() throws(FrameError) -> Frame? {
        if at == input.count {
            // Nothing of it is needed any more, and somebody may want its memory.
            input = Bytes()
            at = 0
            return nil
        }
        if body != nil { return continueBody() }
        guard let head = try nextHead() else { return nil }
        if input.count - at >= head.length { return head.frame(take(head.length)) }
        begun = head
        body = makeBody(head.length)
        bodyCount = 0
        bodyLength = head.length
        return continueBody()
    }

    private mutating func makeBody(_ length: Int) -> ByteStorage {
        if var spare, self.spare != nil, length <= spare.byteCapacity {
            self.spare = nil
            if isKnownUniquelyReferenced(&spare) { return spare }
        }
        spare = nil
        return ByteStorage.make(capacity: length)
    }

    private mutating func nextHead() throws(FrameError) -> Head? {
        if headCount == 0 && input.count - at >= Frame.headBytes {
            defer { at += Frame.headBytes }
            return try parseHead(input.base + at)
        }
        let storage = head ?? ByteStorage.make(capacity: Frame.headBytes)
        head = storage
        let piece = take(min(Frame.headBytes - headCount, input.count - at))
        piece.withUnsafeBytes { copy($0, to: storage.base + headCount) }
        headCount += piece.count
        guard headCount == Frame.headBytes else { return nil }
        headCount = 0
        return try parseHead(UnsafeRawPointer(storage.base))
    }

    /// Reads the header at `base`.
    @inline(__always)
    private func parseHead(_ base: UnsafeRawPointer) throws(FrameError) -> Head {
        let length = UInt32(littleEndian: base.loadUnaligned(as: UInt32.self))
        guard length >= Frame.headBytes - 4, Int(length) <= frameBytesMax - 4 else {
            throw .length(length)
        }
        let code = base.load(fromByteOffset: 4, as: UInt8.self)
        guard let kind = FrameKind(rawValue: code) else { throw .kind(code) }
        return Head(
            kind: kind, method: base.load(fromByteOffset: 5, as: UInt8.self),
            status: UInt16(
                littleEndian: base.loadUnaligned(fromByteOffset: 6, as: UInt16.self)),
            call: UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            length: Int(length) - (Frame.headBytes - 4))
    }

    private mutating func continueBody() -> Frame? {
        guard let storage = body, let head = begun else { return nil }
        let piece = take(min(bodyLength - bodyCount, input.count - at))
        piece.withUnsafeBytes { copy($0, to: storage.base + bodyCount) }
        bodyCount += piece.count
        guard bodyCount == bodyLength else { return nil }
        let payload = Bytes(
            owner: storage, base: UnsafeRawPointer(storage.base), count: bodyLength)
        if storage.byteCapacity <= Self.spareBytesMax { spare = storage }
        body = nil
        begun = nil
        return head.frame(payload)
    }

    private mutating func take(_ count: Int) -> Bytes {
        defer { at += count }
        return input[at..<at + count]
    }

    private func copy(_ bytes: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) {
        guard let source = bytes.baseAddress else { return }
        target.copyMemory(from: source, byteCount: bytes.count)
    }
}

/// Collects frames as the parts of one write. Headers, and messages that are written into place,
/// stand in memory that many of them share; payloads are passed on untouched.
package struct FrameWriter {
    package private(set) var parts: [Bytes] = []
    package private(set) var count = 0
    private var arena = ByteStorage.make(capacity: FrameWriter.arenaBytes)
    private var used = 0
    /// The last part is of the present arena.
    private var endsInArena = false

    private static let arenaBytes = 4_096
    private static let arenaBytesMax = 64 << 10
    private static let prefixBytesMax = 4

    package init() {}

    /// Adds a frame. A `prefix` (of an open) stands between the header and the payload.
    package mutating func write(_ frame: Frame, prefix: UInt32? = nil) {
        let headBytes = Frame.headBytes + (prefix == nil ? 0 : Self.prefixBytesMax)
        let base = reserve(headBytes)
        writeHead(frame, headBytes - 4 + frame.payload.count, at: base)
        if let prefix {
            base.storeBytes(of: prefix.littleEndian, toByteOffset: 16, as: UInt32.self)
        }
        commit(headBytes, body: frame.payload)
    }

    /// Adds a frame whose payload is `count` bytes that `write` writes, and `body` behind them.
    /// `count` is at most `RPCLimits.writtenBytesMax`.
    package mutating func write(
        _ kind: FrameKind, call: UInt64, _ count: Int, body: Bytes,
        _ write: (UnsafeMutableRawPointer) -> Void
    ) {
        let headBytes = Frame.headBytes + count
        let base = reserve(headBytes)
        writeHead(Frame(kind, call: call), headBytes - 4 + body.count, at: base)
        write(base + Frame.headBytes)
        commit(headBytes, body: body)
    }

    /// What was collected; the writer is empty again.
    package mutating func take() -> [Bytes] {
        defer {
            parts = []
            count = 0
        }
        return parts
    }

    /// Takes back what `take` returned and nobody else needs any more, for its room.
    package mutating func reuse(_ taken: consuming [Bytes]) {
        guard parts.isEmpty else { return }
        taken.removeAll(keepingCapacity: true)
        parts = taken
        if isKnownUniquelyReferenced(&arena) { used = 0 }
    }

    private mutating func reserve(_ bytes: Int) -> UnsafeMutableRawPointer {
        if used + bytes > arena.byteCapacity {
            arena = ByteStorage.make(
                capacity: min(arena.byteCapacity * 2, Self.arenaBytesMax))
            used = 0
            endsInArena = false
        }
        return arena.base + used
    }

    private func writeHead(_ frame: Frame, _ length: Int, at base: UnsafeMutableRawPointer) {
        base.storeBytes(of: UInt32(length).littleEndian, as: UInt32.self)
        base.storeBytes(of: frame.kind.rawValue, toByteOffset: 4, as: UInt8.self)
        base.storeBytes(of: frame.method, toByteOffset: 5, as: UInt8.self)
        base.storeBytes(of: frame.status.littleEndian, toByteOffset: 6, as: UInt16.self)
        base.storeBytes(of: frame.call.littleEndian, toByteOffset: 8, as: UInt64.self)
    }

    /// What was written into the reserved room, and `body` behind it, is the next to be sent.
    private mutating func commit(_ headBytes: Int, body: Bytes) {
        let base = UnsafeRawPointer(arena.base + used)
        used += headBytes
        count += headBytes + body.count
        // What lies side by side is one part.
        if endsInArena, let last = parts.last, last.base + last.count == base {
            parts[parts.count - 1] = Bytes(
                owner: arena, base: last.base, count: last.count + headBytes)
        } else {
            parts.append(Bytes(owner: arena, base: base, count: headBytes))
        }
        endsInArena = body.isEmpty
        if !endsInArena { parts.append(body) }
    }
}
