// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A page of metrics, read as strictly as Prometheus' text format 0.0.4 and its customs allow.
struct Exposition {
    struct Sample {
        /// What stands behind the family's name: empty but for histograms.
        let suffix: String
        let labels: [String: String]
        let value: Double
    }

    struct Family {
        let name: String
        let help: String
        let kind: String
        var samples: [Sample] = []
    }

    private(set) var families: [Family] = []

    init(parsing text: String) throws {
        guard text.last == "\n" else { throw CellError("the last line does not end") }
        let lines = text.dropLast().split(separator: "\n", omittingEmptySubsequences: false)
        var help: (name: String, text: String)?
        for line in lines {
            if let match = line.wholeMatch(of: #/# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (\S.*)/#) {
                guard help == nil else { throw CellError("two lines of help: \(line)") }
                help = (String(match.1), String(match.2))
            } else if let match = line.wholeMatch(
                of: #/# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)/#)
            {
                guard let said = help, said.name == match.1 else {
                    throw CellError("no help before: \(line)")
                }
                guard !families.contains(where: { $0.name == said.name }) else {
                    throw CellError("a second time: \(line)")
                }
                families.append(Family(name: said.name, help: said.text, kind: String(match.2)))
                help = nil
            } else {
                guard help == nil, !families.isEmpty else {
                    throw CellError("of no family: \(line)")
                }
                try families[families.count - 1].add(line)
            }
        }
        guard help == nil else { throw CellError("help without a family") }
        for family in families { try family.check() }
    }

    func family(_ name: String) throws -> Family {
        guard let family = families.first(where: { $0.name == name }) else {
            throw CellError("there is no \(name)")
        }
        return family
    }
}

extension Exposition.Family {
    fileprivate mutating func add(_ line: Substring) throws {
        guard line.hasPrefix(name),
            let match = line.dropFirst(name.count).wholeMatch(
                of: #/(_bucket|_sum|_count|)(\{(.+)\})? (-?[0-9.]+(?:e[-+]?[0-9]+)?)/#),
            let value = Double(match.4)
        else { throw CellError("not a sample of \(name): \(line)") }
        var labels: [String: String] = [:]
        var rest = match.3 ?? ""
        while !rest.isEmpty {
            guard let label = rest.prefixMatch(of: #/([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"(,|$)/#),
                labels.updateValue(String(label.2), forKey: String(label.1)) == nil
            else { throw CellError("not labels: \(line)") }
            rest = rest[label.range.upperBound...]
            if rest.isEmpty && label.3 == "," { throw CellError("a comma too many: \(line)") }
        }
        samples.append(
            Exposition.Sample(suffix: String(match.1), labels: labels, value: value))
    }

    fileprivate func check() throws {
        guard !samples.isEmpty else { throw CellError("\(name) has no samples") }
        let keys = samples.map { "\($0.suffix) \($0.labels.sorted { $0.key < $1.key })" }
        guard Set(keys).count == keys.count else { throw CellError("\(name): a sample twice") }
        let isCounter = kind == "counter"
        guard isCounter == name.hasSuffix("_total") else { throw CellError("\(name): a \(kind)") }
        if kind == "histogram" {
            guard name.hasSuffix("_seconds") else { throw CellError("\(name): of what unit?") }
            return try checkHistogram()
        }
        for sample in samples {
            guard sample.suffix.isEmpty, sample.value >= 0 else {
                throw CellError("\(name): \(sample)")
            }
        }
    }

    private func checkHistogram() throws {
        var buckets: [[String: String]: [(bound: Double, count: Double)]] = [:]
        for sample in samples where sample.suffix == "_bucket" {
            var labels = sample.labels
            guard let bound = labels.removeValue(forKey: "le").flatMap(Double.init) else {
                throw CellError("\(name): a bucket without a bound")
            }
            buckets[labels, default: []].append((bound, sample.value))
        }
        for (labels, series) in buckets {
            for (low, high) in zip(series, series.dropFirst()) {
                guard low.bound < high.bound, low.count <= high.count else {
                    throw CellError("\(name): buckets out of order")
                }
            }
            guard series.last?.bound == .infinity,
                let sum = value("_sum", labels), sum >= 0,
                let count = value("_count", labels), count == series.last?.count
            else { throw CellError("\(name)\(labels): an incomplete histogram") }
        }
        guard samples.count == buckets.values.reduce(0, { $0 + $1.count + 2 }) else {
            throw CellError("\(name): samples of no histogram")
        }
    }

    private func value(_ suffix: String, _ labels: [String: String]) -> Double? {
        samples.first { $0.suffix == suffix && $0.labels == labels }?.value
    }

    /// The sum of all samples with these labels, among others; of a histogram, how often.
    func total(_ labels: [String: String] = [:]) -> Double {
        samples.reduce(0) { sum, sample in
            let isMeant =
                sample.suffix == (kind == "histogram" ? "_count" : "")
                && labels.allSatisfy { sample.labels[$0.key] == $0.value }
            return isMeant ? sum + sample.value : sum
        }
    }
}
