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
    /// The Postgres that has the database; nil where somebody else removes it.
    private let server: String?
    private var environment: [String: String]
    private let log: URL
    private var cop: Program?

    /// Nothing runs yet. `settings` are environment variables, without their `MILLRACE_`; `server`
    /// is a Postgres for this cell alone, in place of the tests'.
    init(_ store: Store, settings: [String: String] = [:], server own: String? = nil) throws {
        let server = try own ?? Self.variable("MILLRACE_TEST_POSTGRES")
        RealService.postgres.note()
        RealService.cell.note()
        self.server = server
        database = "cell_\(UInt64.random(in: 0...(.max)))"
        folder = FileManager.default.temporaryDirectory.appending(path: "millrace-\(database)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        log = folder.appending(path: "log")
        ports = try Ports.free()
        environment = Self.plainEnvironment
        let words = server.split(separator: " ").filter { !$0.hasPrefix("dbname=") }
        environment["MILLRACE_METADATA"] = words.joined(separator: " ") + " dbname=\(database)"
        environment["MILLRACE_ROOT_TOKEN_FILE"] = folder.appending(path: "root-token").path
        environment["MILLRACE_LOG_LEVEL"] = "info"
        environment.merge(ports.variables) { $1 }
        environment["MILLRACE_FRONTENDS"] = "2"
        environment["MILLRACE_CHANNELS"] = "2"
        for (name, value) in settings { environment["MILLRACE_" + name] = value }
        switch store {
        case .folder: environment["MILLRACE_STORE"] = folder.appending(path: "objects").path
        case .s3:
            RealService.s3.note()
            let (url, credentials) = try Self.bucket(prefix: database)
            environment["MILLRACE_STORE"] = url
            environment.merge(credentials) { $1 }
        }
        try Program.run("psql", ["-qX", "-c", "CREATE DATABASE \(database)", server], [:])
    }

    /// The same cell on another host: another cop, on ports of its own. It goes before `other`.
    init(besides other: Cell) throws {
        folder = other.folder
        database = other.database
        server = nil
        log = folder.appending(path: "log-\(UInt16.random(in: 0...(.max)))")
        ports = try Ports.free()
        environment = other.environment.merging(ports.variables) { $1 }
    }

    /// The environment of the tests without their own settings.
    static var plainEnvironment: [String: String] {
        ProcessInfo.processInfo.environment.filter { variable in
            !["MILLRACE_", "AWS_", "MAKE"].contains { variable.key.hasPrefix($0) }
        }
    }

    /// A prefix of the tests' bucket as a store's URL, and the variables with its credentials.
    static func bucket(prefix: String) throws -> (url: String, credentials: [String: String]) {
        let bucket = try variable("MILLRACE_TEST_S3_BUCKET")
        let endpoint = try variable("MILLRACE_TEST_S3_ENDPOINT")
        let region = try variable("MILLRACE_TEST_S3_REGION")
        let credentials = [
            "AWS_ACCESS_KEY_ID": try variable("MILLRACE_TEST_S3_ACCESS_KEY"),
            "AWS_SECRET_ACCESS_KEY": try variable("MILLRACE_TEST_S3_SECRET_KEY"),
        ]
        return ("s3://\(bucket)/\(prefix)?endpoint=\(endpoint)&region=\(region)", credentials)
    }

    /// Sets variables for the processes of the next start.
    func set(_ variables: [String: String]) { environment.merge(variables) { $1 } }

    /// Ends what runs and removes what it kept.
    func remove() throws {
        if let cop, cop.isRunning { try stop() }
        guard let server else { return }
        // Those whose cop was killed.
        for process in processes() { Glibc.kill(process.id, SIGKILL) }
        try Program.run(
            "psql", ["-qX", "-c", "DROP DATABASE \(database) WITH (FORCE)", server], [:])
        try FileManager.default.removeItem(at: folder)
    }

    // MARK: Processes

    /// Starts the cell and returns once its frontends are ready.
    func start() throws {
        try startCop()
        try waitUntilReady()
    }

    /// Starts cop alone, which starts the others if it is the active one.
    func startCop() throws {
        cop = try Program(Self.product("cop"), ["serve"], environment, log: log)
    }

    func waitUntilReady() throws {
        guard let cop else { throw CellError("no cop was started") }
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

    /// Kills cop alone, as the kernel would.
    func killCop() throws {
        guard let cop else { return }
        cop.signal(SIGKILL)
        try waitUntil("cop is dead") { !cop.isRunning }
        self.cop = nil
    }

    /// Kills every process of the cell, as fast as one can.
    func killEverything() throws {
        // Cop goes first, and so cannot start anything anew.
        let all = processes().sorted { $0.name == "cop" && $1.name != "cop" }
        for process in all { Glibc.kill(process.id, SIGKILL) }
        try waitUntil("everything is dead") { processes().isEmpty && cop?.isRunning != true }
        cop = nil
    }

    /// The processes of the cell that run now, on any host.
    func processes() -> [RunningProcess] {
        let programs = ["cop", "frontend", "channel", "cachey", "bgtask"]
        return RunningProcess.all(mentioning: database).filter { programs.contains($0.name) }
    }

    /// Kills what listens on the port, as the kernel would: no warning, no farewell.
    func kill(port: Int) throws {
        let id = try processID(port: port)
        Glibc.kill(id, SIGKILL)
    }

    /// The process that cop started to listen on the port.
    func processID(port: Int) throws -> pid_t {
        try processID(address: "127.0.0.1:\(port)")
    }

    /// The process that cop started to listen at the address.
    func processID(address: String) throws -> pid_t {
        let options = ["--listen", "--rpc-listen", "--admin-listen"]
        for process in processes() {
            for (option, value) in zip(process.words, process.words.dropFirst())
            where value == address && options.contains(option) {
                return process.id
            }
        }
        throw CellError("nothing listens at \(address)")
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
        try command(words)
    }

    /// The output of `cop` with a command.
    func ask(_ words: String...) throws -> String {
        try command(words + ["--output", "json"])
    }

    /// Commands give Postgres some seconds, which may be too few while a machine stands still.
    private func command(_ words: [String]) throws -> String {
        let end = ContinuousClock.now + .seconds(30)
        while true {
            do {
                return try Program.run(Self.product("cop"), words, environment)
            } catch let error as CellError {
                guard error.description.contains("cop: unavailable"), ContinuousClock.now < end
                else { throw error }
            }
        }
    }

    /// The channel that owns a stream, and its RPC port.
    func owner(
        of stream: String, basin: String = "cell-test-basin"
    ) throws -> (channel: Int, port: Int) {
        let (channel, address) = try place(of: stream, basin: basin)
        guard let port = address.split(separator: ":").last.flatMap({ Int($0) }) else {
            throw CellError("no port: \(address)")
        }
        return (channel, port)
    }

    /// The channel that owns a stream, and where it is reached.
    func place(
        of stream: String, basin: String = "cell-test-basin"
    ) throws -> (channel: Int, address: String) {
        let answer = try ask("locate", "s2://\(basin)/\(stream)")
        let object = try JSONSerialization.jsonObject(with: Data(answer.utf8)) as? [String: Any]
        guard let channel = object?["channel"] as? Int, let address = object?["address"] as? String
        else { throw CellError("no owner: \(answer)") }
        return (channel, address)
    }

    /// The sum of the samples whose names, or names and labels, begin so, of a process's metrics.
    func metric(_ name: String, adminPort: Int) throws -> Double {
        let text = try Program.run(
            "curl", ["-fsS", "-m", "10", "http://127.0.0.1:\(adminPort)/metrics"], [:])
        let samples = text.split(separator: "\n").filter { $0.hasPrefix("millrace_\(name)") }
        return samples.compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
            .reduce(0, +)
    }

    /// All that the processes have logged.
    var logText: String {
        let text = FileManager.default.contents(atPath: log.path).map {
            String(decoding: $0, as: UTF8.self)
        }
        return text ?? ""
    }

    var logTail: String {
        logText.split(separator: "\n").suffix(40).joined(separator: "\n")
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

    /// What tells cop of them.
    var variables: [String: String] {
        [
            "MILLRACE_FRONTEND_PORT": "\(frontends)", "MILLRACE_RPC_PORT": "\(rpc)",
            "MILLRACE_ADMIN_PORT": "\(admin)", "MILLRACE_ADMIN_LISTEN": "127.0.0.1:\(admin)",
            "MILLRACE_CACHEY_PORT": "\(cachey)",
        ]
    }

    static func free() throws -> Ports {
        for _ in 0..<100 {
            let base = Int.random(in: 10_000..<19_000)
            let all =
                [
                    0, 1, 3, 4, 5, 6, 11, 12, 20, 21, 22, 61, 62, 71, 72, 91, 92, 101, 102, 121,
                    122, 221, 222, 271, 272,
                ]
                .map { base + $0 }
            if all.allSatisfy(isFree) {
                return Ports(
                    frontends: base, rpc: base + 10, admin: base + 20, cachey: base + 5,
                    tls: base + 3)
            }
        }
        throw CellError("no free ports")
    }

    static func isFree(_ port: Int) -> Bool {
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
    server: String? = nil, _ body: (Cell) throws -> Void
) throws {
    let cell = try Cell(store, server: server)
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
