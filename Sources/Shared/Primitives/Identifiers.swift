// SPDX-License-Identifier: Apache-2.0

/// A random 128-bit number, written as 32 hexadecimal digits.
package struct ID128: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package init(random: RandomSource) { self.init(high: random.next(), low: random.next()) }

    /// From exactly 32 hexadecimal digits; nil else.
    package init?(hex: some StringProtocol) {
        guard hex.utf8.count == 32, hex.utf8.allSatisfy({ $0.isHexDigit }) else { return nil }
        guard let high = UInt64(hex.prefix(16), radix: 16),
            let low = UInt64(hex.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    package static func < (a: ID128, b: ID128) -> Bool { (a.high, a.low) < (b.high, b.low) }

    package var description: String {
        String(unsafeUninitializedCapacity: Self.hexBytes) { text in
            writeHex(UnsafeMutableRawBufferPointer(text))
            return Self.hexBytes
        }
    }

    /// The length of its description, in bytes.
    package static let hexBytes = 32

    /// Writes the description to `text`, which has room for it.
    package func writeHex(_ text: UnsafeMutableRawBufferPointer) {
        for (number, start) in [(high, 0), (low, 16)] {
            for digit in 0..<16 {
                let nibble = UInt8(truncatingIfNeeded: number >> UInt64(60 - 4 * digit)) & 15
                text[start + digit] = nibble + (nibble < 10 ? UInt8(ascii: "0") : 87)
            }
        }
    }
}

extension UInt8 {
    fileprivate var isHexDigit: Bool {
        switch self {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
            UInt8(ascii: "A")...UInt8(ascii: "F"):
            true
        default: false
        }
    }
}

extension ByteWriter {
    package mutating func write(_ id: ID128) {
        write(id.high)
        write(id.low)
    }
}

extension ByteReader {
    package mutating func readID() throws(DecodeError) -> ID128 {
        ID128(high: try read(UInt64.self), low: try read(UInt64.self))
    }
}

/// A stream's incarnation: never derived from its name, never used again.
package struct StreamID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let id: ID128
    package init(_ id: ID128) { self.id = id }
    package init(random: RandomSource) { id = ID128(random: random) }
    package init?(hex: some StringProtocol) {
        guard let id = ID128(hex: hex) else { return nil }
        self.id = id
    }
    package static func < (a: StreamID, b: StreamID) -> Bool { a.id < b.id }
    package var description: String { id.description }
}

/// One incarnation of a channel process; an id is never used again. Greater than 0.
package struct ChannelID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
    package static func < (a: ChannelID, b: ChannelID) -> Bool { a.number < b.number }
    package var description: String { String(number) }
}

/// Which tenure of its stream a streamlet is, counted from 0.
package typealias StreamletNumber = UInt32

/// The index of a chunk in its channel's log, dense from 0.
package typealias ChunkIndex = UInt64
