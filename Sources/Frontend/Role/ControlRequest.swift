// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Metadata
internal import Primitives
internal import Records

/// A request of the control plane with its whole body. Endpoints ask it for headers, then the
/// path, then the query, then the body: the first thing that is wrong is what the client hears.
struct ControlRequest {
    let head: HTTPRequest
    let body: Result<Bytes, APIError>

    var method: String { head.method }

    // MARK: Headers

    /// The basin that a stream's route works on.
    func basin() throws(APIError) -> String { try head.basin() }

    /// The token that makes a creation idempotent.
    func requestToken() throws(APIError) -> String? {
        guard let token = head.header("s2-request-token") else { return nil }
        if let problem = Names.problem(requestToken: token) {
            throw APIError(.badHeader, "s2-request-token: \(problem)")
        }
        return token
    }

    // MARK: Query

    func list(_ problem: (String) -> String?) throws(APIError) -> ListQuery {
        let query = Query(head.query)
        let prefix = try query.text("prefix") ?? ""
        let startAfter = try query.text("start_after") ?? ""
        for (name, value) in [("prefix", prefix), ("start_after", startAfter)] {
            if let problem = problem(value) { throw APIError(.badQuery, "\(name): \(problem)") }
        }
        let limit = try query.number("limit", as: UInt64.self) ?? 0
        let range = 1...UInt64(Limits.listPageMax)
        return ListQuery(
            prefix: prefix, startAfter: startAfter,
            limit: range.contains(limit) ? Int(limit) : Limits.listPageMax)
    }

    // MARK: Body

    func json() throws(APIError) -> JSONValue {
        let bytes = try body.get()
        guard head.hasJSONContent else {
            throw APIError(.badJSON, "the content type must be application/json")
        }
        return try Self.parse(bytes)
    }

    /// Nil for no body, an empty one, and `null`.
    func jsonIfAny() throws(APIError) -> JSONValue? {
        if try body.get().isEmpty { return nil }
        let value = try json()
        return value.isNull ? nil : value
    }

    static func parse(_ bytes: Bytes) throws(APIError) -> JSONValue {
        do throws(JSONError) {
            return try JSON.parse(bytes)
        } catch {
            throw APIError(.badJSON, "the body is not valid JSON: \(error)")
        }
    }
}

struct ListQuery: Equatable {
    var prefix: String
    var startAfter: String
    /// 1 to 1,000.
    var limit: Int
}

extension HTTPRequest {
    /// The basin that a stream's route works on.
    func basin() throws(APIError) -> String {
        guard let name = header("s2-basin") else {
            throw APIError(.badHeader, "the header s2-basin is required")
        }
        if let problem = Names.problem(basin: name) {
            throw APIError(.badHeader, "s2-basin: \(problem)")
        }
        return name
    }
}

extension Resource {
    /// A name out of the path: `raw` decoded, and judged by `problem`.
    static func name(
        _ raw: String, _ problem: (String) -> String?
    ) throws(APIError) -> String {
        let name: String
        do throws(InvalidPercentEncoding) {
            name = try URI.decode(segment: raw)
        } catch {
            throw APIError(.badPath, "the path is not UTF-8")
        }
        if let problem = problem(name) { throw APIError(.badPath, problem) }
        return name
    }

    static func basinName(_ raw: String) throws(APIError) -> String {
        try name(raw, Names.problem(basin:))
    }

    static func streamName(_ raw: String) throws(APIError) -> String {
        try name(raw, Names.problem(stream:))
    }
}

extension Query {
    /// The value of `name` as text.
    package func text(_ name: String) throws(APIError) -> String? {
        do throws(InvalidPercentEncoding) {
            return try value(name)
        } catch {
            throw APIError(.badQuery, "\(name) is not UTF-8")
        }
    }

    /// The value of `name` as a decimal number.
    package func number<Number: FixedWidthInteger>(
        _ name: String, as type: Number.Type
    ) throws(APIError) -> Number? {
        guard let text = try text(name) else { return nil }
        guard let number = Number(text) else {
            throw APIError(.badQuery, "\(name) must be an integer of 0 to \(Number.max)")
        }
        return number
    }
}

/// Runs an operation on the metadata, and tells the client what became of it.
func metadata<Value>(
    _ subject: APIError.Subject, _ operation: () async throws(MetadataError) -> Value
) async throws(APIError) -> Value {
    do throws(MetadataError) {
        return try await operation()
    } catch {
        throw APIError(error, about: subject)
    }
}
