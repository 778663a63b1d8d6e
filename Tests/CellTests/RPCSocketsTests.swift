// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Testing

/// A cell whose processes reach each other by sockets in a folder.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct RPCSocketsTests {
    private static let names = ["channel-1", "channel-2", "cachey-1"]

    /// The mode of a file, with its kind; nil where there is none.
    private func mode(_ path: String) -> mode_t? {
        var found = stat()
        return lstat(path, &found) == 0 ? found.st_mode : nil
    }

    private func withSockets(
        _ more: (Cell) throws -> [String: String] = { _ in [:] },
        _ body: (Cell, String) throws -> Void
    ) throws {
        var folder = ""
        try withCell(
            .folder,
            { cell in
                folder = cell.folder.appending(path: "rpc").path
                return try more(cell).merging(["MILLRACE_RPC_SOCKETS": folder]) { $1 }
            }
        ) { try body($0, folder) }
    }

    private func check(_ cell: Cell, _ folder: String) throws {
        // A cell is ready before its cachey is.
        try waitUntil("all listen") { Self.names.allSatisfy { mode("\(folder)/\($0)") != nil } }
        #expect(mode(folder) == S_IFDIR | 0o700)
        for name in Self.names { #expect(mode("\(folder)/\(name)") == S_IFSOCK | 0o600) }
        for offset in [1, 2, 81] { #expect(Ports.isFree(cell.ports.rpc + offset)) }
    }

    @Test func aKilledChannelLosesNothingThatItAcknowledged() throws {
        try withSockets { cell, folder in
            let load = try cell.script("load.py", ["3000"])
            try load.waitFor("LOADED load-0")
            try check(cell, folder)
            let victim = try cell.place(of: "load-0")
            #expect(victim.address.hasPrefix("unix:\(folder)/channel-"))
            #expect(try cell.ask("list-channels").contains(victim.address))
            let id = try cell.processID(address: victim.address)
            Glibc.kill(id, SIGKILL)
            try load.tell("broken")
            try load.finish(within: 170)
            try waitUntil("the dead channel is retired") {
                try !cell.ask("list-channels").contains("\"channel\":\(victim.channel),")
            }
            // Another one listens in its place, on a file of its own.
            try waitUntil("it is there again") {
                try cell.ask("list-channels").contains(victim.address)
            }
            #expect(try cell.processID(address: victim.address) != id)
            try check(cell, folder)

            // Nothing is left by those that drain, and what the others leave hinders nobody.
            try cell.stop()
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [])
            try cell.start()
            try cell.runScript("follow.py", "socket", "2000")
            try cell.killEverything()
            #expect(mode("\(folder)/channel-1") != nil)
            try cell.start()
            try cell.runScript("verify.py", "socket", "2000")
            try check(cell, folder)
        }
    }

    @Test func mutualTLSGoesOverSockets() throws {
        try withSockets({ cell in
            let own = try Authority(in: cell.folder, "cell")
            return [
                "MILLRACE_RPC_TLS_CERTIFICATE": own.certificate,
                "MILLRACE_RPC_TLS_KEY": own.key, "MILLRACE_RPC_TLS_ROOTS": own.roots,
            ]
        }) { cell, folder in
            try cell.runScript("follow.py", "mutual", "2000")
            try check(cell, folder)
        }
    }

    /// Before anything is started.
    @Test func foldersThatCannotBeAreRefused() throws {
        let cell = try Cell(.folder)
        defer { #expect(throws: Never.self) { try cell.remove() } }
        func refusal(_ settings: [String: String]) throws -> (Int32, String) {
            let program = try cell.program("cop", ["serve"], settings)
            try program.end(within: 30)
            return (program.exitCode, program.text)
        }
        let long = "/tmp/" + String(repeating: "a", count: 100)
        let (tooLong, why) = try refusal(["MILLRACE_RPC_SOCKETS": long])
        #expect(tooLong == 2 && why.contains("at most 107"), "\(why)")
        let (both, what) = try refusal([
            "MILLRACE_RPC_SOCKETS": "/tmp/rpc", "MILLRACE_RPC_HOST": "10.0.0.1",
        ])
        #expect(both == 2 && what.contains("exclude each other"), "\(what)")
        let open = cell.folder.appending(path: "open").path
        #expect(mkdir(open, 0o700) == 0 && chmod(open, 0o777) == 0)
        let (isOpen, who) = try refusal(["MILLRACE_RPC_SOCKETS": open])
        #expect(isOpen == 1 && who.contains("only this user may write to"), "\(who)")
    }
}
