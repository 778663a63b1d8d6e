// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Cacheys as processes: what they say over HTTP, what readers notice when they go, and their disk.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ReadCacheTests {
    private static let page = 64 << 10
    /// One of each, pages as small as they may be, and nothing in a channel's memory.
    private static func settings(_ more: [String: String] = [:]) -> [String: String] {
        [
            "MILLRACE_FRONTENDS": "1", "MILLRACE_CHANNELS": "1", "MILLRACE_PAGE_BYTES": "64KiB",
            "MILLRACE_WINDOW_BYTES": "1MiB",
        ].merging(more) { $1 }
    }

    @Test func objectsOverHTTP() throws {
        try withCell(.folder, { _ in Self.settings() }) { cell in
            let object = try StoredObject.large(of: cell)
            // Three pages, of which the first and the last are cut.
            let (first, last) = (Self.page - 1_000, 2 * Self.page + 5_000)
            let wanted = object.bytes[first...last]
            let ranges = [
                "\(first)-\(Self.page - 1)", "\(Self.page)-\(2 * Self.page - 1)",
                "\(2 * Self.page)-\(last)",
            ]
            let range = "bytes=\(first)-\(last)"
            func check(_ answer: HTTPAnswer) -> HTTPAnswer {
                #expect(answer.status == 206 && answer.body == wanted)
                let whole = "bytes \(first)-\(last)/\(object.bytes.count)"
                #expect(answer["content-range"] == [whole])
                return answer
            }
            // The first page's status stands in the head, the others' behind the body.
            let cold = check(try cell.fetchByHTTP2(object.path, range))
            #expect(cold["c0-status"] == ranges.map { "\($0); main; 0" })
            #expect(cold["content-length"] == ["\(wanted.count)"])

            let chunked = check(
                try cell.fetch(object.path, ["-H", "te: trailers", "-H", "range: \(range)"]))
            #expect(chunked["transfer-encoding"] == ["chunked"])
            #expect(chunked["trailer"] == ["c0-status"] && chunked["content-length"] == [])
            let statuses = chunked["c0-status"].map { $0.components(separatedBy: "; ") }
            #expect(statuses.map { $0[0] } == ranges)
            for status in statuses {
                let cachedAt = try #require(Double(status[2]))
                #expect(abs(cachedAt - Date.now.timeIntervalSince1970) < 100)
            }
            let plain = check(try cell.fetch(object.path, ["-H", "range: \(range)"]))
            #expect(plain["c0-status"].count == 1 && plain["content-length"].count == 1)
            #expect(plain["transfer-encoding"] == [])
            try refuse(cell, object)
            try count(cell, bytes: 3 * wanted.count)
        }
    }

    private func refuse(_ cell: Cell, _ object: StoredObject) throws {
        let size = object.bytes.count
        let head = try cell.fetch(object.path, ["-I", "-H", "range: bytes=0-9"])
        #expect(head.status == 206 && head["content-length"] == ["10"] && head.body.isEmpty)
        let behind = try cell.fetch(object.path, ["-H", "range: bytes=\(size)-\(size + 9)"])
        #expect(behind.status == 416 && behind["content-range"] == ["bytes */\(size)"])
        for (path, options, status) in [
            ("/fetch/main/no/such/object", ["-H", "range: bytes=0-9"], 404),
            ("/fetch/other/\(object.key)", ["-H", "range: bytes=0-9"], 400),
            (object.path, [], 400), (object.path, ["-H", "range: bytes=9-0"], 416),
            (object.path, ["-X", "POST", "-H", "range: bytes=0-9"], 405), ("/nowhere", [], 404),
        ] {
            let answer = try cell.fetch(path, options)
            #expect(answer.status == status, "\(path) \(options)")
            #expect(!answer.body.isEmpty)
        }
    }

    /// What it tells of all that.
    private func count(_ cell: Cell, bytes: Int) throws {
        // They count seconds that are over.
        try waitUntil("the rates are told") {
            let stats = try JSONDecoder().decode(
                [String: Double].self, from: cell.fetch("/stats", []).body)
            let names = ["egress_throughput_10s_bps", "ingress_throughput_10s_bps"]
            return stats.keys.sorted() == names && stats.values.allSatisfy { $0 > 0 }
        }
        let text = String(decoding: try cell.fetch("/metrics", []).body, as: UTF8.self)
        for line in [
            "fetches_total{surface=\"http\",outcome=\"ok\"} 4",
            "fetches_total{surface=\"http\",outcome=\"not_found\"} 1",
            "pages_total{source=\"bucket\"} 4", "gets_total ",
        ] { #expect(text.contains("\nmillrace_cachey_\(line)"), "\(line)\n\(text)") }
        let sent = try cell.metric("cachey_egress_bytes_total", adminPort: cell.ports.admin + 201)
        #expect(sent >= Double(bytes))
    }

    /// Readers at work while cacheys are killed, one after the other and then both, and come again;
    /// then a cell without any.
    @Test func readersDoNotNoticeThatCacheysDie() throws {
        let settings = Self.settings(["MILLRACE_CACHEYS": "2", "MILLRACE_MEMORY_BYTES": "1MiB"])
        try withCell(.folder, { _ in settings }) { cell in
            cell.bodyPadding = 4_000
            try cell.runScript("follow.py", "much", "4000")
            try cell.stop()
            try cell.start()
            let readers = try cell.script("catch_up.py", ["much", "4000", "4"])
            func more(_ count: Int) throws {
                let due = readers.text.ranges(of: "READ\n").count + count
                try waitUntil("more was read") {
                    guard readers.isRunning else { throw CellError(readers.text) }
                    return readers.text.ranges(of: "READ\n").count >= due
                }
            }
            try more(2)
            for victims in [[1], [2], [1, 2]] {
                for victim in victims { try cell.kill(port: cell.ports.cachey + victim - 1) }
                try more(4)
                // They are started again, and are of use again.
                for victim in victims {
                    try waitUntil("cachey \(victim) sends again") {
                        let port = cell.ports.admin + 200 + victim
                        return (try? cell.metric("cachey_egress_bytes_total", adminPort: port))
                            .map { $0 > 0 } ?? false
                    }
                }
            }
            // They may be back before anybody has missed them.
            for _ in 0..<20 where try fetches(cell, "bucket") == 0 {
                for victim in [1, 2] { try cell.kill(port: cell.ports.cachey + victim - 1) }
                try more(2)
            }
            try readers.tell("enough")
            try readers.finish(within: 60)
            let (fromCachey, fromBucket) = (
                try fetches(cell, "cachey"), try fetches(cell, "bucket")
            )
            #expect(fromCachey > 0 && fromBucket > 0, "\(fromCachey) \(fromBucket)")

            try cell.stop()
            cell.set(["MILLRACE_CACHEYS": "0"])
            try cell.start()
            try cell.runScript("verify.py", "much", "4000")
            #expect(try fetches(cell, "cachey") == 0 && fetches(cell, "bucket") > 0)
        }
    }

    /// How many ranges the frontend fetched from there.
    private func fetches(_ cell: Cell, _ source: String) throws -> Double {
        try cell.metric(
            "frontend_fetches_total{source=\"\(source)\"", adminPort: cell.ports.admin + 101)
    }

    /// Pages on disk outlive the process; one that rots is fetched anew, and never handed out.
    @Test func pagesOnDisk() throws {
        try withCell(
            .folder,
            { Self.settings(["MILLRACE_DISK_PATH": $0.folder.appending(path: "pages").path]) }
        ) { cell in
            let admin = cell.ports.admin + 201
            func metric(_ name: String) throws -> Double {
                try cell.metric("cachey_" + name, adminPort: admin)
            }
            let object = try StoredObject.large(of: cell)
            let pages = (object.bytes.count + Self.page - 1) / Self.page
            func fetchAll() throws {
                let whole = "range: bytes=0-\(object.bytes.count - 1)"
                let answer = try cell.fetch(object.path, ["-H", whole])
                #expect(answer.status == 206 && answer.body == object.bytes)
            }
            try fetchAll()
            #expect(try metric("pages_total{source=\"bucket\"}") == Double(pages))
            try waitUntil("the pages are on disk") { try metric("disk_pages") >= Double(pages) }
            try cell.stop()

            try cell.start()
            try waitUntil("the disk is read") { try metric("disk_pages") >= Double(pages) }
            try fetchAll()
            #expect(try metric("pages_total{source=\"disk\"}") == Double(pages))
            #expect(try metric("gets_total") == 0)
            try cell.stop()

            // A bit within some page of each file; each head is far shorter than a page.
            let folder = cell.folder.appending(path: "pages")
            let blocks = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter {
                $0.hasPrefix("block-")
            }
            for block in blocks {
                let file = folder.appending(path: block)
                var bytes = try Data(contentsOf: file)
                bytes[Self.page / 2] ^= 1
                try bytes.write(to: file)
            }
            try cell.start()
            try waitUntil("the disk is read") { try metric("disk_pages") >= Double(pages) }
            try fetchAll()
            let rotten = try metric("disk_corruptions_total")
            #expect(rotten >= 1 && Int(rotten) <= blocks.count, "\(rotten) pages, \(blocks)")
            #expect(try metric("pages_total{source=\"bucket\"}") == rotten)
            #expect(try metric("pages_total{source=\"disk\"}") == Double(pages) - rotten)
            try cell.runScript("verify.py", "stored", "\(StoredObject.records)")
        }
    }
}

