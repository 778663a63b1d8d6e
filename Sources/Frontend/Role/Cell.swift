// SPDX-License-Identifier: Apache-2.0

package import Metadata
internal import Observability
internal import Primitives
internal import RPC
package import Records

/// Who a stream is and who has it: names to incarnations, and incarnations to channels.
///
/// What is cached here only saves a question. A request carries the incarnation's id and the
/// streamlet's number, so the channel refuses one that rests on an outdated answer; the refusal
/// leads back here, to a fresh read. Only streams with an owner are cached: that a stream is
/// dormant, or that there is none, is read anew each time.
package final class Cell {
    let world: FrontendWorld
    let limits: FrontendLimits
    let directory: ChannelDirectory
    private var cache: StreamCache
    private var cacheAging: Timer?
    /// A stream that nobody used for so long, or twice as long, is forgotten: its channel will have
    /// closed it.
    private static let cacheIdleNanoseconds: Nanoseconds = .seconds(120)
    /// Streams whose owner is being sought: one search serves all who ask.
    private var searches: [StreamID: Signal<Result<Owner, APIError>>] = [:]

    package init(world: FrontendWorld, limits: FrontendLimits) {
        self.world = world
        self.limits = limits
        directory = ChannelDirectory(world: world, limits: limits)
        cache = StreamCache(bytesMax: limits.streamCacheBytesMax)
        world.metrics.gauge("cached_streams", help: "Streams whose owner is remembered.") {
            [weak self] in Double(self?.cache.count ?? 0)
        }
        world.metrics.gauge("stream_cache_bytes", help: "Bytes of the cache of streams.") {
            [weak self] in Double(self?.cache.bytes ?? 0)
        }
    }

    /// Begins to keep the list of channels.
    package func start() { directory.start() }

    package func stop() { directory.stop() }

    // MARK: Names

    /// The stream of that name, alive. With `fresh`, as of a read that begins now.
    ///
    /// Errors: `basin_not_found`, `stream_not_found`, `stream_deletion_pending`, `unavailable`.
    package func lookup(
        basin: String, name: String, fresh: Bool
    ) async throws(APIError) -> StreamLookup {
        if let found = try await find(basin: basin, name: name, fresh: fresh) { return found }
        throw Self.notFound(name)
    }

    /// As `lookup`; where there is no such stream it is created, if the basin's flag for this use
    /// says so. Whoever asks at the same time gets the same stream.
    ///
    /// Errors besides: `basin_deletion_pending`.
    package func lookup(
        basin: String, name: String, fresh: Bool, creating creation: AutoCreation
    ) async throws(APIError) -> StreamLookup {
        for _ in 0..<Self.creationTriesMax {
            if let found = try await find(basin: basin, name: name, fresh: fresh) { return found }
            if let made = try await create(basin: basin, name: name, creation) { return made }
        }
        throw APIError(.unavailable, "the stream is created and deleted at the same time")
    }

    /// A creation that meets another one, or a purge, looks again so often.
    private static let creationTriesMax = 5

    private func find(
        basin: String, name: String, fresh: Bool
    ) async throws(APIError) -> StreamLookup? {
        if !fresh, let cached = cache.value(basin: basin, name: name) { return cached }
        let found: StreamLookup?
        do throws(MetadataError) {
            found = try await world.metadata.stream(basin: basin, name: name)
        } catch {
            throw APIError(error, about: .stream)
        }
        guard let found else {
            cache.remove(basin: basin, name: name)
            return nil
        }
        try remember(found)
        return found
    }

    /// Caches a stream that has an owner, forgets one that has none; throws for one that dies.
    private func remember(_ found: StreamLookup) throws(APIError) {
        let isDying = found.stream.deletedMilliseconds != nil
        if isDying || found.owner == nil {
            cache.remove(basin: found.stream.basin, name: found.stream.name)
        } else {
            cache.set(found)
            ageCacheLater()
        }
        if isDying { throw Self.deletionPending(found.stream.name) }
    }

    private func ageCacheLater() {
        guard cacheAging == nil else { return }
        cacheAging = world.loop.after(Self.cacheIdleNanoseconds) { [weak self] in
            guard let self else { return }
            self.cacheAging = nil
            self.cache.age()
            if !self.cache.isEmpty { self.ageCacheLater() }
        }
    }

    /// Nil to look again: somebody else created it, or the basin is gone since.
    private func create(
        basin: String, name: String, _ creation: AutoCreation
    ) async throws(APIError) -> StreamLookup? {
        do throws(MetadataError) {
            guard let row = try await world.metadata.basin(basin) else { return nil }
            let isAllowed =
                creation.use == .append
                ? row.config.createStreamOnAppend : row.config.createStreamOnRead
            if isAllowed {
                let request = StreamCreation(
                    id: StreamID(random: world.random), basin: basin, name: name,
                    wish: creation.wish, creationKey: nil)
                let made = try await world.metadata.createStream(request)
                return StreamLookup(stream: made.resource, owner: nil)
            }
        } catch {
            if error.kind == .alreadyExists || error.kind == .conflict { return nil }
            throw APIError(error, about: .stream)
        }
        throw Self.notFound(name)
    }

    /// What is cached of the stream is no longer believed.
    package func forget(_ stream: Stream) {
        guard cache.id(basin: stream.basin, name: stream.name) == stream.id else { return }
        cache.remove(basin: stream.basin, name: stream.name)
    }

    static func notFound(_ name: String) -> APIError {
        APIError(.streamNotFound, "there is no stream named \(name)")
    }

    static func deletionPending(_ name: String) -> APIError {
        APIError(.streamDeletionPending, "the stream \(name) is being deleted")
    }

    // MARK: Owners

    /// The channel that has the stream, which is given one if it has none. If its channel died,
    /// waits for its recovery, within the time that one call may take.
    ///
    /// Errors: `stream_not_found`, `stream_deletion_pending`, `unavailable`.
    package func owner(for lookup: StreamLookup) async throws(APIError) -> Owner {
        if let owner = lookup.owner, owner.channelIsActive { return owner }
        let stream = lookup.stream
        if let search = searches[stream.id] { return try await search.wait().get() }
        let search = Signal<Result<Owner, APIError>>()
        searches[stream.id] = search
        let result: Result<Owner, APIError>
        do throws(APIError) {
            result = .success(try await seekOwner(lookup))
        } catch {
            result = .failure(error)
        }
        searches[stream.id] = nil
        search.set(result)
        return try result.get()
    }

    /// As `owner(for:)`, as of a read that begins now: what was known was refused.
    package func freshOwner(of stream: Stream) async throws(APIError) -> Owner {
        forget(stream)
        return try await owner(for: try await reread(stream))
    }

    /// The same incarnation, read anew.
    func reread(_ stream: Stream) async throws(APIError) -> StreamLookup {
        let found: StreamLookup?
        do throws(MetadataError) {
            found = try await world.metadata.stream(stream.id)
        } catch {
            throw APIError(error, about: .stream)
        }
        guard let found else {
            forget(stream)
            throw Self.notFound(stream.name)
        }
        try remember(found)
        return found
    }

    private func seekOwner(_ known: StreamLookup) async throws(APIError) -> Owner {
        let start = world.loop.now
        let backoff = Backoff(
            first: .milliseconds(20), delayMax: .milliseconds(500), triesMax: .max,
            budget: limits.callNanoseconds)
        var lookup = known
        var tried: Set<ChannelID> = []
        var tries = 0
        while true {
            if let owner = lookup.owner {
                if owner.channelIsActive { return owner }
            } else if let owner = try await activate(lookup.stream, &tried) {
                lookup.owner = owner
                try remember(lookup)
                return owner
            }
            tries += 1
            guard
                let delay = backoff.delay(
                    afterTries: tries, elapsed: world.loop.now - start,
                    random: world.random.next())
            else { throw APIError(.unavailable, "no channel has the stream at present") }
            await world.loop.sleep(delay)
            lookup = try await reread(lookup.stream)
        }
    }

    /// Asks one channel to open the stream; nil to look at the metadata again and try another.
    private func activate(
        _ stream: Stream, _ tried: inout Set<ChannelID>
    ) async throws(APIError) -> Owner? {
        guard
            let channel = await directory.pick(
                storageClass: stream.config.storageClass, excluding: tried)
        else {
            // All were tried, or none is known: begin anew with a new list.
            tried = []
            await directory.poll()
            return nil
        }
        tried.insert(channel.id)
        let (status, payload) = await world.calls.unary(
            channel.address, .activate, ActivateRequest(stream: stream.id).encoded(),
            deadline: limits.callNanoseconds / 2)
        switch status {
        case .ok:
            do throws(DecodeError) {
                let reply = try ActivateReply(payload)
                return Owner(
                    streamlet: reply.streamlet, channel: reply.channel, address: reply.address,
                    channelIsActive: true)
            } catch {
                world.log.error("bad_reply", [("method", "activate"), ("error", "\(error)")])
                return nil
            }
        case .streamDeleted: throw Self.deletionPending(stream.name)
        case .notOwner: throw Self.notFound(stream.name)
        default:
            directory.avoid(channel.id)
            return nil
        }
    }

    // MARK: Changes of the row

    /// Tells the stream's owner, as of `lookup`, that the row has changed, or that the stream was
    /// marked deleted; false if nobody can say in time whether the owner knows.
    ///
    /// True once the owner has applied it, and as soon as the streamlet is not the stream's open
    /// one any more: whoever opens the next one reads the row.
    package func refresh(_ lookup: StreamLookup, deleted: Bool) async -> Bool {
        forget(lookup.stream)
        guard let owner = lookup.owner else { return true }
        let request = RefreshRequest(
            stream: lookup.stream.id, version: lookup.stream.version, deleted: deleted
        ).encoded()
        let start = world.loop.now
        let backoff = Backoff(
            first: .milliseconds(20), delayMax: .milliseconds(500), triesMax: .max,
            budget: limits.callNanoseconds)
        var tries = 0
        while true {
            let left = limits.callNanoseconds - (world.loop.now - start)
            let (status, _) = await world.calls.unary(
                owner.address, .refresh, request, deadline: max(left, .milliseconds(1)))
            if status == .ok || status == .notOwner { return true }
            if await isReleased(lookup.stream.id, owner) { return true }
            tries += 1
            guard
                let delay = backoff.delay(
                    afterTries: tries, elapsed: world.loop.now - start,
                    random: world.random.next())
            else { return false }
            await world.loop.sleep(delay)
        }
    }

    /// Whether the streamlet is closed, as the metadata know it.
    private func isReleased(_ id: StreamID, _ owner: Owner) async -> Bool {
        do throws(MetadataError) {
            return try await world.metadata.stream(id)?.owner?.streamlet != owner.streamlet
        } catch {
            world.log.warning("refresh_check_failed", [("error", "\(error)")])
            return false
        }
    }
}

/// What a request may create if it meets no stream of its name.
package struct AutoCreation {
    package enum Use { case append, read }
    package var use: Use
    /// The configuration that the request wants for it; unset leaves are the basin's.
    package var wish: StreamConfigWish

    package init(use: Use, wish: StreamConfigWish) {
        self.use = use
        self.wish = wish
    }
}
