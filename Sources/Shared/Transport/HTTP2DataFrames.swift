// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Joins short DATA frames that stand side by side in what a socket was read into.
///
/// A client that writes a frame per record has NIO's decoder allocate for each, and walk it through
/// its state machine. Joined, they are as if the client had written one frame: they are of one
/// stream, without padding, none but the last ends it, and together they are no longer than what
/// the client may send as one. Flow control counts what it did, for heads are not counted. Nothing
/// is held back: of the last frame the end may be still to come; its length is part of the joint
/// head all the same. Everything else passes as it came, for NIO to judge.
struct HTTP2DataFrames {
    /// Of the present frame's payload, what is to come.
    private var payloadLeft = 0
    /// How much came of a head that did not lie in one piece, and the length that it tells.
    private var splitCount = 0
    private var splitLength = 0

    /// Joining copies: a longer frame is cheaper alone.
    private static let joinedBytesMax = 4_096

    /// Takes what was read, at first from a frame's beginning on. True where something could be
    /// joined: then `joined` has what is to be passed on in its stead.
    mutating func join(_ input: ByteBuffer, into joined: inout ByteBuffer) -> Bool {
        input.withUnsafeReadableBytes { bytes in
            var at = takeSplitHead(bytes)
            /// What comes before it is in `joined`, if anything is.
            var copied = 0
            var isJoining = false
            while true {
                let skipped = min(payloadLeft, bytes.count - at)
                at += skipped
                payloadLeft -= skipped
                guard let head = Head(bytes, at) else { break }
                let run = Run(from: head, at: at, in: bytes)
                if run.frames == 1 {
                    at += Head.bytes
                    payloadLeft = head.length
                    continue
                }
                if !isJoining {
                    isJoining = true
                    joined.clear(minimumCapacity: bytes.count)
                }
                joined.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[copied..<at]))
                run.write(bytes, to: &joined)
                at = min(run.end, bytes.count)
                payloadLeft = run.end - at
                copied = at
            }
            if isJoining {
                joined.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[copied...]))
            }
            keepSplitHead(bytes[at...])
            return isJoining
        }
    }

    /// Goes on with a head of which the beginning came before; returns how much of it came now.
    private mutating func takeSplitHead(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard splitCount > 0 else { return 0 }
        let count = min(Head.bytes - splitCount, bytes.count)
        keepSplitHead(bytes[..<count])
        if splitCount == Head.bytes {
            splitCount = 0
            payloadLeft = splitLength
            splitLength = 0
        }
        return count
    }

    private mutating func keepSplitHead(_ bytes: Slice<UnsafeRawBufferPointer>) {
        for byte in bytes {
            if splitCount < 3 { splitLength = splitLength << 8 | Int(byte) }
            splitCount += 1
        }
    }

    private struct Head {
        static let bytes = 9
        private static let endFlag: UInt8 = 1
        let length: Int
        let stream: UInt32
        /// A DATA frame that may be joined with another of its stream.
        let isShortData: Bool
        let ends: Bool

        /// Nil where less than a head is left.
        init?(_ bytes: UnsafeRawBufferPointer, _ at: Int) {
            guard at + Self.bytes <= bytes.count else { return nil }
            func load<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
                T(bigEndian: bytes.loadUnaligned(fromByteOffset: at + offset, as: T.self))
            }
            let lengthAndKind = load(UInt32.self, 0)
            let flags = bytes[at + 4]
            length = Int(lengthAndKind >> 8)
            stream = load(UInt32.self, 5)
            ends = flags & Self.endFlag != 0
            isShortData =
                lengthAndKind & 0xFF == 0 && flags & ~Self.endFlag == 0 && length > 0
                && length <= joinedBytesMax && stream != 0
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
            guard first.isShortData else { return }
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
            joined.writeInteger(UInt8(ends ? 1 : 0))
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
