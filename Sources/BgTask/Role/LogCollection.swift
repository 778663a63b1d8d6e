// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives

/// Deletes what logs no longer need.
///
/// Recovery takes the first absent slot for the end of a log, so chunks go as a prefix, stride by
/// stride, and only below the flushed end: where recovery begins to look. A mark remembers the
/// flushed end, and what lies below it goes once every plan that pointed into it has passed. Seals
/// stay, so that a writer which comes back after a long pause finds its log ended; long after a
/// channel was found retired nobody can come back, and the seal goes last of all; then whatever the
/// metadata keep of the channel. A chunk that cannot be deleted holds up its own log only.
struct LogCollection {
    let pass: Pass

    init(pass: Pass) { self.pass = pass }

    func run() async throws(TaskError) {
        let (partition, limit) = (pass.partition, pass.limits.scanRows)
        let wait = try await pass.planMilliseconds()
        var after: ChannelID?
        repeat {
            let from = after
            let scan = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.scanLogs(
                    partition: partition.number, of: partition.count, after: from, limit: limit)
            }
            for log in scan.items {
                guard pass.goesOn else { return }
                try await pass.attempt("log \(log.channel.id)", of: "logs") {
                    () throws(TaskError) in
                    try await collect(log, wait)
                }
            }
            after = scan.next
        } while after != nil
    }

    private func collect(_ log: LogGarbage, _ wait: UInt64) async throws(TaskError) {
        let row = log.channel
        let end = max(log.deletedEnd, log.mark?.end ?? 0)
        // Metadata that went back in time: nothing of it can be trusted.
        guard end <= row.flushedEnd, row.flushedEnd <= row.sealedAt ?? .max else {
            return pass.violation("log \(row.id) is garbage up to \(end), beyond its flushed end")
        }
        let isNewlyRetired = row.state == .retired && log.retiredAge == nil
        if isNewlyRetired {
            try await forgetStreamlets(of: row.id)
            guard pass.goesOn else { return }
        }
        if (log.mark == nil && row.flushedEnd > log.deletedEnd) || isNewlyRetired {
            pass.tally.note(.markedLog, "\(row.id)")
            if !pass.isDryRun {
                try await pass.asking { metadata throws(MetadataError) in
                    try await metadata.markLog(row.id)
                }
            }
        }
        if let mark = log.mark, mark.age >= wait {
            try await deleteChunks(of: row, log.deletedEnd..<mark.end)
        }
        if pass.limits.mutant == .unflushedChunkDeleted, row.state == .active {
            let key = LogKeys.chunk(row.id, row.flushedEnd)
            for bucket in pass.world.buckets { try await pass.delete(key, in: bucket) }
        }
        let stay = sealMilliseconds(log)
        if row.state == .retired, log.mark == nil, log.deletedEnd >= row.flushedEnd,
            let age = log.retiredAge, age >= stay, let sealedAt = row.sealedAt
        {
            try await deleteRest(of: row.id, sealedAt: sealedAt, stay)
        }
    }

    /// How long a seal stays once its log is recovered.
    private func sealMilliseconds(_ log: LogGarbage) -> UInt64 {
        if pass.limits.mutant == .sealDeletedEarly { return 0 }
        return max(
            Pass.milliseconds(pass.limits.sealNanoseconds),
            BgTaskLimits.sealTimesUnsure * min(log.unsureMilliseconds, 1 << 40))
    }

    private func deleteChunks(
        of row: ChannelRow, _ indexes: Range<ChunkIndex>
    ) async throws(TaskError) {
        if pass.isDryRun {
            return pass.tally.note(
                .deletedChunk, "\(row.id): \(indexes)", count: indexes.count)
        }
        precondition(indexes.upperBound <= row.flushedEnd, "only flushed chunks are deleted")
        var strides = stride(
            from: indexes.lowerBound, to: indexes.upperBound, by: pass.limits.chunkStride
        ).map { $0 }
        if pass.limits.mutant == .logDeletedBackwards { strides.reverse() }
        for start in strides where pass.goesOn {
            let end = min(start + ChunkIndex(pass.limits.chunkStride), indexes.upperBound)
            // A stride that was begun is brought to its end: it may last a second.
            try await Gang.run(
                start..<end, atOnce: pass.limits.objectsAtOnce, loop: pass.world.loop,
                goesOn: { true }
            ) { index throws(TaskError) in
                for bucket in pass.world.buckets {
                    try await pass.delete(LogKeys.chunk(row.id, index), in: bucket)
                }
                pass.tally.note(.deletedChunk, LogKeys.chunk(row.id, index))
            }
            try await note(row.id, below: end)
        }
    }

    private func note(_ channel: ChannelID, below end: ChunkIndex) async throws(TaskError) {
        try await pass.asking { metadata throws(MetadataError) in
            try await metadata.forgetLog(channel, below: end)
        }
    }

    /// What a late writer left behind, and last the seal.
    private func deleteRest(
        of channel: ChannelID, sealedAt: ChunkIndex, _ stay: UInt64
    ) async throws(TaskError) {
        let seal = LogKeys.chunk(channel, sealedAt)
        for bucket in pass.world.buckets {
            let found = try await pass.asking(bucket) { store throws(StoreError) in
                try await store.head(seal)
            }
            // The store's clock has to agree that it is old.
            guard let found else { continue }
            guard pass.mayBeOld(found, stay) else { return }
            let now = try await pass.clock(of: bucket)
            if found.modifiedMilliseconds + stay + 1_000 > now { return }
        }
        for bucket in pass.world.buckets {
            try await pass.list(LogKeys.logPrefix(channel), in: bucket) {
                objects throws(TaskError) in
                for object in objects where object.key != seal {
                    pass.tally.note(.deletedChunk, object.key)
                    if !pass.isDryRun { try await pass.delete(object.key, in: bucket) }
                }
            }
            guard pass.goesOn else { return }
        }
        pass.tally.note(.deletedSeal, seal)
        if pass.isDryRun { return pass.tally.note(.forgottenChannel, "\(channel)") }
        for bucket in pass.world.buckets { try await pass.delete(seal, in: bucket) }
        // What an earlier pass may have left.
        try await forgetStreamlets(of: channel)
        let isGone = try await pass.asking { metadata throws(MetadataError) in
            try await metadata.forgetChannel(channel)
        }
        if isGone { pass.tally.note(.forgottenChannel, "\(channel)") }
    }

    /// Nobody flushes for a retired channel, and so nobody asks whether a streamlet was closed.
    private func forgetStreamlets(of channel: ChannelID) async throws(TaskError) {
        let (what, limit) = ("of channel \(channel)", pass.limits.changeRows)
        if pass.isDryRun {
            let closed = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.streamlets(of: channel, [.closed])
            }
            return pass.tally.note(.forgottenStreamlet, what, count: closed.count)
        }
        var count = 0
        repeat {
            count = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.forgetStreamlets(of: channel, limit: limit)
            }
            pass.tally.note(.forgottenStreamlet, what, count: count)
        } while count == limit && pass.goesOn
    }
}
