// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import ObjectStorage
internal import Primitives

/// The requests being served, and the pages that they may hold together.
final class FetchSessions {
    let world: CacheyWorld
    let limits: CacheyLimits
    let store: PageStore
    private let bucketIndexes: [String: Int]
    private var sessions: [UInt64: FetchSession] = [:]
    private var lastID: UInt64 = 0
    private var freePages: Int
    /// Sessions that wait for a page's room.
    private var waiting: Deque<FetchSession> = []
    private var waitingIDs: Set<UInt64> = []
    private var isWaking = false
    /// The last session is over.
    var onEmpty: (() -> Void)?

    init(world: CacheyWorld, limits: CacheyLimits, store: PageStore) {
        self.world = world
        self.limits = limits
        self.store = store
        freePages = max(limits.servedBytesMax / limits.pageBytes, 1)
        bucketIndexes = Dictionary(
            zip(world.buckets.map(\.name), world.buckets.indices), uniquingKeysWith: { a, _ in a })
    }

    var count: Int { sessions.count }

    /// The buckets that are known here, in the order given, each once.
    func indexes(ofBuckets names: [String]) -> [Int] {
        var found: [Int] = []
        for name in names {
            if let index = bucketIndexes[name], !found.contains(index) { found.append(index) }
        }
        return found
    }

    func name(ofSet buckets: [Int]) -> String {
        if buckets.count == 1 { return world.buckets[buckets[0]].name }
        return buckets.map { world.buckets[$0].name }.sorted().joined(separator: ",")
    }

    /// Serves a range to `sink`, which may hear of it in this turn already; `attach` gets the
    /// session before. Where none can be begun, the sink hears why.
    func begin(
        _ request: RangeRequest, _ sink: any PageSink, _ attach: (FetchSession) -> Void
    ) {
        let buckets = indexes(ofBuckets: request.buckets)
        guard !buckets.isEmpty else { return sink.fail(.unknownBucket, objectSize: nil) }
        guard sessions.count < limits.sessionsMax else {
            return sink.fail(.overloaded, objectSize: nil)
        }
        lastID += 1
        let session = FetchSession(
            lastID, self, sink, buckets: buckets, object: request.object, range: request.range,
            deadline: request.deadline,
            lookahead: request.isFirstPageOnly ? 1 : limits.lookaheadPages)
        sessions[session.id] = session
        attach(session)
        session.start()
    }

    func over(_ session: FetchSession, pages: Int) {
        guard sessions.removeValue(forKey: session.id) != nil else { return }
        if waitingIDs.remove(session.id) != nil { waiting.removeAll { $0 === session } }
        givePages(pages)
        if sessions.isEmpty { onEmpty?() }
    }

    /// Ends all that is under way.
    func cancelAll() {
        for (_, session) in sessions.sorted(by: { $0.key < $1.key }) { session.cancel() }
    }

    // MARK: The budget of pages

    /// Room for one page; false if the session must wait, and will be pumped.
    func takePage(_ session: FetchSession) -> Bool {
        // Whoever waits longer comes first.
        if freePages > 0, waiting.isEmpty || waiting.first === session {
            freePages -= 1
            if waitingIDs.remove(session.id) != nil { waiting.removeFirst() }
            return true
        }
        if waitingIDs.insert(session.id).inserted { waiting.append(session) }
        return false
    }

    func givePages(_ count: Int) {
        guard count > 0 else { return }
        freePages += count
        guard !waiting.isEmpty, !isWaking else { return }
        isWaking = true
        world.loop.soon { [self] in
            isWaking = false
            while freePages > 0, let session = waiting.first {
                session.pump()
                // It does not want the room now: to the end of the line when it does.
                if freePages > 0, waiting.first === session {
                    waiting.removeFirst()
                    waitingIDs.remove(session.id)
                }
            }
        }
    }
}

/// A range that somebody wants.
struct RangeRequest {
    /// By name, the preferred one first.
    var buckets: [String]
    var object: String
    var range: Range<Int>
    /// From now on; nil for as long as something moves.
    var deadline: Nanoseconds?
    /// Only what the first page tells is wanted.
    var isFirstPageOnly = false
}
