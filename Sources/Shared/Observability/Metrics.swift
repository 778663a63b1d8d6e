// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// The metrics of one role in one process, in Prometheus terms. Confined to the role's loop, so
/// that counting is an addition. Names are `millrace_<role>_<noun>_<unit>`, in seconds and bytes.
package final class Metrics {
    private let prefix: String
    private var families: [Family] = []

    package init(role: String) { prefix = "millrace_\(role)_" }

    /// A count that only grows. `labels` are written as they stand: `class="express"`.
    package func counter(_ name: String, labels: String = "", help: String) -> Counter {
        let counter = Counter()
        add(name, "counter", help, labels) {
            [.init(suffix: "", labels: labels, value: "\(counter.value)")]
        }
        return counter
    }

    /// A count that somebody else keeps, and that only grows.
    package func counter(
        _ name: String, labels: String = "", help: String, reading read: @escaping () -> UInt64
    ) {
        add(name, "counter", help, labels) {
            [.init(suffix: "", labels: labels, value: "\(read())")]
        }
    }

    /// A value that is read when somebody asks.
    package func gauge(
        _ name: String, labels: String = "", help: String, _ read: @escaping () -> Double
    ) {
        add(name, "gauge", help, labels) { [.init(suffix: "", labels: labels, value: "\(read())")] }
    }

    /// A distribution of durations.
    package func histogram(_ name: String, labels: String = "", help: String) -> Histogram {
        let histogram = Histogram()
        self.histogram(name, labels: labels, help: help) { histogram.durations }
        return histogram
    }

    /// A distribution of durations that somebody else keeps.
    package func histogram(
        _ name: String, labels: String = "", help: String, reading read: @escaping () -> Durations
    ) {
        add(name, "histogram", help, labels) { Self.samples(of: read(), labels) }
    }

    private func add(
        _ name: String, _ kind: String, _ help: String, _ labels: String,
        _ read: @escaping () -> [Sample]
    ) {
        if let i = families.firstIndex(where: { $0.name == prefix + name }) {
            precondition(families[i].kind == kind, "\(name) is a \(families[i].kind)")
            families[i].reads.append(read)
        } else {
            families.append(Family(name: prefix + name, kind: kind, help: help, reads: [read]))
        }
    }

    /// The text exposition format, version 0.0.4.
    package func render() -> String {
        var text = ""
        for family in families {
            text += "# HELP \(family.name) \(family.help)\n# TYPE \(family.name) \(family.kind)\n"
            for sample in family.reads.flatMap({ $0() }) {
                let labels = sample.labels.isEmpty ? "" : "{\(sample.labels)}"
                text += "\(family.name)\(sample.suffix)\(labels) \(sample.value)\n"
            }
        }
        return text
    }

    private struct Family {
        let name: String
        let kind: String
        let help: String
        var reads: [() -> [Sample]]
    }

    private struct Sample {
        let suffix: String
        let labels: String
        let value: String
    }
}

package final class Counter {
    package private(set) var value: UInt64 = 0
    package init() {}
    @inline(__always) package func add(_ n: Int = 1) { value &+= UInt64(n) }
}

/// Durations, counted as they come.
package final class Histogram {
    package private(set) var durations = Durations()

    package init() {}

    package var count: UInt64 { durations.count }

    /// Records a duration that `count` of what is measured took.
    package func record(_ duration: Nanoseconds, count: Int = 1) {
        durations.record(duration, count: count)
    }

    /// An upper bound of the quantile `q` (0 to 1), in nanoseconds; 0 while nothing was recorded.
    package func quantile(_ q: Double) -> Nanoseconds { durations.quantile(q) }
}

extension Metrics {
    private static func samples(of durations: Durations, _ labels: String) -> [Sample] {
        let comma = labels.isEmpty ? "" : ","
        var samples = (0..<Durations.bucketCount).map { bucket in
            let bound = Double(1 << bucket) / 1_000_000
            return Sample(
                suffix: "_bucket", labels: "\(labels)\(comma)le=\"\(bound)\"",
                value: "\(durations.count(upTo: bucket))")
        }
        let last = "\(labels)\(comma)le=\"+Inf\""
        samples.append(Sample(suffix: "_bucket", labels: last, value: "\(durations.count)"))
        let seconds = Double(durations.sum) / 1e9
        samples.append(Sample(suffix: "_sum", labels: labels, value: "\(seconds)"))
        samples.append(Sample(suffix: "_count", labels: labels, value: "\(durations.count)"))
        return samples
    }
}
