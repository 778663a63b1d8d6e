// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The figures of a run.
struct Report: Codable {
    struct Figure: Codable {
        var value: Double
        var unit: String
    }

    var date = Date().formatted(.iso8601)
    var build = ""
    var machine = Report.describeMachine()
    var figures: [String: Figure] = [:]
    /// The order in which figures came.
    var order: [String] = []
    var notes: [String] = []

    mutating func add(_ name: String, _ value: Double, _ unit: String) {
        if figures[name] == nil { order.append(name) }
        figures[name] = Figure(value: value, unit: unit)
    }

    subscript(_ name: String) -> Double? { figures[name]?.value }

    /// `a / b`, if both were measured.
    mutating func addRatio(_ name: String, _ a: String, _ b: String) {
        guard let a = self[a], let b = self[b], b > 0 else { return }
        add(name, a / b, "×")
    }

    /// The figures of another run, where this one has none.
    mutating func merge(_ other: Report) {
        for name in other.order where figures[name] == nil {
            add(name, other.figures[name]!.value, other.figures[name]!.unit)
        }
        notes += other.notes
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(filePath: path))
    }

    static func read(_ path: String) throws -> Report {
        try JSONDecoder().decode(Report.self, from: Data(contentsOf: URL(filePath: path)))
    }

    /// Name, value and unit in columns, one line each.
    var table: String {
        let width = order.map(\.count).max() ?? 0
        var group = ""
        var text = ""
        for name in order {
            guard let figure = figures[name] else { continue }
            let own = String(name.split(separator: " ")[0])
            if own != group, !text.isEmpty { text += "\n" }
            group = own
            let label = name.padding(toLength: width + 2, withPad: " ", startingAt: 0)
            text += label + Self.number(figure.value).leftPadded(10) + " \(figure.unit)\n"
        }
        return text
    }

    static func number(_ value: Double) -> String {
        switch abs(value) {
        case 0: "0"
        case ..<1: String(format: "%.3f", value)
        case ..<100: String(format: "%.2f", value)
        default: String(format: "%.0f", value)
        }
    }

    private static func describeMachine() -> String {
        let model =
            readFile("/proc/cpuinfo").split(separator: "\n")
            .first { $0.hasPrefix("model name") }?.split(separator: ":").last
            .map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
        return "\(ProcessInfo.processInfo.activeProcessorCount) × \(model)"
    }
}

extension String {
    func leftPadded(_ width: Int) -> String {
        String(repeating: " ", count: max(0, width - count)) + self
    }
}

/// Where the run is, for whoever watches it on a terminal.
struct Progress {
    private let total: Int
    private var done = 0
    private let isShown = isatty(2) == 1

    init(total: Int) { self.total = total }

    mutating func begin(_ name: String) {
        if isShown {
            let filled = done * 30 / max(1, total)
            let bar =
                String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
            say("\r\u{1B}[2K\(bar) \(done)/\(total)  \(name)", end: "")
        } else {
            say("\(done)/\(total) \(name)")
        }
        done += 1
    }

    func finish() { if isShown { say("\r\u{1B}[2K", end: "") } }
}

func say(_ text: String, end: String = "\n") {
    FileHandle.standardError.write(Data((text + end).utf8))
}
