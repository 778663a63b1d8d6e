// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// The whole life of streams, with every wait as short as it may be: they are appended to, flushed,
/// merged, trimmed, expired, emptied and deleted, while a channel and a worker are killed. Then all
/// objects and rows are counted, by a program that asks nothing of the cell.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct LifecycleTests {
    private static func settings(_ store: Cell.Store) -> [String: String] {
        [
            "BGTASKS": "2", "PLAN_WAIT": "3s", "CONDEMNED_WAIT": "0",
            "STORE_TIMEOUT": store == .folder ? "500ms" : "1500ms",
            "ORPHAN_WAIT": store == .folder ? "5s" : "15s", "TASK_INTERVAL": "1s",
            "SWEEP_INTERVAL": "2s", "TASK_LEASE": "3s", "FLUSH_AGE": "300ms", "DORMANCY": "1s",
            "UNSURE_LIMIT": "15s", "SEAL_WAIT": "1s",
        ]
    }
    private static let (rounds, kill) = (10, 4)

    /// What the audit found, summed up in its last line.
    private struct Audit: Decodable {
        var objects, segment_objects, last_words, silent_streams, untold_streams: Int
        var seals, missing, leaked, streams, segments, refused_names, garbage: Int
        var streamlets, channels, logs, cacheys, leases: Int
    }

    @Test(arguments: [Cell.Store.folder, .s3])
    func nothingIsLeakedAndNothingIsMissing(_ store: Cell.Store) throws {
        let cell = try Cell(store, settings: Self.settings(store))
        do {
            try cell.start()
            try live(cell)
            try settle(cell)
            try stop(cell)
        } catch {
            let log = cell.logTail
            try cell.remove()
            throw CellError("\(error)\n--- the cell's log ---\n\(log)")
        }
        try cell.remove()
    }

    /// The streams' lives, and that of a reader through all of them.
    private func live(_ cell: Cell) throws {
        let work = try cell.script(
            "lifecycle.py",
            ["\(Self.rounds)", "\(Self.kill)", cell.endpoint(1), cell.endpoint(2)])
        try work.waitFor("ROUND \(Self.kill)")
        try askAboutTasks(cell)
        try cell.runScript("audit.py", "plant")
        let victim = try cell.owner(of: "kept-0", basin: "life-basin")
        try cell.kill(port: victim.port)
        try cell.kill(port: cell.ports.admin + 251)
        try work.tell("broken")
        try work.waitFor("WORKED")
        // What was merged, trimmed and deleted is gone; the readers are still there.
        try settleDown(cell, "the segments are merged and collected") {
            $0.seals == 1 && $0.streams == 10 && $0.segments < 30 && $0.garbage == 0
        }
        try work.tell("verify")
        let said = try work.finish(within: 60)
        #expect(said.contains("verified 10 streams"), "\(said)")
        #expect(said.contains("the old reader got"), "\(said)")
    }

    /// What must be left, to the object.
    private func settle(_ cell: Cell) throws {
        // Those that were followed till now have yet to be closed.
        try waitUntil("no stream is open") { try cell.ask("list-streamlets") == "" }
        // A channel that closes a single stream has forgotten all that it closed before.
        for name in ["kept-1", "again", "kept-1"] {
            try wake(name, cell)
            try waitUntil("\(name) is closed") { try cell.ask("list-streamlets") == "" }
            #expect(try cell.runScript("audit.py", "closed", name) == "1\n")
        }
        try waitUntil("each worker has its share") {
            let holders = try cell.say("list-tasks").split(separator: "\n").dropFirst().map {
                $0.split(separator: " ")[2]
            }
            return Dictionary(grouping: holders) { $0 }.values.map(\.count).sorted() == [16, 17]
        }
        let (found, text) = try settleDown(cell, "nothing is left over") {
            $0.leaked == 0 && $0.untold_streams == 0
        }
        #expect(found.missing == 0 && found.leaked == 0, "\(text)")
        #expect(found.streams == 10, "\(text)")
        // The killed channel's.
        #expect(found.seals == 1, "\(text)")
        // The stream that was trimmed to its end, and the one whose records all expired.
        #expect(found.silent_streams == 2 && found.untold_streams == 0, "\(text)")
        #expect(found.objects == found.segment_objects + found.last_words + found.seals, "\(text)")
        // Of ten rounds each: merged.
        #expect(found.segments < 3 * 10, "\(text)")
        // The planted one's at least, should its flush still come.
        #expect(found.refused_names >= 1, "\(text)")
        expectRows(found, text)
        for kind in ["wal-gc", "segment-gc", "trim", "orphan-sweep", "stream-deletion"] {
            let said = try cell.say("run-task", kind, "--dry-run")
            #expect(said == "= nothing to do\n", "\(kind): \(said)")
        }
    }

    private func wake(_ stream: String, _ cell: Cell) throws {
        try Program.run(
            "curl",
            [
                "-fsS", "--retry", "9", "--retry-all-errors", "-H", "s2-basin: life-basin",
                "-H", "authorization: Bearer \(cell.token())",
                "-H", "content-type: application/json",
                "-d", #"{"records":[{"body":"awake"}]}"#,
                "\(cell.endpoint(1))/v1/streams/\(stream)/records",
            ], [:])
    }

    /// Rows that come with each restart, each wake of a stream: none but for what is there now.
    private func expectRows(_ found: Audit, _ text: String) {
        // Two that live, and the killed one until its seal goes; of each, what is left of its log.
        #expect(found.channels == 3 && found.logs == 3, "\(text)")
        // None is open. Of each channel that lives, those that its last flush closed: of a stream
        // one at most.
        #expect(found.streamlets <= 2 * found.streams, "\(text)")
        #expect(found.cacheys == 1, "\(text)")
        // One for each part of each task, cop's, and a seat for each worker: the one that was
        // killed may have left a third.
        #expect((36...37).contains(found.leases), "\(text)")
    }

    /// A cell that is stopped in order leaves logs of which nothing is needed any more.
    private func stop(_ cell: Cell) throws {
        try cell.stop()
        let (found, text) = try audit(cell, "--stopped")
        #expect(found.missing == 0 && found.leaked == 0, "\(text)")
    }

    /// What the commands say of background work.
    private func askAboutTasks(_ cell: Cell) throws {
        let kinds = [
            "basin-deletion", "compaction", "delete-on-empty", "orphan-sweep", "retention",
            "segment-gc", "stream-deletion", "trim", "wal-gc",
        ]
        var lines: [[Substring]] = []
        // Workers take them one by one.
        try waitUntil("each part of each task is held") {
            lines = try cell.say("list-tasks").split(separator: "\n").map {
                $0.split(separator: " ")
            }
            return lines.count == 1 + 33
        }
        #expect(lines.first == ["task", "part", "holder", "renewals"])
        let parts = lines.dropFirst()
        #expect(parts.allSatisfy { $0.count == 4 && Int($0[3]) != nil }, "\(parts)")
        #expect(Set(parts.map { String($0[0]) }) == Set(kinds))
        let one = try cell.ask("list-tasks", "trim")
        #expect(one.split(separator: "\n").count == 4)
        #expect(one.contains(#"{"task":"trim","part":"0-of-4","holder":""#), "\(one)")

        // A dry run changes nothing, so that two say the same.
        let dry = try cell.ask("run-task", "orphan-sweep", "--dry-run")
        #expect(dry == #"{"dry_run":true}"# + "\n", "\(dry)")
        let done = try cell.ask("run-task", "wal-gc")
        #expect(done.hasPrefix(#"{"dry_run":false"#), "\(done)")
        #expect(throws: CellError.self) { try cell.ask("run-task", "no-such-task") }
    }

    /// Audits until nothing but what `isDone` asks for is left; nothing may ever be missing.
    @discardableResult
    private func settleDown(
        _ cell: Cell, _ what: String, _ isDone: (Audit) -> Bool
    ) throws -> (Audit, String) {
        var last = ""
        do {
            try waitUntil(what) {
                let (found, text) = try audit(cell)
                last = text
                guard found.missing == 0 else { throw CellError("something is missing") }
                return isDone(found)
            }
        } catch {
            throw CellError("\(error)\n\(last)")
        }
        return try audit(cell)
    }

    private func audit(_ cell: Cell, _ options: String...) throws -> (Audit, String) {
        let text = try cell.script("audit.py", ["count"] + options).finish(within: 60)
        let last = text.split(separator: "\n").last ?? ""
        return (try JSONDecoder().decode(Audit.self, from: Data(last.utf8)), text)
    }
}
