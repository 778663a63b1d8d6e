// SPDX-License-Identifier: Apache-2.0

@_spi(CustomByteBufferAllocator) internal import NIOCore
internal import Primitives

extension Bytes {
    /// The readable bytes of a buffer, to be kept: they share its memory and keep it alive; a copy
    /// where they are less than a quarter of that memory.
    init(_ buffer: ByteBuffer) {
        if buffer.readableBytes < buffer.storageCapacity / 4 {
            self = buffer.withUnsafeReadableBytes { Bytes(copying: $0) }
        } else {
            self.init(sharing: buffer)
        }
    }

    /// The readable bytes of a buffer, for whoever is done with them at once: however few they are,
    /// they keep all of its memory alive.
    init(sharing buffer: ByteBuffer) {
        // NIO never writes to storage that somebody else refers to.
        self = buffer.withUnsafeReadableBytesWithStorageManagement { memory, storage in
            guard let base = memory.baseAddress, memory.count > 0 else { return Bytes() }
            return Bytes(owner: storage.takeUnretainedValue(), base: base, count: memory.count)
        }
    }

    /// Set where they are sent from where they lie: they are long enough to be worth a buffer of
    /// their own, and half of the memory that they keep alive meanwhile, as a copy might be.
    fileprivate func sharedStorage(unless copiesAll: Bool) -> ByteStorage? {
        guard !copiesAll, count >= Self.sharedBytesMin, let storage = owner as? ByteStorage,
            count >= storage.byteCapacity / 2, storage.byteCapacity <= Self.sharedCapacityMax
        else { return nil }
        return storage
    }

    private static let sharedBytesMin = 16 << 10
    /// A slice that begins beyond 16 MiB of its buffer is one that NIO copies.
    private static let sharedCapacityMax = 16 << 20
}

extension ByteBuffer {
    mutating func write(_ bytes: Bytes) {
        bytes.withUnsafeBytes { _ = writeBytes($0) }
    }

    /// Bytes where they are in memory of our own, which lives until NIO is done with them. Nobody
    /// writes to such a buffer: it is sent, whole or in slices.
    fileprivate init(sharing bytes: Bytes, in storage: ByteStorage) {
        let begin = bytes.base - UnsafeRawPointer(storage.base)
        let memory = UnsafeMutableRawBufferPointer(
            start: storage.retainedBase(), count: storage.byteCapacity)
        self.init(
            takingOwnershipOf: memory, allocator: Self.releasing, readerIndex: begin,
            writerIndex: begin + bytes.count)
    }

    /// What NIO frees is let go of instead.
    private static let releasing = ByteBufferAllocator(
        allocate: { _ in nil }, reallocate: { _, _, _ in nil },
        deallocate: { ByteStorage.release(base: $0) },
        copy: { $0.copyMemory(from: $1, byteCount: $2) })

    /// The parts as buffers for the socket, each of at most `bytesMax` bytes, in order. Long parts
    /// in memory of our own are sent from there, unless `copiesAll`; the others are copied, once.
    static func each(
        of parts: [Bytes], bytesMax: Int, copiesAll: Bool = false,
        _ allocator: ByteBufferAllocator, _ pass: (ByteBuffer) -> Void
    ) {
        func passAll(_ buffer: inout ByteBuffer, _ count: Int) {
            var left = count
            while left > 0, let piece = buffer.readSlice(length: min(left, bytesMax)) {
                left -= piece.readableBytes
                pass(piece)
            }
        }
        var first = 0
        while first < parts.count {
            // What is copied is copied before any of it is passed: NIO would copy it all again.
            let (end, count) = copiedTogether(parts[first...], bytesMax, copiesAll)
            var copies = allocator.buffer(capacity: count)
            for part in parts[first..<end] where part.sharedStorage(unless: copiesAll) == nil {
                copies.write(part)
            }
            var run = 0
            for part in parts[first..<end] {
                guard let storage = part.sharedStorage(unless: copiesAll) else {
                    run += part.count
                    continue
                }
                passAll(&copies, run)
                run = 0
                var shared = ByteBuffer(sharing: part, in: storage)
                passAll(&shared, part.count)
            }
            passAll(&copies, run)
            first = end
        }
    }

