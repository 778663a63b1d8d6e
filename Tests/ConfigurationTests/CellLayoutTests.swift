// SPDX-License-Identifier: Apache-2.0

import Configuration
import Testing

/// Where the processes of a cell listen: as many as may be, and nobody on another's port.
@Suite struct CellLayoutTests {
    private static let most = [
        "--channels=64", "--frontends=64", "--cacheys=16", "--bgtasks=16",
    ]

    private func layout(_ options: [String]) throws -> CellLayout {
        guard
            case .run(let settings) = try Settings.parse(
                .cop, arguments: options, environment: ["MILLRACE_METADATA": "host=/run/pg"])
        else { throw UsageError("asked for help") }
        return CellLayout(settings)
    }

    private func port(_ words: [String], _ option: String) throws -> Int {
        let index = try #require(words.firstIndex(of: option))
        return try #require(Int(words[index + 1].split(separator: ":").last ?? ""))
    }

    @Test func theMaximaOfTheSettingsAreTheOnesThatAreTested() {
        for option in Self.most {
            let name = option.dropFirst(2).prefix { $0 != "=" }
            let setting = SettingTable.cop.settings.first { $0.name == name }
            #expect(setting?.form == "0…" + option.drop { $0 != "=" }.dropFirst())
        }
    }

    /// By what the processes are told, not by what the layout says of itself.
    @Test(arguments: [[], ["--tls-listen=127.0.0.1:8443"], ["--tls-listen=127.0.0.1:8300"]])
    func theMostProcessesNeverCollide(_ more: [String]) throws {
        let layout = try layout(Self.most + more)
        var ports = [7_500]
        for number in 1...64 {
            let channel = layout.channel(number)
            ports += try [port(channel, "--rpc-listen"), port(channel, "--admin-listen")]
            let frontend = layout.frontend(number)
            ports += try [port(frontend, "--listen"), port(frontend, "--admin-listen")]
            if !more.isEmpty { ports.append(try port(frontend, "--tls-listen")) }
        }
        for number in 1...16 {
            let cachey = layout.cachey(number)
            for option in ["--listen", "--rpc-listen", "--admin-listen"] {
                ports.append(try port(cachey, option))
            }
            ports.append(try port(layout.bgtask(number), "--admin-listen"))
        }
        #expect(Set(ports).count == ports.count)
        // What is checked at a start is just that.
        #expect(layout.listeners.map(\.port).sorted() == ports.sorted())
        try layout.check()
    }

    @Test func thePageTellsWhereTheyAre() throws {
        let listeners = try layout(Self.most).listeners
        for (kind, what) in [
            ("channel", "RPC"), ("channel", "admin"), ("frontend", "HTTP"), ("frontend", "admin"),
            ("cachey", "HTTP"), ("cachey", "RPC"), ("cachey", "admin"), ("bgtask", "admin"),
        ] {
            let ports = listeners.filter { $0.what.hasPrefix(kind) && $0.what.hasSuffix(what) }
                .map(\.port)
            let (first, last) = try (#require(ports.min()), #require(ports.max()))
            let row = SettingTable.document.split(separator: "\n").first {
                $0.hasPrefix("| \(kind) n |")
            }
            #expect(row?.contains("(\(first)…\(last))") == true, "\(kind)'s \(what)")
        }
    }

    @Test(arguments: [
        (["--frontends=2", "--cachey-port=8081"], "frontend 2's HTTP and cachey 1's HTTP"),
        (["--admin-port=7301"], "channel 2's RPC and frontend 1's admin"),
        (["--tls-listen=127.0.0.1:8080"], "frontend 1's HTTP and frontend 1's TLS"),
        (["--tls-listen=0.0.0.0:8190"], "frontend 1's TLS and cachey 1's HTTP"),
        (["--frontends=2", "--tls-listen=127.0.0.1:65535"], "there is no port 65536"),
        (["--admin-listen=127.0.0.1:7501"], "cop's admin and channel 1's admin"),
    ])
    func whoWouldCollideIsTold(_ options: [String], _ message: String) throws {
        let layout = try layout(options)
        let error = #expect(throws: UsageError.self) { try layout.check() }
        #expect(error?.description.contains(message) == true, "\(String(describing: error))")
    }

    @Test func withSocketsRPCIsOnNoPort() throws {
        let layout = try layout(Self.most + ["--rpc-sockets=/run/cell"])
        try layout.check()
        #expect(!layout.listeners.contains { $0.what.contains("RPC") })
        let all = (1...64).map { layout.channel($0) } + (1...16).map { layout.cachey($0) }
        var sockets: Set<String> = []
        for words in all {
            let at = try #require(words.firstIndex(of: "--rpc-listen"))
            #expect(words[at + 1].hasPrefix("unix:/run/cell/"))
            #expect(words[at + 2...at + 3] == ["--rpc-address", ""])
            sockets.insert(words[at + 1])
        }
        #expect(sockets.count == 80)
        // Ports that would collide are not used.
        try self.layout(["--rpc-sockets=/run/cell", "--rpc-port=7500"]).check()
    }

    @Test func socketsThatCannotBeAreRefused() throws {
        func refusal(_ options: [String]) throws -> String? {
            let layout = try layout(options)
            return #expect(throws: UsageError.self) { try layout.check() }?.description
        }
        let sockets = "--rpc-sockets=/" + String(repeating: "a", count: 97)
        #expect(try refusal([sockets])?.contains("at most 107") == true)
        // With fewer channels and cacheys their names are shorter.
        try layout([String(sockets.dropLast()), "--channels=9"]).check()
        #expect(try refusal([String(sockets.dropLast()), "--channels=10"]) != nil)
        let both = try refusal(["--rpc-sockets=/run/cell", "--rpc-host=a.b"])
        #expect(both?.contains("--rpc-sockets and --rpc-host exclude each other") == true)
        #expect(throws: UsageError.self) { try layout(["--rpc-sockets=relative"]) }
    }

    @Test func anotherAddressIsNoCollision() throws {
        try layout(["--tls-listen=10.0.0.1:8080"]).check()
        try layout(["--tls-listen=127.0.0.1:0", "--frontends=9"]).check()
        try layout(["--admin-listen="]).check()
    }

    @Test func eachHasWhatIsItsOwn() throws {
        let layout = try layout([
            "--host=10.0.0.1", "--rpc-host=a.b", "--tls-listen=[::]:443", "--disk-path=/cache",
            "--cacheys=2",
        ])
        #expect(
            layout.frontend(2) == [
                "--listen", "10.0.0.1:8081", "--tls-listen", "[::]:444", "--admin-listen",
                "10.0.0.1:7602",
            ])
        #expect(layout.channel(2).contains("a.b:7402"))
        #expect(layout.cachey(2).contains("a.b:7482"))
        #expect(layout.cachey(1).contains("/cache"))
        #expect(layout.cachey(2).contains("/cache/cachey-2"))
        #expect(try !self.layout([]).frontend(1).contains("--tls-listen"))
        #expect(try self.layout([]).cachey(2).contains(""))
    }
}
