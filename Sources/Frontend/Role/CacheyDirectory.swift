// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives
internal import RPC

/// The cacheys of this frontend's zone, and which of them to ask for a page.
///
/// The list is read from metadata each second, from the first fetch on. A cachey whose row no
/// longer changes is gone; one that failed a call gets nothing for a while. A list that cannot be
/// read stays as it is.
final class CacheyDirectory {
    private struct Entry {
        var row: CacheyRow
        /// Readings of the list in which the row was as before.
        var unchanged = 0
    }

    private let registry: any CacheyRegistry
    private let world: FrontendWorld
    private let limits: FrontendLimits
    /// By address, in its order.
    private var entries: [Entry] = []
    private var avoidedUntil: [String: Nanoseconds] = [:]
    /// Asked of a cachey and not here yet.
    private var bytesInFlight: [String: Int] = [:]
    private var firstPoll: Signal<Void>?
    private var isPolling = false

    /// How long a cachey that failed a call gets nothing.
    private static let avoidanceNanoseconds: Nanoseconds = .seconds(3)
    /// So many readings without a renewal, and the cachey is gone.
    private static let unchangedMax = 5

    init(registry: any CacheyRegistry, world: FrontendWorld, limits: FrontendLimits) {
        self.registry = registry
        self.world = world
        self.limits = limits
        world.metrics.gauge("cacheys", help: "Cacheys of this zone that are alive.") {
            [weak self] in Double(self?.entries.count { $0.unchanged < Self.unchangedMax } ?? 0)
        }
    }

    /// Returns once the list was read, or could not be.
    func ready() async {
        if let firstPoll { return await firstPoll.wait() }
        let firstPoll = Signal<Void>()
        self.firstPoll = firstPoll
        await poll()
        firstPoll.set(())
        schedule()
    }

    private func schedule() {
        world.loop.after(limits.channelPollNanoseconds) { [weak self] in
            guard let self else { return }
            world.loop.spawn {
                await self.poll()
                self.schedule()
            }
        }
    }

    /// Reads the list now, unless it is being read.
    func poll() async {
        guard !isPolling else { return }
        isPolling = true
        defer { isPolling = false }
        do throws(MetadataError) {
            adopt(try await registry.cacheys(zone: limits.zone))
        } catch {
            world.log.warning("cachey_poll_failed", [("error", error.description)])
        }
    }

    private func adopt(_ rows: [CacheyRow]) {
        // A restarted cachey has its predecessor's address, and a higher id.
        var latest: [String: CacheyRow] = [:]
        for row in rows { latest[row.address] = row }
        let old = Dictionary(
            entries.map { ($0.row.id, $0) }, uniquingKeysWith: { a, _ in a })
        entries = latest.values.sorted { $0.address < $1.address }.map { row in
            guard var entry = old[row.id], entry.row.renewals == row.renewals else {
                return Entry(row: row)
            }
            entry.unchanged += 1
            return entry
        }
        let now = world.loop.now
        avoidedUntil = avoidedUntil.filter { $0.value > now }
    }

    /// The addresses to ask for a page, in order; none if no cachey is alive.
    func candidates(bucket: String, object: String, page: Int, bytes: Int) -> [String] {
        let now = world.loop.now
        let nodes = entries.compactMap { entry -> CacheyNode? in
            let address = entry.row.address
            guard entry.unchanged < Self.unchangedMax, (avoidedUntil[address] ?? 0) <= now
            else { return nil }
            let load = Double(entry.row.load.egressBytesPerSecond)
            return CacheyNode(
                address: address, load: load + Double(bytesInFlight[address] ?? 0))
        }
        return CacheyNode.choose(
            nodes, key: CacheyNode.key(bucket: bucket, object: object, page: page), bytes: bytes)
    }

    func began(_ address: String, bytes: Int) { bytesInFlight[address, default: 0] += bytes }

    func ended(_ address: String, bytes: Int) {
        let left = (bytesInFlight[address] ?? 0) - bytes
        bytesInFlight[address] = left > 0 ? left : nil
    }

    /// A call to it failed, and the fault was its own.
    func failed(_ address: String, _ status: Status) {
        let now = world.loop.now
        // All that waited for it fail together, and say so once.
        if (avoidedUntil[address] ?? 0) <= now {
            world.log.info("cachey_failed", [("address", address), ("status", "\(status)")])
        }
        avoidedUntil[address] = now + Self.avoidanceNanoseconds
    }
}

/// A cachey as the choice sees it.
///
/// Every frontend ranks the cacheys for a page in the same way, so each page has its place, and
/// only the pages of a cachey that comes or goes move: rendezvous hashing. One with much more to do
/// than the mean is passed over.
///
/// Sources: D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
/// Transactions on Networking, 1998; V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent hashing
/// with bounded loads", SODA 2018.
struct CacheyNode: Equatable {
    let address: String
    /// Bytes per second, as it told, and bytes that we wait for.
    let load: Double

    /// Places that are asked at most, before the bucket itself.
    static let ranksMax = 3
    private static let loadMax = 1.25
    /// Below this, nobody has much to do, and locality is worth more than balance.
    private static let loadFloor = Double(64 << 20)

    /// The addresses to ask for `bytes` of the page `key`, in order.
    static func choose(_ nodes: [CacheyNode], key: UInt64, bytes: Int) -> [String] {
        guard !nodes.isEmpty else { return [] }
        let ranks =
            nodes
            .map { (weight: weight($0.address, key), node: $0) }
            .sorted { ($0.weight, $0.node.address) > ($1.weight, $1.node.address) }
            .prefix(ranksMax).map(\.node)
        let total = nodes.reduce(Double(bytes)) { $0 + $1.load }
        let bound = max(loadMax * total / Double(nodes.count), loadFloor)
        var addresses = ranks.map(\.address)
        if let first = ranks.firstIndex(where: { $0.load + Double(bytes) <= bound }), first > 0 {
            addresses.insert(addresses.remove(at: first), at: 0)
        }
        return addresses
    }

    /// The same number in every process.
    static func key(bucket: String, object: String, page: Int) -> UInt64 {
        var hash = FNV()
        hash.add(bucket)
        hash.add(object)
        hash.add(UInt64(page))
        return hash.value
    }

    private static func weight(_ address: String, _ key: UInt64) -> UInt64 {
        var hash = FNV()
        hash.add(address)
        var mixed = SplitMix64(seed: hash.value ^ key)
        return mixed.next()
    }

    /// The hash of Fowler, Noll and Vo, 64-bit FNV-1a.
    private struct FNV {
        private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

        mutating func add(_ text: String) {
            for byte in text.utf8 { add(byte) }
            // What no text holds, so that two texts are not taken for two others.
            add(UInt8(0xFF))
        }

        mutating func add(_ number: UInt64) {
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                add(UInt8(truncatingIfNeeded: number >> shift))
            }
        }

        private mutating func add(_ byte: UInt8) {
            value = (value ^ UInt64(byte)) &* 0x100_0000_01B3
        }
    }
}
