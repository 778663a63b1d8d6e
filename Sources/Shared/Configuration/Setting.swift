// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// One thing that can be set: `--x-y` on the command line, `MILLRACE_X_Y` in the environment.
///
/// The value's type says how the text is read; every text is checked when the process starts, so
/// that reading a setting later cannot fail.
package struct Setting<Value: Sendable>: Sendable {
    /// Lower case, words joined by hyphens.
    package let name: String
    /// What the value looks like, for people: `host:port`.
    package let form: String
    /// The text that applies where nobody set one; nil where somebody must.
    package let fallback: String?
    /// One line.
    package let help: String
    /// The text's value, or nil where it has none.
    package let parse: @Sendable (String) -> Value?

    package init(
        _ name: String, form: String, fallback: String?, help: String,
        parse: @escaping @Sendable (String) -> Value?
    ) {
        self.name = name
        self.form = form
        self.fallback = fallback
        self.help = help
        self.parse = parse
    }
}

/// A setting whatever its type, as tables list it.
package protocol AnySetting: Sendable {
    var name: String { get }
    var form: String { get }
    var fallback: String? { get }
    var help: String { get }
    /// Whether a bare `--name` on the command line means yes.
    var isFlag: Bool { get }
    func accepts(_ text: String) -> Bool
}

extension Setting: AnySetting {
    package var isFlag: Bool { Value.self == Bool.self }
    package func accepts(_ text: String) -> Bool { parse(text) != nil }
}

extension AnySetting {
    package var option: String { "--\(name)" }
    package var variable: String {
        "MILLRACE_" + name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
    }
}

extension Setting where Value == String {
    package static func text(
        _ name: String, form: String = "text", _ fallback: String?, _ help: String
    ) -> Setting {
        Setting(name, form: form, fallback: fallback, help: help) { $0 }
    }

    /// A text out of a few.
    package static func choice(
        _ name: String, _ choices: [String], _ fallback: String, _ help: String
    ) -> Setting {
        Setting(name, form: choices.joined(separator: "|"), fallback: fallback, help: help) {
            choices.contains($0) ? $0 : nil
        }
    }

    /// `host:port`; with an empty fallback it may also be empty.
    package static func address(_ name: String, _ fallback: String?, _ help: String) -> Setting {
        Setting(name, form: "host:port", fallback: fallback, help: help) { text in
            let isRight = text.isEmpty ? fallback == "" : hasPort(text)
            return isRight ? text : nil
        }
    }

    /// Where a process reaches another one: `host:port` or `unix:/path`; with an empty fallback it
    /// may also be empty.
    package static func peerAddress(
        _ name: String, _ fallback: String?, _ help: String
    ) -> Setting {
        let most = SocketPath.bytesMax
        let form = "host:port, or unix: and an absolute path of at most \(most) bytes"
        return Setting(name, form: form, fallback: fallback, help: help) { text in
            let path = SocketPath(address: text)
            let isRight =
                text.isEmpty ? fallback == "" : path.map { $0.isShortEnough } ?? hasPort(text)
            return isRight ? text : nil
        }
    }

    private static func hasPort(_ text: String) -> Bool {
        guard let colon = text.lastIndex(of: ":"), colon > text.startIndex,
            let port = Int(text[text.index(after: colon)...])
        else { return false }
        return (0...65_535).contains(port)
    }
}

extension Setting where Value == [String] {
    /// Texts joined by commas; an empty text is an empty list.
    package static func list(_ name: String, _ fallback: String?, _ help: String) -> Setting {
        Setting(name, form: "a,b,…", fallback: fallback, help: help) { text in
            let items = text.split(separator: ",", omittingEmptySubsequences: false).map(
                String.init)
            if text.isEmpty { return [] }
            return items.contains("") ? nil : items
        }
    }
}

extension Setting where Value == Bool {
    package static func flag(_ name: String, _ fallback: Bool, _ help: String) -> Setting {
        Setting(name, form: "true|false", fallback: "\(fallback)", help: help) {
            switch $0.lowercased() {
            case "true", "yes", "on", "1": true
            case "false", "no", "off", "0": false
            default: nil
            }
        }
    }
}

extension Setting where Value == Int {
    package static func integer(
        _ name: String, _ range: ClosedRange<Int>, _ fallback: Int?, _ help: String
    ) -> Setting {
        Setting(
            name, form: "\(range.lowerBound)…\(range.upperBound)",
            fallback: fallback.map(String.init),
            help: help
        ) { Int($0).flatMap { range.contains($0) ? $0 : nil } }
    }

    /// A count of bytes: `8MiB`, `512KiB`, `1000000`. Units are binary; MB and MiB mean the same.
    package static func bytes(
        _ name: String, _ range: ClosedRange<Int>, _ fallback: String, _ help: String
    ) -> Setting {
        Setting(name, form: "bytes", fallback: fallback, help: help) { text in
            Quantity.bytes(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }
}

extension Setting where Value == Nanoseconds {
    /// A duration: `250ms`, `3s`, `10m`, `1h`, `7d`, or several in a row (`1m30s`).
    package static func duration(
        _ name: String, _ range: ClosedRange<Nanoseconds>, _ fallback: String, _ help: String
    ) -> Setting {
        Setting(name, form: "duration", fallback: fallback, help: help) { text in
            Quantity.duration(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }
}

/// Numbers with units.
package enum Quantity {
    /// The number of bytes that `text` means, or nil.
    package static func bytes(_ text: String) -> Int? {
        guard let (number, unit, rest) = split(text[...]), rest.isEmpty else { return nil }
        let shift: Int
        switch unit.lowercased() {
        case "", "b": shift = 0
        case "k", "kb", "kib": shift = 10
        case "m", "mb", "mib": shift = 20
        case "g", "gb", "gib": shift = 30
        case "t", "tb", "tib": shift = 40
        default: return nil
        }
        let (value, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : value
    }

    /// The nanoseconds that `text` means, or nil. A bare number other than 0 has no unit: nil.
    package static func duration(_ text: String) -> Nanoseconds? {
        if text == "0" { return 0 }
        var rest = text[...]
        var total: Nanoseconds = 0
        repeat {
            guard let (number, unit, after) = split(rest), let scale = durations[unit.lowercased()]
            else { return nil }
            let (value, overflow) = Int64(number).multipliedReportingOverflow(by: scale)
            let (sum, carried) = total.addingReportingOverflow(value)
            if overflow || carried { return nil }
            total = sum
            rest = after
        } while !rest.isEmpty
        return total
    }

    private static let durations: [String: Nanoseconds] = [
        "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": .seconds(1), "m": .seconds(60),
        "h": .seconds(3_600), "d": .seconds(86_400),
    ]

    /// A leading number, the letters behind it, and what follows.
    private static func split(_ text: Substring) -> (Int, Substring, Substring)? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = Int(digits) else { return nil }
        let unit = text[digits.endIndex...].prefix { $0.isLetter }
        return (number, unit, text[unit.endIndex...])
    }
}
