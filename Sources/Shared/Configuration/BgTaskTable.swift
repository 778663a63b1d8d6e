// SPDX-License-Identifier: Apache-2.0

package import Primitives

// The settings of background work.

extension Setting where Value == Nanoseconds {
    package static var condemnedWait: Setting<Nanoseconds> {
        .duration(
            "condemned-wait", 0...(.seconds(86_400)), "60s",
            "How long an object stays once no segment may come that refers to it, besides until"
                + " all transactions are over that might bring one.")
    }
    package static var orphanWait: Setting<Nanoseconds> {
        .duration(
            "orphan-wait", .seconds(5)...(.seconds(30 * 86_400)), "1h",
            "How long an object is left alone that nothing ever referred to; at least ten times"
                + " --store-timeout, or slow flushes are refused.")
    }
    package static var sealWait: Setting<Nanoseconds> {
        .duration(
            "seal-wait", .seconds(1)...(.seconds(3_650 * 86_400)), "30d",
            "How long the seal of a recovered log stays; never less than 30 times the"
                + " --unsure-limit with which its channel ran.")
    }
    package static var taskInterval: Setting<Nanoseconds> {
        .duration(
            "task-interval", .seconds(1)...(.seconds(86_400)), "60s",
            "How often each task looks at its part of the cell.")
    }
    package static var sweepInterval: Setting<Nanoseconds> {
        .duration(
            "sweep-interval", .seconds(1)...(.seconds(30 * 86_400)), "1h",
            "How often the store is searched for objects that nothing refers to.")
    }
    package static var taskLease: Setting<Nanoseconds> {
        .duration(
            "task-lease", .seconds(1)...(.seconds(600)), "30s",
            "How long a worker's hold on a part of a task lasts without a renewal.")
    }
}

extension Setting where Value == Int {
    package static var taskPartitions: Setting {
        Setting(
            "task-partitions", form: "1, 2, 4, … 256", fallback: "4",
            help: "Into how many parts each task is cut; the same in the whole cell."
        ) { Int($0).flatMap { (1...256).contains($0) && $0.nonzeroBitCount == 1 ? $0 : nil } }
    }
    package static var taskRequests: Setting {
        .integer(
            "task-requests", 1...1_000_000, 200,
            "Requests to the store that this worker makes each second at most.")
    }
    package static var taskBytes: Setting {
        .bytes(
            "task-bytes", (1 << 20)...(64 << 30), "32MiB",
            "Bytes that this worker moves each second at most.")
    }
}

extension Setting where Value == Bool {
    package static var isDryRun: Setting {
        .flag("dry-run", false, "Tell what a task would do, and change nothing.")
    }
}

extension SettingTable {
    package static let bgtask = SettingTable(
        process: "bgtask",
        summary: "Collects garbage, and brings retention, deletion and compaction about.",
        commands: [
            ("bgtask serve", "Works, together with all other workers of the cell."),
            ("bgtask list-tasks [TASK]", "Prints the tasks' parts and who works on them."),
            (
                "bgtask run-task TASK [--dry-run]",
                "Does one task once, everywhere, and prints what it made (+), changed (~), removed"
                    + " (-) and left as it was (=)."
            ),
        ],
        settings: [
            Setting.metadata, Setting.store, Setting.rpcTLSCertificate, Setting.rpcTLSKey,
            Setting.rpcTLSRoots, Setting.storeTimeout, Setting.condemnedWait, Setting.orphanWait,
            Setting.sealWait, Setting.taskInterval, Setting.sweepInterval, Setting.taskLease,
            Setting.taskPartitions, Setting.taskRequests, Setting.taskBytes, Setting.isDryRun,
            Setting.output, Setting.adminListen, Setting.drainTimeout, Setting.superviseByStdin,
            Setting.logLevel,
        ])
}
