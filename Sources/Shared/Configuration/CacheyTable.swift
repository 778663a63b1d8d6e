// SPDX-License-Identifier: Apache-2.0

// The cachey's settings.

extension Setting where Value == String {
    package static var cacheyListen: Setting {
        .address("listen", "127.0.0.1:8190", "Where HTTP clients fetch, and ask for /stats.")
    }
    package static var cacheyRPCListen: Setting {
        .peerAddress(
            "rpc-listen", "127.0.0.1:7481", "Where frontends reach this cachey.")
    }
    package static var diskPath: Setting {
        .text(
            "disk-path", form: "folder", "",
            "Where pages are kept on disk, by this process alone; empty for memory only.")
    }
}

extension Setting where Value == Int {
    package static var pageBytes: Setting {
        .bytes(
            "page-bytes", (64 << 10)...(16 << 20), "1MiB",
            "The grain in which cacheys fetch and keep objects; the same in the whole cell.")
    }
    package static var memoryBytes: Setting {
        .bytes("memory-bytes", 0...(4 << 40), "1GiB", "Bytes of pages kept in memory.")
    }
    package static var diskBytes: Setting {
        .bytes(
            "disk-bytes", (64 << 20)...(1 << 50), "16GiB",
            "Bytes of pages kept in the folder of --disk-path.")
    }
    package static var hedgePercentile: Setting {
        .integer(
            "hedge-percentile", 0...99, 98,
            "A page slower than so many per cent of pages is asked for again; 0 for never.")
    }
    package static var hedgeBudgetPercent: Setting {
        .integer(
            "hedge-budget-percent", 0...100, 3, "Such repeated requests, per cent of all at most.")
    }
}

extension SettingTable {
    package static let cachey = SettingTable(
        process: "cachey",
        summary: "Reads objects for the frontends of its zone, and keeps them.",
        settings: [
            Setting.cacheyListen, Setting.cacheyRPCListen, Setting.rpcAddress,
            Setting.rpcTLSCertificate, Setting.rpcTLSKey, Setting.rpcTLSRoots, Setting.metadata,
            Setting.store, Setting.storeTimeout, Setting.zone, Setting.pageBytes,
            Setting.memoryBytes, Setting.diskPath, Setting.diskBytes,
            Setting.hedgePercentile, Setting.hedgeBudgetPercent,
            Setting.leaseTTL, Setting.adminListen, Setting.drainTimeout,
            Setting.superviseByStdin, Setting.logLevel,
        ])
}
