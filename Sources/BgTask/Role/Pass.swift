// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import ObjectStorage
internal import Observability
internal import Primitives

/// What a task does to the cell, for reports and metrics.
package enum Action: String, Sendable, CaseIterable {
    case markedLog = "marked_log"
    case deletedChunk = "deleted_chunk"
    case deletedSeal = "deleted_seal"
    case condemnedObject = "condemned_object"
    case deletedObject = "deleted_object"
    case keptState = "kept_state"
    case unlinkedSegment = "unlinked_segment"
    case raisedTrimPoint = "raised_trim_point"
    case pushedDeletion = "pushed_deletion"
    case deletedStream = "deleted_stream"
    case purgedStream = "purged_stream"
    case purgedBasin = "purged_basin"
    case compactedSegment = "compacted_segment"
    case unlinkedOrphan = "unlinked_orphan"
    case deletedProbe = "deleted_probe"
    case forgottenStreamlet = "forgotten_streamlet"
    case forgottenChannel = "forgotten_channel"
    /// Something was found that the rules exclude; it was left alone.
    case violation
    /// Something could not be dealt with, and was passed over.
    case skipped
    /// Something failed, and comes back in a later pass.
    case failed
}

/// What one pass did, or would have done.
package final class Tally {
    package private(set) var counts: [Action: Int] = [:]
    /// The first of them, in order.
    package private(set) var items: [(action: Action, subject: String)] = []
    static let itemsMax = 1_000
    private let onAction: (Action, Int) -> Void

    init(onAction: @escaping (Action, Int) -> Void = { _, _ in }) { self.onAction = onAction }

    func note(_ action: Action, _ subject: String, count: Int = 1) {
        guard count > 0 else { return }
        counts[action, default: 0] += count
        if items.count < Self.itemsMax { items.append((action, subject)) }
        onAction(action, count)
    }

    /// All actions but those that changed nothing.
    var total: Int {
        counts.reduce(0) { $0 + (Self.idle.contains($1.key) ? 0 : $1.value) }
    }
    private static let idle: Set<Action> = [.violation, .skipped, .failed]
}

/// One run of a task over one partition: what all tasks share.
///
/// Whatever a pass does, it may be stopped behind any step, and done again by another worker, at
/// the same time even: the guards are in the metadata's operations, not here.
struct Pass {
    let world: BgTaskWorld
    let limits: BgTaskLimits
    let partition: Partition
    let pace: Pace
    let tally: Tally
    let setbacks: Setbacks
    /// Nothing is changed, only told.
    let isDryRun: Bool
    /// False once the worker drains, or has lost the task's lease.
    let mayGoOn: () -> Bool

    var goesOn: Bool { mayGoOn() && tally.total < limits.itemsPerPassMax }

    func run(_ kind: TaskKind) async throws(TaskError) {
        setbacks.begin()
        try await work(kind)
        if goesOn { setbacks.end() }
    }

    private func work(_ kind: TaskKind) async throws(TaskError) {
        switch kind {
        case .logCollection: try await LogCollection(pass: self).run()
        case .objectCollection: try await ObjectCollection(pass: self).run()
        case .trim: try await StreamUpkeep(pass: self).trim()
        case .retention: try await StreamUpkeep(pass: self).expire()
        case .deleteOnEmpty: try await StreamUpkeep(pass: self).deleteEmpty()
        case .streamDeletion: try await Deletion(pass: self).purgeStreams()
        case .basinDeletion: try await Deletion(pass: self).purgeBasins()
        case .compaction: try await Compaction(pass: self).run()
        case .orphanSweep: try await OrphanSweep(pass: self).run()
        }
    }