/// An object of a folder, large enough for some pages.
private struct StoredObject {
    static let records = 3_000
    let key: String
    let bytes: Data

    var path: String { "/fetch/main/\(key)" }

    /// Appends records to the stream `stored` and takes the largest object that comes of it, once
    /// nothing moves any more: the cell is started anew, so that all is in segments.
    static func large(of cell: Cell) throws -> StoredObject {
        cell.bodyPadding = 400
        try cell.runScript("follow.py", "stored", "\(records)")
        try cell.stop()
        try cell.start()
        let folder = cell.folder.appending(path: "objects")
        var largest: StoredObject?
        for case let path as String in FileManager.default.enumerator(atPath: folder.path)
            ?? FileManager.DirectoryEnumerator()
        where path.hasSuffix("@") {
            // What a process tries the store with as it starts is gone soon.
            guard let bytes = try? Data(contentsOf: folder.appending(path: path)) else { continue }
            if bytes.count > largest?.bytes.count ?? 0 {
                largest = StoredObject(key: String(path.dropLast()), bytes: bytes)
            }
        }
        guard let largest, largest.bytes.count > 300_000 else {
            throw CellError("no object is large: \(largest?.bytes.count ?? 0) bytes")
        }
        return largest
    }
}

/// What curl was told, with the trailers among the headers.
private struct HTTPAnswer {
    let status: Int
    private let headers: [(name: String, value: String)]
    let body: Data

