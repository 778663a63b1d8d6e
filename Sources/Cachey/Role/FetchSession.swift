// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Primitives

/// Where the pages of a range go.
protocol PageSink: AnyObject {
    /// Whether more may be handed over; when that changes, the sink calls `resume`.
    var canTake: Bool { get }
    /// The next piece of the range, in order.
    func take(_ piece: Bytes, _ info: PieceInfo)
    /// All pieces were handed over.
    func finish(objectSize: Int)
    /// No more comes. `objectSize` where it is known.
    func fail(_ failure: FetchFailure, objectSize: Int?)
}

/// What is to be told of a piece.
struct PieceInfo {
    /// Within the object.
    let range: Range<Int>
    let page: CachedPage
    let source: PageSource
    /// The first of its session.
    let isFirst: Bool
}

/// One request being served: asks for the pages of a range, a few ahead, and hands out the wanted
/// part of each in order, as fast as its sink takes them.
///
/// The first page tells the object's size; all others must agree. What was asked for behind the
/// object's end is dropped with its errors.
final class FetchSession {
    let id: UInt64
    private let store: PageStore
    private let plan: RangePlan
    private let bucketSet: String
    private let object: String
    private let buckets: [Int]
    private let host: FetchSessions
    private var sink: (any PageSink)?
    private var timer: Timer?

    private var nextToAsk: Int
    private var nextToGive: Int
    private var lastPage: Int
    private var objectSize: Int?
    private var slots: Deque<Slot> = []
    /// Pages that count against the budget: asked for, or given and not taken by the client yet.
    private var heldPages = 0
    private var givenPages = 0
    private var isPumping = false
    private var movedAt: Nanoseconds
    /// At most this long; nil for as long as something moves.
    private let deadline: Nanoseconds?
    private let lookahead: Int

    private final class Slot {
        var answer: PageStore.Answer?
        var ticket: PageStore.Ticket?
    }

    init(
        _ id: UInt64, _ host: FetchSessions, _ sink: any PageSink, buckets: [Int], object: String,
        range: Range<Int>, deadline: Nanoseconds?, lookahead: Int
    ) {
        self.id = id
        self.host = host
        self.sink = sink
        self.buckets = buckets
        self.object = object
        self.lookahead = lookahead
        store = host.store
        bucketSet = host.name(ofSet: buckets)
        plan = RangePlan(range, pageBytes: host.limits.pageBytes)
        (nextToAsk, nextToGive) = (plan.pages.lowerBound, plan.pages.lowerBound)
        lastPage = plan.pages.upperBound
        movedAt = host.world.loop.now
        self.deadline = deadline.map { host.world.loop.now + $0 }
    }

    var isOver: Bool { sink == nil }

    /// Begins; call once, in the turn that made it.
    func start() {
        pump()
        if !isOver { arm() }
    }

    /// The sink takes more.
    func resume() {
        movedAt = host.world.loop.now
        pump()
    }

    /// Nobody wants it any more.
    func cancel() { close() }

    // MARK: Asking and giving

    func pump() {
        guard !isPumping else { return }
        isPumping = true
        while !isOver, ask() || give() {}
        isPumping = false
    }

    /// Asks for one page more, if it is time; whether it did.
    private func ask() -> Bool {
        guard nextToAsk <= lastPage, slots.count < lookahead, sink?.canTake == true else {
            return false
        }
        guard host.takePage(self) else { return false }
        heldPages += 1
        let key = PageKey(bucketSet: bucketSet, object: object, number: nextToAsk)
        nextToAsk += 1
        let slot = Slot()
        slots.append(slot)
        if let page = store.inMemory(key) {
            slot.answer = .success((page, .memory))
            return true
        }
        slot.ticket = store.page(key, buckets) { [self] answer in
            slot.answer = answer
            slot.ticket = nil
            if slots.first === slot { pump() }
        }
        if slot.ticket == nil { slot.answer = .failure(.overloaded) }
        return true
    }

    /// Hands out the next page, if it is there and may go; whether it did.
    private func give() -> Bool {
        guard let sink, sink.canTake else { return false }
        releaseGiven()
        guard let answer = slots.first?.answer else { return false }
        slots.removeFirst()
        let number = nextToGive
        nextToGive += 1
        givenPages += 1
        movedAt = host.world.loop.now
        switch answer {
        case .failure(let failure): fail(failure)
        case .success((let page, let source)): give(page, number, source, to: sink)
        }
        return true
    }

    private func give(
        _ page: CachedPage, _ number: Int, _ source: PageSource, to sink: any PageSink
    ) {
        let isFirst = objectSize == nil
        guard page.objectSize == objectSize ?? page.objectSize else { return fail(.sizesDiffer) }
        objectSize = page.objectSize
        guard let pages = plan.pages(objectSize: page.objectSize),
            let wanted = plan.wanted(ofPage: number, objectSize: page.objectSize)
        else { return fail(.rangeNotSatisfiable) }
        lastPage = pages.upperBound
        let base = number * plan.pageBytes
        let piece = page.bytes[wanted.lowerBound - base..<wanted.upperBound - base]
        sink.take(piece, PieceInfo(range: wanted, page: page, source: source, isFirst: isFirst))
        guard number == lastPage, !isOver else { return }
        close()
        sink.finish(objectSize: page.objectSize)
    }

    private func fail(_ failure: FetchFailure) {
        let sink = self.sink
        close()
        sink?.fail(failure, objectSize: objectSize)
    }

    // MARK: Bounds

    private func releaseGiven() {
        guard givenPages > 0 else { return }
        heldPages -= givenPages
        host.givePages(givenPages)
        givenPages = 0
    }

    private func arm() {
        let now = host.world.loop.now
        let end = min(movedAt + host.limits.stallNanoseconds, deadline ?? .max)
        guard end > now else { return fail(.timedOut) }
        timer = host.world.loop.after(end - now) { [weak self] in
            if let self, !isOver { arm() }
        }
    }

    private func close() {
        guard sink != nil else { return }
        sink = nil
        timer?.cancel()
        for slot in slots { if let ticket = slot.ticket { store.leave(ticket) } }
        slots = []
        host.over(self, pages: heldPages)
        heldPages = 0
        givenPages = 0
    }
}
