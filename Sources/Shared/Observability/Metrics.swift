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
        add(name, "histogram", help, labels) { histogram.samples(labels) }
        return histogram
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

    fileprivate struct Sample {
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

/// Durations in buckets that double, from 1 microsecond to about 67 seconds.
package final class Histogram {
    private static let bucketCount = 27
    private var counts = [UInt64](repeating: 0, count: bucketCount + 1)
    package private(set) var count: UInt64 = 0
    private var sum: Nanoseconds = 0

    package init() {}

    /// Records a duration that `count` of what is measured took.
    package func record(_ duration: Nanoseconds, count times: Int = 1) {
        let micros = UInt64(max(duration, 0) + 999) / 1_000
        let bucket = micros <= 1 ? 0 : 64 - (micros - 1).leadingZeroBitCount
        counts[min(bucket, Self.bucketCount)] += UInt64(times)
        count += UInt64(times)
        sum &+= duration &* Nanoseconds(times)
    }

    /// An upper bound of the quantile `q` (0 to 1), in nanoseconds; 0 while nothing was recorded.
    package func quantile(_ q: Double) -> Nanoseconds {
        let rank = UInt64((Double(count) * q).rounded(.up))
        var seen: UInt64 = 0
        for (bucket, n) in counts.enumerated() {
            seen += n
            if n > 0 && seen >= rank { return 1_000 << Int64(bucket) }
        }
        return 0
    }

    fileprivate func samples(_ labels: String) -> [Metrics.Sample] {
        var samples: [Metrics.Sample] = []
        var seen: UInt64 = 0
        let comma = labels.isEmpty ? "" : ","
        for bucket in 0..<Self.bucketCount {
            seen += counts[bucket]
            let bound = Double(1 << bucket) / 1_000_000
            let bucket = "\(labels)\(comma)le=\"\(bound)\""
            samples.append(.init(suffix: "_bucket", labels: bucket, value: "\(seen)"))
        }
        let last = "\(labels)\(comma)le=\"+Inf\""
        samples.append(.init(suffix: "_bucket", labels: last, value: "\(count)"))
        samples.append(.init(suffix: "_sum", labels: labels, value: "\(Double(sum) / 1e9)"))
        samples.append(.init(suffix: "_count", labels: labels, value: "\(count)"))
        return samples
    }
}
