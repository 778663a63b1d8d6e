// SPDX-License-Identifier: Apache-2.0

internal import CSupport
internal import Log
internal import ObjectStorage
internal import Observability
internal import Postgres
package import RPC

/// What every process tells of its drivers. `docs/metrics.md` lists all metrics.
extension Host {
    func addProcessMetrics() {
        metrics.gauge("heap_bytes", help: "Bytes of memory in use, as the allocator counts them.") {
            Double(millrace_heap_bytes())
        }
        metrics.gauge("metadata_statements", help: "Statements to Postgres queued or under way.") {
            [metadata] in Double(metadata.statistics.inFlight)
        }
        for outcome in StatementStatistics.Outcome.allCases {
            metrics.counter(
                "metadata_statements_total", labels: "outcome=\"\(outcome)\"",
                help: "Statements to Postgres that are over, by outcome."
            ) { [metadata] in metadata.statistics.count(outcome) }
        }
        metrics.histogram(
            "metadata_statement_seconds", help: "Time of a statement, its wait included."
        ) { [metadata] in metadata.statistics.durations }
    }

    /// Tells what `meter` counts, whose classes are `objectClasses`.
    func count(_ meter: StoreMeter) {
        metrics.counter("store_fetched_bytes_total", help: "Bytes of objects fetched.") {
            meter.snapshot.bytesFetched
        }
        metrics.gauge("store_requests", help: "Requests to the store in flight.") {
            Double(meter.snapshot.inFlight)
        }
        for operation in StoreStatistics.Operation.allCases {
            metrics.histogram(
                "store_request_seconds", labels: "operation=\"\(operation)\"",
                help: "Time of a request to the store, its wait and its retries included."
            ) { meter.snapshot.durations(operation) }
            for outcome in StoreStatistics.Outcome.allCases {
                metrics.counter(
                    "store_requests_total",
                    labels: "operation=\"\(operation)\",outcome=\"\(outcome.label)\"",
                    help: "Requests to the store that are over, by outcome."
                ) { meter.snapshot.count(operation, outcome) }
            }
        }
        for (index, name) in meter.classes.names.enumerated() {
            metrics.counter(
                "store_stored_bytes_total", labels: "class=\"\(name)\"",
                help: "Bytes of objects stored, by their class."
            ) { meter.snapshot.bytesStored(ofClass: index) }
            for outcome in StoreStatistics.Outcome.allCases {
                metrics.counter(
                    "store_puts_total", labels: "class=\"\(name)\",outcome=\"\(outcome.label)\"",
                    help: "PUTs that are over, by the object's class and by outcome."
                ) { meter.snapshot.puts(ofClass: index, outcome) }
            }
        }
    }

    static let objectClasses = ObjectClasses(ObjectClass.allCases.map(\.rawValue)) { key, head in
        ObjectClass.allCases.firstIndex(of: ObjectClass(key: key, head: head)) ?? 0
    }

    /// Tells of the calls that this process makes; of `methods`, how long they take.
    package func count(_ calls: RPCClient, latencies methods: [Method]) {
        let meter = calls.meter
        metrics.gauge("rpc_calls", help: "Calls to other processes that are open.") {
            Double(meter.inFlight)
        }
        for method in Method.allCases {
            for outcome in CallMeter.Outcome.allCases {
                metrics.counter(
                    "rpc_calls_total", labels: "method=\"\(method)\",outcome=\"\(outcome)\"",
                    help: "Calls to other processes that are over, by outcome."
                ) { meter.count(method, outcome) }
            }
        }
        for method in methods {
            metrics.histogram(
                "rpc_call_seconds", labels: "method=\"\(method)\"",
                help: "Time of a call to another process, from its beginning to its end."
            ) { meter.durations(method) }
        }
    }

    /// Tells of the calls that other processes make to this one.
    package func count(_ server: RPCServer) {
        metrics.gauge("rpc_connections", help: "Connections from other processes.") {
            [weak server] in Double(server?.connectionCount ?? 0)
        }
        metrics.gauge("rpc_served_calls", help: "Calls from other processes that are open.") {
            [weak server] in Double(server?.callCount ?? 0)
        }
    }
}

extension StoreStatistics.Outcome {
    fileprivate var label: String { self == .notFound ? "not_found" : "\(self)" }
}
