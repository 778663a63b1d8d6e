// SPDX-License-Identifier: Apache-2.0

/// Where each process that cop starts listens and keeps what is its own, by its number from 1.
///
/// Ports count up from the settings that cop has, so far apart that as many processes as those
/// settings allow never want the same one. Where there is a folder for them, RPC is on sockets in
/// place of ports.
package struct CellLayout: Sendable {
    /// Something that one process listens on.
    package struct Listener: Sendable, Equatable {
        /// As in `frontend 2's TLS`.
        package let what: String
        package let host: String
        package let port: Int

        fileprivate func collides(with other: Listener) -> Bool {
            // Where the system chooses a port, it chooses one that is free.
            port == other.port && port != 0
                && (host == other.host || isEverywhere || other.isEverywhere)
        }

        private var isEverywhere: Bool { ["0.0.0.0", "::", "[::]"].contains(host) }
    }

    private let settings: Settings
    private static let cacheyRPC = 80
    private static let frontendAdmin = 100
    private static let cacheyAdmin = 200
    private static let bgtaskAdmin = 250

    package init(_ settings: Settings) { self.settings = settings }

    // MARK: Options

    /// The options by which channel `number` differs from others, and so on.
    package func channel(_ number: Int) -> [String] {
        rpcOptions(number, Self.channelSocket(number)) + admin(number)
    }

    package func frontend(_ number: Int) -> [String] {
        var words = ["--listen", address(settings[.frontendPort] + number - 1)]
        if let (host, port) = tls { words += ["--tls-listen", "\(host):\(port(number))"] }
        return words + admin(Self.frontendAdmin + number)
    }

    package func cachey(_ number: Int) -> [String] {
        [
            "--listen", address(settings[.cacheyPort] + number - 1),
            "--disk-path", diskPath(ofCachey: number),
        ]
            + rpcOptions(Self.cacheyRPC + number, Self.cacheySocket(number))
            + admin(Self.cacheyAdmin + number)
    }

    package func bgtask(_ number: Int) -> [String] { admin(Self.bgtaskAdmin + number) }

    private func rpcOptions(_ offset: Int, _ socket: String) -> [String] {
        if hasSockets {
            return ["--rpc-listen", path(socket).address, "--rpc-address", ""]
        }
        let told = settings[.rpcHost]
        return [
            "--rpc-listen", address(rpc(offset)),
            "--rpc-address", told.isEmpty ? "" : "\(told):\(rpc(offset))",
        ]
    }

    private func admin(_ offset: Int) -> [String] {
        ["--admin-listen", address(settings[.adminPort] + offset)]
    }

    private func address(_ port: Int) -> String { "\(settings[.host]):\(port)" }
    private func rpc(_ offset: Int) -> Int { settings[.rpcPort] + offset }

    private var hasSockets: Bool { !settings[.rpcSockets].isEmpty }
    private func path(_ socket: String) -> SocketPath {
        SocketPath("\(settings[.rpcSockets])/\(socket)")
    }
    private static func channelSocket(_ number: Int) -> String { "channel-\(number)" }
    private static func cacheySocket(_ number: Int) -> String { "cachey-\(number)" }

    /// Only one process may use a folder. The first one's is the setting's own, so that a cell
    /// which gets a second cachey keeps what the first one has.
    private func diskPath(ofCachey number: Int) -> String {
        let path = settings[.cellDiskPath]
        return path.isEmpty || number == 1 ? path : "\(path)/cachey-\(number)"
    }

    /// The host of the frontends' TLS and the ports of it; nil where there is none. A port of 0
    /// stays: the system chooses.
    private var tls: (host: String, port: (Int) -> Int)? {
        guard let (host, first) = Self.parts(settings[.cellTLSListen]) else { return nil }
        return (host, { first == 0 ? 0 : first + $0 - 1 })
    }

    /// The host and the port of an address; nil where it is empty.
    private static func parts(_ address: String) -> (host: String, port: Int)? {
        guard let colon = address.lastIndex(of: ":"), let port = Int(address[colon...].dropFirst())
        else { return nil }
        return (String(address[..<colon]), port)
    }

    // MARK: Ports

    /// Everything that the processes listen on that the settings ask for, and cop itself.
    package var listeners: [Listener] {
        var found: [Listener] = []
        func add(_ what: String, _ port: Int, host: String? = nil) {
            found.append(Listener(what: what, host: host ?? settings[.host], port: port))
        }
        if let (host, port) = Self.parts(settings[.adminListen]) {
            add("cop's admin", port, host: host)
        }
        let admin = settings[.adminPort]
        for number in 0..<settings[.channels] {
            if !hasSockets { add("channel \(number + 1)'s RPC", rpc(number + 1)) }
            add("channel \(number + 1)'s admin", admin + number + 1)
        }
        for number in 0..<settings[.frontends] {
            add("frontend \(number + 1)'s HTTP", settings[.frontendPort] + number)
            if let (host, port) = tls {
                add("frontend \(number + 1)'s TLS", port(number + 1), host: host)
            }
            add("frontend \(number + 1)'s admin", admin + Self.frontendAdmin + number + 1)
        }
        for number in 0..<settings[.cacheys] {
            add("cachey \(number + 1)'s HTTP", settings[.cacheyPort] + number)
            if !hasSockets { add("cachey \(number + 1)'s RPC", rpc(Self.cacheyRPC + number + 1)) }
            add("cachey \(number + 1)'s admin", admin + Self.cacheyAdmin + number + 1)
        }
        for number in 0..<settings[.bgtasks] {
            add("bgtask \(number + 1)'s admin", admin + Self.bgtaskAdmin + number + 1)
        }
        return found
    }

    /// Throws where two processes would listen on one port, or one on a port or a socket that
    /// cannot be.
    package func check() throws(UsageError) {
        try checkSockets()
        var users: [Int: [Listener]] = [:]
        for listener in listeners {
            guard listener.port <= 65_535 else {
                throw UsageError(
                    "there is no port \(listener.port), which would be \(listener.what)")
            }
            let others = users[listener.port, default: []]
            if let other = others.first(where: listener.collides) {
                throw UsageError(
                    "port \(listener.port) would be both \(other.what) and \(listener.what);"
                        + " docs/configuration.md tells how a cell's ports are laid out")
            }
            users[listener.port] = others + [listener]
        }
    }

    private func checkSockets() throws(UsageError) {
        guard hasSockets else { return }
        guard settings[.rpcHost].isEmpty else {
            throw UsageError(
                "\(Setting.rpcSockets.option) and \(Setting.rpcHost.option) exclude each other:"
                    + " sockets are reached from this host only")
        }
        let sockets =
            (0..<settings[.channels]).map { Self.channelSocket($0 + 1) }
            + (0..<settings[.cacheys]).map { Self.cacheySocket($0 + 1) }
        guard let path = sockets.map(path).first(where: { !$0.isShortEnough }) else { return }
        throw UsageError(
            "\(Setting.rpcSockets.option): \(path.path) has \(path.path.utf8.count) bytes, but a"
                + " socket's path at most \(SocketPath.bytesMax); choose a shorter folder, or an"
                + " empty one for ports")
    }

    /// The part of `docs/configuration.md` about ports.
    static var markdown: String {
        """
        ## Ports of a cell

        What the processes that `cop serve` starts listen on, counted from 1, with the default
        settings in brackets. As many as may be never collide there; with other settings cop says
        which two would, and exits with 2.

        | process | serves | RPC | /health and /metrics |
        |---|---|---|---|
        | cop | | | `--admin-listen` (7500) |
        | channel n | | `--rpc-port` + n (7401…7464) | `--admin-port` + n (7501…7564) |
        | frontend n | `--frontend-port` + n - 1 (8080…8143); by TLS the port of `--tls-listen` \
        + n - 1 | | `--admin-port` + \(frontendAdmin) + n (7601…7664) |
        | cachey n | `--cachey-port` + n - 1 (8190…8205) | `--rpc-port` + \(cacheyRPC) + n \
        (7481…7496) | `--admin-port` + \(cacheyAdmin) + n (7701…7716) |
        | bgtask n | | | `--admin-port` + \(bgtaskAdmin) + n (7751…7766) |

        With `--rpc-sockets` the channels' and cacheys' RPC is on no port, but on the unix sockets
        `channel-n` and `cachey-n` in that folder, whose paths may have
        \(SocketPath.bytesMax) bytes. Nobody on another host reaches them: where the processes of \
        one cell run on several
        hosts, all of them use ports.

        """
    }
}
