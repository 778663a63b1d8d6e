// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Metadata
internal import Primitives
internal import Records

/// `/v1/streams`: a basin's streams and their configuration.
///
/// A change to a stream that some channel owns is answered once the channel has applied it; until
/// then nobody can say that it took effect, or that it did not.
struct StreamEndpoint {
    private let store: any MetadataStore
    private let random: RandomSource
    private let reconfiguration: Reconfiguration
    /// Tells the stream's owner of its new version, or of its deletion: true once it is applied.
    private let refresh: (StreamLookup, _ deleted: Bool) async -> Bool

    init(
        world: FrontendWorld, refresh: @escaping (StreamLookup, _ deleted: Bool) async -> Bool
    ) {
        store = world.metadata
        random = world.random
        reconfiguration = Reconfiguration(loop: world.loop, random: world.random)
        self.refresh = refresh
    }

    /// `GET` and `POST /v1/streams`.
    func serveAll(_ request: ControlRequest) async throws(APIError) -> Reply {
        let basin = try request.basin()
        return request.method == "POST"
            ? try await create(request, basin) : try await list(request, basin)
    }

    /// `/v1/streams/{name}`; `name` as it stands in the path.
    func serve(_ request: ControlRequest, _ name: String) async throws(APIError) -> Reply {
        let basin = try request.basin()
        let token = request.method == "PUT" ? try request.requestToken() : nil
        let name = try Resource.streamName(name)
        switch request.method {
        case "PUT": return try await ensure(request, basin, name, token)
        case "PATCH": return try await reconfigure(request, basin, name)
        case "DELETE": return try await delete(basin, name)
        default: return .config(try await find(basin, name).stream.config)
        }
    }

    private func list(_ request: ControlRequest, _ basin: String) async throws(APIError) -> Reply {
        let query = try request.list(Names.problem(streamPrefix:))
        let page = try await metadata(.stream) { () throws(MetadataError) in
            try await store.listStreams(
                basin: basin, prefix: query.prefix, startAfter: query.startAfter,
                limit: query.limit)
        }
        return .page("streams", page) { $0.write($1) }
    }

    private func create(
        _ request: ControlRequest, _ basin: String
    ) async throws(APIError) -> Reply {
        let token = try request.requestToken()
        let fields = try JSONFields(request.json())
        let name = try fields.requiredText("stream")
        if let problem = Names.problem(stream: name) { throw APIError(.badJSON, problem) }
        let config = try fields.fields("config").value
        let creation = try creation(config, basin: basin, name: name, token: token)
        let stream = try await metadata(.stream) { () throws(MetadataError) in
            try await store.createStream(creation)
        }
        return .provisioned(201, stream.result, Bytes.json { $0.write(stream.resource) })
    }

    private func ensure(
        _ request: ControlRequest, _ basin: String, _ name: String, _ token: String?
    ) async throws(APIError) -> Reply {
        let fields = try JSONFields(request.jsonIfAny() ?? .object(JSONObject()))
        let creation = try creation(fields, basin: basin, name: name, token: token)
        let stream = try await metadata(.stream) { () throws(MetadataError) in
            try await store.ensureStream(creation)
        }
        if stream.result != .created { try await apply(stream.resource.id) }
        let status = stream.result == .created ? 201 : 200
        return .provisioned(status, stream.result, Bytes.json { $0.write(stream.resource) })
    }

    private func creation(
        _ config: JSONFields?, basin: String, name: String, token: String?
    ) throws(APIError) -> StreamCreation {
        var wish = StreamConfigWish()
        if let config { wish = try StreamConfigFields(config, isPatch: false).wish }
        return StreamCreation(
            id: StreamID(random: random), basin: basin, name: name, wish: wish,
            creationKey: CreationKey.stream(token: token, wish: wish))
    }

    private func reconfigure(
        _ request: ControlRequest, _ basin: String, _ name: String
    ) async throws(APIError) -> Reply {
        let patch = try StreamConfigFields(JSONFields(request.json()), isPatch: true)
        let lookup = try await reconfiguration.run { () async throws(APIError) -> StreamLookup? in
            let lookup = try await find(basin, name)
            let defaults = patch.clearsSomething ? try await self.defaults(basin) : .init()
            let stream = lookup.stream
            let config = patch.applied(to: stream.config, defaults: defaults)
            if config == stream.config { return lookup }
            return try await metadata(.stream) { () throws(MetadataError) in
                try await store.updateStream(stream.id, version: stream.version, config: config)
            }
        }
        // Also where nothing changed: an earlier attempt may have, and not have got this far.
        if !patch.isEmpty { try await apply(lookup) }
        return .config(lookup.stream.config)
    }

    private func delete(_ basin: String, _ name: String) async throws(APIError) -> Reply {
        let lookup = try await metadata(.stream) { () throws(MetadataError) in
            try await store.deleteStream(basin: basin, name: name)
        }
        guard let lookup else { throw Self.notFound }
        guard await refresh(lookup, true) else {
            throw .indefinite("the stream's channel could not be told of the deletion")
        }
        return .empty(202)
    }

    /// A live stream.
    private func find(_ basin: String, _ name: String) async throws(APIError) -> StreamLookup {
        let lookup = try await metadata(.stream) { () throws(MetadataError) in
            try await store.stream(basin: basin, name: name)
        }
        return try Self.alive(lookup)
    }

    private func defaults(_ basin: String) async throws(APIError) -> StreamConfigWish {
        let basin = try await metadata(.stream) { () throws(MetadataError) in
            try await store.basin(basin)
        }
        guard let basin else { throw APIError(.basinNotFound, "there is no such basin") }
        return basin.config.defaultStreamConfig
    }

    private func apply(_ id: StreamID) async throws(APIError) {
        let lookup = try await metadata(.stream) { () throws(MetadataError) in
            try await store.stream(id)
        }
        try await apply(Self.alive(lookup))
    }

    private func apply(_ lookup: StreamLookup) async throws(APIError) {
        if lookup.owner == nil { return }
        guard await refresh(lookup, false) else {
            throw .indefinite("the stream's channel could not be told of the change")
        }
    }

    private static func alive(_ lookup: StreamLookup?) throws(APIError) -> StreamLookup {
        guard let lookup else { throw notFound }
        guard lookup.stream.deletedMilliseconds == nil else {
            throw APIError(.streamDeletionPending, "the stream is being deleted")
        }
        return lookup
    }

    private static var notFound: APIError {
        APIError(.streamNotFound, "there is no such stream")
    }
}

extension Reply {
    fileprivate static func config(_ config: StreamConfig) -> Reply {
        json(200) { $0.write(config) }
    }
}
