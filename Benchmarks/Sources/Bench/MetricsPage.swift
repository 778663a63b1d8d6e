// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// What the cell's processes report, by name and labels, summed over processes of a kind.
struct MetricsPage {
    private var values: [String: Double] = [:]
    /// Processes that did not answer.
    private var missing: [String] = []

    init(_ cell: [CellProcess]) {
        for process in cell {
            guard let admin = process.admin, let text = Self.fetch(admin) else {
                missing.append(process.label)
                continue
            }
            for line in text.split(separator: "\n") where !line.hasPrefix("#") {
                let words = line.split(separator: " ")
                guard words.count >= 2, let value = Double(words[1]) else { continue }
                values[String(words[0]), default: 0] += value
            }
        }
    }

    /// The value by its name without `millrace_`, of all its labels, or 0.
    subscript(_ name: String) -> Double {
        values.reduce(0) { sum, entry in
            let isNamed = entry.key.split(separator: "{")[0] == "millrace_" + name
            return isNamed ? sum + entry.value : sum
        }
    }

    /// The value of one series: `labels` as they stand on the page.
    subscript(_ name: String, _ labels: String) -> Double {
        values["millrace_\(name){\(labels)}"] ?? 0
    }

    /// All series of this name: their labels, as they stand on the page, and values.
    func series(_ name: String) -> [String: Double] {
        let start = "millrace_\(name){"
        var found: [String: Double] = [:]
        for (key, value) in values where key.hasPrefix(start) {
            found[String(key.dropFirst(start.count).dropLast())] = value
        }
        return found
    }

    /// The page of a cell all of whose processes answer, so that what is 0 was counted as 0.
    static func complete(_ cell: [CellProcess]) throws(ClientError) -> MetricsPage {
        let page = MetricsPage(cell)
        guard page.missing.isEmpty else {
            throw ClientError("no metrics of \(page.missing.joined(separator: ", "))")
        }
        return page
    }

    /// Requests of this kind, `put` for one, that the cell's processes made to its store.
    func storeRequests(_ operation: String) -> Double {
        values.reduce(0) { sum, entry in
            let isCounted =
                entry.key.contains("_store_requests_total{")
                && entry.key.contains("operation=\"\(operation)\"")
            return isCounted ? sum + entry.value : sum
        }
    }

    /// PUTs of objects of this class, however they ended, by processes of this kind.
    func puts(_ process: String, of class: String) -> Double {
        values.reduce(0) { sum, entry in
            let isCounted = entry.key.hasPrefix(
                "millrace_\(process)_store_puts_total{class=\"\(`class`)\",")
            return isCounted ? sum + entry.value : sum
        }
    }

    /// A page by HTTP/1.1.
    private static func fetch(_ address: String) -> String? {
        let parts = address.split(separator: ":")
        guard parts.count == 2, let port = UInt16(parts[1]),
            let page = try? Page(host: String(parts[0]), port: port)
        else { return nil }
        let poller = Poller()
        poller.add(page)
        do {
            try poller.wait("metrics", seconds: 30) { page.isOver }
        } catch { return nil }
        return page.text
    }

    private final class Page: Pollable {
        private let socket: Socket
        private var bytes: [UInt8] = []
        private(set) var isOver = false

        init(host: String, port: UInt16) throws(ClientError) {
            socket = try Socket(host: host, port: port)
            let request = "GET /metrics HTTP/1.1\r\nhost: \(host)\r\nconnection: close\r\n\r\n"
            socket.write(request.utf8)
        }

        var text: String { String(decoding: bytes, as: UTF8.self) }
        var descriptor: Int32 { socket.descriptor }
        var wantsToWrite: Bool { socket.wantsToWrite }
        func flush() { if !socket.flush() { isOver = true } }

        func readable() {
            var room = [UInt8](repeating: 0, count: 65_536)
            let count = room.withUnsafeMutableBytes { socket.read(into: $0) }
            guard let count else {
                isOver = true
                return
            }
            bytes += room[..<count]
        }
    }
}
