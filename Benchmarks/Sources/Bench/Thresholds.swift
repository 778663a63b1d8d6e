// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What figures must be, as it is kept in git: ratios and counts, which travel between machines.
struct Thresholds: Codable {
    struct Bound: Codable {
        /// The scenarios that give the figure. Where all of them were asked for, it must be there.
        var of: [String]
        var min: Double?
        var max: Double?
        /// What is aimed for; not reaching it is no failure.
        var goal: Double?
    }

    var figures: [String: Bound]

    static func read(_ path: String) throws -> Thresholds {
        try JSONDecoder().decode(Thresholds.self, from: Data(contentsOf: URL(filePath: path)))
    }

    /// One line per figure, and whether all bounds hold. What was asked for and not measured is
    /// as bad as a broken bound.
    func compare(
        _ report: Report, asked: (_ scenario: String) -> Bool
    ) -> (text: String, holds: Bool) {
        var text = ""
        var holds = true
        let width = (figures.keys.map(\.count).max() ?? 0) + 2
        for (name, bound) in figures.sorted(by: { $0.key < $1.key }) {
            let label = name.padding(toLength: width, withPad: " ", startingAt: 0)
            guard let value = report[name] else {
                let isMissing = bound.of.allSatisfy(asked)
                text += "\(label)" + (isMissing ? "MISSING\n" : "not asked for\n")
                if isMissing { holds = false }
                continue
            }
            let isKept = bound.holds(value)
            holds = holds && isKept
            var line = "\(label)\(Report.number(value).leftPadded(8))  "
            line += (isKept ? "kept   " : "BROKEN ") + bound.limits
            if let goal = bound.goal {
                let isReached = bound.min != nil ? value >= goal : value <= goal
                line += "; goal \(Report.number(goal))" + (isReached ? " reached" : " not reached")
            }
            text += line + "\n"
        }
        return (text, holds)
    }
}

extension Thresholds.Bound {
    /// What is no number holds nowhere.
    fileprivate func holds(_ value: Double) -> Bool {
        value >= min ?? -.infinity && value <= max ?? .infinity
    }

    fileprivate var limits: String {
        [min.map { "≥ \(Report.number($0))" }, max.map { "≤ \(Report.number($0))" }]
            .compactMap { $0 }.joined(separator: ", ")
    }
}
