// SPDX-License-Identifier: Apache-2.0

internal import CSupport
package import Configuration
internal import HTTP
package import Metadata
package import ObjectStorage
package import Observability
package import Postgres
package import Primitives
internal import S3
package import Transport

/// What every process of a cell is made of: one loop, the drivers, the signals, the admin pages.
///
/// The main thread builds it, hands the work to the loop and waits for signals; everything else
/// happens on the loop. A process ends by itself, by a signal, or, where it is supervised, when its
/// standard input ends because its parent is gone. Then it drains, within a bound, and exits: with
/// 0 if it was asked to, with 1 if something failed.
package final class Host {
    /// What a role gives to its host once it runs.
    package struct Running {
        package let isReady: () -> Bool
        /// Finishes the work. Its own bounds apply.
        package let drain: () async -> Void
        /// The sum of those bounds; nil where they are the drain timeout, some times over.
        package let drainNanosecondsMax: Nanoseconds?

        package init(
            isReady: @escaping () -> Bool, drainNanosecondsMax: Nanoseconds? = nil,
            drain: @escaping () async -> Void
        ) {
            self.isReady = isReady
            self.drainNanosecondsMax = drainNanosecondsMax
            self.drain = drain
        }
    }

    package let settings: Settings
    package let loop: NIOLoop
    package let log: EventLog
    package let metrics: Metrics
    package let random = RandomSource.system()
    package let metadata: PostgresMetadata
    private let role: String
    private var running: Running?
    private var admin: HTTPServer?
    private var isEnding = false

    private init(_ role: String, _ settings: Settings) {
        self.role = role
        self.settings = settings
        log = EventLog.jsonLines(
            role: role, level: EventLog.Level(settings[.logLevel]) ?? .info)
        metrics = Metrics(role: role)
        loop = NIOLoop()
        metadata = PostgresMetadata(conninfo: settings[.metadata])
        addProcessMetrics()
    }

    /// Runs a role until the process ends. Call on the main thread, before anything else.
    package static func run(
        _ table: SettingTable, _ settings: Settings,
        _ start: @escaping (Host) async throws -> Running
    ) -> Never {
        millrace_heap_settle()
        Signals.block()
        Descriptors.raiseLimit()
        let host = LoopBound(Host(table.process, settings))
        let loop = host.value.loop
        let work = LoopBound(start)
        loop.execute {
            host.value.loop.spawn { await host.value.begin(work.value) }
        }
        let end = { @Sendable (why: String) in
            loop.execute { host.value.end(why, code: 0) }
        }
        if settings[.superviseByStdin] { Supervision.watch { end("the supervisor is gone") } }
        Signals.wait(clock: { loop.now }, onFirst: end)
    }

    /// Does one thing and ends the process.
    package static func runOnce(
        _ table: SettingTable, _ settings: Settings,
        _ work: @escaping (Host) async -> Int32
    ) -> Never {
        millrace_heap_settle()
        Signals.block()
        let host = LoopBound(Host(table.process, settings))
        let loop = host.value.loop
        let bound = LoopBound(work)
        loop.execute {
            host.value.loop.spawn { Program.end(await bound.value(host.value)) }
        }
        Signals.wait(clock: { loop.now }) { _ in Program.abort() }
    }

    private func begin(_ start: (Host) async throws -> Running) async {
        do {
            if !settings[.adminListen].isEmpty {
                let pages = AdminPages(
                    isReady: { [weak self] in self?.isReady ?? false }, metrics: [metrics])
                let admin = HTTPServer(loop: loop, service: pages)
                self.admin = admin
                let address = try await admin.listen(settings[.adminListen])
                log.info("admin_listening", [("address", address)])
            }
            let running = try await start(self)
            guard !isEnding else { return await running.drain() }
            self.running = running
            log.notice("ready")
        } catch {
            end("could not start: \(error)", code: 1)
        }
    }

    private var isReady: Bool { !isEnding && running?.isReady() ?? false }

    /// Drains and ends the process with `code`. The first call counts.
    package func end(_ why: String, code: Int32) {
        guard !isEnding else { return }
        isEnding = true
        log.notice("ending", [("why", why), ("code", "\(code)")])
        // Whatever hangs, the process ends.
        let limit = running?.drainNanosecondsMax ?? settings[.drainTimeout] * 3 + .seconds(5)
        loop.after(limit) { [log] in
            log.error("drain_timed_out")
            Program.end(1)
        }
        loop.spawn {
            if let running = self.running { await running.drain() }
            await self.admin?.stop(within: .milliseconds(200))
            self.log.info("ended")
            Program.end(code)
        }
    }

    /// Returns once the database answers and has the schema of this program.
    package func awaitMetadata() async throws(MetadataError) {
        while true {
            do throws(MetadataError) {
                return try await metadata.checkSchema()
            } catch {
                guard error.kind == .unavailable, !isEnding else { throw error }
                log.warning("waiting_for_metadata", [("error", error.description)])
            }
            await loop.sleep(.seconds(1))
        }
    }

    /// The network between processes: with mutual TLS where the settings name certificates.
    package func network() throws -> NIONetwork {
        let certificate = settings[.rpcTLSCertificate]
        if certificate.isEmpty { return try NIONetwork(loop: loop) }
        let key = settings[.rpcTLSKey]
        let roots = settings[.rpcTLSRoots]
        guard !key.isEmpty, !roots.isEmpty else {
            throw ProcessError("--rpc-tls-certificate needs --rpc-tls-key and --rpc-tls-roots")
        }
        return try NIONetwork(
            loop: loop, tls: TLSFiles(certificate: certificate, key: key, roots: roots))
    }

    /// The cell's buckets; nothing is asked of them yet.
    package func openBuckets() throws(StoreError) -> [Bucket] {
        let meter = StoreMeter(classes: Self.objectClasses)
        let store: any ObjectStore
        switch try StoreURL(parsing: settings[.store]) {
        case .folder(let path):
            var limits = FolderStore.Limits()
            limits.callNanosecondsMax = settings[.storeTimeout]
            store = try FolderStore(path: path, limits: limits, meter: meter)
        case .s3(let location):
            guard let credentials = S3Credentials(environment: Program.environment) else {
                throw StoreError(
                    .denied,
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for \(settings[.store])")
            }
            var limits = S3Store.Limits()
            limits.requestNanosecondsMax = settings[.storeTimeout]
            store = try S3Store(
                location, credentials: credentials, limits: limits, meter: meter)
        }
        count(meter)
        return [Bucket(name: "main", store: store)]
    }

    /// The cell's buckets, each proven to keep the promises that a log needs.
    package func checkedBuckets() async throws(StoreError) -> [Bucket] {
        let buckets = try openBuckets()
        for bucket in buckets { try await checkStore(bucket.store, loop: loop, random: random) }
        return buckets
    }
}
