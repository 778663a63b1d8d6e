// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// A peer that stops reading leaves the sender below a stated number of bytes, whatever is sent;
/// read from the sender's process, not from what it says of itself alone.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct MemoryTests {
    /// MiB that the frontend may hold for readers in these tests.
    private static let responseLimit = 32

    /// Three hundred and sixty stalled readers, of every form and over both protocols, of records
    /// as large as they may be, too. What is held for them costs a frontend its limit and a single
    /// range; its process grows by less than 128 MiB beyond the limit, with all copies and
    /// connections.
    @Test(arguments: [60_000, 1_000_000])
    func stalledClientsCostAFrontendItsLimitAtMost(recordBytes: Int) throws {
        try withCell(
            .folder,
            { _ in
                [
                    "MILLRACE_FRONTENDS": "1",
                    "MILLRACE_RESPONSE_BYTES": "\(Self.responseLimit)MiB",
                ]
            }
        ) { cell in
            let said = try cell.runScript(
                "stalled.py", "clients", cell.endpoint(1), cell.token(),
                "--pid", "\(cell.processID(port: cell.ports.frontends))",
                "--record", "\(recordBytes)",
                "--limit", "\(Self.responseLimit)", "--bound", "\(Self.responseLimit + 128)")
            #expect(said.hasSuffix("OK\n"), "\(said)")
        }
    }

    /// A frontend that is frozen while 216 MB are appended to twelve streams that it follows: for
    /// it a channel holds at most 64 MiB on the connection, and 4 MiB for each stream. Records lie
    /// in slabs that they share with others: its process grows by less than 160 MiB.
    @Test func aFrozenFrontendCostsAChannelItsWindowAtMost() throws {
        try withCell(
            .folder,
            { _ in ["MILLRACE_WINDOW_BYTES": "8MiB", "MILLRACE_FLUSH_BYTES": "8MiB"] }
        ) { cell in
            let said = try cell.runScript(
                "stalled.py", "peer", cell.endpoint(1), cell.token(),
                "--frozen", cell.endpoint(2),
                "--pid", "\(cell.processID(port: cell.ports.frontends + 1))",
                "--channel", "\(cell.processID(port: cell.ports.rpc + 1))",
                "--channel", "\(cell.processID(port: cell.ports.rpc + 2))", "--bound", "160")
            #expect(said.hasSuffix("OK\n"), "\(said)")
        }
    }
}
