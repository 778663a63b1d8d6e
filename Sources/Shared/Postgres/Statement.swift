// SPDX-License-Identifier: Apache-2.0

/// A statement that every connection prepares once, under its name.
package struct Statement: Sendable {
    package let name: String
    package let sql: String

    package init(_ name: String, _ sql: String) {
        self.name = name
        self.sql = sql
    }
}

/// What a statement answered: text, or nil for NULL.
package struct Rows: Sendable, Equatable {
    package let columnCount: Int
    package let count: Int
    /// Row by row.
    private let values: [String?]

    package init(columnCount: Int, values: [String?]) {
        self.columnCount = columnCount
        self.values = values
        count = columnCount == 0 ? 0 : values.count / columnCount
    }

    package subscript(row: Int, column: Int) -> String? { values[row * columnCount + column] }
}

/// Why a statement has no answer.
package struct PostgresFailure: Error, Sendable, CustomStringConvertible {
    package enum Kind: Sendable {
        /// It certainly had no effect, and may go better at once: a deadlock, a lost connection
        /// before it was sent.
        case retriable
        /// No answer in time, or nobody to ask.
        case unavailable
        /// Postgres refused it for good.
        case failed
    }
    package let kind: Kind
    /// Whether the statement may have taken effect all the same, now or later: it was sent and its
    /// result was not seen.
    package let outcomeUnknown: Bool
    package let message: String

    init(_ kind: Kind, outcomeUnknown: Bool = false, _ message: String) {
        self.kind = kind
        self.outcomeUnknown = outcomeUnknown
        self.message = message
    }

    package var description: String { message }
}

/// What an SQLSTATE means for a single statement outside a transaction block: an ERROR has undone
/// it, a FATAL has ended the session at an unknown point.
struct SQLState {
    let code: String
    let endsSession: Bool

    /// Whether another connection may do better than this one: it prepared the statement against
    /// an older schema, lost it, or leads to a standby.
    var spoilsConnection: Bool {
        endsSession || ["0A000", "25006", "26000"].contains(code)
    }

    func failure(_ message: String, wasSent: Bool) -> PostgresFailure {
        let text = code.isEmpty ? message : "\(code): \(message)"
        if endsSession {
            return wasSent
                ? PostgresFailure(.unavailable, outcomeUnknown: true, text)
                : PostgresFailure(.retriable, text)
        }
        switch code {
        // Serialization failure, deadlock; and what spoils a connection.
        case "40001", "40P01", "0A000", "25006", "26000": return PostgresFailure(.retriable, text)
        // A statement timeout, a lock timeout, or resources run out.
        case "57014", "55P03": return PostgresFailure(.unavailable, text)
        default:
            let isTransient = code.hasPrefix("53") || code.hasPrefix("57P0")
            return PostgresFailure(isTransient ? .unavailable : .failed, text)
        }
    }
}
