// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// What a user relies on, of real processes: nothing here is a fake but the clients' patience.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct CellTests {
    private static let records = 100_000

    @Test(arguments: [Cell.Store.folder, .s3])
    func aSessionIsFollowedAndReadBackAndOutlivesTheCell(_ store: Cell.Store) throws {
        try withCell(store) { cell in
            try cell.runScript("follow.py", "long", "\(Self.records)")
            let metrics = try CellMetrics(cell)
            try metrics.check()
            try metrics.checkDocument()
            try cell.stop()
            try cell.start()
            try cell.runScript("verify.py", "long", "\(Self.records)")
        }
    }

    @Test(arguments: [Cell.Store.folder, .s3])
    func unaryRequestsInJSONAndProtobuf(_ store: Cell.Store) throws {
        try withCell(store) { cell in
            let token = try cell.token()
            let origin = cell.endpoint(1)
            func curl(_ arguments: String...) throws -> String {
                let common = [
                    "-sS", "-m", "20", "--fail-with-body", "-H", "authorization: Bearer \(token)",
                ]
                return try Program.run("curl", common + arguments, [:])
            }
            let basin = "s2-basin: curl-test-basin"
            let json = "content-type: application/json"
            _ = try curl("-H", json, "-d", #"{"basin":"curl-test-basin"}"#, "\(origin)/v1/basins")
            _ = try curl(
                "-H", json, "-H", basin, "-d", #"{"stream":"orders/eu"}"#, "\(origin)/v1/streams")
            let records = "\(origin)/v1/streams/orders%2Feu/records"
            let ack = try curl(
                "-H", json, "-H", basin, "-d",
                #"{"records":[{"body":"a"},{"headers":[["k","v"]],"body":"b"}],"match_seq_num":0}"#,
                records)
            #expect(ack.contains(#""start":{"seq_num":0"#))
            #expect(ack.contains(#""end":{"seq_num":2"#))

            // AppendInput { records: [{ body: "c" }] }
            let input = cell.folder.appending(path: "input")
            try Data([0x0A, 0x03, 0x1A, 0x01, 0x63]).write(to: input)
            _ = try curl(
                "-H", "content-type: application/protobuf", "-H", "accept: application/protobuf",
                "-H", basin, "--data-binary", "@\(input.path)", "-o",
                cell.folder.appending(path: "ack").path, records)
            let reply = try Data(contentsOf: cell.folder.appending(path: "ack"))
            // AppendAck.start: seq_num 2 and a timestamp, in whatever length.
            #expect(
                reply.prefix(1) == Data([0x0A]) && reply.dropFirst(2).prefix(2) == Data([0x08, 2]))

            let read = try curl("-H", basin, "\(records)?seq_num=0&count=10")
            for part in [#""body":"a""#, #""headers":[["k","v"]]"#, #""body":"c""#] {
                #expect(read.contains(part), "\(read)")
            }
            _ = try curl(
                "-H", basin, "-H", "accept: application/protobuf", "-o",
                cell.folder.appending(path: "batch").path, "\(records)?seq_num=2&count=1")
            let batch = try Data(contentsOf: cell.folder.appending(path: "batch"))
            // SequencedRecord { seq_num: 2, …, body: "c" }
            #expect(batch.range(of: Data([0x08, 0x02])) != nil)
            #expect(batch.range(of: Data([0x22, 0x01, 0x63])) != nil)
        }
    }

    @Test(arguments: [Cell.Store.folder, .s3])
    func aReaderCarriesOnThroughAnotherFrontend(_ store: Cell.Store) throws {
        try withCell(store) { cell in
            // Far more than a client takes ahead of its reader.
            cell.bodyPadding = 4_000
            try cell.runScript("follow.py", "large", "12000")
            let reader = try cell.script(
                "read_on.py", ["large", "12000", cell.endpoint(1), cell.endpoint(2)])
            try reader.waitFor("HALFWAY")
            try cell.kill(port: cell.ports.frontends)
            try reader.tell("go on")
            let said = try reader.finish(within: 100)
            #expect(said.contains("lost"))
        }
    }

    @Test(arguments: [Cell.Store.folder, .s3])
    func aKilledChannelLosesNothingThatItAcknowledged(_ store: Cell.Store) throws {
        try withCell(store) { cell in
            let load = try cell.script("load.py", ["5000"])
            try load.waitFor("LOADED load-0")
            let victim = try cell.owner(of: "load-0")
            try cell.kill(port: victim.port)
            try load.tell("broken")
            try load.finish(within: 170)
            // Its log is recovered, its streamlets are closed.
            try waitUntil("the dead channel is retired") {
                try !cell.ask("list-channels").contains("\"channel\":\(victim.channel),")
            }
            #expect(try cell.owner(of: "load-0").channel != victim.channel)
        }
    }

    /// Some two hundred checks of the wire contract: transports, every endpoint, sessions, limits,
    /// hostile clients, and the official SDK's whole surface.
    /// On S3 also those that wait, with streams that are dormant soon.
    @Test(arguments: [Cell.Store.folder, .s3])
    func theAPIIsWhatClientsKnow(_ store: Cell.Store) throws {
        let (variables, options): ([String: String], [String]) =
            switch store {
            case .folder: ([:], [])
            case .s3: (["MILLRACE_DORMANCY": "1s"], ["--slow", "--dormancy", "1"])
            }
        try withCell(store, { _ in variables }) { cell in
            let checks = try cell.script(
                "conformance.py",
                [
                    cell.endpoint(1), try cell.token(), "--again", "--pid",
                    "\(try cell.processID(port: cell.ports.frontends))",
                ] + options)
            let said = try checks.finish(within: 280)
            #expect(said.contains(" 0 failed"), "\(said)")
            // Whoever reads the log must see it.
            if !said.contains(" 0 at the second try") { print(said) }
        }
    }
}