    init(head: String, body: Data) {
        let lines = head.split(whereSeparator: \.isNewline)
        status = lines.first?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        headers = lines.dropFirst().compactMap { line in
            let parts = line.split(separator: ":", maxSplits: 1)
            return parts.count < 2
                ? nil : (parts[0].lowercased(), parts[1].trimmingCharacters(in: .whitespaces))
        }
        self.body = body
    }

    /// The header's values, in their order.
    subscript(name: String) -> [String] { headers.filter { $0.name == name }.map(\.value) }
}

extension Cell {
    /// Asks the first cachey.
    fileprivate func fetch(_ path: String, _ options: [String]) throws -> HTTPAnswer {
        let head = folder.appending(path: "head"), body = folder.appending(path: "body")
        try Data().write(to: body)
        try Program.run(
            "curl",
            ["-sS", "-m", "20", "-D", head.path, "-o", body.path] + options
                + ["http://127.0.0.1:\(ports.cachey)\(path)"], [:])
        let isHead = options.contains("-I")
        return HTTPAnswer(
            head: try String(contentsOf: head, encoding: .utf8),
            // Of a HEAD curl writes the headers there.
            body: isHead ? Data() : try Data(contentsOf: body))
    }

    /// The same by HTTP/2, from a client that takes trailers.
    fileprivate func fetchByHTTP2(_ path: String, _ range: String) throws -> HTTPAnswer {
        let head = folder.appending(path: "head"), body = folder.appending(path: "body")
        try runScript(
            "http2_fetch.py", "127.0.0.1", "\(ports.cachey)", path, range, head.path, body.path)
        return HTTPAnswer(
            head: try String(contentsOf: head, encoding: .utf8), body: try Data(contentsOf: body))
    }
}
