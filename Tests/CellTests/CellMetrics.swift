// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// What operators see of a cell: every process is asked for its health and its metrics.
struct CellMetrics {
    fileprivate struct Page {
        let role: String
        let exposition: Exposition
    }
    private var pages: [Page] = []

    /// Of latencies, of queues and of what is in flight, by role.
    private static let families: [String: [String]] = [
        "all": [
            "heap_bytes", "store_requests", "store_requests_total", "store_request_seconds",
            "store_puts_total", "store_stored_bytes_total", "metadata_statements",
            "metadata_statements_total", "metadata_statement_seconds",
        ],
        "frontend": [
            "requests", "requests_total", "request_seconds", "append_ack_seconds",
            "append_in_flight_bytes", "read_first_byte_seconds", "response_bytes", "rpc_calls",
            "rpc_calls_total", "rpc_call_seconds",
        ],
        "channel": [
            "records_total", "chunk_put_duration_seconds", "append_queue_delay_seconds",
            "chunks_in_flight", "open_chunk_bytes", "unstable_bytes", "unflushed_bytes",
            "blocked_sessions", "rpc_served_calls",
        ],
        "cachey": [
            "page_fetch_seconds", "first_page_seconds", "fetches", "gets", "waiters",
            "pages_in_flight", "rpc_served_calls",
        ],
        "bgtask": ["pass_seconds", "passes_running", "rpc_calls", "rpc_call_seconds"],
        "cop": ["recovery_seconds", "recoveries_running", "recoveries_pending"],
    ]

    /// Asks every process of a cell that has two channels, two frontends, a cachey and a bgtask.
    init(_ cell: Cell) throws {
        let offsets = [
            ("cop", 0), ("channel", 1), ("channel", 2), ("frontend", 101), ("frontend", 102),
            ("cachey", 201), ("bgtask", 251),
        ]
        for (role, offset) in offsets {
            let origin = "http://127.0.0.1:\(cell.ports.admin + offset)"
            try waitUntil("\(role) at \(origin) is ready") {
                try Program.succeeds("curl", ["-fsS", "-m", "5", origin + "/health"])
            }
            let said = try Program.run(
                "curl",
                ["-sS", "-m", "5", "-w", "%{http_code} %{content_type}", origin + "/metrics"], [:])
            let (text, status) = try #require(Self.lastLine(of: said))
            #expect(status == "200 text/plain; version=0.0.4; charset=utf-8")
            do {
                pages.append(Page(role: role, exposition: try Exposition(parsing: text)))
            } catch {
                throw CellError("\(role): \(error)")
            }
        }
    }

    private static func lastLine(of text: String) -> (before: String, line: String)? {
        guard let end = text.lastIndex(of: "\n") else { return nil }
        return (String(text[...end]), String(text[text.index(after: end)...]))
    }

    /// Every process has what its role must tell, and has counted what it did.
    func check() throws {
        for page in pages {
            let own = Self.families[page.role] ?? []
            for name in (Self.families["all"] ?? []) + own {
                _ = try page.exposition.family("millrace_\(page.role)_\(name)")
            }
            #expect(try page.total("metadata_statements_total", ["outcome": "done"]) > 0)
            #expect(try page.total("metadata_statement_seconds") > 0)
            #expect(try page.total("heap_bytes") > 65_536)
        }
        #expect(try sum("channel", "store_puts_total", ["class": "chunk", "outcome": "done"]) > 0)
        #expect(try sum("channel", "store_puts_total", ["class": "other", "outcome": "done"]) > 0)
        #expect(try sum("channel", "store_stored_bytes_total", ["class": "chunk"]) > 10_000)
        #expect(try sum("channel", "store_request_seconds", ["operation": "put"]) > 0)
        #expect(try sum("channel", "chunk_put_duration_seconds") > 0)
        #expect(try sum("frontend", "request_seconds", ["kind": "control"]) > 0)
        #expect(try sum("frontend", "append_ack_seconds") > 0)
        #expect(try sum("frontend", "rpc_call_seconds", ["method": "activate"]) > 0)
        #expect(try sum("bgtask", "pass_seconds") > 0)
    }

    private func sum(
        _ role: String, _ name: String, _ labels: [String: String] = [:]
    ) throws -> Double {
        try pages.filter { $0.role == role }.reduce(0) { $0 + (try $1.total(name, labels)) }
    }

    /// The page of all metrics, from what the processes tell.
    var document: String {
        var rows: [String: Row] = [:]
        for page in pages {
            for family in page.exposition.families {
                let name = family.name.dropFirst("millrace_\(page.role)_".count)
                let key = "\(name) \(family.kind) \(family.help)"
                rows[key, default: Row(String(name), family.kind, family.help)].add(
                    page.role, family)
            }
        }
        return Self.preface + rows.sorted { $0.key < $1.key }.map { $0.value.text }.joined()
    }

    private static let preface = """
        # Metrics

        Every process answers `/metrics` at its `--admin-listen`, in Prometheus' text format, and
        `/health` with 200 once it is ready. A metric's full name is `millrace_`, the process, `_`
        and its name here: `millrace_channel_records_total`. Times are in seconds, sizes in bytes. A
        histogram has buckets that double, from 1 microsecond to 67 seconds.

        This page is made from what the processes of a cell tell by a test, which fails when the two
        differ: `MILLRACE_WRITE_DOCS=1 deploy/test.sh --filter CellTests` rewrites it.

        | metric | type | labels | processes | meaning |
        |---|---|---|---|---|

        """

    private struct Row {
        let name, kind, help: String
        var roles: Set<String> = []
        var labels: [String: Set<String>] = [:]

        init(_ name: String, _ kind: String, _ help: String) {
            (self.name, self.kind, self.help) = (name, kind, help)
        }

        mutating func add(_ role: String, _ family: Exposition.Family) {
            roles.insert(role)
            for sample in family.samples {
                for (label, value) in sample.labels where label != "le" {
                    labels[label, default: []].insert(value)
                }
            }
        }

        var text: String {
            let labels = labels.sorted { $0.key < $1.key }.map { label, values in
                "`\(label)`: \(values.sorted().joined(separator: " "))"
            }
            let roles = roles.count == 5 ? "all" : roles.sorted().joined(separator: ", ")
            let cells = ["`\(name)`", kind, labels.joined(separator: "; "), roles, help]
            return "| \(cells.joined(separator: " | ")) |\n"
        }
    }
}

extension CellMetrics {
    /// The page of metrics says what the processes tell, no less and no more.
    func checkDocument() throws {
        let file = URL(filePath: #filePath).appending(path: "../../../docs/metrics.md").standardized
        if ProcessInfo.processInfo.environment["MILLRACE_WRITE_DOCS"] != nil {
            try document.write(to: file, atomically: true, encoding: .utf8)
        }
        let stored = try String(contentsOf: file, encoding: .utf8)
        #expect(stored == document, "MILLRACE_WRITE_DOCS=1 rewrites it")
    }
}

extension CellMetrics.Page {
    fileprivate func total(_ name: String, _ labels: [String: String] = [:]) throws -> Double {
        try exposition.family("millrace_\(role)_\(name)").total(labels)
    }
}
