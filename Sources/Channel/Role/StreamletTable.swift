// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives
internal import RPC
internal import Records

/// The streamlets that this channel has open: how they come (a claim) and how they go (a close).
///
/// Metadata decides who has a stream; this table only mirrors it. A claim is a single guarded
/// statement that may be repeated. A close stops sequencing first and for good; the streamlet is
/// forgotten only once the metadata certainly say closed.
final class StreamletTable {
    enum Activation {
        case open(OpenStreamlet)
        case elsewhere(Owner)
        case refused(Status)
    }

    private let channel: ChannelID
    private let world: ChannelWorld
    private let limits: ChannelLimits
    private var streamlets = ObjectTable<OpenStreamlet>()
    /// Claims under way: whoever asks meanwhile waits for the same answer.
    private var claiming: [StreamID: Signal<Void>] = [:]
    private(set) var closing: [OpenStreamlet] = []
    /// Where in the index `closeDormant` goes on.
    private var patrolled = 0
    /// Names of basins, so that the streams of one share a single copy. May be forgotten.
    private var basins: Set<String> = []
    private static let basinsMax = 4_096
    private let activations: Counter

    init(channel: ChannelID, world: ChannelWorld, limits: ChannelLimits) {
        self.channel = channel
        self.world = world
        self.limits = limits
        activations = world.metrics.counter("activations_total", help: "Streamlets opened.")
        world.metrics.gauge("open_streamlets", help: "Streamlets open now.") { [unowned self] in
            Double(streamlets.count)
        }
    }

    var count: Int { streamlets.count }

    func find(_ stream: StreamID) -> OpenStreamlet? { streamlets[stream] }

    func find(_ stream: StreamID, _ number: StreamletNumber) -> OpenStreamlet? {
        guard let streamlet = find(stream), streamlet.number == number else { return nil }
        return streamlet
    }

    // MARK: Opening

    /// Opens the stream's next streamlet here, unless it is open somewhere.
    func activate(_ stream: StreamID) async -> Activation {
        if let streamlet = find(stream), streamlet.phase == .closing {
            await untilClosed(streamlet)
        }
        while let other = claiming[stream] { await other.wait() }
        if let streamlet = find(stream) { return .open(streamlet) }
        guard count < limits.openStreamletsMax else { return .refused(.overloaded) }
        let signal = Signal<Void>()
        claiming[stream] = signal
        defer {
            claiming[stream] = nil
            signal.set(())
        }
        do throws(MetadataError) {
            switch try await world.metadata.claim(stream, channel: channel) {
            case .claimed(let number, let row): return .open(insert(number, row))
            case .owned(let owner): return .elsewhere(owner)
            case .streamNotFound: return .refused(.notOwner)
            case .streamDeletionPending: return .refused(.streamDeleted)
            case .channelNotActive: return .refused(.unavailable)
            }
        } catch {
            world.log.warning("claim failed", [("error", error.description)])
            return .refused(.unavailable)
        }
    }

    func insert(_ number: StreamletNumber, _ row: Stream) -> OpenStreamlet {
        precondition(find(row.id) == nil, "a stream is open once")
        if basins.count >= Self.basinsMax { basins = [] }
        let streamlet = OpenStreamlet(
            number, row, basin: basins.insert(row.basin).memberAfterInsert, now: world.loop.now)
        streamlets.insert(streamlet)
        activations.add()
        if row.deletedMilliseconds != nil {
            streamlet.isDeleted = true
            close(streamlet)
        }
        return streamlet
    }

    /// Looks whether the stream is ours without our knowing, by a claim whose reply was lost; opens
    /// it then. The status says why it is not open here. A claim under way is waited for first: the
    /// row that it read may be older than what the caller knows.
    func adopt(_ stream: StreamID) async -> Status {
        while let other = claiming[stream] { await other.wait() }
        if find(stream) != nil { return .notOwner }
        let signal = Signal<Void>()
        claiming[stream] = signal
        defer {
            claiming[stream] = nil
            signal.set(())
        }
        do throws(MetadataError) {
            guard let found = try await world.metadata.stream(stream), let owner = found.owner,
                owner.channel == channel
            else { return .notOwner }
            guard count < limits.openStreamletsMax else { return .overloaded }
            // Nothing was sequenced into it yet: the row, read while nobody else could open it
            // here, is where it begins.
            _ = insert(owner.streamlet, found.stream)
            return .notOwner
        } catch {
            return .unavailable
        }
    }

