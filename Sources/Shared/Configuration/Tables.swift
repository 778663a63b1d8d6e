// SPDX-License-Identifier: Apache-2.0

package import Primitives

// What several processes share.

extension Setting where Value == String {
    package static var store: Setting {
        .text(
            "store", form: "folder or s3://bucket/prefix?endpoint=…&region=…",
            "./.millrace/objects",
            "Where chunks and segments are kept; credentials come from AWS_* variables only.")
    }
    package static var metadata: Setting {
        .text(
            "metadata", form: "libpq connection string", nil,
            "The Postgres database that holds the cell's metadata.")
    }
    package static var adminListen: Setting {
        .address(
            "admin-listen", "127.0.0.1:7500",
            "Where /health and /metrics answer; empty for nowhere."
        )
        .mayBeEmpty
    }
    package static var logLevel: Setting {
        .choice(
            "log-level", ["debug", "info", "notice", "warning", "error"], "info",
            "The least important events that are logged, as JSON lines on stderr.")
    }
    package static var zone: Setting {
        .text("zone", "local", "The availability zone that this process runs in.")
    }

    fileprivate var mayBeEmpty: Setting {
        Setting(name, form: form, fallback: fallback, help: help) { [parse] in
            $0.isEmpty ? $0 : parse($0)
        }
    }
}

extension Setting where Value == Nanoseconds {
    package static var storeTimeout: Setting<Nanoseconds> {
        .duration(
            "store-timeout", .milliseconds(500)...(.seconds(600)), "30s",
            "How long one request to the store may take; the same in the whole cell.")
    }
    package static var leaseTTL: Setting<Nanoseconds> {
        .duration(
            "lease-ttl", .milliseconds(100)...(.seconds(60)), "3s",
            "How long a lease holds without a renewal; the same in the whole cell.")
    }
    package static var drainTimeout: Setting<Nanoseconds> {
        .duration(
            "drain-timeout", .milliseconds(100)...(.seconds(600)), "20s",
            "How long a process may take to finish its work before it exits all the same.")
    }
}

extension Setting where Value == Bool {
    package static var strictTail: Setting {
        .flag(
            "strict-tail", false,
            "Look into the log before every tail, read and rejection: none rests on a clock then.")
    }
    package static var superviseByStdin: Setting {
        .flag(
            "supervised", false,
            "Drain when standard input ends, as it does when the parent process is gone.")
    }
}

// Between processes.

extension Setting where Value == String {
    package static var rpcTLSCertificate: Setting {
        .text(
            "rpc-tls-certificate", form: "path", "",
            "This process's certificate towards the others, in PEM; empty for no TLS between them.")
    }
    package static var rpcTLSKey: Setting {
        .text("rpc-tls-key", form: "path", "", "The private key of --rpc-tls-certificate, in PEM.")
    }
    package static var rpcTLSRoots: Setting {
        .text(
            "rpc-tls-roots", form: "path", "",
            "The authorities, in PEM, that the other processes' certificates must come from.")
    }
}

// The frontend's.

extension Setting where Value == Bool {
    package static var isOpen: Setting {
        .flag(
            "open", false,
            "Serve whoever can connect, without any token. Only where the network is trusted.")
    }
}

extension Setting where Value == String {
    package static var listen: Setting {
        .address(
            "listen", "127.0.0.1:8080", "Where clients connect: HTTP/1.1 and HTTP/2 in the clear.")
    }
    package static var tlsListen: Setting {
        .address(
            "tls-listen", "", "Where clients connect by TLS, as 127.0.0.1:8443; empty for nowhere.")
    }
    package static var tlsCertificate: Setting {
        .text("tls-certificate", form: "path", "", "The certificate chain of --tls-listen, in PEM.")
    }
    package static var tlsKey: Setting {
        .text("tls-key", form: "path", "", "The private key of --tls-listen, in PEM.")
    }
    package static var rootTokenFile: Setting {
        .text(
            "root-token-file", form: "path", "./.millrace/root-token",
            "The file, readable by its owner only, that holds the token which may do everything.")
    }
}

