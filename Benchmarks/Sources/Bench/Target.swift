// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// The cell that is measured.
final class Target {
    let poller = Poller()
    let basin: String
    let cop: Int
    private let host: String
    private let port: UInt16
    private let token: String
    private let control: Connection

    init(_ options: Options) throws(ClientError) {
        let parts = options.endpoint.split(separator: ":")
        guard parts.count == 2, let port = UInt16(parts[1]) else {
            throw ClientError("--endpoint takes host:port")
        }
        host = String(parts[0])
        self.port = port
        cop = options.cop
        token = readFile(options.tokenFile).trimmingCharacters(in: .whitespacesAndNewlines)
        guard !token.isEmpty else { throw ClientError("no token in \(options.tokenFile)") }
        basin = "bench-\(UInt32.random(in: 0...(.max)))"
        control = try Connection(host: host, port: port, token: token)
        poller.add(control)
        let body = #"{"basin":"\#(basin)","config":{"create_stream_on_append":true}}"#
        try call("POST", "/v1/basins", Array(body.utf8))
    }

    var processes: [CellProcess] {
        get throws(ClientError) { try CellProcess.cell(cop: cop) }
    }

    /// That these are still the cell's processes.
    func checkSame(_ cell: [CellProcess]) throws(ClientError) {
        let now = try processes
        guard now != cell else { return }
        let gone = cell.filter { !now.contains($0) }.map(\.label)
        let new = now.filter { !cell.contains($0) }.map(\.label)
        throw ClientError("processes were replaced: \(gone) by \(new)")
    }

    func connect() throws(ClientError) -> Connection {
        let connection = try Connection(host: host, port: port, token: token)
        poller.add(connection)
        try poller.wait("settings") { connection.isReady || connection.failure != nil }
        if let failure = connection.failure { throw failure }
        return connection
    }

    func close(_ connection: Connection) { poller.remove(connection) }

    func makeStream(_ name: String) throws(ClientError) {
        try call("PUT", "/v1/streams/\(name)", nil, basin: basin)
    }

    @discardableResult
    func call(
        _ method: String, _ path: String, _ body: [UInt8]?, basin: String? = nil
    ) throws(ClientError) -> String {
        let reply = Reply(control, method, path, basin: basin, body: body)
        try poller.wait("\(method) \(path)") { reply.isOver }
        guard reply.error == nil, (200..<300).contains(reply.status) else {
            throw ClientError(
                "\(method) \(path): \(reply.status) \(reply.text) \(reply.error?.description ?? "")"
            )
        }
        return reply.text
    }
}

/// What a run of the program was asked for.
struct Options {
    var command = "run"
    var endpoint = "127.0.0.1:8080"
    var tokenFile = ".millrace/root-token"
    var cop = 0
    var seconds = 5.0
    /// How long the idle scenario waits for the cell to become quiet.
    var settleSeconds = 300.0
    /// How long no object may have been put then; longer than the cell's tasks take turns.
    var quietSeconds = 75.0
    var idleSeconds = 120.0
    /// The first process of the cell's database, or 0.
    var postgres = 0
    var streamlets = 100_000
    /// How long streamlets are left alone before they are looked at again; longer than records
    /// stay in the log.
    var flushSeconds = 45.0
    var mebibytes = 512
    var minutes = 15.0
    /// Whether a soak fails where memory or descriptors grow.
    var mustBeFlat = true
    var streams = 1
    var records = 1
    var window = 1
    var only: Set<String> = []
    var json: String?
    var folder = "."
    var mallocs: String?
    var redis: UInt16?
    var nats: UInt16?
    var build = "unknown"
    var into: String?
    var files: [String] = []

    static let usage = """
        bench run       measures a running cell
        bench load      appends to --streams n in batches of --records n with --window n in flight
        bench reads     appends --mebibytes n and reads them, again and again
        bench soak      loads a running cell for long and fails unless memory stays flat
        bench compare RESULTS… THRESHOLDS
                        joins results, adds ratios, prints the table, judges by the thresholds
        bench table RESULTS…
                        the table of docs/performance.md, put into the file --into path if given

          --endpoint host:port   the frontend               --token-file path
          --cop pid              whose children are watched --seconds n   per scenario
          --only a,b             append latency read follow puts streamlets allocations
                                 idle resident machine peers
          --settle n             seconds until idle
          --quiet n              seconds without PUTs       --idle n      seconds of idleness
          --postgres pid         of the cell                --streamlets n  are opened
          --json path            where results go           --folder path for raw writes
          --mallocs prefix       of the allocation counters --redis port  --nats port
          --build text           what is measured           --minutes n   of the soak
          --flush n              seconds that streamlets    --flat yes|no whether a soak fails
                                 are left alone                           where memory grows
        """

    init(_ words: [String]) throws(ClientError) {
        var words = words[...]
        if let first = words.first, !first.hasPrefix("-") {
            command = first
            words = words.dropFirst()
        }
        while let word = words.popFirst() {
            guard word.hasPrefix("--") else {
                files.append(word)
                continue
            }
            guard let value = words.popFirst() else { throw ClientError("\(word) takes a value") }
            guard try set(String(word.dropFirst(2)), value) else {
                throw ClientError("\(word) \(value)?\n\(Self.usage)")
            }
        }
    }

    private mutating func set(_ name: String, _ value: String) throws(ClientError) -> Bool {
        switch name {
        case "endpoint": endpoint = value
        case "token-file": tokenFile = value
        case "cop": cop = Int(value) ?? 0
        case "seconds": seconds = Double(value) ?? seconds
        case "settle": settleSeconds = Double(value) ?? settleSeconds
        case "quiet": quietSeconds = Double(value) ?? quietSeconds
        case "idle": idleSeconds = Double(value) ?? idleSeconds
        case "postgres": postgres = Int(value) ?? postgres
        case "streamlets": streamlets = Int(value) ?? streamlets
        case "flush": flushSeconds = Double(value) ?? flushSeconds
        case "flat": mustBeFlat = value != "no"
        case "mebibytes": mebibytes = Int(value) ?? mebibytes
        case "minutes": minutes = Double(value) ?? minutes
        case "streams": streams = Int(value) ?? streams
        case "records": records = Int(value) ?? records
        case "window": window = Int(value) ?? window
        case "only": only = Set(value.split(separator: ",").map(String.init))
        case "json": json = value
        case "folder": folder = value
        case "mallocs": mallocs = value
        case "redis": redis = UInt16(value)
        case "nats": nats = UInt16(value)
        case "build": build = value
        case "into": into = value
        default: return false
        }
        return true
    }

    func wants(_ scenario: String) -> Bool { only.isEmpty || only.contains(scenario) }
}
