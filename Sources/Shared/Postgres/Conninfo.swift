// SPDX-License-Identifier: Apache-2.0

internal import CPostgres

/// An operator's connection string, taken apart: libpq's settings with ours around them, for each
/// server that it names.
///
/// One server is tried at a time. libpq would try them in their order within one attempt, and an
/// attempt that ends for lack of time at a silent one would never come to the next.
struct Conninfo {
    typealias Setting = (keyword: String, value: String)

    /// Settings for all servers, in the order in which libpq tries them.
    let all: [Setting]
    /// Settings for each of them alone; at least one.
    let servers: [[Setting]]

    /// `defaults` count where `text` says nothing; `options`, for the session, come behind its own
    /// and so hold whatever those say. A text that cannot be read is left to libpq, which says what
    /// is wrong with it when it connects.
    init(_ text: String, defaults: [Setting], options: String) {
        guard let parsed = Self.parse(text) else {
            all = defaults + [("options", options), ("dbname", text)]
            servers = [all]
            return
        }
        var values = Dictionary(defaults, uniquingKeysWith: { $1 })
        values.merge(parsed) { $1 }
        values["options"] = [values["options"], options].compactMap(\.self).joined(separator: " ")
        values["client_encoding"] = "UTF8"
        all = Self.settings(values)
        servers = Self.split(values)
    }

    private static func settings(_ values: [String: String]) -> [Setting] {
        values.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    private static func parse(_ text: String) -> [String: String]? {
        guard let first = PQconninfoParse(text, nil) else { return nil }
        defer { PQconninfoFree(first) }
        var values: [String: String] = [:]
        var next = first
        while let keyword = next.pointee.keyword {
            if let value = next.pointee.val {
                values[String(cString: keyword)] = String(cString: value)
            }
            next += 1
        }
        return values
    }

    /// One set of settings per entry of the lists of hosts; a single port is that of every host.
    private static func split(_ values: [String: String]) -> [[Setting]] {
        let keywords = ["host", "hostaddr", "port"]
        let lists = keywords.map { keyword in
            values[keyword].map { $0.split(separator: ",", omittingEmptySubsequences: false) }
        }
        let count = lists[1]?.count ?? lists[0]?.count ?? 1
        let ports = lists[2]?.count ?? 1
        // Where the lists do not match, it is for libpq to say so.
        guard count > 1, lists[0]?.count ?? count == count, ports == 1 || ports == count else {
            return [settings(values)]
        }
        return (0..<count).map { index in
            var own = values
            for (keyword, list) in zip(keywords, lists) {
                if let list { own[keyword] = String(list[list.count == 1 ? 0 : index]) }
            }
            return settings(own)
        }
    }
}

/// Calls `connect` with `settings` as libpq takes them.
func withSettings(
    _ settings: [Conninfo.Setting],
    _ connect: (UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<UnsafePointer<CChar>?>?)
        -> OpaquePointer?
) -> OpaquePointer? {
    withCStrings(settings.map(\.keyword) + [nil]) { keywords in
        withCStrings(settings.map(\.value) + [nil]) { values in connect(keywords, values) }
    }
}
