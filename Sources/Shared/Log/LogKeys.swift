// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// The names of the cell's objects.
package enum LogKeys {
    /// `wal/{channel}/{index}`, both with 20 digits, so that byte order is log order.
    package static func chunk(_ channel: ChannelID, _ index: ChunkIndex) -> String {
        String(unsafeUninitializedCapacity: 45) { text in
            var at = put(allLogsPrefix, text, 0)
            at = putPadded(channel.number, text, at)
            at = put("/", text, at)
            return putPadded(index, text, at)
        }
    }

    /// What the keys of a channel's chunks and seal begin with.
    package static func logPrefix(_ channel: ChannelID) -> String {
        String(unsafeUninitializedCapacity: 25) { text in
            let at = putPadded(channel.number, text, put(allLogsPrefix, text, 0))
            return put("/", text, at)
        }
    }

    /// The channel and index of a chunk's key; nil if it is none.
    package static func parseChunk(_ key: String) -> (channel: ChannelID, index: ChunkIndex)? {
        guard let (channel, index) = parts(of: key, behind: allLogsPrefix),
            let number = unpadded(channel), number > 0, let index = unpadded(index)
        else { return nil }
        return (ChannelID(number), index)
    }

    /// `seg/{shard}/{id}`: the shard spreads the keys, so that a store's request limits scale.
    package static func segment(_ id: ID128) -> String {
        "\(allSegmentsPrefix)\(shard(id))/\(id)"
    }

    /// The id of a segment object's key; nil if it is none.
    package static func parseSegment(_ key: String) -> ID128? {
        guard let (shard, text) = parts(of: key, behind: allSegmentsPrefix),
            let id = ID128(hex: text), id.description == text, Self.shard(id) == shard
        else { return nil }
        return id
    }

    package static let allLogsPrefix = "wal/"
    package static let allSegmentsPrefix = "seg/"

    private static func shard(_ id: ID128) -> String {
        var outer = SplitMix64(seed: id.high)
        var inner = SplitMix64(seed: outer.next() ^ id.low)
        let byte = UInt8(truncatingIfNeeded: inner.next() >> 56)
        return (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }

    // A chunk's key is made for each PUT: in one piece.

    private static func put(
        _ part: String, _ text: UnsafeMutableBufferPointer<UInt8>, _ at: Int
    ) -> Int {
        var at = at
        for byte in part.utf8 {
            text[at] = byte
            at += 1
        }
        return at
    }

    /// 20 digits.
    private static func putPadded(
        _ number: UInt64, _ text: UnsafeMutableBufferPointer<UInt8>, _ at: Int
    ) -> Int {
        var rest = number
        for place in stride(from: at + 19, through: at, by: -1) {
            text[place] = UInt8(truncatingIfNeeded: rest % 10) + UInt8(ascii: "0")
            rest /= 10
        }
        return at + 20
    }

    private static func unpadded(_ text: Substring) -> UInt64? {
        guard text.utf8.count == 20,
            text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
        else { return nil }
        return UInt64(text)
    }

    private static func parts(of key: String, behind prefix: String) -> (Substring, Substring)? {
        guard key.hasPrefix(prefix) else { return nil }
        let rest = key.dropFirst(prefix.count)
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false)
        return parts.count == 2 ? (parts[0], parts[1]) : nil
    }
}
