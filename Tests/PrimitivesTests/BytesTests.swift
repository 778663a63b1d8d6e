// SPDX-License-Identifier: Apache-2.0

import CSupport
import Primitives
import Testing

@Suite struct BytesTests {
    @Test func slicesShareMemory() {
        let bytes = Bytes([1, 2, 3, 4, 5])
        let slice = bytes[1..<4]
        #expect(slice.array == [2, 3, 4])
        #expect(slice.base == bytes.base + 1)
        #expect(slice.owner === bytes.owner)
        #expect(slice[1..<2].array == [3])
        #expect(bytes.dropFirst(9).isEmpty)
        #expect(bytes.dropFirst(2).array == [3, 4, 5])
        #expect(bytes.prefix(9).count == 5)
        #expect(slice.detached() == slice)
        #expect(slice.detached().base != slice.base)
        #expect(slice == [2, 3, 4])
        #expect(slice != [2, 3])
        #expect(slice.hashValue == Bytes([2, 3, 4]).hashValue)
        #expect(Bytes().array == [])
        #expect(Bytes() == bytes[2..<2])
    }

    @Test func holdsItsOwnerAlive() {
        weak var owner: AnyObject?
        var slice: Bytes?
        do {
            let bytes = Bytes(utf8: "text")
            owner = bytes.owner
            slice = bytes[1..<3]
        }
        #expect(owner != nil)
        #expect(slice?.validText == "ex")
        slice = nil
        #expect(owner == nil)
    }

    @Test func text() {
        #expect(Bytes(utf8: "Fluß").validText == "Fluß")
        #expect(Bytes([0x61, 0xFF]).validText == nil)
        #expect(Bytes([0x61, 0xFF]).lossyText == "a\u{FFFD}")
        #expect(Bytes().validText == "")
    }

    @Test func loads() {
        let bytes = Bytes([0, 1, 2, 3, 4, 5, 6, 7, 8])
        #expect(bytes.load(UInt32.self, at: 1) == 0x0403_0201)
        #expect(bytes.loadBigEndian(UInt32.self, at: 1) == 0x0102_0304)
        #expect(bytes.load(UInt64.self, at: 1) == 0x0807_0605_0403_0201)
    }

    @Test func joins() {
        let one = Bytes([1, 2])
        #expect([one].joined().base == one.base)
        #expect([one, Bytes(), Bytes([3])].joined() == [1, 2, 3])
        #expect([Bytes]().joined().isEmpty)
        #expect(byteCount([one, Bytes([3])]) == 3)
    }

    @Test func checksums() {
        func both(_ bytes: [UInt8], _ expected: UInt32) {
            #expect(CRC32C.of(Bytes(bytes)) == expected)
            #expect(
                bytes.withUnsafeBytes { millrace_crc32c_portable(0, $0.baseAddress, $0.count) }
                    == expected)
        }
        // RFC 3720, appendix B.4, and the usual check value.
        both([UInt8](repeating: 0, count: 32), 0x8A91_36AA)
        both([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43)
        both(Array(0..<32), 0x46DD_794E)
        both(Array((0..<32).reversed()), 0x113F_DB5C)
        both(Array("123456789".utf8), 0xE306_9283)
        #expect(CRC32C.of(Bytes()) == 0)
        var random = SplitMix64(seed: 1)
        // Long ones are taken in several lanes.
        for length in Array(0..<300) + [767, 768, 769, 1_535, 1_536, 1_543, 5_000] {
            let bytes = Bytes((0..<length).map { _ in UInt8(truncatingIfNeeded: random.next()) })
            let whole = CRC32C.of(bytes)
            let portable = bytes.withUnsafeBytes {
                millrace_crc32c_portable(0, $0.baseAddress, $0.count)
            }
            #expect(whole == portable)
            let cut = Int(random.next() % UInt64(length + 1))
            #expect(CRC32C.of(bytes.dropFirst(cut), seed: CRC32C.of(bytes.prefix(cut))) == whole)
        }
    }
}
