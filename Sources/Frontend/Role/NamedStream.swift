// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Records

/// The stream that a request for records names.
struct NamedStream {
    let cell: Cell
    let basin: String
    let name: String
    let headers: RecordsHeaders
    let use: AutoCreation.Use
    /// Whether the request must bring the key of a stream that has a cipher.
    var needsKey = true

    /// The stream, created if its basin says so. Errors: those of `Cell.lookup`.
    func find() async throws(APIError) -> StreamLookup { try await find(fresh: false) }

    /// The stream as of now, for a request that has had no effect yet and met `error`. What was
    /// remembered may be of a stream that is gone, while its name goes on.
    func findAgain(after error: APIError) async throws(APIError) -> StreamLookup {
        guard error.code == .streamNotFound else { throw error }
        return try await find(fresh: true)
    }

    private func find(fresh: Bool) async throws(APIError) -> StreamLookup {
        let found = try await cell.lookup(
            basin: basin, name: name, fresh: fresh,
            creating: AutoCreation(use: use, wish: headers.wish))
        if needsKey { try headers.check(found.stream.cipher) }
        return found
    }
}
