// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Synchronization
import TestSupport

/// A whole cell of real processes on free loopback ports: cop, which starts two channels and two
/// frontends, with a database of its own on the tests' Postgres.
final class Cell {
    enum Store { case folder, s3 }

    let folder: URL
    let ports: Ports
    /// Bytes by which the scripts' records are longer.
    var bodyPadding = 0
    private let database: String
    private var environment: [String: String]
    private var cop: Program?

    /// Nothing runs yet. `settings` are environment variables, without their `MILLRACE_`.
    init(_ store: Store, settings: [String: String] = [:]) throws {
        let server = try Self.variable("MILLRACE_TEST_POSTGRES")
        RealService.postgres.note()
        RealService.cell.note()
        database = "cell_\(UInt64.random(in: 0...(.max)))"
        folder = FileManager.default.temporaryDirectory.appending(path: "millrace-\(database)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        ports = try Ports.free()
        environment = ProcessInfo.processInfo.environment.filter {
            !$0.key.hasPrefix("MILLRACE_") && !$0.key.hasPrefix("AWS_")
        }
        let words = server.split(separator: " ").filter { !$0.hasPrefix("dbname=") }
        environment["MILLRACE_METADATA"] = words.joined(separator: " ") + " dbname=\(database)"
        environment["MILLRACE_ROOT_TOKEN_FILE"] = folder.appending(path: "root-token").path
        environment["MILLRACE_LOG_LEVEL"] = "info"
        environment["MILLRACE_FRONTEND_PORT"] = "\(ports.frontends)"
        environment["MILLRACE_RPC_PORT"] = "\(ports.rpc)"
        environment["MILLRACE_ADMIN_PORT"] = "\(ports.admin)"
        environment["MILLRACE_ADMIN_LISTEN"] = "127.0.0.1:\(ports.admin)"
        environment["MILLRACE_CACHEY_PORT"] = "\(ports.cachey)"
        environment["MILLRACE_FRONTENDS"] = "2"
        environment["MILLRACE_CHANNELS"] = "2"
        for (name, value) in settings { environment["MILLRACE_" + name] = value }
        switch store {
        case .folder: environment["MILLRACE_STORE"] = folder.appending(path: "objects").path
        case .s3:
            RealService.s3.note()
            let bucket = try Self.variable("MILLRACE_TEST_S3_BUCKET")
            let endpoint = try Self.variable("MILLRACE_TEST_S3_ENDPOINT")
            let region = try Self.variable("MILLRACE_TEST_S3_REGION")
            environment["MILLRACE_STORE"] =
                "s3://\(bucket)/\(database)?endpoint=\(endpoint)&region=\(region)"
            environment["AWS_ACCESS_KEY_ID"] = try Self.variable("MILLRACE_TEST_S3_ACCESS_KEY")
            environment["AWS_SECRET_ACCESS_KEY"] = try Self.variable("MILLRACE_TEST_S3_SECRET_KEY")
        }
        try Program.run("psql", ["-qX", "-c", "CREATE DATABASE \(database)", server], [:])
    }

    /// Sets variables for the processes of the next start.
    func set(_ variables: [String: String]) { environment.merge(variables) { $1 } }

    /// Ends what runs and removes what it kept.
    func remove() throws {
        if let cop, cop.isRunning { try stop() }
        let server = try Self.variable("MILLRACE_TEST_POSTGRES")
        try Program.run(
            "psql", ["-qX", "-c", "DROP DATABASE \(database) WITH (FORCE)", server], [:])
        try FileManager.default.removeItem(at: folder)
    }

    // MARK: Processes

    /// Starts the cell and returns once its frontends are ready.
    func start() throws {
        let cop = try Program(
            Self.product("cop"), ["serve"], environment, log: folder.appending(path: "log"))
        self.cop = cop
        for number in 1...(Int(environment["MILLRACE_FRONTENDS"] ?? "") ?? 2) {
            try waitUntil("frontend \(number) is ready") {
                guard cop.isRunning else { throw CellError("cop ended:\n\(self.logTail)") }
                return try Program.succeeds(
                    "curl", ["-fsS", "-m", "2", self.endpoint(number) + "/health"])
            }
        }
    }

    /// Ends the cell as an operator would; every process must have drained by itself.
    func stop() throws {
        guard let cop else { return }
        cop.signal(SIGTERM)
        try waitUntil("cop ended") { !cop.isRunning }
        self.cop = nil
        guard cop.exitCode == 0 else {
            throw CellError("cop exited with \(cop.exitCode)\n\(logTail)")
        }
    }

    /// Kills what listens on the port, as the kernel would: no warning, no farewell.
    func kill(port: Int) throws {
        let id = try processID(port: port)
        Glibc.kill(id, SIGKILL)
    }

    /// The process that cop started to listen on the port.
    func processID(port: Int) throws -> pid_t {
        for entry in try FileManager.default.contentsOfDirectory(atPath: "/proc") {
            guard let id = pid_t(entry),
                let bytes = FileManager.default.contents(atPath: "/proc/\(id)/cmdline")
            else { continue }
            let words = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            let isOurs = words.first.map { word in
                ["/frontend", "/channel", "/cachey", "/bgtask"].contains { word.hasSuffix($0) }
            }
            let address = "127.0.0.1:\(port)"
            for (option, value) in zip(words, words.dropFirst())
            where isOurs == true && value == address
                && ["--listen", "--rpc-listen", "--admin-listen"].contains(option)
            {
                return id
            }
        }
        throw CellError("nothing listens on \(port)")
    }

    // MARK: What the cell says

    /// The origin of a frontend, counted from 1.
    func endpoint(_ number: Int) -> String { "http://127.0.0.1:\(ports.frontends + number - 1)" }

    func token() throws -> String {
        let file = folder.appending(path: "root-token")
        return try String(contentsOf: file, encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// A program of the cell's, by its name or at a path, with the cell's settings.
    func program(
        _ name: String, _ words: [String], _ variables: [String: String] = [:]
    ) throws -> Program {
        try Program(
            name.contains("/") ? name : Self.product(name), words,
            environment.merging(variables) { $1 }, log: nil)
    }

    /// The output of `cop` with a command, in words for people.
    func say(_ words: String...) throws -> String {
        try Program.run(Self.product("cop"), words, environment)
    }

    /// The output of `cop` with a command.
    func ask(_ words: String...) throws -> String {
        try Program.run(Self.product("cop"), words + ["--output", "json"], environment)
    }

    /// The channel that owns a stream, and its RPC port.
    func owner(
        of stream: String, basin: String = "cell-test-basin"
    ) throws -> (channel: Int, port: Int) {
        let answer = try ask("locate", "s2://\(basin)/\(stream)")
        let object = try JSONSerialization.jsonObject(with: Data(answer.utf8)) as? [String: Any]
        guard let channel = object?["channel"] as? Int, let address = object?["address"] as? String,
            let port = address.split(separator: ":").last.flatMap({ Int($0) })
        else { throw CellError("no owner: \(answer)") }
        return (channel, port)
    }

    var logTail: String {
        let file = folder.appending(path: "log")
        let text = FileManager.default.contents(atPath: file.path).map {
            String(decoding: $0, as: UTF8.self)
        }
        return (text ?? "").split(separator: "\n").suffix(40).joined(separator: "\n")
    }

    // MARK: Clients

    /// Starts a Python script against a frontend.
    func script(
        _ name: String, _ arguments: [String], _ variables: [String: String] = [:]
    ) throws -> Program {
        var environment = environment
        environment["S2_ACCESS_TOKEN"] = try token()
        environment["S2_ACCOUNT_ENDPOINT"] = endpoint(1)
        environment["S2_BASIN_ENDPOINT"] = endpoint(1)
        environment["CELL_TEST_PAD"] = "\(bodyPadding)"
        environment.merge(variables) { $1 }
        let python = try Self.variable("MILLRACE_TEST_PYTHON")
        let scripts = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "Scripts")
        return try Program(
            python, [scripts.appending(path: name).path] + arguments, environment, log: nil)
    }

    /// Runs a script to its end, which must be a success.
    @discardableResult
    func runScript(
        _ name: String, _ arguments: String..., variables: [String: String] = [:]
    ) throws -> String {
        let script = try script(name, arguments, variables)
        return try script.finish(within: 170)
    }

    /// A program that was built along with the tests.
    static func product(_ name: String) throws -> String {
        let own = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        var candidates = [own.deletingLastPathComponent()]
        // Where the test runner is another program, the tests are what it was given.
        candidates += CommandLine.arguments.map { URL(filePath: $0).deletingLastPathComponent() }
        for folder in candidates {
            let path = folder.appending(path: name).path
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        throw CellError("there is no program \(name) beside the tests: swift build")
    }

    static func variable(_ name: String) throws -> String {
        guard let value = ProcessInfo.processInfo.environment[name], !value.isEmpty else {
            throw CellError("\(name) is not set: run `make test`, which starts what the tests need")
        }
        return value
    }
}

/// Ports that were free a moment ago.
struct Ports {
    /// Two frontends' first port; channel 1's RPC port is `rpc + 1`, and so on.
    let frontends: Int
    let rpc: Int
    let admin: Int
    let cachey: Int
    let tls: Int

    static func free() throws -> Ports {
        for _ in 0..<100 {
            let base = Int.random(in: 10_000..<19_000)
            let all =
                ([0, 1, 3, 4, 5, 6, 11, 12, 20, 21, 22, 91, 92] + [121, 122, 221, 222, 271, 272])
                .map { base + $0 }
            if all.allSatisfy(isFree) {
                return Ports(
                    frontends: base, rpc: base + 10, admin: base + 20, cachey: base + 5,
                    tls: base + 3)
            }
        }
        throw CellError("no free ports")
    }

    private static func isFree(_ port: Int) -> Bool {
        let file = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(file) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(file, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}

struct CellError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Polls until `condition` holds; throws after a minute.
func waitUntil(_ what: String, _ condition: () throws -> Bool) throws {
    let end = ContinuousClock.now + .seconds(60)
    while try !condition() {
        guard ContinuousClock.now < end else { throw CellError("waited in vain until \(what)") }
        usleep(50_000)
    }
}

/// Runs `body` with a cell, whose processes have `variables` in their environment;
/// whatever fails, the cell goes, and its log tells why.
func withCell(
    _ store: Cell.Store, _ variables: (Cell) throws -> [String: String] = { _ in [:] },
    _ body: (Cell) throws -> Void
) throws {
    let cell = try Cell(store)
    do {
        cell.set(try variables(cell))
        try cell.start()
        try body(cell)
    } catch {
        let log = cell.logTail
        try cell.remove()
        throw CellError("\(error)\n--- the cell's log ---\n\(log)")
    }
    try cell.remove()
}
