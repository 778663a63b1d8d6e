// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Testing

/// The programs as operators meet them: what they print and where, and how they end.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct CommandTests {
    private struct Said {
        let code: Int32
        /// On stdout, and on stderr.
        let found, status: String
    }

    private func run(
        _ cell: Cell, _ words: String..., variables: [String: String] = [:]
    ) throws -> Said {
        let status = cell.folder.appending(path: "status")
        let program = try cell.program(
            "/bin/sh",
            ["-c", #"exec 2>"$1"; shift; exec "$@""#, "sh", status.path, Cell.product(words[0])]
                + words.dropFirst(), variables)
        try program.end(within: 30)
        return Said(
            code: program.exitCode, found: program.text,
            status: try String(contentsOf: status, encoding: .utf8))
    }

    /// Every command that looks at a cell, of one whose cacheys keep pages on disk.
    @Test func aCellIsAskedAboutItself() throws {
        try withCell(
            .folder,
            { ["MILLRACE_CACHEYS": "2", "MILLRACE_DISK_PATH": "\($0.folder.path)/pages"] }
        ) { cell in
            try cell.runScript("follow.py", "asked", "200")
            try askForRows(cell)
            try askForVerdicts(cell)
            try bothCacheysRun(cell)
        }
    }

    private func askForRows(_ cell: Cell) throws {
        // Workers take their parts one by one.
        try waitUntil("the parts of a task are held") {
            try cell.ask("list-tasks", "trim").split(separator: "\n").count == 4
        }
        let status = try run(cell, "cop", "status")
        #expect(status.code == 0 && status.status == "")
        let lines = status.found.split(separator: "\n", omittingEmptySubsequences: false).map {
            $0.split(separator: " ").map(String.init)
        }
        #expect(lines.first?.prefix(2) == ["state", "channels"])
        #expect(lines.contains { $0.prefix(2) == ["active", "2"] })
        #expect(lines.contains(["lease", "holder", "parts"]))
        #expect(lines.contains { $0.first == "cop" && $0.last == "1" && $0.count == 3 })
        #expect(lines.contains { $0.first == "bgtask" })
        let json = try cell.ask("status")
        #expect(json.contains(#"{"state":"active","channels":2,"#) && json.contains(#""cop""#))

        let streamlets = try run(cell, "cop", "list-streamlets", "s2://cell-test-basin/asked")
        #expect(streamlets.found.hasPrefix("stream ") && streamlets.found.contains(" open "))
        let tasks = try run(cell, "cop", "list-tasks", "trim")
        #expect(tasks.found.hasPrefix("task  part    holder"), "\(tasks.found)")
        #expect(tasks.found.split(separator: "\n").count == 5)
        let dry = try run(cell, "cop", "run-task", "trim", "--dry-run")
        #expect(dry.code == 0 && dry.found == "" && dry.status == "= nothing to do\n")
        let done = try run(cell, "cop", "run-task", "trim")
        #expect(done.code == 0 && done.found == "" && done.status == "✓ nothing to do\n")
    }

    private func askForVerdicts(_ cell: Cell) throws {
        let doctor = try run(cell, "cop", "doctor")
        #expect(doctor.code == 0 && doctor.status.hasPrefix("✓ "), "\(doctor)")
        #expect(doctor.found.contains("bucket    main      ok"), "\(doctor.found)")
        let migration = try run(cell, "cop", "migrate-schema")
        #expect(migration.code == 0 && migration.found == "")
        #expect(migration.status == "✓ up to date\n")

        let objects = cell.folder.appending(path: "objects").path
        let paths = try FileManager.default.subpathsOfDirectory(atPath: objects)
        let chunk = try #require(paths.first { $0.hasPrefix("wal/") && $0.hasSuffix("@") })
        let inspection = try run(cell, "cop", "inspect", String(chunk.dropLast()))
        #expect(inspection.code == 0 && inspection.found.hasPrefix("object "), "\(inspection)")
        #expect(inspection.found.contains("\nchunk "), "\(inspection)")

        for (words, code) in [
            (["inspect", "wal/none"], Int32(1)), (["locate", "s2://cell-test-basin/none"], 1),
            (["run-task", "none"], 2), (["nonsense"], 2), (["status", "--nonsense"], 2),
            (["serve", "--cachey-port", "\(cell.ports.frontends)"], 2),
        ] {
            let program = try cell.program("cop", words)
            try program.end(within: 30)
            #expect(program.exitCode == code, "\(words): \(program.text)")
            #expect(!program.text.contains("✓"), "\(words): \(program.text)")
        }
        // A terminal gets colours, if it wants them.
        func onTerminal(_ variables: [String: String]) throws -> String {
            let command = "\(try Cell.product("cop")) migrate-schema"
            let shown = try cell.program(
                "/usr/bin/env", ["script", "-qec", command, "/dev/null"], variables)
            return try shown.finish(within: 30)
        }
        #expect(try onTerminal(["NO_COLOR": ""]).contains("\u{1B}[32m✓\u{1B}[0m up to date"))
        #expect(try onTerminal(["NO_COLOR": "1"]).hasPrefix("✓ up to date"))
    }

    private func bothCacheysRun(_ cell: Cell) throws {
        for number in 1...2 {
            let page = "http://127.0.0.1:\(cell.ports.admin + 200 + number)/health"
            try waitUntil("cachey \(number) is ready") {
                try Program.succeeds("curl", ["-fsS", "-m", "2", page])
            }
        }
        for folder in ["pages", "pages/cachey-2"] {
            let lock = cell.folder.appending(path: "\(folder)/lock").path
            #expect(FileManager.default.fileExists(atPath: lock), "\(folder)")
        }
    }

    /// A disk that hangs, as a file that nobody ever writes to.
    @Test func aFolderThatHangsIsGivenUpInTime() throws {
        let cell = try Cell(.folder)
        defer { #expect(throws: Never.self) { try cell.remove() } }
        let objects = cell.folder.appending(path: "objects").path
        try FileManager.default.createDirectory(
            atPath: objects, withIntermediateDirectories: true)
        #expect(mkfifo(objects + "/stuck@", 0o600) == 0)
        let start = ContinuousClock.now
        let stuck = try run(cell, "cop", "inspect", "stuck", "--store-timeout", "600ms")
        #expect(stuck.code == 1 && stuck.found == "", "\(stuck)")
        #expect(ContinuousClock.now - start < .seconds(20), "\(stuck)")

        // Interrupted by its user.
        try isAborted(cell.program("cop", ["inspect", "stuck", "--store-timeout", "10m"]))
    }

    /// A database that takes a connection and says nothing.
    @Test func aMigrationIsAborted() throws {
        let cell = try Cell(.folder)
        defer { #expect(throws: Never.self) { try cell.remove() } }
        let mute = try cell.program(
            "/usr/bin/env",
            [
                "python3", "-c",
                "import socket, time; s = socket.create_server(('127.0.0.1', 0));"
                    + "print(s.getsockname()[1], flush=True); time.sleep(600)",
            ])
        defer { mute.signal(SIGKILL) }
        try mute.waitFor("\n")
        let port = mute.text.trimmingCharacters(in: .newlines)
        try isAborted(
            cell.program(
                "cop", ["migrate-schema"],
                ["MILLRACE_METADATA": "host=127.0.0.1 port=\(port) dbname=none user=none"]))
    }

    private func isAborted(_ waiting: Program) throws {
        try waitUntil("it waits for signals") {
            let status = try String(
                contentsOfFile: "/proc/\(waiting.id)/status", encoding: .utf8)
            let blocked = status.split(separator: "\n").first { $0.hasPrefix("SigBlk:") }
            let mask = blocked.flatMap { UInt64($0.dropFirst(8), radix: 16) } ?? 0
            return mask & 1 << (SIGINT - 1) != 0
        }
        waiting.signal(SIGINT)
        try waiting.end(within: 20)
        #expect(waiting.exitCode == 130 && waiting.text == "■ [ABORTED]\n", "\(waiting.text)")
    }

    /// Whoever relies on put-if-absent finds out before, and says what is wrong.
    @Test(arguments: ["cop doctor", "cop serve", "channel", "frontend", "bgtask serve"])
    func aStoreThatIgnoresIfNoneMatchIsRefused(_ command: String) throws {
        let cell = try Cell(.s3)
        defer { #expect(throws: Never.self) { try cell.remove() } }
        let proxy = try StoreProxy(cell)
        try cell.program("cop", ["migrate-schema"]).finish(within: 60)
        // The store is as it should be, until it takes a second put.
        try cell.program("cop", ["doctor"], proxy.variables).finish(within: 30)
        try proxy.set(#"[{"method": "PUT", "action": "accept"}]"#)
        let words = command.split(separator: " ").map(String.init)
        let program = try cell.program(words[0], Array(words.dropFirst()), proxy.variables)
        try program.end(within: 30)
        #expect(program.exitCode == 1, "\(program.text)")
        #expect(program.text.contains("it ignores If-None-Match"), "\(program.text)")
    }

    /// It needs no right but to read.
    @Test func aCacheyWritesNothing() throws {
        let cell = try Cell(.s3)
        defer { #expect(throws: Never.self) { try cell.remove() } }
        let proxy = try StoreProxy(cell)
        try cell.program("cop", ["migrate-schema"]).finish(within: 60)
        try proxy.set(
            """
            [{"method": "PUT", "action": "status", "status": 403, "code": "AccessDenied"},
             {"method": "POST", "action": "status", "status": 403, "code": "AccessDenied"},
             {"method": "DELETE", "action": "status", "status": 403, "code": "AccessDenied"}]
            """)
        let base = cell.ports.cachey
        let cachey = try cell.program(
            "cachey",
            ["--listen", "127.0.0.1:\(base)", "--rpc-listen", "127.0.0.1:\(base + 1)"],
            proxy.variables)
        try waitUntil("the cachey is ready") {
            guard cachey.isRunning else { throw CellError("it ended: \(cachey.text)") }
            return try Program.succeeds(
                "curl", ["-fsS", "-m", "2", "http://127.0.0.1:\(cell.ports.admin)/health"])
        }
        cachey.signal(SIGTERM)
        try cachey.finish(within: 60)
        #expect(try proxy.faults() == 0)
    }
}

/// `fault_proxy.py` between a cell's programs and the tests' S3 server.
private final class StoreProxy {
    let variables: [String: String]
    private let origin: String
    private let process: Program

    init(_ cell: Cell) throws {
        let endpoint = try Cell.variable("MILLRACE_TEST_S3_ENDPOINT")
        let script = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Support/fault_proxy.py")
        let process = try cell.program(
            "/usr/bin/env", ["python3", script.path, String(endpoint.dropFirst("http://".count))])
        try process.waitFor("\n")
        origin = "http://127.0.0.1:" + process.text.trimmingCharacters(in: .newlines)
        self.process = process
        let bucket = try Cell.variable("MILLRACE_TEST_S3_BUCKET")
        let region = try Cell.variable("MILLRACE_TEST_S3_REGION")
        variables = [
            "MILLRACE_STORE": "s3://\(bucket)/doctored?endpoint=\(origin)&region=\(region)"
        ]
    }

    deinit { process.signal(SIGKILL) }

    /// Takes rules, in JSON.
    func set(_ rules: String) throws {
        try Program.run(
            "curl", ["-fsS", "-m", "10", "-X", "PUT", "-d", rules, "\(origin)/__faults"], [:])
    }

    /// How many requests met a rule.
    func faults() throws -> Int? {
        let answer = try Program.run("curl", ["-fsS", "-m", "10", "\(origin)/__faults"], [:])
        let object = try JSONSerialization.jsonObject(with: Data(answer.utf8))
        return (object as? [String: Int])?["faults"]
    }
}