    /// Does `body` for one of many items: should it fail, the others go on. `source` is what the
    /// items depend on, a bucket as a rule. Throws only what stops all of them.
    func attempt(
        _ item: String, of source: String, _ body: () async throws(TaskError) -> Void
    ) async throws(TaskError) {
        guard setbacks.mayTry(item, of: source) else { return }
        do throws(TaskError) {
            try await body()
            setbacks.succeeded(of: source)
        } catch {
            guard !error.stopsAll else { throw error }
            tally.note(.failed, "\(item): \(error)")
            world.log.warning("item_failed", [("item", item), ("error", error.description)])
            guard setbacks.failed(item, of: source) else { return }
            world.log.warning("left_for_the_next_pass", [("source", source)])
        }
    }

    // MARK: Asking

    func asking<Value: Sendable>(
        _ body: (any HousekeepingStore) async throws(MetadataError) -> Value
    ) async throws(TaskError) -> Value {
        do throws(MetadataError) {
            return try await body(world.metadata)
        } catch {
            throw TaskError("metadata: \(error)", stopsAll: error.kind == .unavailable)
        }
    }

    /// Asks a bucket, at the worker's pace, again if it is overloaded.
    func asking<Value: Sendable>(
        _ bucket: Bucket, bytes: Int = 0,
        _ body: (any ObjectStore) async throws(StoreError) -> Value
    ) async throws(TaskError) -> Value {
        let start = world.loop.now
        var tries = 0
        while true {
            await pace.take(requests: 1, bytes: bytes)
            do throws(StoreError) {
                return try await body(bucket.store)
            } catch {
                tries += 1
                guard error.isRetryable,
                    let delay = limits.storeBackoff.delay(
                        afterTries: tries, elapsed: world.loop.now - start,
                        random: world.random.next())
                else { throw TaskError("bucket \(bucket.name): \(error)", isGone: error.isGone) }
                await world.loop.sleep(delay)
            }
        }
    }

    func delete(_ key: String, in bucket: Bucket) async throws(TaskError) {
        try await asking(bucket) { store throws(StoreError) in try await store.delete(key) }
    }

    /// All objects with a prefix, those within `keys` if given, in pages; `visit` sees each page.
    func list(
        _ prefix: String, keys: Range<String>? = nil, in bucket: Bucket,
        _ visit: ([ObjectInfo]) async throws(TaskError) -> Void
    ) async throws(TaskError) {
        // No key of ours equals a bound.
        var after = keys?.lowerBound ?? ""
        while goesOn {
            let from = after
            let listing = try await asking(bucket) { store throws(StoreError) in
                try await store.list(prefix: prefix, after: from, limit: 1_000)
            }
            let wanted = listing.objects.prefix { object in
                keys.map { ObjectKey.precedes(object.key, $0.upperBound) } ?? true
            }
            try await visit(Array(wanted))
            guard listing.hasMore, wanted.count == listing.objects.count, let last = wanted.last
            else { return }
            after = last.key
        }
    }

    /// How long objects stay for readers, in milliseconds.
    func planMilliseconds() async throws(TaskError) -> UInt64 {
        if limits.mutant == .planWaitSkipped { return 0 }
        guard let terms = world.terms else { return Self.milliseconds(limits.planNanoseconds) }
        do throws(MetadataError) {
            return try await terms.planWait().longest
        } catch {
            throw TaskError("metadata: \(error)")
        }
    }

    /// Whether it is worth asking the bucket's clock if the object is `wait` milliseconds old. A
    /// worker's own clock cannot tell; but one that is sound saves a PUT. One that is behind the
    /// store's makes the object wait for as much longer.
    func mayBeOld(_ object: ObjectInfo, _ wait: UInt64) -> Bool {
        let (modified, now) = (object.modifiedMilliseconds, world.loop.wallMilliseconds)
        return now < modified || now - modified >= wait / 2
    }

