// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// `AppendInput` as JSON.
enum AppendJSON {
    /// Errors: `bad_json` for what is not of this shape, `invalid` for what breaks a rule.
    static func decode(_ body: Bytes, _ format: RecordFormat) throws(APIError) -> PreparedBatch {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSON.parse(body)
        } catch {
            throw APIError(.badJSON, "the body is not JSON: \(error)")
        }
        guard let input = value.object else { throw bad("the body", "an object") }
        guard let records = input["records"]?.array else { throw bad("records", "an array") }
        var conditions = AppendConditions()
        conditions.matchSeqNum = try number(input["match_seq_num"], "match_seq_num")
        conditions.fencingToken = try text(input["fencing_token"], "fencing_token")
        if let token = conditions.fencingToken, let problem = Names.problem(fencingToken: token) {
            throw APIError(.badJSON, "fencing_token: \(problem)")
        }
        var builder = PreparedBatchBuilder(capacity: body.count)
        // What cannot be read outranks what breaks a rule.
        var broken: APIError?
        for record in records {
            guard let record = record.object else { throw bad("a record", "an object") }
            let failure = try add(record, format, to: &builder, isBroken: broken != nil)
            broken = broken ?? failure
        }
        if let broken { throw broken }
        do throws(AppendInputError) {
            return try builder.finish(conditions)
        } catch {
            throw APIError(.invalid, error.description)
        }
    }

    /// The rule that the record breaks, if it does; nothing is added once one is broken.
    private static func add(
        _ record: JSONObject, _ format: RecordFormat, to builder: inout PreparedBatchBuilder,
        isBroken: Bool
    ) throws(APIError) -> APIError? {
        let timestamp = try number(record["timestamp"], "timestamp")
        let body = try text(record["body"], "body") ?? ""
        let pairs = try headers(record["headers"])
        if isBroken { return nil }
        var headers: [RecordHeader] = []
        headers.reserveCapacity(pairs.count)
        guard let bodyBytes = bytes(body, format) else { return notBase64 }
        for (name, value) in pairs {
            guard let name = bytes(name, format), let value = bytes(value, format) else {
                return notBase64
            }
            headers.append(RecordHeader(name: name, value: value))
        }
        do throws(AppendInputError) {
            try builder.add(timestamp: timestamp, headers: headers, body: bodyBytes)
            return nil
        } catch {
            return APIError(.invalid, error.description)
        }
    }

    private static let notBase64 = APIError(.invalid, "a string is not padded base64")

    private static func bytes(_ text: String, _ format: RecordFormat) -> Bytes? {
        switch format {
        case .raw: Bytes(utf8: text)
        case .base64: Base64.decode(text)
        }
    }

    private static func headers(_ value: JSONValue?) throws(APIError) -> [(String, String)] {
        guard let value, !value.isNull else { return [] }
        guard let list = value.array else { throw bad("headers", "an array") }
        var headers: [(String, String)] = []
        headers.reserveCapacity(list.count)
        for pair in list {
            guard let pair = pair.array, pair.count == 2, let name = pair[0].string,
                let value = pair[1].string
            else { throw bad("a header", "an array of two strings") }
            headers.append((name, value))
        }
        return headers
    }

    private static func number(_ value: JSONValue?, _ name: String) throws(APIError) -> UInt64? {
        guard let value, !value.isNull else { return nil }
        guard let number = value.unsigned else { throw bad(name, "an integer of 0 or more") }
        return number
    }

    private static func text(_ value: JSONValue?, _ name: String) throws(APIError) -> String? {
        guard let value, !value.isNull else { return nil }
        guard let text = value.string else { throw bad(name, "a string") }
        return text
    }

    private static func bad(_ name: String, _ kind: String) -> APIError {
        APIError(.badJSON, "\(name) must be \(kind)")
    }
}
