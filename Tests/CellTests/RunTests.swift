// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Testing

/// `make run` as a user meets it: what it prints is pasted, Ctrl-C is pressed, and it is run again.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct RunTests {
    @Test func onAFolder() throws {
        try withPlace { place in
            let make = [
                "make", "-C", Place.root.path, "run", "DATA=\(place.data)", "STORE=",
            ]
            // While Postgres' files are made for the first time.
            let hasty = try place.run(make)
            try waitUntil("files are made") {
                hasty.isRunning && FileManager.default.fileExists(atPath: "\(place.data)/postgres")
            }
            try place.interrupt(hasty)

            for round in 1...2 {
                let cell = try place.run(make)
                try place.useOnce(cell, records: round)
                try place.expectAllRoles()
                #expect(place.hasSockets)
                // Nobody gets in between.
                let second = try place.run(["deploy/run.sh"], ["DATA": place.data])
                try second.end(within: 60)
                #expect(second.exitCode == 1)
                #expect(second.text.contains("a cell is running"), "\(second.text)")
                try place.interrupt(cell)
                // Ctrl-C ends make itself, once what it ran is over.
                #expect(cell.wasKilled && cell.exitCode == SIGINT, "\(cell.exitCode)")
            }
            #expect(FileManager.default.fileExists(atPath: "\(place.data)/objects/wal"))
        }
    }

    @Test func onS3() throws {
        try withPlace { place in
            let (url, credentials) = try Cell.bucket(prefix: place.name)
            let variables = ["DATA": place.data, "STORE": url, "MILLRACE_RPC_SOCKETS": ""]
                .merging(credentials) { $1 }
            for round in 1...2 {
                let cell = try place.run(["deploy/run.sh"], variables)
                try place.useOnce(cell, records: round)
                try place.expectAllRoles()
                #expect(!place.hasSockets)
                try place.interrupt(cell)
                #expect(!cell.wasKilled && cell.exitCode == 0, "\(cell.exitCode)")
            }
            #expect(!FileManager.default.fileExists(atPath: "\(place.data)/objects"))
        }
    }

    private func withPlace(_ body: (Place) throws -> Void) throws {
        let place = try Place()
        defer { place.remove() }
        try body(place)
    }
}

/// Where one cell of `make run` keeps its things, and its ports.
private struct Place {
    let name = "millrace-run-\(UInt32.random(in: 0...(.max)))"
    let folder: URL
    private let ports: Ports

    init() throws {
        folder = FileManager.default.temporaryDirectory.appending(path: name)
        ports = try Ports.free()
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    var data: String { folder.appending(path: "data").path }

    static let root = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    /// Starts a command in the root of the sources, with the programs that are already built.
    func run(_ words: [String], _ variables: [String: String] = [:]) throws -> Program {
        var environment = Cell.plainEnvironment
        for name in ["DATA", "STORE"] { environment[name] = nil }
        environment.merge(ports.variables) { $1 }
        environment["PROGRAMS"] =
            URL(filePath: try Cell.product("cop"))
            .deletingLastPathComponent().path
        environment.merge(variables) { $1 }
        return try Program(
            "/usr/bin/env", ["-C", Self.root.path] + words, environment, log: nil)
    }

    /// Waits for the cell and pastes its example, which finds that many records then.
    func useOnce(_ cell: Program, records: Int) throws {
        try cell.waitFor("Ctrl-C stops the cell.")
        let said = cell.text
        for line in ["S2_ACCESS_TOKEN=\"", "S2_ACCOUNT_ENDPOINT=\"http://127.0.0.1:"] {
            #expect(said.contains(line), "\(said)")
        }
        let found = try paste(said)
        let ack = "AppendAck(start=StreamPosition(seq_num=\(records - 1),"
        #expect(found.hasPrefix(ack), "\(found)")
        #expect(found.ranges(of: "body=b'hello, stream'").count == records, "\(found)")
    }

    /// Runs the printed example in a shell, with the SDK that the tests have in place of the one
    /// that it would install.
    private func paste(_ said: String) throws -> String {
        let behind = try #require(said.range(of: "Try it:\n\n")).upperBound
        let end = try #require(said.range(of: "\n\nEverything is kept in")).lowerBound
        let example = String(said[behind..<end])
        let python = try Cell.variable("MILLRACE_TEST_PYTHON")
        let version = try Program.run(
            python, ["-c", "import importlib.metadata as m; print(m.version('s2-sdk'), end='')"],
            [:])
        let installs =
            "python3 -m venv /tmp/s2 && /tmp/s2/bin/pip -q install s2-sdk==\(version) && "
        #expect(example.hasPrefix(installs), "\(example)")
        let pasted = example.replacing(installs, with: "")
            .replacing("/tmp/s2/bin/python ", with: "'\(python)' ")
        let shell = try Program("/usr/bin/env", ["bash"], Cell.plainEnvironment, log: nil)
        try shell.tell(pasted + "\nexit")
        return try shell.finish(within: 60)
    }

    /// Waits until each process that a cell consists of is ready, and finds that it is what it
    /// should be: its metrics have its name.
    func expectAllRoles() throws {
        let places = [
            (0, "cop"), (1, "channel"), (2, "channel"), (101, "frontend"), (201, "cachey"),
            (251, "bgtask"),
        ]
        for (place, role) in places {
            let origin = "http://127.0.0.1:\(ports.admin + place)"
            try waitUntil("\(role) at \(origin) is ready") {
                try Program.succeeds("curl", ["-fsS", "-m", "5", origin + "/health"])
            }
            let page = try Program.run("curl", ["-fsS", "-m", "5", origin + "/metrics"], [:])
            let names = page.split(separator: "\n").filter { !$0.hasPrefix("#") }
            #expect(!names.isEmpty && names.allSatisfy { $0.hasPrefix("millrace_\(role)_") })
        }
    }

    /// Whether RPC is on sockets that are closed to other users, and else on ports.
    var hasSockets: Bool {
        var found = stat()
        let isThere = lstat("\(data)/rpc/channel-1", &found) == 0
        #expect(Ports.isFree(ports.rpc + 1) == isThere)
        return isThere && found.st_mode == S_IFSOCK | 0o600
    }

    /// Ctrl-C in a terminal goes to the whole group; afterwards nothing is left.
    func interrupt(_ program: Program) throws {
        #expect(getpgid(program.id) == program.id)
        kill(-program.id, SIGINT)
        try waitUntil("it has ended") { !program.isRunning }
        var left: [RunningProcess] = []
        defer { #expect(left.isEmpty, "\(left.map(\.words))\n\(program.text)") }
        // Postgres says that it has ended a moment before it has.
        try waitUntil("nothing is left") {
            left = RunningProcess.all(mentioning: folder.path)
            return left.isEmpty
        }
    }

    /// Ends what is left of it.
    func remove() {
        for process in RunningProcess.all(mentioning: folder.path) { kill(process.id, SIGKILL) }
        try? FileManager.default.removeItem(at: folder)
    }
}
