// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import Records

/// Unlinks what is trimmed, publishes what has expired, and deletes what is empty.
///
/// Expiry goes by when a segment entered the metadata: no record in it arrived later, whatever its
/// timestamp says, so none goes before its time, and all go soon after. It only raises the stored
/// trim point. Readers skip what lies below it from then on; unlinking is for trim.
struct StreamUpkeep {
    let pass: Pass

    func trim() async throws(TaskError) {
        try await pass.streams(.trim) { id throws(TaskError) in
            if pass.isDryRun {
                return pass.tally.note(
                    .unlinkedSegment, "of \(id)", count: try await trimmedCount(id))
            }
            var count = 0
            repeat {
                count = try await pass.asking { metadata throws(MetadataError) in
                    try await metadata.unlinkTrimmed(id, limit: pass.limits.changeRows)
                }
                pass.tally.note(.unlinkedSegment, "of \(id)", count: count)
            } while count == pass.limits.changeRows && pass.goesOn
        }
    }

    /// How many segments lie wholly below the stream's trim point.
    private func trimmedCount(_ id: StreamID) async throws(TaskError) -> Int {
        var (count, next) = (0, SeqNum(0))
        while true {
            let start = next
            let page = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.segments(
                    of: id, from: .seqNum(start), limit: pass.limits.scanRows)
            }
            let trimPoint = page.lookup?.stream.state.trimPoint ?? 0
            let trimmed = page.segments.prefix { $0.endSeqNum <= trimPoint }
            count += trimmed.count
            guard page.hasMore, trimmed.count == page.segments.count, let last = trimmed.last
            else { return count }
            next = last.endSeqNum
        }
    }

    func expire() async throws(TaskError) {
        try await pass.streams(.expiry) { id throws(TaskError) in
            if pass.isDryRun { return pass.tally.note(.raisedTrimPoint, "of \(id)") }
            let trimPoint = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.expire(id)
            }
            if let trimPoint { pass.tally.note(.raisedTrimPoint, "of \(id) to \(trimPoint)") }
        }
    }

    func deleteEmpty() async throws(TaskError) {
        try await pass.streams(.emptiness) { id throws(TaskError) in
            if pass.isDryRun { return pass.tally.note(.deletedStream, "\(id), once it is time") }
            let result = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.deleteIfEmpty(id)
            }
            if result == .deleted { pass.tally.note(.deletedStream, "\(id)") }
        }
    }
}
