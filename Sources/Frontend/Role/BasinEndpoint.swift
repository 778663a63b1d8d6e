// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Metadata
internal import Primitives
internal import Records

/// `/v1/basins`: the account's basins and their configuration.
struct BasinEndpoint {
    private let store: any MetadataStore
    private let reconfiguration: Reconfiguration

    init(world: FrontendWorld) {
        store = world.metadata
        reconfiguration = Reconfiguration(loop: world.loop, random: world.random)
    }

    /// `GET` and `POST /v1/basins`.
    func serveAll(_ request: ControlRequest) async throws(APIError) -> Reply {
        request.method == "POST" ? try await create(request) : try await list(request)
    }

    /// `/v1/basins/{name}`; `name` as it stands in the path.
    func serve(_ request: ControlRequest, _ name: String) async throws(APIError) -> Reply {
        let name = try Resource.basinName(name)
        switch request.method {
        case "PUT": return try await ensure(request, name)
        case "PATCH": return try await reconfigure(request, name)
        case "DELETE": return try await delete(name)
        default: return .config(try await find(name).config)
        }
    }

    private func list(_ request: ControlRequest) async throws(APIError) -> Reply {
        let query = try request.list(Names.problem(basinPrefix:))
        let page = try await metadata(.basin) { () throws(MetadataError) in
            try await store.listBasins(
                prefix: query.prefix, startAfter: query.startAfter, limit: query.limit)
        }
        return .page("basins", page) { $0.write($1) }
    }

    private func create(_ request: ControlRequest) async throws(APIError) -> Reply {
        let token = try request.requestToken()
        let fields = try JSONFields(request.json())
        let name = try fields.requiredText("basin")
        if let problem = Names.problem(basin: name) { throw APIError(.badJSON, problem) }
        let creation = try creation(fields, name: name, token: token)
        let basin = try await metadata(.basin) { () throws(MetadataError) in
            try await store.createBasin(creation)
        }
        return .provisioned(201, basin.result, Bytes.json { $0.write(basin.resource) })
    }

    private func ensure(_ request: ControlRequest, _ name: String) async throws(APIError) -> Reply {
        let token = try request.requestToken()
        let fields = try JSONFields(request.jsonIfAny() ?? .object(JSONObject()))
        let creation = try creation(fields, name: name, token: token)
        let basin = try await metadata(.basin) { () throws(MetadataError) in
            try await store.ensureBasin(creation)
        }
        let status = basin.result == .created ? 201 : 200
        return .provisioned(status, basin.result, Bytes.json { $0.write(basin.resource) })
    }

    private func creation(
        _ fields: JSONFields, name: String, token: String?
    ) throws(APIError) -> BasinCreation {
        let location = try fields.text("location").value
        if let location, let problem = Names.problem(location: location) {
            throw APIError(.badJSON, problem)
        }
        var config = BasinConfig()
        if let inner = try fields.fields("config").value {
            config = try BasinConfigFields(inner, isPatch: false).config
        }
        return BasinCreation(
            name: name, config: config, location: location,
            creationKey: CreationKey.basin(token: token, config: config, location: location))
    }

    private func reconfigure(
        _ request: ControlRequest, _ name: String
    ) async throws(APIError) -> Reply {
        let patch = try BasinConfigFields(JSONFields(request.json()), isPatch: true)
        let basin = try await reconfiguration.run { () async throws(APIError) -> Basin? in
            let basin = try await find(name)
            guard basin.deletedMilliseconds == nil else {
                throw APIError(.basinDeletionPending, "the basin is being deleted")
            }
            let config = patch.applied(to: basin.config)
            if config == basin.config { return basin }
            return try await metadata(.basin) { () throws(MetadataError) in
                try await store.updateBasin(name, version: basin.version, config: config)
            }
        }
        return .config(basin.config)
    }

    private func delete(_ name: String) async throws(APIError) -> Reply {
        let exists = try await metadata(.basin) { () throws(MetadataError) in
            try await store.deleteBasin(name)
        }
        guard exists else { throw APIError(.basinNotFound, "there is no such basin") }
        return .empty(202)
    }

    private func find(_ name: String) async throws(APIError) -> Basin {
        let basin = try await metadata(.basin) { () throws(MetadataError) in
            try await store.basin(name)
        }
        guard let basin else { throw APIError(.basinNotFound, "there is no such basin") }
        return basin
    }
}

extension Reply {
    fileprivate static func config(_ config: BasinConfig) -> Reply {
        json(200) { $0.write(config) }
    }
}
