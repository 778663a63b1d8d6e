// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// The names of the cell's objects.
package enum LogKeys {
    /// `wal/{channel}/{index}`, both with 20 digits, so that byte order is log order.
    package static func chunk(_ channel: ChannelID, _ index: ChunkIndex) -> String {
        logPrefix(channel) + padded(index)
    }

    /// What the keys of a channel's chunks and seal begin with.
    package static func logPrefix(_ channel: ChannelID) -> String {
        "\(allLogsPrefix)\(padded(channel.number))/"
    }

    /// The channel and index of a chunk's key; nil if it is none.
    package static func parseChunk(_ key: String) -> (channel: ChannelID, index: ChunkIndex)? {
        guard let (channel, index) = parts(of: key, behind: allLogsPrefix),
            let number = unpadded(channel), number > 0, let index = unpadded(index)
        else { return nil }
        return (ChannelID(number), index)
    }

    /// `seg/{shard}/{id}`: the shard spreads the keys, so that a store's request limits scale.
    package static func segment(_ id: ID128) -> String { "\(allSegmentsPrefix)\(shard(id))/\(id)" }

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

    private static func padded(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: 20 - digits.count) + digits
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