    // MARK: Changing

    /// Applies what the metadata say of the stream now.
    func refresh(_ request: RefreshRequest) async -> Status {
        let status: Status =
            limits.mutant == .refreshIgnoresClaim ? .notOwner : await adopt(request.stream)
        if find(request.stream) == nil { return status }
        do throws(MetadataError) {
            guard let lookup = try await world.metadata.stream(request.stream) else {
                return .notOwner
            }
            guard let streamlet = find(request.stream) else { return .notOwner }
            if lookup.stream.version > streamlet.version {
                streamlet.reconfigure(lookup.stream.config, version: lookup.stream.version)
            }
            if lookup.stream.deletedMilliseconds != nil { streamlet.isDeleted = true }
            return streamlet.version >= request.version ? .ok : .unavailable
        } catch {
            return .unavailable
        }
    }

    // MARK: Closing

    /// Stops sequencing into the streamlet; the next flush closes it once it is settled.
    func close(_ streamlet: OpenStreamlet) {
        guard streamlet.phase == .open else { return }
        streamlet.phase = .closing
        closing.append(streamlet)
    }

    /// For a mutant: sequences into streamlets whose close may have happened.
    func resume(_ streams: [StreamID]) {
        for streamlet in streams.compactMap({ find($0) }) {
            streamlet.phase = .open
            streamlet.isCloseIssued = false
            closing.removeAll { $0 === streamlet }
            release(streamlet)
        }
    }

    func closeAll() {
        for streamlet in sorted { close(streamlet) }
    }

    /// Begins to close what nobody has used for the dormancy time. To be called often, every
    /// `interval`: it looks at a part of the streamlets, at all of them within a quarter of that
    /// time.
    func closeDormant(interval: Nanoseconds) {
        let end = world.loop.now - limits.dormancyNanoseconds
        let turns = max(1, limits.dormancyNanoseconds / 4 / interval)
        let share = (streamlets.capacity + Int(turns) - 1) / Int(turns)
        for _ in 0..<min(streamlets.capacity, max(share, Self.patrolMin)) {
            patrolled = patrolled + 1 < streamlets.capacity ? patrolled + 1 : 0
            guard let streamlet = streamlets.at(patrolled), streamlet.phase == .open,
                streamlet.touchedAt <= end, streamlet.isSettled, !streamlet.hasFollowers
            else { continue }
            close(streamlet)
        }
    }

    private static let patrolMin = 1_024

    private var sorted: [OpenStreamlet] { streamlets.all.sorted { $0.id < $1.id } }

    /// The metadata say closed: the streamlet is forgotten, and whoever is attached goes elsewhere.
    func closed(_ streamlet: OpenStreamlet) {
        precondition(streamlet.phase == .closing && streamlet.isSettled, "closed while in use")
        streamlets.remove(streamlet.id)
        closing.removeAll { $0 === streamlet }
        streamlet.phase = .closed
        streamlet.dropRecords()
        release(streamlet)
    }

    /// The channel is over: whoever is attached to anything goes elsewhere.
    func abandon() {
        for streamlet in sorted {
            streamlet.phase = .closed
            release(streamlet)
        }
        streamlets = ObjectTable()
        closing = []
    }

    private func release(_ streamlet: OpenStreamlet) {
        let status: Status = streamlet.isDeleted ? .streamDeleted : .notOwner
        for follower in streamlet.followers { follower.end(status) }
        streamlet.followers = []
        for resume in streamlet.takeWaiting() { resume() }
    }

    private func untilClosed(_ streamlet: OpenStreamlet) async {
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            streamlet.whenClosed { waiter.resume() }
        }
    }
}