    /// The time by the bucket's own clock, in milliseconds: what objects' ages are told by. It may
    /// count in seconds. Costs a PUT and a DELETE.
    func clock(of bucket: Bucket) async throws(TaskError) -> UInt64 {
        if isDryRun { return world.loop.wallMilliseconds }
        let key = "\(storeProbesPrefix)clock-\(ID128(random: world.random))"
        _ = try await asking(bucket) { store throws(StoreError) in
            try await store.put(key, [Bytes(utf8: "now")], ifAbsent: false)
        }
        let probe = try await asking(bucket) { store throws(StoreError) in
            try await store.head(key)
        }
        try await delete(key, in: bucket)
        guard let probe else { throw TaskError("bucket \(bucket.name): \(key) is gone") }
        return probe.modifiedMilliseconds
    }

    /// Does `work` with each of `items`, up to so many at once, while the pass goes on.
    func each<Item>(
        _ items: some Sequence<Item>, atOnce widthMax: Int,
        _ work: @escaping (Item) async throws(TaskError) -> Void
    ) async throws(TaskError) {
        try await Gang.run(
            items, atOnce: isDryRun ? 1 : widthMax, loop: world.loop, goesOn: { goesOn }, work)
    }

    /// All streams of the partition that need `work`, some of them at once, whichever of them fail.
    func streams(
        _ work: StreamWork, _ visit: @escaping (StreamID) async throws(TaskError) -> Void
    ) async throws(TaskError) {
        var after: StreamID?
        repeat {
            let from = after
            let scan = try await asking { metadata throws(MetadataError) in
                try await metadata.scanStreams(
                    for: work, in: partition.streams, after: from, limit: limits.scanRows)
            }
            // Merging holds what it merges in memory.
            let widthMax = work == .compaction ? 1 : limits.streamsAtOnce
            try await each(scan.items, atOnce: widthMax) { id throws(TaskError) in
                try await attempt("stream \(id)", of: "streams") { () throws(TaskError) in
                    try await visit(id)
                }
            }
            after = scan.next
        } while after != nil && goesOn
    }

    func violation(_ what: String) {
        tally.note(.violation, what)
        world.log.error("bgtask_violation", [("what", what)])
    }

    func skipped(_ what: String) {
        tally.note(.skipped, what)
        world.log.warning("bgtask_skipped", [("what", what)])
    }

    /// A wait as the metadata's ages are told.
    static func milliseconds(_ wait: Nanoseconds) -> UInt64 { UInt64(wait / 1_000_000) }
}

/// Why an item failed, or a whole pass ended before its time.
package struct TaskError: Error, Equatable, CustomStringConvertible {
    package let description: String
    /// An object that should be read is not there.
    let isGone: Bool
    /// Nothing else can be done either.
    let stopsAll: Bool

    init(_ description: String, isGone: Bool = false, stopsAll: Bool = false) {
        self.description = description
        self.isGone = isGone
        self.stopsAll = stopsAll
    }
}

extension StoreError {
    fileprivate var isGone: Bool { kind == .notFound || kind == .rangeNotSatisfiable }
}

/// Holds a worker to its budget of requests and bytes.
final class Pace {
    private let loop: any Loop
    private let nanosecondsPerRequest: Int64
    private let bytesPerSecond: Int64
    /// When all that was taken is paid for.
    private var paidAt: Nanoseconds = 0
    private static let burstNanoseconds: Nanoseconds = .seconds(1)

    init(loop: any Loop, requestsPerSecond: Int, bytesPerSecond: Int) {
        precondition(requestsPerSecond >= 1 && bytesPerSecond >= 1)
        self.loop = loop
        nanosecondsPerRequest = max(1, 1_000_000_000 / Int64(requestsPerSecond))
        self.bytesPerSecond = Int64(bytesPerSecond)
    }

    func take(requests: Int, bytes: Int) async {
        let price = max(
            Int64(requests) * nanosecondsPerRequest,
            Int64(Double(bytes) / Double(bytesPerSecond) * 1e9))
        paidAt = max(paidAt, loop.now - Self.burstNanoseconds) + price
        let wait = paidAt - loop.now
        if wait > 0 { await loop.sleep(wait) }
    }
}
