// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import Testing

@Suite struct FrameTests {
    private let frames = [
        Frame(.hello, payload: text("hi")),
        Frame(.open, method: 3, call: 1, payload: bytes(100)),
        Frame(.message, call: 1, payload: bytes(1)),
        Frame(.finish, call: 1),
        Frame(.end, status: 65, call: 0x0102_0304_0506_0708, payload: bytes(37, 9)),
        Frame(.credit, payload: bytes(12)),
        Frame(.ping, call: 77),
        Frame(.drain),
    ]

    private func encoded() -> Bytes {
        var writer = FrameWriter()
        for frame in frames { writer.write(frame) }
        #expect(writer.count == byteCount(writer.parts))
        return writer.take().joined()
    }

    @Test func headerIsAsDocumented() {
        var writer = FrameWriter()
        writer.write(Frame(.end, method: 2, status: 0x0403, call: 5, payload: bytes(1, 0xAA)))
        #expect(
            writer.take().joined() == [
                13, 0, 0, 0, 5, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0xAA,
            ])
    }

    @Test func splitAtEveryBoundary() throws {
        let whole = encoded()
        for first in 0...whole.count {
            for second in stride(from: first, through: whole.count, by: 7) {
                var parser = FrameParser(frameBytesMax: 1_024)
                var found: [Frame] = []
                let rest = whole[second..<whole.count]
                for piece in [whole[0..<first], whole[first..<second], rest] {
                    parser.push(piece)
                    while let frame = try parser.next() { found.append(frame) }
                }
                #expect(found == frames)
            }
        }
    }

    @Test func byteByByte() throws {
        var parser = FrameParser(frameBytesMax: 1_024)
        var found: [Frame] = []
        let whole = encoded()
        for offset in 0..<whole.count {
            parser.push(whole[offset..<offset + 1])
            while let frame = try parser.next() { found.append(frame) }
        }
        #expect(found == frames)
        #expect(parser.partialBytes == 0)
    }

    @Test func frameInOnePieceIsNotCopied() throws {
        var parser = FrameParser(frameBytesMax: 1_024)
        let whole = encoded()
        parser.push(whole)
        _ = try parser.next()
        let open = try #require(try parser.next())
        #expect(open.payload.owner === whole.owner)
        #expect(open.payload.base == whole.base + 16 + 2 + 16)
    }

    @Test func payloadIsNotCopiedWhenWritten() {
        var writer = FrameWriter()
        let payload = bytes(64)
        writer.write(Frame(.finish, call: 1))
        writer.write(Frame(.message, call: 1, payload: payload))
        // Two headers side by side are one part.
        #expect(writer.parts.count == 2)
        #expect(writer.parts[1].base == payload.base)
    }

    @Test func aMessageWrittenIntoPlaceIsAsAnyOther() throws {
        var plain = FrameWriter()
        var inPlace = FrameWriter()
        for round in 0..<3_000 {
            let head = bytes(round % 60, UInt8(truncatingIfNeeded: round))
            let body = bytes(round % 3 == 0 ? 0 : round % 50)
            plain.write(Frame(.message, call: 9, payload: [head, body].joined()))
            inPlace.write(.message, call: 9, head.count, body: body) { target in
                head.withUnsafeBytes {
                    UnsafeMutableRawBufferPointer(start: target, count: $0.count)
                        .copyMemory(from: $0)
                }
            }
        }
        #expect(inPlace.count == plain.count)
        #expect(inPlace.take().joined() == plain.take().joined())
    }

    @Test func framesSideBySideAreOnePart() {
        var writer = FrameWriter()
        for call in 1...20 {
            writer.write(.message, call: UInt64(call), 48, body: Bytes()) {
                $0.initializeMemory(as: UInt8.self, repeating: 1, count: 48)
            }
        }
        #expect(writer.parts.count == 1 && writer.count == 20 * 64)
    }

    /// What is taken stays as it was while somebody holds it; then its room is used again.
    @Test func whatWasTakenIsNotOverwritten() {
        var writer = FrameWriter()
        writer.write(Frame(.ping, call: 1))
        let first = writer.take()
        let copy = first.joined().array
        writer.reuse(first)
        writer.write(Frame(.ping, call: 2))
        #expect(first.joined().array == copy)
        #expect(writer.take().joined() != first.joined())
    }

    @Test func aFrameInPiecesDoesNotOverwriteTheOneBefore() throws {
        var writer = FrameWriter()
        for value in 1...3 {
            writer.write(Frame(.message, call: 1, payload: bytes(40, UInt8(value))))
        }
        let whole = writer.take().joined()
        var parser = FrameParser(frameBytesMax: 1_024)
        var found: [Frame] = []
        for piece in [0..<30, 30..<80, 80..<130, 130..<whole.count] {
            parser.push(whole[piece])
            while let frame = try parser.next() { found.append(frame) }
        }
        #expect(found.map(\.payload) == (1...3).map { bytes(40, UInt8($0)) })
    }

    @Test func oversizedIsRefusedByItsHeader() {
        var parser = FrameParser(frameBytesMax: 1_024)
        parser.push([0, 4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        #expect(throws: FrameError.length(1_024)) { _ = try parser.next() }
        #expect(parser.partialBytes == 0)
    }

    @Test func undersizedAndUnknownAreRefused() {
        var parser = FrameParser(frameBytesMax: 1_024)
        parser.push([11, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        #expect(throws: FrameError.length(11)) { _ = try parser.next() }
        parser = FrameParser(frameBytesMax: 1_024)
        parser.push([12, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        #expect(throws: FrameError.kind(99)) { _ = try parser.next() }
    }

    @Test func largestFrameFits() throws {
        var writer = FrameWriter()
        writer.write(Frame(.message, payload: bytes(1_024 - Frame.headBytes)))
        let whole = writer.take().joined()
        #expect(whole.count == 1_024)
        var parser = FrameParser(frameBytesMax: 1_024)
        parser.push(whole)
        #expect(try parser.next()?.payload.count == 1_008)
    }
}
