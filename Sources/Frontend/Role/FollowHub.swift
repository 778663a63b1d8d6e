// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Metadata
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// A reader that stands at the tail of a stream and wants what comes.
protocol FollowReader: AnyObject {
    /// The next record that it needs.
    var position: SeqNum { get }
    /// It is part of the follow, and got everything that the follow knows.
    func followBegan()
    /// One whole append batch. It may begin below `position`, or lie below it: skip that.
    func followPushed(_ push: FollowPush)
    /// The follow is no more for this reader, which may be dropped by the hub.
    func followEnded(_ end: FollowEnd)
}

enum FollowEnd: Equatable {
    /// What lies behind the reader's position must be read from objects first.
    case behind
    /// The channel is gone, or has the stream no more: plan anew.
    case lost
    case failed(APIError)
}

/// The streams that this process follows: one call each, however many local readers it serves.
///
/// A reader joins where it stands. It is let in if the shared follow is at or before that position,
/// or remembers everything since; else it must catch up first. All of that is decided in one step,
/// on one loop, against the order in which the channel pushed: nothing is missed, nothing doubled.
final class FollowHub {
    private unowned let path: DataPath
    private var follows: [StreamID: SharedFollow] = [:]

    init(_ path: DataPath) {
        self.path = path
        path.cell.directory.onList = { [weak self] in self?.channelsListed($0, askedAt: $1) }
    }

    /// What a dead channel had open is with others soon. One that is paused, or cut off, ends none
    /// of its calls, and its connection would be given up some seconds later only.
    private func channelsListed(_ active: Set<ChannelID>, askedAt: Nanoseconds) {
        let lost = follows.filter { !$0.value.mayGoOn(active, askedAt: askedAt) }
        for (_, follow) in lost.sorted(by: { $0.key < $1.key }) { follow.lose() }
    }

    /// Lets `reader` in, at its position; calls it back at once or later.
    func join(_ reader: any FollowReader, _ lookup: StreamLookup, isOwnerDoubtful: Bool) {
        let id = lookup.stream.id
        if let follow = follows[id] { return follow.join(reader) }
        let follow = SharedFollow(path, lookup) { [weak self] ended in
            guard let self, self.follows[id] === ended else { return }
            self.follows[id] = nil
            self.path.metrics.follows = self.follows.count
        }
        follows[id] = follow
        path.metrics.follows = follows.count
        follow.join(reader)
        follow.open(at: reader.position, isOwnerDoubtful: isOwnerDoubtful)
    }

    func leave(_ reader: any FollowReader, _ stream: StreamID) { follows[stream]?.leave(reader) }

    /// Calls `then`, at once or later, with the tail of a stream that is followed, as its channel
    /// knows it now; never, if the channel does not answer soon, or is not sure of it.
    func askTail(_ stream: StreamID, then: @escaping (StreamPosition) -> Void) {
        follows[stream]?.askTail(then)
    }
}

/// One stream's follow.
private final class SharedFollow {
    private let path: DataPath
    private let lookup: StreamLookup
    private let onEnd: (SharedFollow) -> Void
    private var call: (any Call)?
    private var isGranted = false
    private var isOver = false
    /// Right behind the last record that was pushed.
    private var position: SeqNum = 0
    /// In the order in which they came, so that the same events lead to the same order.
    private var readers: [any FollowReader] = []
    /// The last pushes, without a hole, up to `position`.
    private var recent: Deque<FollowPush> = []
    private var recentBytes = 0
    private var linger: Timer?

    private static let recentBytesMax = 1 << 20
    private static let recentBatchesMax = 512
    private static let lingerNanoseconds: Nanoseconds = .seconds(3)
    /// How long a channel may take to grant a follow.
    private var grantTimer: Timer?
    private var owner: Owner?
    private var followedAt: Nanoseconds = 0
    private var tailWaiters: [(StreamPosition) -> Void] = []
    private var tailAnswer: (tail: StreamPosition, askedAt: Nanoseconds)?

    /// How long an answer serves for the stream's other readers.
    private static let tailNanoseconds: Nanoseconds = .seconds(1)
    /// Shorter than the least silence of a reader, so that none asks twice at a time.
    private static let tailCallNanoseconds: Nanoseconds = .seconds(3)

    init(_ path: DataPath, _ lookup: StreamLookup, onEnd: @escaping (SharedFollow) -> Void) {
        self.path = path
        self.lookup = lookup
        self.onEnd = onEnd
    }

    // MARK: Readers

    func join(_ reader: any FollowReader) {
        linger?.cancel()
        linger = nil
        readers.append(reader)
        if isGranted { admit(reader) }
    }

    private func has(_ reader: any FollowReader) -> Bool { readers.contains { $0 === reader } }

    private func remove(_ reader: any FollowReader) {
        if let index = readers.firstIndex(where: { $0 === reader }) { readers.remove(at: index) }
    }

    func leave(_ reader: any FollowReader) {
        remove(reader)
        guard readers.isEmpty, linger == nil, !isOver else { return }
        linger = path.world.loop.after(Self.lingerNanoseconds) { [weak self] in
            guard let self, self.readers.isEmpty else { return }
            self.close()
        }
    }

