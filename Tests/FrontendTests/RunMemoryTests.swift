// SPDX-License-Identifier: Apache-2.0

import Primitives
import Testing

@testable import FrontendRole

@Suite struct RunMemoryTests {
    @Test func whatNobodyRefersToIsUsedAgain() {
        var memory = RunMemory()
        var made: Set<ObjectIdentifier> = []
        var held: [Bytes] = []
        for number in 0..<100 {
            var writer = ByteWriter(into: memory.take(10_000))
            writer.write(utf8: "run \(number)")
            held.append(writer.finish())
            if held.count > 5 { held.removeFirst() }
            made.formUnion(held.compactMap { $0.owner.map(ObjectIdentifier.init) })
            for (place, run) in held.enumerated() {
                #expect(run == Bytes(utf8: "run \(number - held.count + 1 + place)"))
            }
        }
        #expect(made.count <= 7, "\(made.count) pieces of memory for 5 at once")
    }

    @Test func memoryIsNeitherTooSmallNorMuchTooLarge() {
        var memory = RunMemory()
        for count in [10_000, 8_000, 7_999, 20_000, 10_001, 9_999, 100, 1 << 20, 4_096] {
            let capacity = memory.take(count).byteCapacity
            #expect((count...count + count / 4).contains(capacity), "\(capacity) for \(count)")
        }
    }

    @Test func whatIsKeptIsBounded() {
        var memory = RunMemory()
        var held: [ByteStorage] = []
        for _ in 0..<100 {
            held.append(memory.take(1 << 20))
            #expect(memory.keptBytes <= RunMemory.bytesMax)
        }
        #expect(Set(held.map(ObjectIdentifier.init)).count == 100)
        let first = Set(held.prefix(6).map(ObjectIdentifier.init))
        held = []
        for _ in 0..<20 {
            #expect(first.contains(ObjectIdentifier(memory.take(1 << 20))))
        }
    }
}
