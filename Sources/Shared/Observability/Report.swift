// SPDX-License-Identifier: Apache-2.0

/// What a command found: rows of named values, printed for people or for programs.
package struct Report: Equatable, Sendable {
    package enum Value: Equatable, Sendable {
        case text(String)
        case number(UInt64)
        case flag(Bool)
        case none

        package init(_ text: String?) { self = text.map(Value.text) ?? .none }
        package init(_ number: UInt64?) { self = number.map(Value.number) ?? .none }
    }
    package let columns: [String]
    package private(set) var rows: [[Value]] = []

    /// What must be said about the rows besides: on stderr, where they go to stdout.
    package var note: String?

    package init(_ columns: [String]) { self.columns = columns }

    package mutating func add(_ row: [Value]) {
        precondition(row.count == columns.count, "a row has a value for each column")
        rows.append(row)
    }

    /// Columns aligned under their names.
    package var text: String {
        let lines = [columns] + rows.map { $0.map(\.plain) }
        let widths = columns.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
        var text = ""
        for line in lines {
            var row = ""
            for (cell, width) in zip(line, widths) {
                row += cell + String(repeating: " ", count: width - cell.count + 2)
            }
            while row.last == " " { row.removeLast() }
            text += row + "\n"
        }
        return text
    }

    /// One JSON object a line.
    package var json: String {
        var text = ""
        for row in rows {
            let fields = zip(columns, row).map { "\(Self.quoted($0)):\($1.json)" }
            text += "{" + fields.joined(separator: ",") + "}\n"
        }
        return text
    }

    fileprivate static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\u{0}"..<" ":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}

extension Report.Value {
    fileprivate var plain: String {
        switch self {
        // Names may hold anything: nothing of it may steer a terminal.
        case .text(let text): String(text.map { $0.isControl ? "\u{FFFD}" : $0 })
        case .number(let number): String(number)
        case .flag(let flag): flag ? "yes" : "no"
        case .none: "-"
        }
    }

    fileprivate var json: String {
        switch self {
        case .text(let text): Report.quoted(text)
        case .number(let number): String(number)
        case .flag(let flag): String(flag)
        case .none: "null"
        }
    }
}

extension Character {
    fileprivate var isControl: Bool {
        unicodeScalars.contains { $0.properties.generalCategory == .control }
    }
}
