// SPDX-License-Identifier: Apache-2.0

import HTTP
import NIOCore
import Primitives
import RPC
import Testing

@testable import Transport

/// What goes out of memory of our own, without a copy.
@Suite(.serialized) struct SentBytesTests {
    private func storage(_ capacity: Int, filledWith first: Int) -> Bytes {
        var writer = ByteWriter(capacity: capacity)
        for i in 0..<capacity / 8 { writer.write(UInt64(first + i)) }
        return writer.finish()
    }

    private func address(_ buffer: ByteBuffer) -> UnsafeRawPointer? {
        buffer.withUnsafeReadableBytes { $0.baseAddress }
    }

    /// Long parts stay where they are; what is short, or little of its memory, is copied.
    @Test func longPartsAreNotCopied() {
        let long = storage(100_000, filledWith: 1)
        let parts = [
            Bytes(utf8: "head"), long, Bytes(utf8: "a"), Bytes(utf8: "b"), long.dropFirst(50_000),
            long.dropFirst(60_000), long.prefix(10), Bytes(), storage(16_376, filledWith: 2),
        ]
        var buffers: [ByteBuffer] = []
        ByteBuffer.each(of: parts, bytesMax: 64_000, ByteBufferAllocator()) { buffers.append($0) }
        #expect(
            buffers.map(\.readableBytes) == [4, 64_000, 36_000, 2, 50_000, 40_000 + 10 + 16_376])
        #expect(address(buffers[1]) == long.base)
        #expect(address(buffers[2]) == long.base + 64_000)
        #expect(address(buffers[4]) == long.base + 50_000)
        let copies = [0, 3, 5].compactMap { address(buffers[$0]) }
        #expect(copies.allSatisfy { $0 < long.base || $0 >= long.base + long.count })
        #expect(Bytes(buffers.flatMap { Array($0.readableBytesView) }) == parts.joined())
    }

    /// The memory lives as long as the last buffer, and no longer.
    @Test func buffersKeepTheirMemory() {
        weak var owner: AnyObject?
        var slice: ByteBuffer?
        func make() {
            let part = storage(20_000, filledWith: 3)
            owner = part.owner
            ByteBuffer.each(of: [part], bytesMax: 15_000, ByteBufferAllocator()) { slice = $0 }
        }
        make()
        #expect(owner != nil)
        #expect(slice?.readInteger(endianness: .little, as: UInt64.self) == 1_878)
        slice = nil
        #expect(owner == nil)
    }

    /// Long and short parts in turns, some of them slices, arrive as they were, over both
    /// protocols; and nobody holds their memory then.
    @Test(arguments: [true, false])
    func whatIsSentFromWhereItLiesArrives(_ isHTTP2: Bool) async throws {
        try await withSite { loop, site, address, _ in
            weak var held: AnyObject?
            var parts: [Bytes] = []
            for i in 0..<40 {
                let long = storage(20_000 + i * 30_000, filledWith: i)
                parts += [Bytes(utf8: "part \(i)"), long, long.dropFirst(100).prefix(30_000)]
                if i == 20 { parts += [storage(20 << 20, filledWith: 5), Bytes(), Bytes()] }
                if i == 39 { held = long.owner }
            }
            let body = parts.joined()
            var got = ByteWriter()
            let client = try await RawClient(loop, address)
            let h2 = isHTTP2 ? try await H2Client(loop, address, initialWindow: 1 << 20) : nil
            if let h2 {
                h2.request(1, "POST", "/hold", ends: false)
            } else {
                client.onBytes = { got.write($0) }
                client.send("GET /hold HTTP/1.0\r\n\r\n")
            }
            try #require(await eventually(loop) { site.held.count == 1 })
            site.held[0].respond(200, [])
            site.held[0].write(parts)
            site.held[0].finish()
            parts = []
            if let h2 {
                #expect(await eventually(loop) { h2.hasEnded(1) })
                for frame in h2.frames where frame.kind == 0 { got.write(frame.payload) }
            } else {
                #expect(await eventually(loop) { client.isClosed })
            }
            #expect(site.held[0].unsentBytes == 0)
            let all = got.finish()
            #expect(all.dropFirst(all.count - body.count) == body)
            #expect(await eventually(loop) { held == nil })
        }
    }
}
