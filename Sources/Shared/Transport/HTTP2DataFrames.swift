// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Joins short DATA frames that stand side by side in what a socket was read into, and holds back
/// what NIO would have to keep.
///
/// A client that writes a frame per record has NIO's decoder allocate for each, and walk it through
/// its state machine. Joined, they are as if the client had written one frame: they are of one
/// stream, without padding, none but the last ends it, and together they are no longer than what
/// the client may send as one. Flow control counts what it did, for heads are not counted. Of the
/// last frame the end may be still to come; its length is part of the joint head all the same.
///
/// NIO's decoder begins its buffer anew only where all that it got is used up: behind a frame, or
/// within a plain DATA frame's payload. Where reads end elsewhere again and again, it grows with
/// all that comes. So the beginning of anything else waits here for its rest: of a head, a frame,
/// or a block of headers, which all have their bounds. What is longer, or wrong in another way,
/// passes as it comes, for NIO to refuse.
struct HTTP2DataFrames {
    private let headBytesMax: Int
    /// Of the present frame's payload, what is to come and may pass in any pieces.
    private var payloadLeft = 0
    /// The beginning of what passes in one piece.
    private var held: [UInt8] = []

    /// Joining copies: a longer frame is cheaper alone.
    private static let joinedBytesMax = 4_096
    /// Room for so many bytes is kept for the next beginning.
    private static let heldBytesKept = 64

    /// A block of headers may have `headBytesMax` bytes.
    init(headBytesMax: Int) {
        self.headBytesMax = headBytesMax
    }

    /// How much waits for its rest.
    var heldBytes: Int { held.count }