extension Setting where Value == Int {
    package static var inFlightBytes: Setting {
        .bytes(
            "in-flight-bytes", (8 << 20)...(64 << 30), "128MiB",
            "Bytes of append batches that this process holds at most.")
    }
    package static var basinInFlightBytes: Setting {
        .bytes(
            "basin-in-flight-bytes", (1 << 20)...(64 << 30), "64MiB",
            "Of those, the bytes for streams of one basin, so that one leaves room for others.")
    }
    package static var streamInFlightBytes: Setting {
        .bytes(
            "stream-in-flight-bytes", (1 << 20)...(64 << 30), "8MiB",
            "Of those, the bytes for one stream.")
    }
    package static var responseBytes: Setting {
        .bytes(
            "response-bytes", (8 << 20)...(64 << 30), "256MiB",
            "Bytes that this process holds for readers, fetched or not yet taken, at most.")
    }

    package static var streamCacheBytes: Setting {
        .bytes(
            "stream-cache-bytes", (1 << 20)...(64 << 30), "64MiB",
            "Bytes of what this process remembers of streams and their owners, about 250 each.")
    }
}

// The channel's.

extension Setting where Value == String {
    package static var rpcListen: Setting {
        .peerAddress(
            "rpc-listen", "127.0.0.1:7401", "Where frontends reach this channel.")
    }
    package static var rpcAddress: Setting {
        .peerAddress(
            "rpc-address", "", "The address that frontends are told; empty for the one listened on."
        )
    }
    package static var storageClass: Setting {
        .text("storage-class", "express", "The storage class that this channel serves.")
    }
}

extension Setting where Value == Nanoseconds {
    package static var lingerMax: Setting<Nanoseconds> {
        .duration(
            "linger-max", 0...(.seconds(1)), "50ms",
            "How long an append may wait for company while other chunks are on their way.")
    }
    package static var shedDelay: Setting<Nanoseconds> {
        .duration(
            "shed-delay", .milliseconds(100)...(.seconds(60)), "2s",
            "How long a single append may wait for room in the log before it is told 502.")
    }
    package static var flushAge: Setting<Nanoseconds> {
        .duration(
            "flush-age", .milliseconds(100)...(.seconds(3_600)), "30s",
            "How old records in the log become before they are moved to segments.")
    }
    package static var unsureLimit: Setting<Nanoseconds> {
        .duration(
            "unsure-limit", .seconds(1)...(.seconds(86_400)), "24h",
            "How long this channel goes on without its lease, by its log alone; at least five times"
                + " --lease-ttl. Seals stay 30 times as long.")
    }
    package static var dormancy: Setting<Nanoseconds> {
        .duration(
            "dormancy", .milliseconds(500)...(.seconds(86_400)), "60s",
            "How long a stream is unused before its streamlet is closed.")
    }
}

extension Setting where Value == Int {
    package static var flushBytes: Setting {
        .bytes(
            "flush-bytes", (64 << 10)...(8 << 30), "64MiB",
            "Bytes of records in the log beyond which they are moved to segments.")
    }
    package static var windowBytes: Setting {
        .bytes(
            "window-bytes", (1 << 20)...(64 << 30), "64MiB",
            "Bytes of recent records that are kept in memory for followers.")
    }
    package static var streamBytesPerSecond: Setting {
        .bytes(
            "stream-bytes-per-second", 0...(64 << 30), "0",
            "Bytes that one stream takes per second; 0 for no limit. Sessions wait then, single"
                + " appends are told 429. S2's own service has 100MiB.")
    }
    package static var batchesPerSecond: Setting {
        .integer(
            "batches-per-second", 0...1_000_000, 0,
            "Batches per second of one append session, and of a stream's single appends together;"
                + " 0 for no limit. S2's own service has 200.")
    }
}

