// SPDX-License-Identifier: Apache-2.0

import Log
import Primitives
import Records
import Testing

/// Stored records made up from a seed.
struct Run {
    var elements: [Bytes] = []
    var positions: [StreamPosition] = []
    var metered = 0

    init(_ seed: UInt64, count: Int, from start: UInt64 = 0, body: ClosedRange<UInt64> = 0...60) {
        var random = SplitMix64(seed: seed)
        var timestamp: UInt64 = 100
        for i in 0..<UInt64(count) {
            timestamp += random.next() % 3
            let length = body.lowerBound + random.next() % UInt64(body.count)
            var writer = ByteWriter()
            if length > 0 {
                writer.write(UInt8(0x22))
                writer.writeVarint(length)
                writer.write([UInt8](repeating: UInt8(i % 251), count: Int(length)))
            }
            let fields = writer.finish()
            let storage = ByteStorage.make(capacity: fields.count + 40)
            let written = fields.withUnsafeBytes {
                StoredRecord.write(
                    fields: $0, seqNum: start + i, timestamp: timestamp, to: storage.base)
            }
            elements.append(
                Bytes(owner: storage, base: UnsafeRawPointer(storage.base), count: written))
            positions.append(StreamPosition(seqNum: start + i, timestamp: timestamp))
            metered += 8 + Int(length)
        }
    }

    var bytes: Bytes { elements.joined() }

    /// The elements, grouped into a few slices.
    func slices(_ count: Int) -> [Bytes] {
        let size = max(1, (elements.count + count - 1) / count)
        return stride(from: 0, to: elements.count, by: size).map {
            Array(elements[$0..<min($0 + size, elements.count)]).joined()
        }
    }

    func entry(
        _ stream: StreamID, streamlet: StreamletNumber = 0, dependency: Dependency? = nil
    ) -> FragmentEntry {
        FragmentEntry(
            stream: stream, streamlet: streamlet, kind: .records,
            firstSeqNum: positions[0].seqNum, count: UInt32(elements.count),
            firstTimestamp: positions[0].timestamp, lastTimestamp: positions.last!.timestamp,
            meteredBytes: UInt32(metered), dependency: dependency)
    }
}

func stream(_ n: UInt64) -> StreamID { StreamID(ID128(high: n, low: n &* 0x9E37_79B9_7F4A_7C15)) }

let someState = StreamState(
    tail: StreamPosition(seqNum: 12, timestamp: 34), fencingToken: "töken",
    fencingTokenPosition: 5, trimPoint: 7)

/// Every truncation must be refused, and every change of a single byte.
func expectFragile<T>(
    _ whole: Bytes, step: Int = 1, _ decode: (Bytes) throws -> T,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    let bytes = whole.array
    var survivors: [Int] = []
    for length in stride(from: 0, to: bytes.count, by: step)
    where (try? decode(whole[0..<length])) != nil {
        survivors.append(length)
    }
    #expect(survivors.isEmpty, "accepted though truncated", sourceLocation: sourceLocation)
    survivors = []
    var random = SplitMix64(seed: UInt64(bytes.count))
    for at in stride(from: 0, to: bytes.count, by: step) {
        var changed = bytes
        changed[at] ^= UInt8(1 + random.next() % 255)
        if (try? decode(Bytes(changed))) != nil { survivors.append(at) }
    }
    #expect(survivors.isEmpty, "accepted though changed", sourceLocation: sourceLocation)
    #expect((try? decode(Bytes(bytes + [0]))) == nil, sourceLocation: sourceLocation)
    #expect((try? decode(Bytes(bytes))) != nil, sourceLocation: sourceLocation)
}
