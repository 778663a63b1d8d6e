// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import ObjectStorage
package import Primitives
internal import Records

/// What cop is asked to do on the command line.
package enum ConsoleCommand: Equatable {
    case serve
    case migrateSchema
    case status
    case listChannels
    /// All that are open, or those of a stream, from the one below `after` on.
    case listStreamlets(StreamPath?, after: StreamletNumber? = nil)
    case locate(StreamPath)
    case inspect(object: String)
    case doctor
    /// What bgtask answers, with the words to tell it.
    case tasks([String])

    /// Reads the words besides the options; `after` is the option of this name, or empty.
    package init(parsing words: [String], after: String = "") throws(CommandError) {
        guard let verb = words.first else { throw CommandError(.usage, "no command is given") }
        var rest = words.dropFirst()
        switch verb {
        case "serve": self = .serve
        case "migrate-schema": self = .migrateSchema
        case "status": self = .status
        case "list-channels": self = .listChannels
        case "list-streamlets":
            let path = try rest.popFirst().map { s throws(CommandError) in try StreamPath(s) }
            self = .listStreamlets(path, after: try Self.cursor(after, in: path))
        case "locate": self = .locate(try StreamPath(try Self.operand(&rest, "s2://BASIN/STREAM")))
        case "inspect": self = .inspect(object: try Self.operand(&rest, "OBJECT"))
        case "doctor": self = .doctor
        case "list-tasks":
            self = .tasks([verb] + rest.prefix(1))
            rest = rest.dropFirst()
        case "run-task": self = .tasks([verb, try Self.operand(&rest, "TASK")])
        default: throw CommandError(.usage, "unknown command \(verb)")
        }
        guard rest.isEmpty else {
            throw CommandError(.usage, "\(verb): \(rest.joined(separator: " ")) is too much")
        }
    }

    private static func cursor(
        _ text: String, in path: StreamPath?
    ) throws(CommandError) -> StreamletNumber? {
        if text.isEmpty { return nil }
        guard let number = StreamletNumber(text) else {
            throw CommandError(.usage, "--after: \"\(text)\" is no number of a streamlet")
        }
        if path == nil { throw CommandError(.usage, "--after needs s2://BASIN/STREAM") }
        return number
    }

    private static func operand(
        _ rest: inout ArraySlice<String>, _ form: String
    ) throws(CommandError) -> String {
        guard let word = rest.popFirst() else { throw CommandError(.usage, "\(form) is missing") }
        return word
    }
}

/// `s2://basin/stream`; the stream's name may hold slashes.
package struct StreamPath: Equatable, Sendable {
    package let basin: String
    package let stream: String

    package init(_ text: String) throws(CommandError) {
        let rest = text.dropFirst("s2://".count)
        guard text.hasPrefix("s2://"), let slash = rest.firstIndex(of: "/"),
            slash > rest.startIndex,
            rest.index(after: slash) < rest.endIndex
        else { throw CommandError(.usage, "\"\(text)\" is not of the form s2://BASIN/STREAM") }
        basin = String(rest[..<slash])
        stream = String(rest[rest.index(after: slash)...])
    }
}

package struct CommandError: Error, Equatable, CustomStringConvertible {
    package enum Kind: Int32, Sendable {
        case failure = 1
        case usage = 2
    }
    package let kind: Kind
    package let description: String

    /// What the process exits with.
    package var exitCode: Int32 { kind.rawValue }

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
