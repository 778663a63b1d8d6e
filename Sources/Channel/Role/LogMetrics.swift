// SPDX-License-Identifier: Apache-2.0

internal import Observability

/// What the log counts.
struct LogMetrics {
    let puts: Counter
    let putBytes: Counter
    let records: Counter
    let recordBytes: Counter
    let putDuration: Histogram
    let queueDelay: Histogram

    init(_ metrics: Metrics) {
        puts = metrics.counter("chunk_puts_total", help: "Chunks given to the store.")
        putBytes = metrics.counter(
            "chunk_put_bytes_total", help: "Bytes of chunks given to the store.")
        records = metrics.counter("records_total", help: "Records sequenced.")
        recordBytes = metrics.counter(
            "record_bytes_total", help: "Stored bytes of sequenced records.")
        putDuration = metrics.histogram(
            "chunk_put_duration_seconds", help: "From a PUT's beginning to its success.")
        queueDelay = metrics.histogram(
            "append_queue_delay_seconds", help: "From a chunk's first append to its PUT.")
    }
}