    /// The end of the first parts that share one buffer of copies, and how many bytes are copied.
    private static func copiedTogether(
        _ parts: ArraySlice<Bytes>, _ bytesMax: Int, _ copiesAll: Bool
    ) -> (end: Int, count: Int) {
        var count = 0
        for at in parts.indices where parts[at].sharedStorage(unless: copiesAll) == nil {
            if count > 0, count + parts[at].count > bytesMax { return (at, count) }
            count += parts[at].count
        }
        return (parts.endIndex, count)
    }
}

/// What is to go out on a channel: collected during a turn, then handed to the socket in buffers,
/// and accounted for until the network has taken it.
final class Outlet {
    /// Collected, or handed to the channel and not taken by the network.
    private(set) var unsentBytes = 0
    /// When the network last took something, or had nothing to take.
    private(set) var takenAt: Nanoseconds
    /// The network took something.
    var onTaken: (() -> Void)?
    private var parts: [Bytes] = []
    private var collected = 0
    private let loop: NIOLoop
    private let channel: any Channel
    private let copiesAll: Bool

    private static let partsKept = 16
    /// Bytes of one buffer: the grain in which progress is seen.
    private static let bufferBytesMax = 256 << 10

    /// With `copiesAll`, memory that was added is not kept beyond the flush, however slow the
    /// network.
    init(_ channel: any Channel, _ loop: NIOLoop, copiesAll: Bool = false) {
        self.channel = channel
        self.copiesAll = copiesAll
        self.loop = loop
        takenAt = loop.now
    }

    func add(_ parts: [Bytes]) {
        guard self.parts.isEmpty, parts.count > self.parts.capacity else {
            for part in parts { add(part) }
            return
        }
        count(byteCount(parts))
        self.parts = parts
    }

    func add(_ part: Bytes) {
        count(part.count)
        parts.append(part)
    }

    private func count(_ bytes: Int) {
        if unsentBytes == 0 { takenAt = loop.now }
        unsentBytes += bytes
        collected += bytes
    }

    /// Sends what was collected, through `context`.
    func flush(_ context: ChannelHandlerContext) {
        guard collected > 0 else { return }
        var parts: [Bytes] = []
        swap(&parts, &self.parts)
        var left = collected
        collected = 0
        // Small buffers are accounted for together, with the last of them.
        var untold = 0
        ByteBuffer.each(
            of: parts, bytesMax: Self.bufferBytesMax, copiesAll: copiesAll, channel.allocator
        ) { buffer in
            left -= buffer.readableBytes
            untold += buffer.readableBytes
            let isTold = left == 0 || untold >= Self.bufferBytesMax
            context.write(NIOAny(buffer), promise: isTold ? promise(untold) : nil)
            if isTold { untold = 0 }
        }
        // The array is used again, unless it is long.
        if self.parts.isEmpty, parts.capacity <= Self.partsKept {
            parts.removeAll(keepingCapacity: true)
            swap(&parts, &self.parts)
        }
        context.flush()
    }

    private func promise(_ count: Int) -> EventLoopPromise<Void> {
        let promise = channel.eventLoop.makePromise(of: Void.self)
        let bound = LoopBound(self)
        promise.futureResult.whenComplete { _ in bound.value.took(count) }
        return promise
    }

    private func took(_ count: Int) {
        unsentBytes -= count
        takenAt = loop.now
        onTaken?()
    }

    /// Whether the network has taken nothing for `limit`, although there is something to take.
    func isStalled(_ limit: Nanoseconds) -> Bool {
        unsentBytes > 0 && loop.now - takenAt >= limit
    }
}