    private func admit(_ reader: any FollowReader) {
        let oldest = recent.first?.firstSeqNum ?? position
        guard reader.position >= oldest else {
            remove(reader)
            return reader.followEnded(.behind)
        }
        for push in recent where push.firstSeqNum + UInt64(push.count) > reader.position {
            reader.followPushed(push)
            // It may have had enough.
            guard has(reader) else { return }
        }
        reader.followBegan()
    }

    // MARK: The channel

    func open(at start: SeqNum, isOwnerDoubtful: Bool) {
        position = start
        path.world.loop.spawn { [self] in
            do throws(APIError) {
                let owner =
                    isOwnerDoubtful
                    ? try await path.cell.freshOwner(of: lookup.stream)
                    : try await path.cell.owner(for: lookup)
                if !isOver { follow(owner, start) }
            } catch {
                end(.failed(error))
            }
        }
    }

    private func follow(_ owner: Owner, _ start: SeqNum) {
        let request = FollowRequest(
            stream: lookup.stream.id, streamlet: owner.streamlet, start: start)
        let call = path.world.calls.call(
            owner.address, .follow, request.encoded(), deadline: nil)
        self.call = call
        self.owner = owner
        followedAt = path.world.loop.now
        call.onMessage = { [self] in received($0) }
        call.onEnd = { [self] in callEnded($0, $1) }
        grantTimer = path.world.loop.after(path.limits.callNanoseconds) { [weak self] in
            guard let self, !self.isGranted else { return }
            self.end(.lost)
        }
    }

    private func received(_ message: Bytes) {
        call?.consumed(message.count)
        guard !isOver else { return }
        var push: FollowPush
        do throws(DecodeError) {
            push = try FollowPush(message)
        } catch {
            path.world.log.error("bad_push", [("error", "\(error)")])
            return end(.lost)
        }
        if !isGranted { grant() }
        guard push.count > 0, !isOver else { return }
        guard push.firstSeqNum == position else {
            path.world.log.error(
                "push_out_of_order",
                [("expected", "\(position)"), ("got", "\(push.firstSeqNum)")])
            return end(.lost)
        }
        position += UInt64(push.count)
        // Kept for a while, here and by slow readers: not in a read buffer that may be far larger.
        push.records = push.records.detached()
        remember(push)
        for reader in readers { reader.followPushed(push) }
    }

    private func grant() {
        isGranted = true
        grantTimer?.cancel()
        for reader in readers where has(reader) { admit(reader) }
    }

    private func remember(_ push: FollowPush) {
        recent.append(push)
        recentBytes += push.records.count
        while recentBytes > Self.recentBytesMax || recent.count > Self.recentBatchesMax {
            recentBytes -= recent.removeFirst().records.count
        }
    }

    /// That nothing was pushed proves nothing: a channel that was paused, or cut off, may have lost
    /// the stream to another one, whose records nobody pushes here. So the channel is asked, and
    /// answers only while it is sure that the stream is its own.
    func askTail(_ then: @escaping (StreamPosition) -> Void) {
        guard let owner, !isOver else { return }
        let askedAt = path.world.loop.now
        if let answer = tailAnswer, askedAt - answer.askedAt < Self.tailNanoseconds {
            return then(answer.tail)
        }
        tailWaiters.append(then)
        guard tailWaiters.count == 1 else { return }
        let request = TailRequest(stream: lookup.stream.id, streamlet: owner.streamlet)
        let call = path.world.calls.call(
            owner.address, .tail, request.encoded(), deadline: Self.tailCallNanoseconds)
        call.onEnd = { [self] in tailCallEnded($0, $1, askedAt) }
    }

    private func tailCallEnded(_ status: Status, _ payload: Bytes, _ askedAt: Nanoseconds) {
        let waiters = tailWaiters
        tailWaiters = []
        guard status == .ok, !isOver else { return }
        do throws(DecodeError) {
            let tail = try TailReply(payload).tail
            tailAnswer = (tail, askedAt)
            for then in waiters { then(tail) }
        } catch {
            path.world.log.error("bad_reply", [("method", "tail"), ("error", "\(error)")])
        }
    }

    /// Whether a list of the active channels, asked for at that time, lets it.
    func mayGoOn(_ active: Set<ChannelID>, askedAt: Nanoseconds) -> Bool {
        // An older list may not know the channel yet.
        guard let owner, askedAt > followedAt else { return true }
        return active.contains(owner.channel)
    }

    /// Its channel is dead.
    func lose() {
        path.cell.forget(lookup.stream)
        end(.lost)
    }

    private func callEnded(_ status: Status, _ payload: Bytes) {
        call = nil
        path.cell.forget(lookup.stream)
        switch status {
        case .notInWindow: end(.behind)
        case .streamDeleted: end(.failed(Cell.deletionPending(lookup.stream.name)))
        default: end(.lost)
        }
    }

    private func end(_ end: FollowEnd) {
        guard !isOver else { return }
        let readers = readers
        close()
        for reader in readers { reader.followEnded(end) }
    }

    private func close() {
        isOver = true
        linger?.cancel()
        grantTimer?.cancel()
        call?.onMessage = nil
        call?.onEnd = nil
        call?.cancel()
        call = nil
        readers = []
        recent = []
        onEnd(self)
    }
}
