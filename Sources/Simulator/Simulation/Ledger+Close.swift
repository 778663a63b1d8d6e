// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives
internal import Records

/// The accounts at the end, when every log is retired and nobody writes any more.
extension Ledger {
    /// What should be there and is not, and what a stream lacks.
    func missing() async -> [String] {
        var missing: [String] = []
        for stream in published.keys.sorted() {
            for row in (published[stream] ?? [:]).keys where await segment(row) == nil {
                missing.append("G1: \(named(row)) is missing")
            }
        }
        for row in await channels() where row.state == .retired && !isOver(row) {
            let key = LogKeys.chunk(row.id, row.sealedAt ?? 0)
            if lives[key]?.isThere != true { missing.append("G5: the seal \(key) is missing") }
        }
        return missing.sorted()
    }

    /// What is there although nothing refers to it. With `sealsToo`, no log may be left at all.
    func leftovers(sealsToo: Bool) async -> [String] {
        var left: [String] = []
        let channels = await channels()
        for row in channels where row.state != .retired || sealsToo {
            left.append("channel \(row.id) is \(row.state)")
        }
        let ends = Dictionary(uniqueKeysWithValues: channels.map { ($0.id, $0.sealedAt ?? 0) })
        for (key, life) in lives where life.isThere {
            if let (channel, index) = LogKeys.parseChunk(key) {
                // A late writer may have come behind the deletion, or behind the seal.
                let isLate = index < deletedEnds[channel] ?? 0 || index >= ends[channel] ?? 0
                if sealsToo || !isLate { left.append("\(key) is left over") }
            } else if references[key] == nil, await !isLastWord(key) {
                left.append("\(key) is left over")
            }
        }
        let garbage = await ask { metadata throws(MetadataError) in
            try await metadata.scanGarbage("seg/"..<"seg0", after: nil, limit: .max)
        }
        // An object goes with the last of its segments.
        left += garbage.items.filter { !$0.isReferenced }.map {
            "\($0.object.key) is \($0.phase) garbage"
        }
        let all = StreamID(ID128(high: 0, low: 0))...StreamID(ID128(high: .max, low: .max))
        for work in [StreamWork.purge, .trim, .expiry] {
            let scan = await ask { metadata throws(MetadataError) in
                try await metadata.scanStreams(for: work, in: all, after: nil, limit: .max)
            }
            left += scan.items.map { "stream \($0) awaits \(work)" }
        }
        return left.sorted()
    }

    /// What is counted, to show that there was something to account for.
    var balance: String {
        let there = lives.values.count(where: \.isThere)
        return "\(lives.count) objects stored, \(lives.count - there) deleted, \(there) there"
    }

    private func channels() async -> [ChannelRow] {
        await ask { metadata throws(MetadataError) in
            try await metadata.channels(Set(ChannelState.allCases))
        }
    }

    private func isOver(_ row: ChannelRow) -> Bool {
        retiredAt[row.id].map { now - $0 >= Self.sealNanoseconds } ?? false
    }

    /// Whether the object has no records, and is where a live stream's end is written down.
    private func isLastWord(_ key: String) async -> Bool {
        guard let object = await bytes(key) else { return false }
        let placements: [SegmentPlacement]
        do throws(DecodeError) {
            placements = try SegmentDirectory(tail: object, objectSize: object.count).placements
        } catch {
            violate("\(key) cannot be read: \(error)")
            return false
        }
        guard placements.allSatisfy(\.span.isEmpty) else { return false }
        for placement in placements where placement.hasState {
            let stream = await lookup(placement.span.stream)?.stream
            if let stream, stream.deletedMilliseconds == nil,
                stream.state.tail.seqNum == placement.span.endSeqNum
            {
                return true
            }
        }
        return false
    }
}
