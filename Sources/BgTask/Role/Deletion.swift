// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives
internal import RPC

/// Brings deletions to their end.
///
/// A stream that is marked may still be open on a channel, which sequences into it until it hears
/// of the mark. Whoever marked it may have died before it told: so this tells again, until the
/// channel has closed the streamlet, or recovery did for a dead one. Then the segments are
/// unlinked, and the row goes, by its id, never by its name: a stream of the same name that came
/// later is another one.
///
/// A channel has so much time in each pass as one call may take: one that does not answer holds
/// nobody up but its own streams.
struct Deletion {
    let pass: Pass

    /// How long each channel was waited for in this pass.
    private final class Spent {
        var times: [ChannelID: Nanoseconds] = [:]
    }

    func purgeStreams() async throws(TaskError) {
        let spent = Spent()
        try await pass.streams(.purge) { id throws(TaskError) in
            if pass.isDryRun { return try await foretell(id) }
            var hasPushed = false
            while pass.goesOn {
                let result = try await pass.asking { metadata throws(MetadataError) in
                    try await metadata.purgeStream(id, limit: pass.limits.changeRows)
                }
                switch result {
                case .alive: return pass.violation("stream \(id) came back to life")
                case .purged: return pass.tally.note(.purgedStream, "\(id)")
                case .unlinked(let count):
                    pass.tally.note(.unlinkedSegment, "of \(id)", count: count)
                case .open:
                    // The next pass asks again.
                    guard !hasPushed, try await isClosed(id, spent) else { return }
                    hasPushed = true
                }
            }
        }
    }

    /// What comes next for a stream that is marked.
    private func foretell(_ id: StreamID) async throws(TaskError) {
        let lookup = try await pass.asking { metadata throws(MetadataError) in
            try await metadata.stream(id)
        }
        guard let owner = lookup?.owner else { return pass.tally.note(.purgedStream, "\(id)") }
        // A dead one's streams wait for recovery.
        guard owner.channelIsActive else { return }
        pass.tally.note(.pushedDeletion, "\(id) to channel \(owner.channel)")
    }

    /// Tells the stream's owner of the deletion; false if it could not be told, or did not close.
    private func isClosed(
        _ id: StreamID, _ spent: Spent
    ) async throws(TaskError) -> Bool {
        let lookup = try await pass.asking { metadata throws(MetadataError) in
            try await metadata.stream(id)
        }
        guard let lookup, let owner = lookup.owner, owner.channelIsActive,
            spent.times[owner.channel, default: 0] < pass.limits.callNanoseconds
        else { return false }
        let request = RefreshRequest(stream: id, version: lookup.stream.version, deleted: true)
        let start = pass.world.loop.now
        let (status, _) = await pass.world.calls.unary(
            owner.address, .refresh, request.encoded(), deadline: pass.limits.callNanoseconds)
        spent.times[owner.channel, default: 0] += pass.world.loop.now - start
        if status == .ok {
            pass.tally.note(.pushedDeletion, "\(id) to channel \(owner.channel)")
        } else {
            pass.world.log.info(
                "deletion_not_pushed",
                [("stream", "\(id)"), ("channel", "\(owner.channel)"), ("status", "\(status)")])
        }
        return status == .ok
    }

    func purgeBasins() async throws(TaskError) {
        var after = ""
        while pass.goesOn {
            let from = after
            let page = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.deletingBasins(after: from, limit: 100)
            }
            for name in page.items {
                try await pass.attempt("basin \(name)", of: "basins") { () throws(TaskError) in
                    try await purge(name)
                }
            }
            guard page.hasMore, let last = page.items.last else { return }
            after = last
        }
    }

    private func purge(_ basin: String) async throws(TaskError) {
        if pass.isDryRun { return try await foretell(basin: basin) }
        while pass.goesOn {
            let result = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.purgeBasin(basin, limit: pass.limits.changeRows)
            }
            switch result {
            // Another worker was faster, and the name is in use again.
            case .alive: return
            case .purged: return pass.tally.note(.purgedBasin, basin)
            case .waiting(let marked):
                pass.tally.note(.deletedStream, "of basin \(basin)", count: marked)
                if marked < pass.limits.changeRows { return }
            }
        }
    }
    /// What comes next for a basin that is marked: its streams go first.
    private func foretell(basin: String) async throws(TaskError) {
        var (unmarked, after, hasStreams) = (0, "", false)
        while true {
            let from = after
            let page = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.listStreams(
                    basin: basin, prefix: "", startAfter: from, limit: 1_000)
            }
            hasStreams = hasStreams || !page.items.isEmpty
            unmarked += page.items.count { $0.deletedMilliseconds == nil }
            guard page.hasMore, let last = page.items.last else { break }
            after = last.name
        }
        if !hasStreams { return pass.tally.note(.purgedBasin, basin) }
        pass.tally.note(.deletedStream, "of basin \(basin)", count: unmarked)
    }
}
