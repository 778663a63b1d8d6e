// SPDX-License-Identifier: Apache-2.0

internal import Observability
internal import Primitives

/// What the data path counts.
final class RecordsMetrics {
    let appendBatches: Counter
    let appendRecords: Counter
    let appendBytes: Counter
    let appendFailures: Counter
    let appendResends: Counter
    let appendSeconds: Histogram
    let readBatches: Counter
    let readRecords: Counter
    let readBytes: Counter
    let readFailures: Counter
    let readPlans: Counter
    let readFallbacks: Counter
    let readEvictions: Counter
    let readFirstByteSeconds: Histogram
    let fetchBytes: Counter
    let fetchSeconds: Histogram
    var appendSessions = 0
    var readSessions = 0
    var follows = 0

    init(_ metrics: Metrics) {
        appendBatches = metrics.counter("append_batches_total", help: "Acknowledged batches.")
        appendRecords = metrics.counter("append_records_total", help: "Acknowledged records.")
        appendBytes = metrics.counter(
            "append_metered_bytes_total", help: "Metered bytes of acknowledged records.")
        appendFailures = metrics.counter(
            "append_failures_total", help: "Sessions and requests whose append failed.")
        appendResends = metrics.counter(
            "append_resends_total", help: "Times that refused batches were sent again.")
        appendSeconds = metrics.histogram(
            "append_ack_seconds", help: "From a batch's arrival to its acknowledgement.")
        readBatches = metrics.counter("read_batches_total", help: "Delivered batches.")
        readRecords = metrics.counter("read_records_total", help: "Delivered records.")
        readBytes = metrics.counter(
            "read_metered_bytes_total", help: "Metered bytes of delivered records.")
        readFailures = metrics.counter("read_failures_total", help: "Reads that failed.")
        readPlans = metrics.counter("read_plans_total", help: "Plans made for catching up.")
        readFallbacks = metrics.counter(
            "read_fallbacks_total", help: "Readers that fell behind a follow.")
        readEvictions = metrics.counter(
            "read_evictions_total", help: "Readers cut off that held what others waited for.")
        readFirstByteSeconds = metrics.histogram(
            "read_first_byte_seconds", help: "From a read's arrival to its response's head.")
        fetchBytes = metrics.counter("fetch_bytes_total", help: "Bytes fetched from objects.")
        fetchSeconds = metrics.histogram("fetch_seconds", help: "Time of one fetch.")
    }

    /// Adds the values that are read when somebody asks.
    func addGauges(_ metrics: Metrics, _ budget: AppendBudget) {
        metrics.gauge("append_in_flight_bytes", help: "Bytes of batches without an answer.") {
            Double(budget.bytes)
        }
        metrics.gauge("append_sessions", help: "Open append sessions.") { [weak self] in
            Double(self?.appendSessions ?? 0)
        }
        metrics.gauge("read_sessions", help: "Open streaming reads.") { [weak self] in
            Double(self?.readSessions ?? 0)
        }
        metrics.gauge("follows", help: "Streams that are followed.") { [weak self] in
            Double(self?.follows ?? 0)
        }
    }

    func acknowledged(batches: Int, records: Int, bytes: Int) {
        appendBatches.add(batches)
        appendRecords.add(records)
        appendBytes.add(bytes)
    }

    func delivered(records: Int, bytes: Int) {
        readBatches.add()
        readRecords.add(records)
        readBytes.add(bytes)
    }
}
