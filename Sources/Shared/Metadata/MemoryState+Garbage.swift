// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

extension MemoryState {
    // MARK: Objects

    private func isReferenced(_ object: StoredObject) -> Bool {
        streams.values.contains { $0.segments.contains { $0.storedObject == object } }
    }

    func knownObjects(_ objects: [String], bucket: String) -> Set<String> {
        Set(
            objects.filter {
                let object = StoredObject(bucket: bucket, key: $0)
                let isWaiting = housekeeping.garbage[object].map { !$0.isGone } ?? false
                return isWaiting || isReferenced(object)
            })
    }

    mutating func unlinkObject(_ object: StoredObject, now: UInt64) {
        guard !isReferenced(object) else { return }
        guard let entry = housekeeping.garbage[object] else {
            housekeeping.garbage[object] = .init(since: now, isCondemned: false, isOrphan: true)
            return
        }
        guard entry.isGone else { return }
        housekeeping.garbage[object]?.isGone = false
        housekeeping.garbage[object]?.since = now
    }

    mutating func scanGarbage(
        _ keys: Range<String>, after: StoredObject?, limit: Int, now: UInt64
    ) -> Scan<Garbage, StoredObject> {
        let wanted = Name(keys.lowerBound)..<Name(keys.upperBound)
        let objects = housekeeping.garbage.filter { !$0.value.isGone }.keys
            .filter { wanted.contains(Name($0.key)) && (after.map($0.isBehind) ?? true) }
            .sorted { $1.isBehind($0) }.prefix(limit)
        let items = objects.compactMap { object in
            housekeeping.garbage[object].map { entry in
                Garbage(
                    object: object, phase: entry.phase,
                    age: now - min(now, entry.since), isReferenced: isReferenced(object))
            }
        }
        // Every operation is one step: none is under way between two.
        for object in objects where housekeeping.garbage[object]?.isCondemned == true {
            housekeeping.garbage[object]?.isSettled = true
        }
        return Scan(items, next: objects.count == limit ? objects.last : nil)
    }

    mutating func condemn(_ object: StoredObject, age: UInt64, now: UInt64) -> Bool {
        guard let entry = housekeeping.garbage[object], !entry.isCondemned,
            now >= entry.since, now - entry.since >= age, !isReferenced(object)
        else { return false }
        housekeeping.garbage[object]?.isCondemned = true
        housekeeping.garbage[object]?.since = now
        return true
    }

    mutating func forgetObject(_ object: StoredObject) {
        guard let entry = housekeeping.garbage[object], entry.isCondemned else { return }
        if entry.isOrphan {
            housekeeping.garbage[object]?.isGone = true
        } else {
            housekeeping.garbage[object] = nil
        }
    }

    // MARK: Logs

    func scanLogs(
        partition: Int, of partitions: Int, after: ChannelID?, limit: Int, now: UInt64
    ) -> Scan<LogGarbage, ChannelID> {
        let rows = channels.values.filter { row in
            row.id.number % UInt64(partitions) == UInt64(partition)
                && (after.map { row.id > $0 } ?? true)
        }.sorted { $0.id < $1.id }.prefix(limit)
        let items = rows.map { row in
            let entry = housekeeping.logs[row.id] ?? .init()
            return LogGarbage(
                channel: row, deletedEnd: entry.deletedEnd,
                mark: entry.mark.map { .init(end: $0.end, age: now - min(now, $0.since)) },
                retiredAge: entry.retiredSince.map { now - min(now, $0) },
                unsureMilliseconds: unsureMilliseconds[row.id] ?? 0)
        }
        return Scan(items, next: rows.count == limit ? rows.last?.id : nil)
    }

    mutating func markLog(_ id: ChannelID, now: UInt64) {
        guard let row = channels[id] else { return }
        var entry = housekeeping.logs[id] ?? .init()
        if entry.mark == nil && row.flushedEnd > entry.deletedEnd {
            entry.mark = (row.flushedEnd, now)
        }
        if row.state == .retired && entry.retiredSince == nil { entry.retiredSince = now }
        housekeeping.logs[id] = entry
    }

    mutating func forgetLog(_ id: ChannelID, below end: ChunkIndex) {
        guard var entry = housekeeping.logs[id], let mark = entry.mark, end <= mark.end else {
            return
        }
        entry.deletedEnd = max(entry.deletedEnd, end)
        if end == mark.end { entry.mark = nil }
        housekeeping.logs[id] = entry
    }

    /// Answers how many went.
    @discardableResult
    mutating func forgetStreamlets(
        of channel: ChannelID, _ states: Set<StreamletState>, limit: Int
    ) -> Int {
        let gone = streamlets(of: channel, states).prefix(limit)
        for streamlet in gone {
            streams[streamlet.stream]?.tenures.removeAll {
                $0.streamlet.number == streamlet.number
            }
        }
        return gone.count
    }

    mutating func forgetChannel(_ id: ChannelID) -> Bool {
        guard let row = channels[id] else { return true }
        guard row.state == .retired else { return false }
        forgetStreamlets(of: id, [.closed, .aborted], limit: Flush.forgottenMax)
        guard streamlets(of: id, Set(StreamletState.allCases)).isEmpty else { return false }
        channels[id] = nil
        unsureMilliseconds[id] = nil
        housekeeping.logs[id] = nil
        return true
    }

    // MARK: Leases

    func leases(prefix: String) -> [NamedLease] {
        leases.filter { Name($0.key).bytes.starts(with: prefix.utf8) }
            .map { NamedLease(name: $0.key, holder: $0.value.holder, renewals: $0.value.renewals) }
            .sorted { Name($0.name) < Name($1.name) }
    }
}

extension HousekeepingState.GarbageEntry {
    fileprivate var phase: Garbage.Phase {
        isSettled ? .settled : isCondemned ? .condemned : .unlinked
    }
}

extension StoredObject {
    fileprivate func isBehind(_ other: StoredObject) -> Bool {
        (Name(key), Name(bucket)) > (Name(other.key), Name(other.bucket))
    }
}
