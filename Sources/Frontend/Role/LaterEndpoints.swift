// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// Access tokens, metrics and locations: not built yet. What is malformed is told so, and
/// everything else is `not_implemented`.
struct LaterEndpoints {
    private static let metricSets: [String: Set<String>] = [
        "account": ["active-basins", "account-ops", "estimated-billable-usage"],
        "basin": [
            "storage", "append-ops", "read-ops", "read-throughput", "append-throughput",
            "basin-ops", "estimated-billable-usage",
        ],
        "stream": ["storage"],
    ]

    func serve(_ request: ControlRequest, _ resource: Resource) throws(APIError) -> Reply {
        switch resource {
        case .accessTokens: try checkAccessTokens(request)
        case .accessToken(let id): _ = try Resource.name(id, Names.problem(accessTokenID:))
        case .accountMetrics: try checkMetrics(request, of: "account")
        case .basinMetrics(let basin):
            _ = try Resource.basinName(basin)
            try checkMetrics(request, of: "basin")
        case .streamMetrics(let basin, let stream):
            _ = try Resource.basinName(basin)
            _ = try Resource.streamName(stream)
            try checkMetrics(request, of: "stream")
        case .defaultLocation where request.method == "PUT": try checkLocation(request)
        default: break
        }
        throw APIError(.notImplemented, "this endpoint is not built yet")
    }

    private func checkAccessTokens(_ request: ControlRequest) throws(APIError) {
        guard request.method == "POST" else {
            _ = try request.list(Names.problem(accessTokenIDPrefix:))
            return
        }
        let fields = try JSONFields(request.json())
        let id = try fields.requiredText("id")
        if let problem = Names.problem(accessTokenID: id) { throw APIError(.badJSON, problem) }
        guard try fields.fields("scope").value != nil else {
            throw APIError(.badJSON, "scope is required")
        }
        _ = try fields.text("expires_at")
        _ = try fields.flag("auto_prefix_streams")
    }

    private func checkMetrics(
        _ request: ControlRequest, of subject: String
    ) throws(APIError) {
        let query = Query(request.head.query)
        guard let set = try query.text("set") else {
            throw APIError(.badQuery, "set is required")
        }
        guard Self.metricSets[subject]?.contains(set) == true else {
            throw APIError(.badQuery, "there is no such set of metrics")
        }
        let start = try query.number("start", as: UInt32.self)
        let end = try query.number("end", as: UInt32.self)
        let interval = try query.text("interval")
        guard interval == nil || ["minute", "hour", "day"].contains(interval) else {
            throw APIError(.badQuery, "interval must be minute, hour or day")
        }
        guard let start, let end, start <= end else {
            throw APIError(.invalid, "start and end are required, in this order")
        }
    }

    private func checkLocation(_ request: ControlRequest) throws(APIError) {
        guard let location = try request.json().string else {
            throw APIError(.badJSON, "the body must be a string")
        }
        if let problem = Names.problem(location: location) { throw APIError(.badJSON, problem) }
    }
}
