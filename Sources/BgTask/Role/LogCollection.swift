// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives

/// Deletes what logs no longer need.
///
/// Recovery takes the first absent slot for the end of a log, so chunks go one after the other, as
/// a prefix, and only below the flushed end: where recovery begins to look. A mark remembers the
/// flushed end, and what lies below it goes once every plan that pointed into it has passed. Seals
/// stay, so that a writer which comes back after a long pause finds its log ended; 30 days after
/// a channel was found retired nobody can come back, and the seal goes last of all.
struct LogCollection {
    let pass: Pass
    /// Chunks between two notes of how far it got.
    private static let stride: ChunkIndex = 64

    init(pass: Pass) { self.pass = pass }

    func run() async throws(TaskError) {
        let (partition, limit) = (pass.partition, pass.limits.scanRows)
        var after: ChannelID?
        repeat {
            let from = after
            let scan = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.scanLogs(
                    partition: partition.number, of: partition.count, after: from, limit: limit)
            }
            for log in scan.items {
                guard pass.goesOn else { return }
                try await collect(log)
            }
            after = scan.next
        } while after != nil
    }

    private func collect(_ log: LogGarbage) async throws(TaskError) {
        let row = log.channel
        let end = max(log.deletedEnd, log.mark?.end ?? 0)
        // Metadata that went back in time: nothing of it can be trusted.
        guard end <= row.flushedEnd, row.flushedEnd <= row.sealedAt ?? .max else {
            return pass.violation("log \(row.id) is garbage up to \(end), beyond its flushed end")
        }
        let isNewlyRetired = row.state == .retired && log.retiredAge == nil
        if (log.mark == nil && row.flushedEnd > log.deletedEnd) || isNewlyRetired {
            pass.tally.note(.markedLog, "\(row.id)")
            if !pass.isDryRun {
                try await pass.asking { metadata throws(MetadataError) in
                    try await metadata.markLog(row.id)
                }
            }
        }
        let wait = Pass.milliseconds(pass.limits.planNanoseconds)
        if let mark = log.mark, mark.age >= wait {
            try await deleteChunks(of: row, log.deletedEnd..<mark.end)
        }
        let stay = Pass.milliseconds(pass.limits.sealNanoseconds)
        if row.state == .retired, log.mark == nil, log.deletedEnd >= row.flushedEnd,
            let age = log.retiredAge, age >= stay, let sealedAt = row.sealedAt
        {
            try await deleteRest(of: row.id, sealedAt: sealedAt)
        }
    }

    private func deleteChunks(
        of row: ChannelRow, _ indexes: Range<ChunkIndex>
    ) async throws(TaskError) {
        if pass.isDryRun {
            return pass.tally.note(
                .deletedChunk, "\(row.id): \(indexes)", count: indexes.count)
        }
        var noted = indexes.lowerBound
        var index = indexes.lowerBound
        while index < indexes.upperBound, pass.goesOn {
            precondition(index < row.flushedEnd, "only flushed chunks are deleted")
            for bucket in pass.world.buckets {
                try await pass.delete(LogKeys.chunk(row.id, index), in: bucket)
            }
            pass.tally.note(.deletedChunk, LogKeys.chunk(row.id, index))
            index += 1
            if index - noted >= Self.stride {
                try await note(row.id, below: index)
                noted = index
            }
        }
        if index > noted { try await note(row.id, below: index) }
    }

    private func note(_ channel: ChannelID, below end: ChunkIndex) async throws(TaskError) {
        try await pass.asking { metadata throws(MetadataError) in
            try await metadata.forgetLog(channel, below: end)
        }
    }

    /// What a late writer left behind, and last the seal.
    private func deleteRest(
        of channel: ChannelID, sealedAt: ChunkIndex
    ) async throws(TaskError) {
        let seal = LogKeys.chunk(channel, sealedAt)
        for bucket in pass.world.buckets {
            let found = try await pass.asking(bucket) { store throws(StoreError) in
                try await store.head(seal)
            }
            // The store's clock has to agree that it is old.
            let stay = Pass.milliseconds(pass.limits.sealNanoseconds)
            if let found, found.modifiedMilliseconds + stay > pass.world.loop.wallMilliseconds {
                return
            }
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
        if pass.isDryRun { return }
        for bucket in pass.world.buckets { try await pass.delete(seal, in: bucket) }
        try await pass.asking { metadata throws(MetadataError) in
            try await metadata.forgetLog(channel)
        }
    }
}
