// SPDX-License-Identifier: Apache-2.0

internal import Metadata
package import Observability

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
    /// A row for each part of each task, or of one.
    package func list(_ kind: TaskKind?) async throws(TaskError) -> Report {
        var report = Report(["task", "part", "holder", "renewals"])
        for lease in try await leases() {
            let parts = lease.name.dropFirst(TaskLease.prefix.count).split(separator: "/")
            guard parts.count == 2, kind == nil || parts[0] == kind?.rawValue ?? "" else {
                continue
            }
            report.add([
                .text(String(parts[0])), .text(String(parts[1])), Report.Value(lease.holder),
                .number(lease.renewals),
            ])
        }
        return report
    }
}

extension Tally {
    /// What was done, or would be, a line for each item.
    package var text: String {
        items.map { "\($0.symbol) \($0.rawValue) \(plain($1))\n" }.joined()
    }

    /// The sums, in words, and whether items are missing in the list.
    package func summary(isDryRun: Bool) -> String {
        let sums = Action.allCases.compactMap { action in
            counts[action].map { "\($0) \(action.rawValue)" }
        }
        if sums.isEmpty { return isDryRun ? "= nothing to do" : "nothing to do" }
        let more = items.count == Self.itemsMax ? "; the first \(Self.itemsMax) are listed" : ""
        return (isDryRun ? "would do: " : "done: ") + sums.joined(separator: ", ") + more
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

extension Action {
    /// Made, changed, removed, or left as it was.
    fileprivate var symbol: String {
        switch self {
        case .keptState, .compactedSegment: "+"
        case .markedLog, .condemnedObject, .raisedTrimPoint, .pushedDeletion, .deletedStream: "~"
        case .deletedChunk, .deletedSeal, .deletedObject, .unlinkedSegment, .purgedStream,
            .purgedBasin, .unlinkedOrphan, .deletedProbe, .forgottenStreamlet, .forgottenChannel:
            "-"
        case .violation, .skipped, .failed: "="
        }
    }
}
