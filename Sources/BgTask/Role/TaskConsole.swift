// SPDX-License-Identifier: Apache-2.0

internal import Metadata

/// What a worker is asked to do on the command line.
package enum TaskCommand: Equatable, Sendable {
    case serve
    case list(TaskKind?)
    case run(TaskKind)

    /// Reads the words besides the options; throws a sentence for the operator.
    package init(parsing words: [String]) throws(TaskError) {
        switch (words.first, words.count) {
        case (nil, _), ("serve", 1): self = .serve
        case ("list-tasks", 1): self = .list(nil)
        case ("list-tasks", 2): self = .list(try Self.kind(words[1]))
        case ("run-task", 2): self = .run(try Self.kind(words[1]))
        default: throw TaskError("\"\(words.joined(separator: " "))\" is no command")
        }
    }

    private static func kind(_ name: String) throws(TaskError) -> TaskKind {
        if let kind = TaskKind(rawValue: name) { return kind }
        let names = TaskKind.allCases.map(\.rawValue).joined(separator: ", ")
        throw TaskError("there is no task \(name), but \(names)")
    }
}

extension BgTaskRole {
    /// A line for each part of each task: as text, or as JSON objects.
    package func list(_ kind: TaskKind?, asJSON: Bool) async throws(TaskError) -> String {
        let leases = try await leases()
        var lines: [String] = []
        for lease in leases {
            let parts = lease.name.dropFirst(TaskLease.prefix.count).split(separator: "/")
            guard parts.count == 2, kind == nil || parts[0] == kind?.rawValue ?? "" else {
                continue
            }
            let holder = lease.holder
            lines.append(
                asJSON
                    ? "{\"task\":\"\(parts[0])\",\"part\":\"\(parts[1])\","
                        + "\"holder\":\(holder.map { "\"\($0)\"" } ?? "null"),"
                        + "\"renewals\":\(lease.renewals)}"
                    : "\(parts[0]) \(parts[1]) \(holder ?? "-") \(lease.renewals)")
        }
        return lines.map { $0 + "\n" }.joined()
    }
}

extension Tally {
    /// What was done, item by item, and the sums.
    package func text(isDryRun: Bool) -> String {
        var text = ""
        for (action, subject) in items { text += "\(action.rawValue) \(plain(subject))\n" }
        let sums = Action.allCases.compactMap { action in
            counts[action].map { "\($0) \(action.rawValue)" }
        }
        let what = sums.isEmpty ? "nothing" : sums.joined(separator: ", ")
        return text + (isDryRun ? "would do: \(what)\n" : "done: \(what)\n")
    }

    /// One JSON object with the sums.
    package func json(isDryRun: Bool) -> String {
        let sums = Action.allCases.compactMap { action in
            counts[action].map { "\"\(action.rawValue)\":\($0)" }
        }
        return "{" + (["\"dry_run\":\(isDryRun)"] + sums).joined(separator: ",") + "}\n"
    }

    /// Names may hold anything: nothing of it may steer a terminal.
    private func plain(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 ? "?" : $0 }))
    }
}
