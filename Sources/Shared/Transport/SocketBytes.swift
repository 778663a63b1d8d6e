// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
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
}

extension ByteBuffer {
    mutating func write(_ bytes: Bytes) {
        bytes.withUnsafeBytes { _ = writeBytes($0) }
    }
}

/// What is to go out on a channel: collected during a turn, then copied once into buffers for the
/// socket, and accounted for until the network has taken it.
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

    /// Bytes of one buffer: the grain in which progress is seen.
    private static let bufferBytesMax = 256 << 10

    init(_ channel: any Channel, _ loop: NIOLoop) {
        self.channel = channel
        self.loop = loop
        takenAt = loop.now
    }

    func add(_ parts: [Bytes]) {
        let count = byteCount(parts)
        if unsentBytes == 0 { takenAt = loop.now }
        unsentBytes += count
        collected += count
        self.parts += parts
    }

    func add(_ part: Bytes) { add([part]) }

    /// Sends what was collected, through `context`.
    func flush(_ context: ChannelHandlerContext) {
        guard collected > 0 else { return }
        let parts = self.parts
        self.parts = []
        var left = collected
        collected = 0
        var room = min(left, Self.bufferBytesMax)
        var buffer = channel.allocator.buffer(capacity: room)
        for part in parts {
            var rest = part
            while !rest.isEmpty {
                let isWhole = rest.count <= room
                let count = isWhole ? rest.count : room
                buffer.write(isWhole ? rest : rest.prefix(count))
                left -= count
                room -= count
                if room == 0 {
                    write(buffer, context)
                    room = min(left, Self.bufferBytesMax)
                    if room > 0 { buffer = channel.allocator.buffer(capacity: room) }
                }
                if isWhole { break }
                rest = rest.dropFirst(count)
            }
        }
        context.flush()
    }

    private func write(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        let count = buffer.readableBytes
        let promise = channel.eventLoop.makePromise(of: Void.self)
        let bound = LoopBound(self)
        promise.futureResult.whenComplete { _ in bound.value.took(count) }
        context.write(NIOAny(buffer), promise: promise)
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
