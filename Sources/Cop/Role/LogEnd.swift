// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives

/// Ends the log of a dead channel: finds its first absent slot, or puts the seal there.
///
/// The channel acknowledges a chunk only when it and all below it are durable, so nothing beyond
/// the first absent slot was ever acknowledged; and once the seal is in that slot, nothing ever
/// will be, however long the channel's own PUT is under way.
struct LogEnd {
    let channel: ChannelID
    let bucket: Bucket
    let world: CopWorld
    let backoff: Backoff
    /// For the simulator.
    var mutant: CopMutant?

    /// The index of the seal. `flushedEnd` was read after the death declaration.
    func seal(from flushedEnd: ChunkIndex, storageClass: UInt8) async throws(RecoveryError)
        -> ChunkIndex
    {
        var index = flushedEnd
        while true {
            if try await isSeal(at: index, storageClass) { return index }
            index += 1
        }
    }

    /// Whether a seal is in the slot, now or before; false if a chunk is.
    private func isSeal(
        at index: ChunkIndex, _ storageClass: UInt8
    ) async throws(RecoveryError) -> Bool {
        let seal = Seal(
            header: ChunkHeader(
                kind: .seal, channel: channel,
                index: mutant == .sealMislabelled ? index + 1 : index,
                putID: ID128(random: world.random), storageClass: storageClass,
                createdMilliseconds: world.loop.wallMilliseconds),
            owner: "cop", reason: "the channel's lease passed")
        let key = LogKeys.chunk(channel, index)
        let outcome: PutOnceOutcome
        do throws(StoreError) {
            if mutant == .sealSkipped, try await bucket.store.head(key) == nil { return true }
            if mutant == .sealForced {
                _ = try await bucket.store.put(key, [seal.encoded()], ifAbsent: false)
                return true
            }
            outcome = try await bucket.store.putOnce(
                key, [seal.encoded()], identity: ChunkHeader.identity, loop: world.loop,
                random: world.random, backoff: backoff)
        } catch {
            throw RecoveryError("\(key): \(error)")
        }
        switch outcome {
        case .stored: return true
        case .occupied(let found): return try identify(found, index)
        }
    }
}

extension LogEnd {
    /// What else than our seal is in the slot: true for a seal, false for a chunk of this log.
    private func identify(
        _ prefix: Bytes, _ index: ChunkIndex
    ) throws(RecoveryError) -> Bool {
        do throws(DecodeError) {
            let header = try ChunkHeader(prefix)
            guard header.channel == channel, header.index == index else {
                throw DecodeError(
                    .malformed("it is of channel \(header.channel), index \(header.index)"), at: 0)
            }
            return header.kind == .seal
        } catch {
            throw RecoveryError(
                "\(LogKeys.chunk(channel, index)) is not part of this log: \(error)")
        }
    }
}

/// Why a recovery could not be completed; it will be tried again, from the top.
struct RecoveryError: Error, Equatable, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
