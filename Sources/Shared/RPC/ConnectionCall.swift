// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import Primitives

/// A call on an `RPCConnection`, or one that still waits for it.
///
/// Everything that needs credit stands in `held`, in order, and leaves it as credit comes; with
/// credit at hand nothing is held at all. The connection decides when; this class keeps count.
package final class ConnectionCall: Call, Identifiable {
    @exclusivity(unchecked) package var onMessage: ((Bytes) -> Void)?
    package var onFinishedSending: (() -> Void)?
    package var onEnd: ((Status, Bytes) -> Void)?
    package var onSendable: (() -> Void)?
    /// Bytes of messages held back.
    package private(set) var unsentBytes = 0

    enum Held {
        case open(Bytes)
        case message(Bytes)
        case finish
        case end(Status, Bytes)

        /// What it counts as while it is held: an empty message is not free.
        var cost: Int {
            switch self {
            case .open(let payload), .message(let payload), .end(_, let payload):
                payload.count + 64
            case .finish: 64
            }
        }

        /// What it takes of the connection's credit.
        var creditBytes: Int {
            switch self {
            case .message(let payload), .end(_, let payload): payload.count
            case .open, .finish: 0
            }
        }
    }

    let isCaller: Bool
    let method: Method
    /// On the caller's loop clock.
    let deadline: Nanoseconds?
    /// Who counts this call, and since when it goes.
    private let meter: (calls: CallMeter, start: Nanoseconds)?
    package private(set) var id: UInt64 = 0
    @exclusivity(unchecked) private(set) var isOver = false
    /// Whether the open may have left this process.
    var isOpened = false
    // Of what every message touches, each access is over before anything else is called.
    @exclusivity(unchecked) var credit = 0
    /// Received, and not yet granted again.
    @exclusivity(unchecked) var received = 0
    /// Of `received`: dealt with here, but not yet told the sender.
    @exclusivity(unchecked) var grantDue = 0
    @exclusivity(unchecked) var isGrantListed = false
    /// In the connection's line of those that wait for its credit.
    var isBlocked = false
    @exclusivity(unchecked) private(set) var held: Deque<Held> = []
    /// What is held counts as, in all.
    private(set) var heldCost = 0
    var timer: Timer?
    private var endsLater = false
    private var wasHeldBack = false
    @exclusivity(unchecked) private var hasEndedSending = false
    @exclusivity(unchecked) private var owner: (any CallOwner)?

    /// A call to be made; `deadline` in nanoseconds from now.
    init(
        to method: Method, _ payload: Bytes, deadline: Nanoseconds?, on loop: any Loop,
        meter: CallMeter? = nil
    ) {
        precondition(payload.count <= RPCLimits.openBytesMax, "payload beyond the largest")
        isCaller = true
        self.method = method
        self.meter = meter.map { ($0, $0.begin()) }
        self.deadline = deadline.map { loop.now + $0 }
        held = [.open(payload)]
        heldCost = Held.open(payload).cost
        guard let deadline else { return }
        timer = loop.after(deadline) { [weak self] in self?.expire() }
    }

    /// A call that came.
    init(from method: Method) {
        isCaller = false
        self.method = method
        meter = nil
        deadline = nil
    }

    private func expire() {
        guard !isOver else { return }
        owner?.callCancelled(self, .deadlineExceeded)
    }

    /// Milliseconds until the deadline, rounded up; all ones without one.
    func remainingMilliseconds(at now: Nanoseconds) -> UInt32 {
        guard let deadline else { return .max }
        return UInt32(min(max((deadline - now + 999_999) / 1_000_000, 0), 0xFFFF_FFFE))
    }

    func attach(_ owner: any CallOwner, id: UInt64, credit: Int) {
        self.owner = owner
        self.id = id
        self.credit = credit
    }

    package func send(_ message: Bytes) {
        precondition(message.count <= RPCLimits.messageBytesMax, "message beyond the largest")
        guard !isOver, !hasEndedSending else { return }
        put(.message(message))
    }

    package func send(_ count: Int, body: Bytes, _ write: (UnsafeMutableRawPointer) -> Void) {
        let bytes = count + body.count
        precondition(bytes <= RPCLimits.messageBytesMax, "message beyond the largest")
        guard !isOver, !hasEndedSending else { return }
        if held.isEmpty, count <= RPCLimits.writtenBytesMax, let owner,
            owner.callSends(self, count, body: body, write)
        {
            return
        }
        var writer = ByteWriter(capacity: bytes)
        write(writer.reserve(count))
        writer.advance(count)
        writer.write(body)
        put(.message(writer.finish()))
    }

    package func finishSending() {
        precondition(isCaller, "only a caller finishes sending")
        guard !isOver, !hasEndedSending else { return }
        hasEndedSending = true
        put(.finish)
    }

    package func end(_ status: Status, _ payload: Bytes) {
        precondition(!isCaller, "only a server ends a call; a caller cancels it")
        precondition(payload.count <= RPCLimits.messageBytesMax, "payload beyond the largest")
        guard !isOver, !hasEndedSending else { return }
        hasEndedSending = true
        clear()
        put(.end(status, payload))
    }

    package func cancel() {
        precondition(isCaller, "only a caller cancels; a server ends a call")
        endsLater = false
        guard !isOver else { return }
        owner?.callCancelled(self, .cancelled)
    }

    package func consumed(_ count: Int) {
        precondition(count >= 0, "a byte count is never negative")
        guard !isOver else { return }
        owner?.callConsumed(self, count)
    }

    private func put(_ item: Held) {
        held.append(item)
        heldCost += item.cost
        if case .message(let payload) = item { unsentBytes += payload.count }
        owner?.callHeld(self, item.cost)
        if unsentBytes > 0 { wasHeldBack = true }
    }

    /// Removes the first held item, which is being sent.
    func popHeld() {
        let item = held.removeFirst()
        heldCost -= item.cost
        if case .message(let payload) = item { unsentBytes -= payload.count }
    }

    /// Tells the application that it may send again, if it had to wait.
    func noteSendable() {
        guard wasHeldBack, unsentBytes == 0, !isOver else { return }
        wasHeldBack = false
        onSendable?()
    }

    /// The call is no more; with a status, the application hears of it.
    func finish(_ status: Status?, _ payload: Bytes = Bytes()) {
        guard !isOver else { return }
        retire(status)
        tell(status, payload)
    }

    /// The call is no more; the application hears of it in a turn of its own.
    func finishSoon(_ status: Status, on loop: any Loop) {
        guard !isOver else { return }
        retire(status)
        endsLater = true
        loop.soon { if self.endsLater { self.tell(status, Bytes()) } }
    }

    private func retire(_ status: Status?) {
        isOver = true
        if let meter { meter.calls.end(method, since: meter.start, status) }
        timer?.cancel()
        timer = nil
        held = []
        heldCost = 0
        unsentBytes = 0
        owner = nil
    }

    private func tell(_ status: Status?, _ payload: Bytes) {
        let onEnd = self.onEnd
        clear()
        self.onEnd = nil
        if let status { onEnd?(status, payload) }
    }

    /// A server that has ended its call hears no more of it, except that it is gone.
    private func clear() {
        onMessage = nil
        onFinishedSending = nil
        onSendable = nil
        if hasEndedSending && !isCaller { onEnd = nil }
    }
}

/// What holds a call: its connection, or the line of those that wait for one.
protocol CallOwner: AnyObject {
    /// `call.held` has one item more, which counts as `cost`.
    func callHeld(_ call: ConnectionCall, _ cost: Int)
    /// Sends a message at once, as `Call.send` has it, if there is credit; else false.
    func callSends(
        _ call: ConnectionCall, _ count: Int, body: Bytes,
        _ write: (UnsafeMutableRawPointer) -> Void
    ) -> Bool
    func callConsumed(_ call: ConnectionCall, _ count: Int)
    func callCancelled(_ call: ConnectionCall, _ status: Status)
}
