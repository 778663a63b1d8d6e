// SPDX-License-Identifier: Apache-2.0

package import HTTP
package import Metadata
package import ObjectStorage
package import Primitives
package import Records

/// What a client is told when its request fails: over unary HTTP, in the terminal frame of a
/// session, and in an SSE `error` event alike.
///
/// The code is a promise. Clients send again by it, and one that `guaranteesNoSideEffect` makes
/// them send an append again that must not have been applied. So such a code is never used once a
/// write may have been issued: use `indefinite` then.
package struct APIError: Error, Sendable, Equatable {
    /// The API's codes; each has exactly one HTTP status.
    package enum Code: String, Sendable, CaseIterable {
        case accessTokenNotFound = "access_token_not_found"
        case authn
        case badFrame = "bad_frame"
        case badHeader = "bad_header"
        case badJSON = "bad_json"
        case badPath = "bad_path"
        case badProto = "bad_proto"
        case badQuery = "bad_query"
        case basinDeletionPending = "basin_deletion_pending"
        case basinNotFound = "basin_not_found"
        case clientHangup = "client_hangup"
        case decryptionFailed = "decryption_failed"
        case hotServer = "hot_server"
        case invalid
        case notImplemented = "not_implemented"
        case other
        case permissionDenied = "permission_denied"
        case quotaExhausted = "quota_exhausted"
        case rateLimited = "rate_limited"
        case requestTimeout = "request_timeout"
        case resourceAlreadyExists = "resource_already_exists"
        case serverDraining = "server_draining"
        case storage
        case streamDeletionPending = "stream_deletion_pending"
        case streamNotFound = "stream_not_found"
        case transactionConflict = "transaction_conflict"
        case unavailable
        case upstreamTimeout = "upstream_timeout"
        // Of HTTP itself, beyond the API's table.
        case notFound = "not_found"
        case methodNotAllowed = "method_not_allowed"
        case bodyTooLarge = "body_too_large"
        case unsupportedCoding = "unsupported_coding"
    }

    package enum Kind: Sendable, Equatable {
        case code(Code)
        /// 412: `match_seq_num` is not the next sequence number, which is `next`.
        case seqNumMismatch(next: SeqNum)
        /// 412: the token in force is another one.
        case fencingTokenMismatch(current: String)
        /// 416: the start of a read lies at or beyond the tail, and the read cannot wait.
        case beyondTail(StreamPosition)
    }

    package let kind: Kind
    /// For people; never empty where there is a code.
    package let message: String

    package init(_ code: Code, _ message: String) {
        kind = .code(code)
        self.message = message
    }

    private init(kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    package static func seqNumMismatch(next: SeqNum) -> APIError {
        APIError(kind: .seqNumMismatch(next: next), "the next sequence number is \(next)")
    }

    package static func fencingTokenMismatch(current: String) -> APIError {
        APIError(kind: .fencingTokenMismatch(current: current), "another fencing token is in force")
    }

    package static func beyondTail(_ tail: StreamPosition) -> APIError {
        APIError(kind: .beyondTail(tail), "the start lies beyond the tail")
    }

    /// It may or may not have taken effect, or may yet.
    package static func indefinite(_ message: String) -> APIError {
        APIError(.unavailable, message)
    }

    package var code: Code? {
        if case .code(let code) = kind { code } else { nil }
    }

    /// The HTTP status.
    package var status: Int {
        switch kind {
        case .code(let code): code.status
        case .seqNumMismatch, .fencingTokenMismatch: 412
        case .beyondTail: 416
        }
    }

    package var isRetryable: Bool { code?.isRetryable ?? false }
    package var guaranteesNoSideEffect: Bool { code?.guaranteesNoSideEffect ?? true }

    /// The JSON body; never empty, and one piece.
    package var body: Bytes {
        var json = JSONWriter()
        json.beginObject()
        switch kind {
        case .code(let code):
            json.field("code", code.rawValue)
            json.field("message", message)
        case .seqNumMismatch(let next):
            json.field("seq_num_mismatch", next)
        case .fencingTokenMismatch(let current):
            json.field("fencing_token_mismatch", current)
        case .beyondTail(let tail):
            json.name("tail")
            json.write(tail)
        }
        json.endObject()
        return json.finish()
    }

    /// The last frame of a session that fails.
    package var terminalFrame: Bytes { SessionFrame.terminal(status: status, body: body) }
}

extension APIError.Code {
    package var status: Int {
        switch self {
        case .badFrame, .badHeader, .badJSON, .badPath, .badProto, .badQuery, .decryptionFailed: 400
        case .authn: 401
        case .permissionDenied, .quotaExhausted: 403
        case .accessTokenNotFound, .basinNotFound, .streamNotFound, .notFound: 404
        case .methodNotAllowed: 405
        case .requestTimeout: 408
        case .basinDeletionPending, .resourceAlreadyExists, .streamDeletionPending,
            .transactionConflict:
            409
        case .bodyTooLarge: 413
        case .unsupportedCoding: 415
        case .invalid: 422
        case .rateLimited: 429
        case .clientHangup: 499
        case .other, .storage: 500
        case .notImplemented: 501
        case .hotServer: 502
        case .serverDraining, .unavailable: 503
        case .upstreamTimeout: 504
        }
    }

    package var isRetryable: Bool {
        switch self {
        case .hotServer, .other, .rateLimited, .requestTimeout, .serverDraining, .storage,
            .transactionConflict, .unavailable, .upstreamTimeout:
            true
        default: false
        }
    }

    package var guaranteesNoSideEffect: Bool {
        switch self {
        case .clientHangup, .other, .requestTimeout, .storage, .unavailable, .upstreamTimeout: false
        default: true
        }
    }
}

extension APIError {
    /// What a metadata operation was about: whose deletion is pending, for one.
    package enum Subject: Sendable { case basin, stream }

    /// Never promises that nothing happened where the outcome is unknown.
    package init(_ error: MetadataError, about subject: Subject) {
        let what = "\(subject)"
        if error.outcomeUnknown {
            self = .indefinite("the outcome of the change to the \(what) is unknown")
            return
        }
        switch error.kind {
        case .alreadyExists: self.init(.resourceAlreadyExists, "the \(what) exists already")
        case .deletionPending:
            self.init(
                subject == .basin ? .basinDeletionPending : .streamDeletionPending,
                "the \(what) is being deleted")
        case .basinNotFound: self.init(.basinNotFound, "there is no such basin")
        case .basinDeletionPending:
            self.init(.basinDeletionPending, "the basin is being deleted")
        case .conflict:
            self.init(.invalid, "the request contradicts the existing \(what)")
        case .unavailable: self.init(.unavailable, "metadata is unavailable")
        case .failed: self.init(.storage, "metadata failed")
        }
    }

    /// Of a read: nothing was written.
    package init(_ error: StoreError) {
        if error.isRetryable {
            self.init(.unavailable, "the object store is unavailable")
        } else {
            self.init(.storage, "the object store failed")
        }
    }
}

extension JSONWriter {
    /// `{"seq_num": …, "timestamp": …}`
    package mutating func write(_ position: StreamPosition) {
        beginObject()
        field("seq_num", position.seqNum)
        field("timestamp", position.timestamp)
        endObject()
    }
}