// The cop's.

extension Setting where Value == Int {
    package static var channels: Setting {
        .integer("channels", 0...64, 2, "How many channels run on this host.")
    }
    package static var frontends: Setting {
        .integer("frontends", 0...64, 1, "How many frontends run on this host.")
    }
    package static var cacheys: Setting {
        .integer("cacheys", 0...16, 1, "How many cacheys run on this host.")
    }
    package static var bgtasks: Setting {
        .integer("bgtasks", 0...16, 1, "How many bgtask workers run on this host.")
    }
    package static var cacheyPort: Setting {
        .integer(
            "cachey-port", 1...65_000, 8_190, "The HTTP port of the first cachey; others count up."
        )
    }
    package static var frontendPort: Setting {
        .integer(
            "frontend-port", 1...65_000, 8_080, "The port of the first frontend; others count up.")
    }
    package static var rpcPort: Setting {
        .integer("rpc-port", 1...65_000, 7_400, "Channel n listens on this port plus n.")
    }
    package static var adminPort: Setting {
        .integer(
            "admin-port", 1...65_000, 7_500,
            "Channel n's /health and /metrics are on this port plus n; others' further up.")
    }
}

extension Setting where Value == String {
    package static var cellTLSListen: Setting {
        .address(
            "tls-listen", "",
            "Where clients reach the first frontend by TLS, as 127.0.0.1:8443, others by the ports"
                + " that follow; empty for nowhere.")
    }
    package static var cellDiskPath: Setting {
        .text(
            "disk-path", form: "folder", "",
            "Where the first cachey keeps pages on disk, cachey n in the folder cachey-n of it;"
                + " empty for memory only.")
    }
    package static var host: Setting {
        .text("host", "127.0.0.1", "The address on which the processes that cop starts listen.")
    }
    package static var rpcHost: Setting {
        .text(
            "rpc-host", "",
            "The address by which frontends are told to reach the processes that cop starts; empty"
                + " for --host.")
    }
    package static var rpcSockets: Setting {
        Setting(
            "rpc-sockets", form: "absolute folder", fallback: "",
            help: "The folder, closed to other users, of unix sockets on which channels and cacheys"
                + " listen in place of the ports of --rpc-port: only this user's processes on this"
                + " host reach them then. It is made if it is missing. Empty for ports."
        ) { $0.isEmpty || $0.hasPrefix("/") ? $0 : nil }
    }
    package static var programs: Setting {
        .text(
            "programs", form: "folder", "",
            "Where the programs are that cop starts; empty for cop's own folder.")
    }
    package static var output: Setting {
        .choice("output", ["text", "json"], "text", "How commands print what they found.")
    }
    package static var after: Setting {
        .text(
            "after", form: "cursor", "",
            "Where a list goes on: behind what is named here, as a list that was cut says.")
    }
}

extension Setting where Value == Nanoseconds {
    package static var planWait: Setting<Nanoseconds> {
        .duration(
            "plan-wait", .seconds(2)...(.seconds(30 * 86_400)), "10m",
            "How long the cell keeps objects that nothing refers to any more, for reads under way,"
                + " which plan again after half of it.")
    }
    package static var leaseMargin: Setting<Nanoseconds> {
        .duration(
            "lease-margin", 0...(.seconds(60)), "1s",
            "How much longer than the lease cop waits before it declares a channel dead.")
    }
}

extension SettingTable {
    package static let frontend = SettingTable(
        process: "frontend",
        summary: "Serves the S2 API to clients.",
        settings: [
            Setting.listen, Setting.tlsListen, Setting.tlsCertificate, Setting.tlsKey,
            Setting.rootTokenFile, Setting.isOpen, Setting.metadata, Setting.store,
            Setting.storeTimeout, Setting.zone, Setting.pageBytes, Setting.rpcTLSCertificate,
            Setting.rpcTLSKey, Setting.rpcTLSRoots, Setting.inFlightBytes,
            Setting.basinInFlightBytes, Setting.streamInFlightBytes, Setting.responseBytes,
            Setting.streamCacheBytes, Setting.adminListen, Setting.drainTimeout,
            Setting.superviseByStdin, Setting.logLevel,
        ])

