// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Who gets in, and how: TLS towards clients and between processes, and the token.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct AccessTests {
    @Test func clientsByTLS() throws {
        var made: Authority?
        try withCell(
            .folder,
            { cell in
                let authority = try Authority(in: cell.folder, "public")
                made = authority
                return [
                    "MILLRACE_TLS_LISTEN": "127.0.0.1:\(cell.ports.tls)",
                    "MILLRACE_TLS_CERTIFICATE": authority.certificate,
                    "MILLRACE_TLS_KEY": authority.key,
                ]
            }
        ) { cell in
            let authority = try #require(made)
            let origin = "https://127.0.0.1:\(cell.ports.tls)"
            func curl(_ arguments: String...) throws -> String {
                try Program.run(
                    "curl",
                    ["-sS", "-m", "20", "--fail-with-body", "--cacert", authority.roots]
                        + arguments, [:])
            }
            let health = "\(origin)/health"
            for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--http1.0", "1.1")]
            {
                #expect(try curl(option, "-w", "%{http_version}", health) == "OK\(version)")
            }
            // The second frontend has a port of its own.
            #expect(try curl("https://127.0.0.1:\(cell.ports.tls + 1)/health") == "OK")
            // Who does not know the authority does not go on; nor does TLS 1.1.
            #expect(try !Program.succeeds("curl", ["-sS", "-m", "20", health]))
            #expect(
                try !Program.succeeds(
                    "curl",
                    ["-sS", "-m", "20", "--cacert", authority.roots, "--tls-max", "1.1", health]))

            // The official client insists on h2 by ALPN.
            let byTLS = [
                "SSL_CERT_FILE": authority.roots, "S2_ACCOUNT_ENDPOINT": origin,
                "S2_BASIN_ENDPOINT": origin,
            ]
            try cell.runScript("follow.py", "secure", "5000", variables: byTLS)
            // The same records in the clear.
            try cell.runScript("verify.py", "secure", "5000")
        }
    }

    @Test func processesByMutualTLS() throws {
        var made: (own: Authority, other: Authority)?
        try withCell(
            .folder,
            { cell in
                let own = try Authority(in: cell.folder, "cell")
                made = (own, try Authority(in: cell.folder, "other"))
                return [
                    "MILLRACE_RPC_TLS_CERTIFICATE": own.certificate,
                    "MILLRACE_RPC_TLS_KEY": own.key, "MILLRACE_RPC_TLS_ROOTS": own.roots,
                ]
            }
        ) { cell in
            let (own, other) = try #require(made)
            // Appends, follows, and reads of what is at rest.
            try cell.runScript("follow.py", "mutual", "5000")
            try cell.stop()
            try cell.start()
            try cell.runScript("verify.py", "mutual", "5000")

            // Two channels and the cachey.
            for offset in [1, 2, 81] {
                let address = "127.0.0.1:\(cell.ports.rpc + offset)"
                try waitUntil("\(address) is taken") { !Ports.isFree(cell.ports.rpc + offset) }
                func comes(_ roots: String, _ certificate: String, _ key: String, _ isIn: String)
                    throws
                {
                    try cell.runScript("mutual.py", address, roots, certificate, key, isIn)
                }
                try comes(own.roots, own.certificate, own.key, "yes")
                try comes(own.roots, "-", "-", "no")
                try comes(own.roots, other.certificate, other.key, "no")
                try comes("-", "-", "-", "no")
            }
        }
    }

    /// The status of a request to list basins.
    private func status(_ cell: Cell, _ headers: String...) throws -> String {
        try Program.run(
            "curl",
            ["-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"]
                + headers.flatMap { ["-H", $0] } + ["\(cell.endpoint(1))/v1/basins"], [:])
    }

    @Test func aCellWantsItsToken() throws {
        try withCell(.folder) { cell in
            #expect(try status(cell) == "401")
            #expect(try status(cell, "authorization: Bearer wrong") == "401")
            #expect(try status(cell, "authorization: Basic \(cell.token())") == "401")
            #expect(try status(cell, "authorization: Bearer \(cell.token())") == "200")
            let refusal = try Program.run(
                "curl", ["-sS", "-m", "20", "\(cell.endpoint(1))/v1/basins"], [:])
            #expect(refusal.contains(#""code":"#))
        }
    }

    @Test func anOpenCellWantsNoToken() throws {
        try withCell(.folder, { _ in ["MILLRACE_OPEN": "true"] }) { cell in
            #expect(try status(cell) == "200")
            #expect(try status(cell, "authorization: Bearer whatever") == "200")
            func curl(_ arguments: String...) throws -> String {
                let common = ["-sS", "-m", "20", "--fail-with-body"]
                return try Program.run(
                    "curl", common + ["-H", "content-type: application/json"] + arguments, [:])
            }
            let origin = cell.endpoint(1)
            let basin = "s2-basin: open-test-basin"
            _ = try curl("-d", #"{"basin":"open-test-basin"}"#, "\(origin)/v1/basins")
            _ = try curl("-H", basin, "-d", #"{"stream":"s"}"#, "\(origin)/v1/streams")
            let records = "\(origin)/v1/streams/s/records"
            _ = try curl("-H", basin, "-d", #"{"records":[{"body":"from anybody"}]}"#, records)
            let read = try curl("-H", basin, "\(records)?seq_num=0")
            #expect(read.contains(#""body":"from anybody""#), "\(read)")
        }
    }
}