    /// Takes what was read, at first from a frame's beginning on. True where `joined` has what is
    /// to be passed on in its stead; else that is `input`, maybe without its end.
    mutating func join(_ input: inout ByteBuffer, into joined: inout ByteBuffer) -> Bool {
        var heldNow = 0
        let isJoined = input.withUnsafeReadableBytes { bytes in
            var at = 0
            /// What comes before it is in `joined`, if anything is.
            var copied = 0
            var isJoining = false
            if !held.isEmpty {
                at = complete(from: bytes)
                isJoining = true
                copied = at
                joined.clear(minimumCapacity: held.count + bytes.count - at)
                guard isWhole else { return true }
                release(to: &joined)
            }
            while true {
                let skipped = min(payloadLeft, bytes.count - at)
                at += skipped
                payloadLeft -= skipped
                if let head = Head(bytes, at), head.isShortData {
                    let run = Run(from: head, at: at, in: bytes)
                    if run.frames > 1 {
                        if !isJoining { joined.clear(minimumCapacity: bytes.count) }
                        isJoining = true
                        joined.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[copied..<at]))
                        run.write(bytes, to: &joined)
                        at = min(run.end, bytes.count)
                        payloadLeft = run.end - at
                        copied = at
                        continue
                    }
                }
                let piece = Piece(bytes, at, headBytesMax: headBytesMax)
                guard piece.bytes <= bytes.count - at else { break }
                at += piece.bytes
                payloadLeft = piece.payloadLeft
            }
            if isJoining {
                joined.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[copied..<at]))
            }
            heldNow = bytes.count - at
            held.append(contentsOf: bytes[at...])
            return isJoining
        }
        if !isJoined { input.moveWriterIndex(to: input.writerIndex - heldNow) }
        return isJoined
    }

    /// Adds to `held` what it lacks; returns how much of it there was.
    private mutating func complete(from bytes: UnsafeRawBufferPointer) -> Int {
        var at = 0
        while at < bytes.count, case let lack = heldPiece.bytes - held.count, lack > 0 {
            let end = min(at + lack, bytes.count)
            held.append(contentsOf: bytes[at..<end])
            at = end
        }
        return at
    }

    private var isWhole: Bool { heldPiece.bytes <= held.count }

    private var heldPiece: Piece {
        held.withUnsafeBytes { Piece($0, 0, headBytesMax: headBytesMax) }
    }

    private mutating func release(to joined: inout ByteBuffer) {
        payloadLeft = heldPiece.payloadLeft
        joined.writeBytes(held)
        held.removeAll(keepingCapacity: held.capacity <= Self.heldBytesKept)
    }

    private struct Head {
        static let bytes = 9
        static let endFlag: UInt8 = 1
        private static let paddedFlag: UInt8 = 8
        let length: Int
        let stream: UInt32
        private let kind: UInt8
        private let flags: UInt8

        /// Nil where less than a head is left.
        init?(_ bytes: UnsafeRawBufferPointer, _ at: Int) {
            guard at + Self.bytes <= bytes.count else { return nil }
            func load<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
                T(bigEndian: bytes.loadUnaligned(fromByteOffset: at + offset, as: T.self))
            }
            let lengthAndKind = load(UInt32.self, 0)
            length = Int(lengthAndKind >> 8)
            kind = UInt8(truncatingIfNeeded: lengthAndKind)
            flags = bytes[at + 4]
            stream = load(UInt32.self, 5)
        }

        var ends: Bool { flags & Self.endFlag != 0 }

        /// A DATA frame that may be joined with another of its stream.
        var isShortData: Bool {
            kind == 0 && flags & ~Self.endFlag == 0 && length > 0 && length <= joinedBytesMax
                && stream != 0
        }

        /// NIO passes its payload on as that comes.
        var isPlainData: Bool { kind == 0 && flags & Self.paddedFlag == 0 }
        /// HEADERS or PUSH_PROMISE, which CONTINUATION frames may follow.
        var beginsBlock: Bool { kind == 1 || kind == 5 }
        var isContinuation: Bool { kind == 9 }
        /// Of a block of headers.
        var isLast: Bool { flags & 4 != 0 }
    }

    /// From a frame's beginning on, what NIO is to get at once.
    private struct Piece {
        /// At least, if this is more than there is.
        let bytes: Int
        /// What follows them, and may pass in any pieces.
        let payloadLeft: Int

        /// More than NIO takes.
        private static let framesMax = 16

        init(_ input: UnsafeRawBufferPointer, _ at: Int, headBytesMax: Int) {
            var end = 0
            var blockBytes = 0
            for frame in 0..<Self.framesMax {
                guard let head = Head(input, at + end) else {
                    (bytes, payloadLeft) = (end + Head.bytes, 0)
                    return
                }
                end += Head.bytes
                // Within a block nothing else may come.
                let isRefused = frame > 0 && !head.isContinuation
                if head.isPlainData, !isRefused {
                    let first = min(head.length, 1)
                    (bytes, payloadLeft) = (end + first, head.length - first)
                    return
                }
                let isBlock = frame > 0 || head.beginsBlock
                if isBlock { blockBytes += head.length }
                guard !isRefused, head.length <= HTTP2Terms.frameBytesMax,
                    blockBytes <= headBytesMax
                else {
                    (bytes, payloadLeft) = (end, head.length)
                    return
                }
                end += head.length
                if !isBlock || head.isLast { break }
            }
            (bytes, payloadLeft) = (end, 0)
        }
    }

    /// Frames that can be one.
    private struct Run {
        private let begin: Int
        private let stream: UInt32
        private(set) var frames = 1
        private var length: Int
        private var ends: Bool
        /// Of the last one, which may lie beyond what was read.
        private(set) var end: Int

        init(from first: Head, at begin: Int, in bytes: UnsafeRawBufferPointer) {
            self.begin = begin
            stream = first.stream
            length = first.length
            ends = first.ends
            end = begin + Head.bytes + first.length
            while !ends, let next = Head(bytes, end), next.isShortData, next.stream == stream,
                length + next.length <= HTTP2Terms.frameBytesMax
            {
                frames += 1
                length += next.length
                ends = next.ends
                end += Head.bytes + next.length
            }
        }

        func write(_ bytes: UnsafeRawBufferPointer, to joined: inout ByteBuffer) {
            joined.writeInteger(UInt32(length) << 8)
            joined.writeInteger(ends ? Head.endFlag : 0)
            joined.writeInteger(stream)
            var at = begin
            while at < min(end, bytes.count), let head = Head(bytes, at) {
                let payload = at + Head.bytes
                at = payload + head.length
                joined.writeBytes(
                    UnsafeRawBufferPointer(rebasing: bytes[payload..<min(at, bytes.count)]))
            }
        }
    }
}

/// Memory for joined frames, which the connections of a server use in turns.
final class HTTP2Scratch {
    private var buffer = ByteBuffer()

    /// Lends the buffer; whoever is called meanwhile gets another.
    func lend(_ body: (inout ByteBuffer) -> Void) {
        var buffer = self.buffer
        self.buffer = ByteBuffer()
        body(&buffer)
        self.buffer = buffer
    }
}
