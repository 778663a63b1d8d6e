// SPDX-License-Identifier: Apache-2.0

internal import CacheyRole
internal import Primitives

/// What stands on a simulated disk: it survives the crash of whoever wrote it, and may rot.
final class SimPlatter {
    fileprivate var blocks: [UInt64: [UInt8]] = [:]
    private let random: RandomSource

    init(random: RandomSource) { self.random = random }

    /// The power fails: the end of what was written last may be lost.
    func tear() {
        guard let last = blocks.keys.max(), let bytes = blocks[last], random.oneIn(2) else {
            return
        }
        blocks[last] = Array(bytes.dropLast(Int(random.below(UInt64(bytes.count) / 2 + 1))))
    }

    fileprivate func write(_ bytes: [UInt8], block: UInt64, offset: Int) {
        var content = blocks[block] ?? []
        if content.count < offset {
            content += [UInt8](repeating: 0, count: offset - content.count)
        }
        content.replaceSubrange(offset..<min(offset + bytes.count, content.count), with: bytes)
        blocks[block] = content
    }
}

/// A disk as one cachey reaches it: it takes its time, refuses, and may write another byte than it
/// was given without a word.
// Safety: a simulation is one thread.
final class SimDisk: PageDisk, @unchecked Sendable {
    private let platter: SimPlatter
    private let loop: SimLoop
    private let random: RandomSource
    /// One access in so many goes wrong; 0 for none.
    private let faultOneIn: () -> UInt64

    init(
        _ platter: SimPlatter, loop: SimLoop, random: RandomSource,
        faultOneIn: @escaping () -> UInt64
    ) {
        self.platter = platter
        self.loop = loop
        self.random = random
        self.faultOneIn = faultOneIn
    }

    func blocks() async throws(DiskError) -> [DiskBlock] {
        await pass()
        return platter.blocks.keys.sorted().map {
            DiskBlock(number: $0, bytes: platter.blocks[$0]?.count ?? 0)
        }
    }

    func write(_ parts: [Bytes], block: UInt64, offset: Int) async throws(DiskError) {
        await pass()
        var bytes = parts.joined().array
        if isFaulty, !bytes.isEmpty {
            if random.oneIn(3) { throw DiskError("simulated: no space left") }
            // Mostly in the content, whose bytes nobody looks at on the way.
            let low = bytes.count * (random.oneIn(4) ? 0 : 1) / 2
            bytes[low + Int(random.below(UInt64(bytes.count - low)))] ^= 1
        }
        platter.write(bytes, block: block, offset: offset)
    }

    func read(block: UInt64, _ range: Range<Int>) async throws(DiskError) -> Bytes {
        await pass()
        if isFaulty && random.oneIn(3) { throw DiskError("simulated: input/output error") }
        guard let bytes = platter.blocks[block] else { throw DiskError("no such block") }
        let end = min(range.upperBound, bytes.count)
        return Bytes(Array(bytes[min(range.lowerBound, end)..<end]))
    }

    func remove(block: UInt64) async throws(DiskError) {
        await pass()
        platter.blocks[block] = nil
    }

    private func pass() async {
        let isSlow = isFaulty && random.oneIn(4)
        let delay: ClosedRange<Nanoseconds> = isSlow ? 0...(.seconds(4)) : 20_000...400_000
        await loop.sleep(random.within(delay))
    }

    private var isFaulty: Bool {
        let n = faultOneIn()
        return n > 0 && random.oneIn(n)
    }
}
