// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import Records

/// The streams that were asked for lately, by their names: those that have an owner.
///
/// It holds at most `bytesMax`, by what its values count as, and forgets what was not used lately:
/// it has two halves, new values and those in use go into the young one, and when that is full, or
/// after a while, the old one is dropped and the young one takes its place.
///
/// A value is kept small, for there may be very many: what streams have in common, their basin,
/// configuration and channel, is there once for all of a half. A stream's own state is not kept at
/// all: whoever has an owner asks it.
struct StreamCache {
    private let halfBytesMax: Int
    private var young = Half()
    private var old = Half()

    init(bytesMax: Int) { halfBytesMax = bytesMax / 2 }

    /// What the values count as, in bytes.
    var bytes: Int { young.bytes + old.bytes }
    var count: Int { young.count + old.count }
    var isEmpty: Bool { young.count == 0 && old.count == 0 }

    mutating func value(basin: String, name: String) -> StreamLookup? {
        if let value = young.value(basin, name) { return value }
        guard let value = old.value(basin, name) else { return nil }
        old.remove(basin, name)
        insert(value)
        return value
    }

    /// The incarnation that is cached under the name, without counting as a use.
    func id(basin: String, name: String) -> StreamID? {
        young.id(basin, name) ?? old.id(basin, name)
    }

    /// Keeps a stream that has an owner.
    mutating func set(_ value: StreamLookup) {
        remove(basin: value.stream.basin, name: value.stream.name)
        insert(value)
    }

    private mutating func insert(_ value: StreamLookup) {
        if young.bytes >= halfBytesMax { age() }
        young.insert(value)
    }

    mutating func remove(basin: String, name: String) {
        young.remove(basin, name)
        old.remove(basin, name)
    }

    /// Forgets what was not used since the last time.
    mutating func age() {
        old = young
        young = Half()
    }
}

extension StreamCache {
    /// What all streams of one configuration in one basin share.
    private struct Kind: Hashable {
        let basin: String
        let config: StreamConfig
        let cipher: Cipher?
    }

    /// A channel, as owners name it.
    private struct Place: Hashable {
        let channel: ChannelID
        let address: String
        let isActive: Bool
    }

    private struct Key: Hashable {
        let basin: UInt32
        let name: String

        // By bytes: to `String`, names are equal whose bytes are not.
        static func == (a: Key, b: Key) -> Bool {
            a.basin == b.basin && a.name.utf8.elementsEqual(b.name.utf8)
        }

        func hash(into hasher: inout Hasher) {
            hasher.combine(basin)
            for byte in name.utf8 { hasher.combine(byte) }
        }
    }

    private struct Entry {
        let id: StreamID
        let version: UInt64
        let createdMilliseconds: UInt64
        let kind: UInt32
        let place: UInt32
        let streamlet: StreamletNumber
    }

    /// Values that stay as long as the half does, by dense numbers.
    private struct Numbered<Value: Hashable> {
        private(set) var values: [Value] = []
        private var numbers: [Value: UInt32] = [:]

        func number(_ value: Value) -> UInt32? { numbers[value] }

        /// The number, and whether it is a new one.
        mutating func add(_ value: Value) -> (number: UInt32, isNew: Bool) {
            if let number = numbers[value] { return (number, false) }
            let number = UInt32(values.count)
            values.append(value)
            numbers[value] = number
            return (number, true)
        }
    }

    private struct Half {
        private var basins = Numbered<String>()
        private var kinds = Numbered<Kind>()
        private var places = Numbered<Place>()
        private var entries: [Key: Entry] = [:]
        private(set) var bytes = 0

        /// A dictionary has room for up to 8/3 times what is in it.
        private static let entryBytes =
            (MemoryLayout<Key>.stride + MemoryLayout<Entry>.stride + 1) * 8 / 3
        /// Of a basin, a kind or a place, with its strings.
        private static let sharedBytes = 512

        var count: Int { entries.count }

        private func key(_ basin: String, _ name: String) -> Key? {
            basins.number(basin).map { Key(basin: $0, name: name) }
        }

        func id(_ basin: String, _ name: String) -> StreamID? {
            key(basin, name).flatMap { entries[$0]?.id }
        }

        func value(_ basin: String, _ name: String) -> StreamLookup? {
            guard let key = key(basin, name), let entry = entries[key] else { return nil }
            let kind = kinds.values[Int(entry.kind)]
            let place = places.values[Int(entry.place)]
            let stream = Stream(
                id: entry.id, basin: kind.basin, name: name, config: kind.config,
                version: entry.version, cipher: kind.cipher, state: .initial,
                createdMilliseconds: entry.createdMilliseconds, deletedMilliseconds: nil)
            let owner = Owner(
                streamlet: entry.streamlet, channel: place.channel, address: place.address,
                channelIsActive: place.isActive)
            return StreamLookup(stream: stream, owner: owner)
        }

        mutating func insert(_ value: StreamLookup) {
            guard let owner = value.owner else { return }
            let stream = value.stream
            let basin = basins.add(stream.basin)
            let kind = kinds.add(
                Kind(basin: stream.basin, config: stream.config, cipher: stream.cipher))
            let place = places.add(
                Place(
                    channel: owner.channel, address: owner.address,
                    isActive: owner.channelIsActive))
            for part in [basin.isNew, kind.isNew, place.isNew] where part {
                bytes += Self.sharedBytes
            }
            let entry = Entry(
                id: stream.id, version: stream.version,
                createdMilliseconds: stream.createdMilliseconds, kind: kind.number,
                place: place.number, streamlet: owner.streamlet)
            let key = Key(basin: basin.number, name: stream.name)
            if entries.updateValue(entry, forKey: key) == nil { bytes += Self.cost(key) }
        }

        mutating func remove(_ basin: String, _ name: String) {
            guard let key = key(basin, name), entries.removeValue(forKey: key) != nil else {
                return
            }
            bytes -= Self.cost(key)
        }

        private static func cost(_ key: Key) -> Int {
            let nameBytes = key.name.utf8.count
            // Short texts need no memory of their own.
            return entryBytes + (nameBytes > 15 ? nameBytes + 48 : 0)
        }
    }
}
