// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Testing

/// The outages of whole hosts and of Postgres, under load: nothing that was acknowledged is lost,
/// out of order, or there twice.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct CellOutageTests {
    /// A killed cop's processes drain by themselves, and a standby takes its duties over.
    @Test func cop() throws {
        try withCell(.folder, { _ in ["MILLRACE_FRONTENDS": "1"] }) { cell in
            let standby = try Cell(besides: cell)
            defer { try? standby.remove() }
            try standby.startCop()
            let load = try cell.script("load.py", ["3000", cell.endpoint(1), standby.endpoint(1)])
            try load.waitForLoad()
            #expect(cell.processes().map(\.name).count { $0 == "cop" } == 2)
            // It stands by: all else is the first one's.
            let children = cell.processes().filter { $0.name != "cop" }.map(\.id)
            #expect(children.count == 5)

            try cell.killCop()
            try waitUntil("its processes have ended") {
                !cell.processes().contains { children.contains($0.id) }
            }
            let farewells = cell.logText.split(separator: "\n").filter {
                $0.contains("the supervisor is gone")
            }
            #expect(farewells.count == children.count, "\(farewells)")
            #expect(!cell.logText.contains("drain_timed_out"))

            try standby.waitUntilReady()
            // The dead are its business now, too.
            try load.waitForMore()
            let victim = try standby.owner(of: "load-0")
            try standby.kill(port: victim.port)
            try waitUntil("the dead channel is retired") {
                try !standby.ask("list-channels").contains("\"channel\":\(victim.channel),")
            }
            try load.tell("broken")
            try load.finish(within: 170)
            try standby.stop()
        }
    }

    @Test(arguments: [Cell.Store.folder, .s3])
    func everythingAtOnce(_ store: Cell.Store) throws {
        try withCell(store) { cell in
            let load = try cell.script("load.py", ["3000", cell.endpoint(1), cell.endpoint(2)])
            try load.waitForLoad()
            #expect(cell.processes().count == 7)
            try cell.killEverything()
            // And again, while what the first time left behind is being recovered.
            try cell.start()
            try cell.killEverything()
            try cell.start()
            try waitUntil("four channels are retired") {
                try cell.ask("list-channels").split(separator: "\n").count == 2
            }
            try load.tell("broken")
            try load.finish(within: 170)
        }
    }

    /// Postgres stands still, and later ends without a farewell: those who have a stream open do
    /// not notice, whatever else is wanted waits.
    @Test func postgres() throws {
        let postgres = try PrivatePostgres()
        defer { postgres.remove() }
        let server = try postgres.start()
        try withCell(.folder, { _ in ["MILLRACE_FRONTENDS": "1"] }, server: server) { cell in
            let load = try cell.script("load.py", ["3000"])
            try load.waitForLoad()
            let channels = try (0..<4).map { try cell.owner(of: "load-\($0)").channel }

            let paused = try postgres.pause()
            // Longer than leases last.
            try goesOn(load, seconds: 5)
            postgres.resume(paused)

            try postgres.crash()
            let created = try create(cell)
            try goesOn(load, seconds: 3)
            #expect(created.isRunning, "\(created.text)")
            _ = try postgres.start()
            try created.finish(within: 60)
            // Nobody was taken for dead meanwhile.
            try goesOn(load, seconds: 2)
            #expect(try (0..<4).map { try cell.owner(of: "load-\($0)").channel } == channels)
            try load.tell("broken")
            let said = try load.finish(within: 170)
            #expect(said.contains("failures 0\n"), "\(said)")
        }
    }

    /// Every stream is acknowledged more records, and a second later more again. What waits for
    /// Postgres would wait for as long as this does.
    private func goesOn(_ load: Program, seconds: Int) throws {
        for _ in 0..<seconds {
            usleep(1_000_000)
            try load.waitForMore()
        }
    }

    /// A client that makes a stream, with some patience.
    private func create(_ cell: Cell) throws -> Program {
        try Program(
            "/usr/bin/env",
            [
                "curl", "-sS", "--fail-with-body", "--retry", "60", "--retry-delay", "1",
                "--retry-all-errors", "-H", "authorization: Bearer \(cell.token())",
                "-H", "s2-basin: cell-test-basin", "-H", "content-type: application/json",
                "-d", #"{"stream":"made-meanwhile"}"#, "\(cell.endpoint(1))/v1/streams",
            ], ProcessInfo.processInfo.environment, log: nil)
    }
}

extension Program {
    /// Waits until all four streams of `load.py` are busy.
    fileprivate func waitForLoad() throws {
        for number in 0..<4 { try waitFor("LOADED load-\(number)") }
    }

    /// The acknowledged records of each of the streams.
    fileprivate func counts() throws -> [Int] {
        let due = text.ranges(of: "COUNTED").count + 1
        try tell("count")
        try waitUntil("it counts") {
            guard isRunning else { throw CellError(text) }
            return text.hasSuffix("\n") && text.ranges(of: "COUNTED").count == due
        }
        let line = text.split(separator: "\n").last { $0.hasPrefix("COUNTED") } ?? ""
        return line.split(separator: " ").dropFirst().compactMap { Int($0) }
    }

    /// Waits until each stream has more records than now.
    fileprivate func waitForMore() throws {
        let before = try counts()
        try waitUntil("all streams go on") { zip(before, try counts()).allSatisfy { $0 < $1 } }
    }
}

/// A Postgres as `make run` starts it, which the test may break.
private struct PrivatePostgres {
    private let folder: URL

    init() throws {
        let name = "millrace-postgres-\(UInt32.random(in: 0...(.max)))"
        folder = FileManager.default.temporaryDirectory.appending(path: name)
    }

    /// Returns its connection string.
    func start() throws -> String {
        let script = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../deploy/postgres.sh").standardized
        // Postgres stays, and must not inherit the descriptor by which the end of a program shows.
        let alone = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
        let said = try Program.run(
            Cell.variable("MILLRACE_TEST_PYTHON"),
            ["-c", alone, "bash", script.path, "start", folder.path], [:])
        return said.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Stops all of its processes where they are; returns them.
    func pause() throws -> [pid_t] {
        let main = try id()
        kill(main, SIGSTOP)
        let all = try [main] + children(of: main)
        for id in all { kill(id, SIGSTOP) }
        return all
    }

    func resume(_ processes: [pid_t]) {
        for id in processes { kill(id, SIGCONT) }
    }

    /// Ends it at once, in the midst of whatever it does.
    func crash() throws {
        let main = try id()
        kill(main, SIGQUIT)
        try waitUntil("Postgres has ended") {
            FileManager.default.contents(atPath: "/proc/\(main)/cmdline")?.isEmpty ?? true
        }
    }

    func remove() {
        if let main = try? id(), let children = try? children(of: main) {
            for id in [main] + children { kill(id, SIGKILL) }
        }
        try? FileManager.default.removeItem(at: folder)
    }

    private func id() throws -> pid_t {
        let text = try String(
            contentsOf: folder.appending(path: "data/postmaster.pid"), encoding: .utf8)
        guard let id = text.split(separator: "\n").first.flatMap({ pid_t($0) }) else {
            throw CellError("Postgres does not run")
        }
        return id
    }

    private func children(of parent: pid_t) throws -> [pid_t] {
        let text = try String(
            contentsOfFile: "/proc/\(parent)/task/\(parent)/children", encoding: .utf8)
        return text.split(separator: " ").compactMap { pid_t($0) }
    }
}