    package static let channel = SettingTable(
        process: "channel",
        summary: "Sequences streams and owns one write-ahead log.",
        settings: [
            Setting.rpcListen, Setting.rpcAddress, Setting.storageClass, Setting.metadata,
            Setting.store, Setting.storeTimeout, Setting.zone, Setting.rpcTLSCertificate,
            Setting.rpcTLSKey, Setting.rpcTLSRoots, Setting.leaseTTL, Setting.unsureLimit,
            Setting.strictTail, Setting.lingerMax, Setting.flushAge,
            Setting.flushBytes, Setting.windowBytes, Setting.dormancy,
            Setting.streamBytesPerSecond, Setting.batchesPerSecond, Setting.shedDelay,
            Setting.adminListen,
            Setting.drainTimeout, Setting.superviseByStdin, Setting.logLevel,
        ])

    package static let cop = SettingTable(
        process: "cop",
        summary:
            "Runs a cell: supervises its processes, recovers dead channels, and inspects both.",
        commands: [
            ("cop serve", "Migrates the schema, starts the cell's processes, watches over them."),
            ("cop migrate-schema", "Brings the database's schema up to date."),
            (
                "cop status",
                "Prints the channels' states and work, and who holds the cell's leases."
            ),
            ("cop list-channels", "Prints every channel that is not retired."),
            (
                "cop list-streamlets [s2://BASIN/STREAM [--after CURSOR]]",
                "Prints streamlets: of a stream, the latest first, or all open."
            ),
            ("cop locate s2://BASIN/STREAM", "Prints which channel owns a stream, and its state."),
            ("cop inspect OBJECT", "Decodes a chunk, a seal or a segment object."),
            ("cop doctor", "Checks the object store and the database."),
            ("cop list-tasks [TASK]", "Prints the parts of background work and who does them."),
            (
                "cop run-task TASK [--dry-run]",
                "Does one task of background work once, and prints what it made (+), changed (~),"
                    + " removed (-) and left as it was (=)."
            ),
        ],
        settings: [
            Setting.metadata, Setting.store, Setting.storeTimeout, Setting.planWait,
            Setting.channels, Setting.frontends, Setting.cacheys,
            Setting.bgtasks, Setting.cacheyPort, Setting.host, Setting.rpcHost,
            Setting.rpcSockets,
            Setting.frontendPort, Setting.rpcPort, Setting.adminPort, Setting.cellTLSListen,
            Setting.tlsCertificate, Setting.tlsKey, Setting.cellDiskPath, Setting.rootTokenFile,
            Setting.programs, Setting.zone, Setting.storageClass, Setting.leaseTTL,
            Setting.leaseMargin, Setting.adminListen, Setting.drainTimeout,
            Setting.superviseByStdin, Setting.logLevel,
            Setting.output, Setting.after, Setting.isDryRun,
        ])

    package static let all = [frontend, channel, cachey, bgtask, cop]

    /// The whole of `docs/configuration.md`.
    package static var document: String {
        """
        # Configuration

        Every setting is an option `--x-y` and an environment variable `MILLRACE_X_Y`; the option
        wins. `--help` prints the same tables. A process that does not understand its settings says
        why and exits with 2. Bytes take units (`8MiB`), durations too (`250ms`, `1m30s`).

        This page is made from the code by a test, which fails when the two differ:
        `MILLRACE_WRITE_DOCS=1 swift test --filter ConfigurationTests` rewrites it.

        """ + "\n" + (all.map(\.markdown) + [CellLayout.markdown]).joined(separator: "\n")
    }
}
