// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Observability
internal import Primitives

/// The pages on disk: written behind the readers' backs, and read when memory has them not.
///
/// It may fail in any way and costs nothing but hits: a write that fails closes its block and
/// pauses the writing, a damaged page is a miss and is forgotten, a disk that does not answer in
/// time is not waited for. What a restart finds is what the records themselves say.
final class DiskTier {
    private let disk: any PageDisk
    private let world: CacheyWorld
    private let limits: CacheyLimits
    private let metrics: CacheyMetrics
    private var context: DiskRecord.Context?
    private var index: DiskIndex
    private var queue: Deque<PageCache.Item> = []
    private var queued: Set<PageKey> = []
    private(set) var queuedBytes = 0
    private var isWriting = false
    private var pausedUntil: Nanoseconds = 0
    private var reads = 0
    /// Nothing is written any more.
    private var isGivenUp = false

    init(_ disk: any PageDisk, world: CacheyWorld, limits: CacheyLimits, metrics: CacheyMetrics) {
        self.disk = disk
        self.world = world
        self.limits = limits
        self.metrics = metrics
        index = DiskIndex(bytesMax: limits.diskBytesMax, pagesMax: limits.diskPagesMax)
    }

    var bytes: Int { index.bytes }
    var pageCount: Int { index.pageCount }
    /// Whether everything that was given has been written, or dropped.
    var isIdle: Bool { !isWriting }

    // MARK: The start

    /// Reads what is there; until then nothing is written. Call once.
    func start(cell: ID128) {
        let context = DiskRecord.Context(cell: cell, pageBytes: limits.pageBytes)
        world.loop.spawn { [self] in
            do throws(DiskError) {
                try await scan(context)
                world.log.info(
                    "disk_scanned", [("pages", "\(pageCount)"), ("bytes", "\(bytes)")])
            } catch {
                world.log.error("disk_scan_failed", [("error", error.description)])
                // Without knowing what is there, no bound can be kept.
                return giveUp()
            }
            self.context = context
            write()
        }
    }

    private func giveUp() {
        isGivenUp = true
        metrics.diskDrops.add(queue.count)
        queue = []
        queued = []
        queuedBytes = 0
    }

    private func scan(_ context: DiskRecord.Context) async throws(DiskError) {
        for block in try await disk.blocks().sorted(by: { $0.number < $1.number }) {
            index.adopt(block: block.number, bytes: block.bytes)
            var offset = 0
            while offset < block.bytes {
                let end = min(offset + DiskRecord.headBytesMax, block.bytes)
                let head = try await disk.read(block: block.number, offset..<end)
                // What follows something unreadable cannot be found; the block's end may be lost.
                guard let (record, isOurs) = DiskRecord.decode(head, context),
                    offset + record.recordBytes <= block.bytes
                else { break }
                if isOurs {
                    index.insert(
                        record.key,
                        DiskIndex.Place(
                            block: block.number, offset: offset, bytes: record.recordBytes))
                }
                offset += record.recordBytes
            }
        }
    }

    // MARK: Writing

    /// Keeps a page, unless there is a copy that will last; sometime, or never.
    func keep(_ key: PageKey, _ page: CachedPage) {
        guard !index.isFresh(key), !queued.contains(key) else { return }
        guard !isGivenUp, queuedBytes + page.bytes.count <= limits.diskQueueBytesMax,
            world.loop.now >= pausedUntil
        else { return metrics.diskDrops.add() }
        queue.append((key, page))
        queued.insert(key)
        queuedBytes += page.bytes.count
        write()
    }

    private func write() {
        guard let context, !isWriting, !queue.isEmpty else { return }
        isWriting = true
        world.loop.spawn { [self] in
            while let (key, page) = queue.popFirst() {
                do throws(DiskError) {
                    try await write(key, page, context)
                } catch {
                    metrics.diskFailures.add()
                    world.log.warning("disk_write_failed", [("error", error.description)])
                    pause()
                }
                queued.remove(key)
                queuedBytes -= page.bytes.count
            }
            isWriting = false
        }
    }

    private func write(
        _ key: PageKey, _ page: CachedPage, _ context: DiskRecord.Context
    ) async throws(DiskError) {
        guard world.loop.now >= pausedUntil, let parts = DiskRecord.encode(key, page, context)
        else { return metrics.diskDrops.add() }
        let count = byteCount(parts)
        while true {
            switch index.reserve(count) {
            case .never: return metrics.diskDrops.add()
            case .afterRemoving(let block):
                index.forget(block: block)
                try await disk.remove(block: block)
                index.remove(block: block)
            case .at(let block, let offset):
                do throws(DiskError) {
                    try await disk.write(parts, block: block, offset: offset)
                } catch {
                    index.closeBlock()
                    throw error
                }
                index.insert(key, DiskIndex.Place(block: block, offset: offset, bytes: count))
                metrics.diskWrittenBytes.add(count)
                return
            }
        }
    }

    private func pause() { pausedUntil = world.loop.now + limits.diskPauseNanoseconds }

    // MARK: Reading

    /// Whether `read` may find the page.
    func contains(_ key: PageKey) -> Bool { context != nil && index.find(key) != nil }

    /// The page, or nil; `then` is called once, later.
    func read(_ key: PageKey, then: @escaping (CachedPage?) -> Void) {
        guard let context, let place = index.find(key), reads < limits.diskReadsMax else {
            return world.loop.soon { then(nil) }
        }
        reads += 1
        let answer = FirstAnswer(then)
        let timer = world.loop.after(limits.diskReadNanoseconds) { answer.give(nil) }
        world.loop.spawn { [self] in
            let page = await read(key, place, context)
            reads -= 1
            timer.cancel()
            answer.give(page)
        }
    }

    private func read(
        _ key: PageKey, _ place: DiskIndex.Place, _ context: DiskRecord.Context
    ) async -> CachedPage? {
        do throws(DiskError) {
            let range = place.offset..<place.offset + place.bytes
            let bytes = try await disk.read(block: place.block, range)
            let isChecked = limits.mutant != .pageUnverified
            if let page = DiskRecord.page(in: bytes, of: key, context, isChecked: isChecked) {
                return page
            }
            // The block may have made room for others meanwhile.
            guard index.find(key) == place else { return nil }
            metrics.diskCorruptions.add()
            world.log.warning(
                "disk_page_damaged", [("object", key.object), ("page", "\(key.number)")])
        } catch {
            metrics.diskFailures.add()
            world.log.warning("disk_read_failed", [("error", error.description)])
        }
        index.forget(key, place)
        return nil
    }
}

/// Calls a closure once.
final class FirstAnswer<Value> {
    private var then: ((Value) -> Void)?

    init(_ then: @escaping (Value) -> Void) { self.then = then }

    func give(_ value: Value) {
        let then = self.then
        self.then = nil
        then?(value)
    }
}
