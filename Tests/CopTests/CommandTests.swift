// SPDX-License-Identifier: Apache-2.0

import CopRole
import Log
import Metadata
import Observability
import Primitives
import TestSupport
import Testing

@Suite struct CommandTests {
    @Test func commandsAreRead() throws {
        #expect(try ConsoleCommand(parsing: ["serve"]) == .serve)
        #expect(try ConsoleCommand(parsing: ["migrate-schema"]) == .migrateSchema)
        #expect(try ConsoleCommand(parsing: ["list-streamlets"]) == .listStreamlets(nil))
        #expect(
            try ConsoleCommand(parsing: ["list-streamlets", "s2://basin/a"], after: "7")
                == .listStreamlets(try StreamPath("s2://basin/a"), after: 7))
        #expect(
            try ConsoleCommand(parsing: ["locate", "s2://basin/a/b"])
                == .locate(try StreamPath("s2://basin/a/b")))
        #expect(try StreamPath("s2://basin/a/b").stream == "a/b")
        #expect(try ConsoleCommand(parsing: ["inspect", "wal/1/2"]) == .inspect(object: "wal/1/2"))
    }

    @Test(arguments: [
        [], ["nonsense"], ["locate"], ["locate", "basin/stream"], ["locate", "s2://basin"],
        ["locate", "s2:///stream"], ["locate", "s2://basin/"], ["inspect"], ["status", "now"],
    ])
    func nonsenseIsAUsageError(_ words: [String]) {
        let error = #expect(throws: CommandError.self) { try ConsoleCommand(parsing: words) }
        #expect(error?.exitCode == 2)
    }

    @Test(arguments: [(["s2://b/s"], "x"), (["s2://b/s"], "-1"), ([], "3")])
    func aCursorIsAStreamlet(_ rest: [String], _ after: String) {
        let error = #expect(throws: CommandError.self) {
            try ConsoleCommand(parsing: ["list-streamlets"] + rest, after: after)
        }
        #expect(error?.exitCode == 2)
    }

    private func answer(_ cell: TestCell, _ words: String...) throws -> Report {
        let command = try ConsoleCommand(parsing: words)
        return try #require(try answers(cell, command).first)
    }

    private func answers(
        _ cell: TestCell, _ command: ConsoleCommand, most: Int = 1_000
    ) throws -> [Report] {
        let console = Console(
            loop: cell.loop, metadata: cell.metadata, buckets: [cell.bucket], random: cell.random,
            streamletsMax: most)
        return try cell.loop.value { try await console.answer(command) }
    }

    @Test func statusTellsWhoHoldsTheLeases() throws {
        let cell = try TestCell()
        cell.cop().start()
        cell.loop.run(for: .seconds(2))
        _ = try cell.loop.value { [metadata = cell.metadata] in
            for part in 0..<3 {
                _ = try await metadata.holdLease("bgtask/trim/\(part)", holder: "w", stale: nil)
            }
        }
        let leases = try #require(try answers(cell, .status).last)
        #expect(leases.columns == ["lease", "holder", "parts"])
        #expect(leases.rows.count == 2 && leases.rows[1][0] == .text("cop"))
        #expect(leases.rows[0] == [.text("bgtask"), .text("w"), .number(3)])
    }

    @Test func moreStreamletsThanAreToldFollowByTheCursor() throws {
        let cell = try TestCell()
        let stream = try cell.stream("orders")
        let path = try StreamPath("s2://test-basin/orders")
        cell.cop().start()
        for count in 1...3 {
            // Each channel dies, and its streamlet is closed.
            try cell.channel().claim(stream)
            cell.loop.run(for: .seconds(10))
            let report = try #require(try answers(cell, .listStreamlets(path), most: 2).first)
            #expect(report.rows.count == min(count, 2))
            #expect(report.rows[0][1] == .number(UInt64(count - 1)), "the latest comes first")
            #expect((report.note?.hasSuffix("--after 1") == true) == (count == 3))
        }
        func numbers(after: StreamletNumber) throws -> [Report.Value] {
            let command = ConsoleCommand.listStreamlets(path, after: after)
            let report = try #require(try answers(cell, command, most: 2).first)
            #expect(report.note == nil)
            return report.rows.map { $0[1] }
        }
        #expect(try numbers(after: 1) == [.number(0)])
        #expect(try numbers(after: 2) == [.number(1), .number(0)])
        #expect(try numbers(after: 0).isEmpty)
    }

    @Test func aCellIsDescribed() throws {
        let cell = try TestCell()
        let channel = try cell.channel()
        let stream = try cell.stream("orders")
        try channel.claim(stream)
        try channel.write([(stream, ["one", "two"])])

        #expect(try answer(cell, "status").json.hasPrefix("{\"state\":\"active\",\"channels\":1,"))
        #expect(try answer(cell, "list-channels").rows.count == 1)
        let streamlets = try answer(cell, "list-streamlets", "s2://test-basin/orders")
        #expect(streamlets.json.contains("\"state\":\"open\",\"start\":0,\"end\":null"))
        #expect(try answer(cell, "list-streamlets") == streamlets)
        #expect(
            try answer(cell, "locate", "s2://test-basin/orders").json.contains(
                "\"channel\":\(channel.id),\"address\":\"127.0.0.1:1\",\"active\":true"))
        let chunk = try answer(cell, "inspect", LogKeys.chunk(channel.id, 0))
        #expect(chunk.json.contains("\"fragment\":\"records\""))
        #expect(chunk.json.contains("\"end_seq_num\":2"))
        #expect(try answer(cell, "doctor").rows.count == 2)
    }

    @Test func sealsAndSegmentsAreDecoded() throws {
        let cell = try TestCell()
        let channel = try cell.channel()
        let stream = try cell.stream("orders")
        try channel.claim(stream)
        try channel.write([(stream, ["one", "two"])])
        cell.cop().start()
        cell.loop.run(for: .seconds(10))
        #expect(
            try answer(cell, "inspect", LogKeys.chunk(channel.id, 1)).text.contains("lease passed"))
        let page = try cell.loop.value { [metadata = cell.metadata] in
            try await metadata.segments(of: stream, from: .seqNum(0), limit: 1)
        }
        let object = try #require(page.segments.first).object
        let report = try answer(cell, "inspect", object)
        #expect(report.json.contains("\"name\":\"s2://test-basin/orders\""))
        #expect(report.json.contains("\"closes\":true"))
    }

    @Test func whatIsNotThereIsAFailure() throws {
        let cell = try TestCell()
        _ = try cell.put("wal/odd", [Bytes(utf8: "no chunk at all")])
        for words in [
            ["inspect", "wal/none"], ["inspect", "wal/odd"], ["locate", "s2://test-basin/x"],
        ] {
            let console = Console(
                loop: cell.loop, metadata: cell.metadata, buckets: [cell.bucket],
                random: cell.random)
            let command = try ConsoleCommand(parsing: words)
            let error = #expect(throws: CommandError.self) {
                try cell.loop.value { try await console.answer(command) }
            }
            #expect(error?.exitCode == 1)
        }
    }
}
