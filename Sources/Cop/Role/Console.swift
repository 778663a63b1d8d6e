// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Observability
package import Primitives
internal import Records

/// Answers the commands that look at a cell.
package struct Console {
    private let loop: any Loop
    private let metadata: any HousekeepingStore
    private let buckets: [Bucket]
    private let random: RandomSource
    private let streamletsMax: Int

    /// `streamletsMax`: how many streamlets of one stream are told at once, the latest ones.
    package init(
        loop: any Loop, metadata: any HousekeepingStore, buckets: [Bucket], random: RandomSource,
        streamletsMax: Int = 10_000
    ) {
        self.loop = loop
        self.metadata = metadata
        self.buckets = buckets
        self.random = random
        self.streamletsMax = streamletsMax
    }

    /// What `command` found, one after the other; nothing for the commands that are no questions.
    package func answer(_ command: ConsoleCommand) async throws(CommandError) -> [Report] {
        do throws(MetadataError) {
            switch command {
            case .serve, .migrateSchema, .tasks: return []
            case .status: return [try await status(), try await leases()]
            case .listChannels: return [try await channels()]
            case .listStreamlets(nil, _): return [try await openStreamlets()]
            case .listStreamlets(let path?, let after):
                guard let found = try await lookup(path) else { throw Self.noSuch(path) }
                return [try await streamlets(of: found.stream.id, after: after)]
            case .locate(let path):
                guard let found = try await lookup(path) else { throw Self.noSuch(path) }
                return [Self.location(found)]
            case .inspect, .doctor: break
            }
        } catch {
            throw CommandError(.failure, error.description)
        }
        switch command {
        case .inspect(let object): return [try await inspect(object)]
        default: return [try await doctor()]
        }
    }

    private static let channelStates: Set<ChannelState> = [.active, .dead, .sealed]

    private func status() async throws(MetadataError) -> Report {
        let rows = try await metadata.channels(Self.channelStates)
        var report = Report(["state", "channels", "open_streamlets", "bytes_per_second"])
        for state in [ChannelState.active, .dead, .sealed] {
            let some = rows.filter { $0.state == state }
            report.add([
                .text(state.rawValue), .number(UInt64(some.count)),
                .number(some.reduce(0) { $0 + $1.load.openStreamlets }),
                .number(some.reduce(0) { $0 + $1.load.bytesPerSecond }),
            ])
        }
        return report
    }

    /// Who holds which leases, and how many: cop's one, and the parts of background tasks.
    private func leases() async throws(MetadataError) -> Report {
        var counts: [[String]: Int] = [:]
        for lease in try await metadata.leases(prefix: "") {
            counts[[String(lease.name.prefix { $0 != "/" }), lease.holder ?? ""], default: 0] += 1
        }
        var report = Report(["lease", "holder", "parts"])
        for (key, count) in counts.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            report.add([
                .text(key[0]), key[1].isEmpty ? .none : .text(key[1]), .number(UInt64(count)),
            ])
        }
        return report
    }

    private func channels() async throws(MetadataError) -> Report {
        var report = Report([
            "channel", "state", "address", "class", "zone", "renewals", "open_streamlets",
            "bytes_per_second", "queue_delay_us", "flushed_end", "sealed_at",
        ])
        for row in try await metadata.channels(Self.channelStates) {
            report.add([
                .number(row.id.number), .text(row.state.rawValue), .text(row.address),
                .text(row.storageClass), .text(row.zone), .number(row.renewals),
                .number(row.load.openStreamlets), .number(row.load.bytesPerSecond),
                .number(row.load.queueDelayMicroseconds), .number(row.flushedEnd),
                Report.Value(row.sealedAt),
            ])
        }
        return report
    }

    private static let streamletColumns = [
        "stream", "streamlet", "channel", "state", "start", "end",
    ]

    private static func row(_ streamlet: Streamlet) -> [Report.Value] {
        [
            .text(streamlet.stream.description), .number(UInt64(streamlet.number)),
            .number(streamlet.channel.number), .text(streamlet.state.rawValue),
            .number(streamlet.start), Report.Value(streamlet.end),
        ]
    }

    private func openStreamlets() async throws(MetadataError) -> Report {
        var report = Report(Self.streamletColumns)
        for channel in try await metadata.channels(Self.channelStates) {
            for streamlet in try await metadata.streamlets(of: channel.id, [.open, .prepared]) {
                report.add(Self.row(streamlet))
            }
        }
        return report
    }

    private func streamlets(
        of stream: StreamID, after: StreamletNumber?
    ) async throws(MetadataError) -> Report {
        var report = Report(Self.streamletColumns)
        let found = try await metadata.streamlets(
            of: stream, before: after, limit: streamletsMax + 1)
        let told = found.prefix(streamletsMax)
        for streamlet in told { report.add(Self.row(streamlet)) }
        if found.count > told.count, let last = told.last {
            report.note = "the stream has earlier ones: go on with --after \(last.number)"
        }
        return report
    }

    private func lookup(_ path: StreamPath) async throws(MetadataError) -> StreamLookup? {
        try await metadata.stream(basin: path.basin, name: path.stream)
    }

    private static func noSuch(_ path: StreamPath) -> MetadataError {
        MetadataError(.failed, "there is no stream s2://\(path.basin)/\(path.stream)")
    }

    private static func location(_ found: StreamLookup) -> Report {
        var report = Report([
            "stream", "channel", "address", "active", "streamlet", "flushed_seq_num",
            "flushed_timestamp", "trim_point", "version", "deleting",
        ])
        let state = found.stream.state
        report.add([
            .text(found.stream.id.description), Report.Value(found.owner?.channel.number),
            Report.Value(found.owner?.address),
            found.owner.map { .flag($0.channelIsActive) } ?? .none,
            Report.Value(found.owner.map { UInt64($0.streamlet) }), .number(state.tail.seqNum),
            .number(state.tail.timestamp), .number(state.trimPoint), .number(found.stream.version),
            .flag(found.stream.deletedMilliseconds != nil),
        ])
        return report
    }

    private func doctor() async throws(CommandError) -> Report {
        var report = Report(["part", "name", "verdict"])
        for bucket in buckets {
            do throws(StoreError) {
                try await checkStore(bucket.store, loop: loop, random: random)
            } catch {
                throw CommandError(.failure, "bucket \(bucket.name): \(error)")
            }
            report.add([.text("bucket"), .text(bucket.name), .text("ok")])
        }
        do throws(MetadataError) {
            _ = try await metadata.channels([.active])
        } catch {
            throw CommandError(.failure, "metadata: \(error)")
        }
        report.add([.text("metadata"), .text("database"), .text("ok")])
        return report
    }

    private func inspect(_ object: String) async throws(CommandError) -> Report {
        for bucket in buckets {
            let bytes: Bytes
            do throws(StoreError) {
                bytes = try await bucket.store.get(object, range: nil).bytes
            } catch {
                if error.kind == .notFound { continue }
                throw CommandError(.failure, "bucket \(bucket.name): \(error)")
            }
            return try Inspection.report(of: bytes)
        }
        throw CommandError(.failure, "there is no object \(object)")
    }
}
