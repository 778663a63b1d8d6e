// SPDX-License-Identifier: Apache-2.0

import Metadata
import Primitives
import Records
import Testing

@testable import FrontendRole

@Suite struct StreamCacheTests {
    private func lookup(
        _ name: String, basin: String = "basin-one", number: UInt64 = 1,
        config: StreamConfig = .system, channel: UInt64 = 1
    ) -> StreamLookup {
        StreamLookup(
            stream: Stream(
                id: StreamID(ID128(high: 1, low: number)), basin: basin, name: name,
                config: config, version: number, cipher: nil, state: .initial,
                createdMilliseconds: number, deletedMilliseconds: nil),
            owner: Owner(
                streamlet: UInt32(number), channel: ChannelID(channel), address: "c:\(channel)",
                channelIsActive: channel != 9))
    }

    @Test func whatIsKeptComesBack() {
        var cache = StreamCache(bytesMax: 1 << 20)
        var other = StreamConfig.system
        other.storageClass = "standard"
        let all = [
            lookup("a"), lookup("a", basin: "basin-two", number: 2),
            lookup("b", number: 3, config: other), lookup("c", number: 4, channel: 9),
        ]
        for one in all { cache.set(one) }
        for one in all {
            #expect(cache.value(basin: one.stream.basin, name: one.stream.name) == one)
            #expect(cache.id(basin: one.stream.basin, name: one.stream.name) == one.stream.id)
        }
        #expect(cache.value(basin: "basin-two", name: "b") == nil)
        let moved = lookup("a", number: 1, channel: 2)
        cache.set(moved)
        #expect(cache.value(basin: "basin-one", name: "a") == moved)
        #expect(cache.count == 4)
    }

    /// To String, these two names are equal.
    @Test func namesAreToldApartByTheirBytes() {
        var cache = StreamCache(bytesMax: 1 << 20)
        cache.set(lookup("caf\u{E9}", number: 1))
        #expect(cache.value(basin: "basin-one", name: "cafe\u{301}") == nil)
        cache.set(lookup("cafe\u{301}", number: 2))
        #expect(cache.value(basin: "basin-one", name: "caf\u{E9}")?.stream.version == 1)
        #expect(cache.value(basin: "basin-one", name: "cafe\u{301}")?.stream.version == 2)
    }

    @Test func whatIsRemovedIsGoneFromBothHalves() {
        var cache = StreamCache(bytesMax: 1 << 20)
        cache.set(lookup("a"))
        cache.set(lookup("b"))
        cache.age()
        cache.set(lookup("b", number: 2))
        for name in ["a", "b"] {
            cache.remove(basin: "basin-one", name: name)
            #expect(cache.value(basin: "basin-one", name: name) == nil)
        }
        #expect(cache.isEmpty)
    }

    @Test func itsBytesAreBoundedAndWhatIsUsedStays() {
        let bytesMax = 100_000
        var cache = StreamCache(bytesMax: bytesMax)
        cache.set(lookup("kept"))
        for number in 0..<5_000 as Range<UInt64> {
            let long = String(repeating: "n", count: 1 + Int(number % 512))
            cache.set(
                lookup("\(number)-\(long)", basin: "basin-\(number % 7)", number: number))
            #expect(cache.value(basin: "basin-one", name: "kept") != nil)
            // A value and what it shares may overshoot each half.
            #expect(cache.bytes <= bytesMax + 2 * 3_000)
        }
        #expect(cache.count > 50, "it is used up to its bound")
        #expect(cache.value(basin: "basin-0", name: "0-n") == nil)
    }

    @Test func agingForgetsWhatWasNotUsed() {
        var cache = StreamCache(bytesMax: 1 << 20)
        cache.set(lookup("used"))
        cache.set(lookup("unused"))
        for _ in 0..<3 {
            cache.age()
            #expect(cache.value(basin: "basin-one", name: "used") != nil)
        }
        #expect(cache.value(basin: "basin-one", name: "unused") == nil)
        cache.age()
        cache.age()
        #expect(cache.isEmpty && cache.bytes == 0)
    }
}
