// SPDX-License-Identifier: Apache-2.0

package import ObjectStorage
internal import Primitives

/// What every object store must do; each check works below a prefix of its own and throws what it
/// found wrong.
package struct StoreConformance: Sendable {
    package struct Violation: Error, CustomStringConvertible {
        package let description: String
    }

    package enum Check: String, CaseIterable, Sendable, CustomStringConvertible {
        case creation, race, ranges, listing, keys, sizes, replacement, deletion, badKeys, putOnce
        case doctor, statistics
        package var description: String { rawValue }
    }

    private let store: any MeasuredStore
    private let loop: ThreadLoop
    private let prefix: String
    /// How many objects the listing check makes; more than one page's 1,000.
    private let listed = 1_050

    package init(_ store: any MeasuredStore, loop: ThreadLoop) {
        self.store = store
        self.loop = loop
        prefix = "conformance/\(ID128(random: .system()))/"
    }

    package func run(_ check: Check) async throws {
        switch check {
        case .creation: try await checkCreation()
        case .race: try await checkRace()
        case .ranges: try await checkRanges()
        case .listing: try await checkListing()
        case .keys: try await checkKeys()
        case .sizes: try await checkSizes()
        case .replacement: try await checkReplacement()
        case .deletion: try await checkDeletion()
        case .badKeys: try await checkBadKeys()
        case .putOnce: try await checkPutOnce()
        case .doctor: try await checkDoctor()
        case .statistics: try await checkStatistics()
        }
    }

    private func checkCreation() async throws {
        let key = prefix + "slot"
        let first = [text("fir"), Bytes(), text("st")]
        try require(await store.put(key, first, ifAbsent: true) == .created)
        try require(await store.put(key, [text("second")], ifAbsent: true) == .exists)
        try require(await store.get(key, range: nil).bytes == text("first"), "the first stays")
        let info = try await store.head(key)
        try require(info?.key == key && info?.size == 5)
        let age = Int64(loop.wallMilliseconds) - Int64(info?.modifiedMilliseconds ?? 0)
        try require(abs(age) < 60_000, "stored \(age) ms ago")
    }

    private func checkRace() async throws {
        for round in 0..<20 {
            let key = prefix + "race-\(round)"
            let results = try await withThrowingTaskGroup(of: (Int, PutResult).self) { group in
                for writer in 0..<8 {
                    group.addTask {
                        let body = text(String(repeating: "\(writer)", count: 3_000))
                        return (writer, try await store.put(key, [body], ifAbsent: true))
                    }
                }
                var results: [(Int, PutResult)] = []
                for try await result in group { results.append(result) }
                return results
            }
            let winners = results.filter { $0.1 == .created }
            try require(winners.count == 1, "\(winners.count) of 8 creators won")
            let body = try await store.get(key, range: nil).bytes
            let expected = text(String(repeating: "\(winners[0].0)", count: 3_000))
            try require(body == expected, "the winner's bytes are there")
        }
    }

    private func checkRanges() async throws {
        let key = prefix + "ranges"
        let body = Bytes((0..<1_000).map { UInt8($0 % 251) })
        _ = try await store.put(key, [body[0..<300], body[300..<1_000]], ifAbsent: true)
        for range in [0..<1, 0..<1_000, 250..<350, 999..<1_000] {
            let slice = try await store.get(key, range: range)
            try require(slice.bytes == body[range] && slice.objectSize == 1_000, "\(range)")
        }
        let clamped = try await store.get(key, range: 990..<5_000)
        try require(clamped.bytes == body[990..<1_000] && clamped.objectSize == 1_000)
        for range in [1_000..<1_001, 5_000..<6_000] {
            try await expect(.rangeNotSatisfiable) { _ = try await store.get(key, range: range) }
        }
        try await expect(.invalidRequest) { _ = try await store.get(key, range: 5..<5) }
        try await expect(.notFound) { _ = try await store.get(prefix + "nothing", range: 0..<5) }
        try await expect(.notFound) { _ = try await store.get(prefix + "nothing", range: nil) }
        try require(await store.head(prefix + "nothing") == nil)
    }

    private func checkListing() async throws {
        let keys = (0..<listed).map { prefix + "list/" + Self.padded($0) }
        try await putAll(keys + [prefix + "list.before", prefix + "list0", prefix + "list"])
        var found: [String] = []
        var after = ""
        while true {
            let page = try await store.list(prefix: prefix + "list/", after: after, limit: 1_000)
            found += page.objects.map(\.key)
            guard page.hasMore, let last = page.objects.last else { break }
            after = last.key
        }
        try require(found == keys, "\(found.count) keys of \(keys.count), or another order")

        let few = try await store.list(prefix: prefix + "list/00", after: keys[7], limit: 3)
        try require(few.objects.map(\.key) == Array(keys[8...10]) && few.hasMore)
        try require(few.objects.allSatisfy { $0.size == 1 })
        let last = try await store.list(prefix: prefix + "list/", after: keys[listed - 3], limit: 2)
        try require(last.objects.map(\.key) == Array(keys.suffix(2)) && !last.hasMore, "the end")
        let none = try await store.list(prefix: prefix + "list/x", after: "", limit: 5)
        try require(none.objects.isEmpty && !none.hasMore)
        // An object whose key is the beginning of others', and the order around the slash.
        let around = try await store.list(prefix: prefix + "list", after: "", limit: 3)
        let expected = [prefix + "list", prefix + "list.before", keys[0]]
        try require(around.objects.map(\.key) == expected, "\(around.objects.map(\.key))")
        let behind = try await store.list(prefix: prefix, after: prefix + "list/~", limit: 3)
        try require(behind.objects.map(\.key) == [prefix + "list0"] && !behind.hasMore)
        for limit in [0, 1_001] {
            try await expect(.invalidRequest) {
                _ = try await store.list(prefix: "", after: "", limit: limit)
            }
        }
    }

    private func checkKeys() async throws {
        let names = [
            "a", "a/b", "a/b/c", "a b", " a", "a+b", "100%", "%41", "a=b&c=d", "~tilde", "q\"uote'",
            "ünïcödé", "u\u{0308}", "ü", "日本語/キー", "😀", "semi;colon:at@comma,", "#hash?query",
            "[brackets]{}|\\^`", "<xml>&amp;", ".hidden", "a..b", "...", "x.@", "x@", "x+", "$*!()",
            String(repeating: "long", count: 60), String(repeating: "é", count: 100) + "/tail",
        ]
        let keys = names.map { prefix + $0 }
        for key in keys {
            try require(await store.put(key, [text(key)], ifAbsent: true) == .created, key)
        }
        for key in keys {
            try require(await store.put(key, [text("x")], ifAbsent: true) == .exists, key)
            try require(await store.get(key, range: nil).bytes == text(key), key)
            try require(await store.head(key)?.size == key.utf8.count, key)
        }
        let sorted = keys.sorted(by: ObjectKey.precedes)
        let all = try await store.list(prefix: prefix, after: "", limit: 1_000)
        try require(all.objects.map { Bytes(utf8: $0.key) } == sorted.map { Bytes(utf8: $0) })
        for (index, key) in sorted.enumerated() {
            let rest = try await store.list(prefix: prefix, after: key, limit: 1)
            let next = index + 1 < sorted.count ? sorted[index + 1] : nil
            try require(rest.objects.first?.key == next, "behind \(key)")
            try require(rest.hasMore == (index + 2 < sorted.count), "behind \(key)")
            let own = try await store.list(prefix: key, after: "", limit: 1)
            try require(own.objects.first?.key == key, "below \(key)")
        }
        for key in keys { try await store.delete(key) }
        try require(await store.list(prefix: prefix, after: "", limit: 9).objects.isEmpty)
    }

    private func checkSizes() async throws {
        let empty = prefix + "empty"
        try require(await store.put(empty, [], ifAbsent: true) == .created)
        let nothing = ObjectSlice(bytes: Bytes(), objectSize: 0)
        try require(await store.get(empty, range: nil) == nothing)
        try require(await store.head(empty)?.size == 0)
        try await expect(.rangeNotSatisfiable) { _ = try await store.get(empty, range: 0..<1) }

        var random = SplitMix64(seed: 7)
        let block = Bytes((0..<(1 << 20)).map { _ in UInt8(truncatingIfNeeded: random.next()) })
        let parts = (0..<32).map { n in
            [block[n..<block.count], Bytes([UInt8](repeating: 1, count: n))]
        }
        let body = parts.flatMap { $0 }
        try require(byteCount(body) == 32 << 20)
        let large = prefix + "large"
        try require(await store.put(large, body, ifAbsent: true) == .created)
        let back = try await store.get(large, range: nil)
        try require(back.objectSize == 32 << 20 && back.bytes == body.joined(), "32 MiB came back")
        // Many parts: more than a system call takes at once.
        let crumbs = (0..<5_000).map { block[$0..<$0 + 3] }
        try require(await store.put(prefix + "crumbs", crumbs, ifAbsent: true) == .created)
        try require(await store.get(prefix + "crumbs", range: nil).bytes == crumbs.joined())
    }

    private func checkReplacement() async throws {
        let key = prefix + "replaced"
        for body in ["one", "another", ""] {
            try require(await store.put(key, [text(body)], ifAbsent: false) == .created)
            try require(await store.get(key, range: nil).bytes == text(body))
        }
        try require(await store.put(key, [text("x")], ifAbsent: true) == .exists)
        let listing = try await store.list(prefix: key, after: "", limit: 10)
        try require(listing.objects.map(\.size) == [0])
    }

    private func checkDeletion() async throws {
        let key = prefix + "deep/er/object"
        _ = try await store.put(key, [text("x")], ifAbsent: true)
        _ = try await store.put(prefix + "deep/other", [text("x")], ifAbsent: true)
        try await store.delete(key)
        try await store.delete(key)
        try await store.delete(prefix + "never/there")
        try await expect(.notFound) { _ = try await store.get(key, range: nil) }
        try require(await store.head(key) == nil)
        try require(await store.list(prefix: prefix, after: "", limit: 9).objects.count == 1)
        try require(await store.put(key, [text("again")], ifAbsent: true) == .created)
        try require(await store.get(key, range: nil).bytes == text("again"))
    }

    private func checkBadKeys() async throws {
        let bad = [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "../a", "a/..", "a\u{0}b", "a\nb",
            "a\u{7F}", "a\u{85}", String(repeating: "k", count: 1_025),
        ]
        for key in bad {
            try await expect(.invalidRequest) { _ = try await store.put(key, [], ifAbsent: true) }
            try await expect(.invalidRequest) { _ = try await store.get(key, range: nil) }
            try await expect(.invalidRequest) { _ = try await store.head(key) }
            try await expect(.invalidRequest) { try await store.delete(key) }
        }
    }

    private func checkPutOnce() async throws {
        let key = prefix + "once"
        let identity = ObjectIdentity(prefixBytes: 8, putID: 4..<8)
        let store = store
        let loop = loop
        let outcomes = try await loop.run {
            var outcomes: [PutOnceOutcome] = []
            for body in ["headAAAA tail", "headAAAA tail", "headBBBB tail"] {
                outcomes.append(
                    try await store.putOnce(
                        key, [Bytes(utf8: body)], identity: identity, loop: loop,
                        random: .system(), backoff: Backoff()))
            }
            return outcomes
        }
        try require(outcomes == [.stored, .stored, .occupied(identity: text("headAAAA"))])
    }

    private func checkDoctor() async throws {
        let store = store
        let loop = loop
        try await loop.run { try await checkStore(store, loop: loop, random: .system()) }
    }

    private func checkStatistics() async throws {
        let key = prefix + "counted"
        _ = try await store.put(key, [text("12345")], ifAbsent: true)
        _ = try await store.put(key, [text("12345")], ifAbsent: true)
        _ = try await store.get(key, range: 0..<3)
        let counts = store.statistics
        try require(counts.count(.put, .done) >= 1 && counts.count(.put, .exists) >= 1)
        try require(counts.count(.get, .done) >= 1 && counts.durations(.get).sum > 0)
        try require(counts.bytesStored >= 5 && counts.bytesFetched >= 3)
    }

    private func putAll(_ keys: [String]) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, key) in keys.enumerated() {
                if index >= 16 { try await group.next() }
                group.addTask { _ = try await store.put(key, [text("x")], ifAbsent: true) }
            }
            try await group.waitForAll()
        }
    }

    private func expect(
        _ kind: StoreError.Kind, line: Int = #line, _ body: () async throws -> Void
    ) async throws {
        do {
            try await body()
        } catch let error as StoreError where error.kind == kind {
            return
        } catch {
            throw Violation(description: "line \(line): \(error) in place of \(kind)")
        }
        throw Violation(description: "line \(line): success in place of \(kind)")
    }

    private func require(_ isTrue: Bool, _ what: String = "", line: Int = #line) throws {
        guard isTrue else { throw Violation(description: "line \(line) does not hold: \(what)") }
    }

    private func text(_ text: String) -> Bytes { Bytes(utf8: text) }

    private static func padded(_ number: Int) -> String {
        String(repeating: "0", count: 4 - String(number).count) + String(number)
    }
}
