// SPDX-License-Identifier: Apache-2.0

internal import Observability
internal import Primitives

/// What a cachey counts. Labels are few and fixed: none comes from a client.
final class CacheyMetrics {
    enum Surface: Int, CaseIterable { case http, rpc }
    enum Outcome: String, CaseIterable {
        case done = "ok"
        case notFound = "not_found"
        case rangeNotSatisfiable = "range_not_satisfiable"
        case sizesDiffer = "sizes_differ"
        case refused = "refused"
        case failed = "failed"
        /// The reader left.
        case abandoned = "abandoned"
    }

    private let requests: [[Counter]]
    private let pages: [Counter]
    let egressBytes: Counter
    let ingressBytes: Counter
    let gets: Counter
    let hedges: Counter
    let hedgeWins: Counter
    let fallbacks: Counter
    let pageSeconds: Histogram
    let firstPageSeconds: Histogram
    let diskWrittenBytes: Counter
    let diskDrops: Counter
    let diskFailures: Counter
    let diskCorruptions: Counter
    private(set) var egress = Throughput()
    private(set) var ingress = Throughput()

    init(_ metrics: Metrics) {
        requests = Surface.allCases.map { surface in
            Outcome.allCases.map { outcome in
                metrics.counter(
                    "fetches_total",
                    labels: "surface=\"\(surface)\",outcome=\"\(outcome.rawValue)\"",
                    help: "Requests for ranges that are over.")
            }
        }
        pages = PageSource.allCases.map {
            metrics.counter(
                "pages_total", labels: "source=\"\($0)\"", help: "Pages handed to requests.")
        }
        egressBytes = metrics.counter("egress_bytes_total", help: "Bytes sent to readers.")
        ingressBytes = metrics.counter("ingress_bytes_total", help: "Bytes that buckets sent.")
        gets = metrics.counter("gets_total", help: "Requests to buckets.")
        hedges = metrics.counter("hedges_total", help: "Requests sent because one was slow.")
        hedgeWins = metrics.counter("hedge_wins_total", help: "Hedges that came first.")
        fallbacks = metrics.counter(
            "fallbacks_total", help: "Pages asked of a second bucket after the first failed.")
        pageSeconds = metrics.histogram(
            "page_fetch_seconds", help: "Time of one request to a bucket, to its last byte.")
        firstPageSeconds = metrics.histogram(
            "first_page_seconds", help: "From a request's arrival to its first page.")
        diskWrittenBytes = metrics.counter(
            "disk_written_bytes_total", help: "Bytes written to the disk tier.")
        diskDrops = metrics.counter(
            "disk_drops_total", help: "Pages not written because the disk was behind or paused.")
        diskFailures = metrics.counter("disk_failures_total", help: "Errors of the disk.")
        diskCorruptions = metrics.counter(
            "disk_corruptions_total", help: "Pages that were damaged on disk.")
    }

    func over(_ surface: Surface, _ outcome: Outcome) {
        if let index = Outcome.allCases.firstIndex(of: outcome) {
            requests[surface.rawValue][index].add()
        }
    }

    func count(_ surface: Surface, _ outcome: Outcome) -> UInt64 {
        Outcome.allCases.firstIndex(of: outcome).map { requests[surface.rawValue][$0].value } ?? 0
    }

    func served(_ source: PageSource) { pages[source.rawValue].add() }

    func count(_ source: PageSource) -> UInt64 { pages[source.rawValue].value }

    func sent(_ bytes: Int, at now: Nanoseconds) {
        egressBytes.add(bytes)
        egress.add(bytes, at: now)
    }

    func received(_ bytes: Int, at now: Nanoseconds) {
        ingressBytes.add(bytes)
        ingress.add(bytes, at: now)
    }

    func egressBytesPerSecond(at now: Nanoseconds) -> Double { egress.bytesPerSecond(at: now) }
    func ingressBytesPerSecond(at now: Nanoseconds) -> Double { ingress.bytesPerSecond(at: now) }
}

extension CacheyMetrics.Outcome {
    init(_ failure: FetchFailure) {
        switch failure {
        case .notFound: self = .notFound
        case .rangeNotSatisfiable: self = .rangeNotSatisfiable
        case .sizesDiffer: self = .sizesDiffer
        case .unknownBucket, .overloaded: self = .refused
        case .timedOut, .storeFailed: self = .failed
        }
    }
}
