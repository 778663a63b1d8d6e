// SPDX-License-Identifier: Apache-2.0

internal import Glibc
package import Primitives
private import Synchronization

/// How often a fuzz test tries; more where the environment asks for it, as `make fuzz` does.
package let fuzzIterations =
    getenv("MILLRACE_FUZZ_ITERATIONS").flatMap { Int(String(cString: $0)) } ?? 1_000

/// Bytes as a decoder must expect them of anybody: noise, and valid ones with a few faults.
package struct Damage {
    private var random: SplitMix64

    package init(seed: UInt64) { random = SplitMix64(seed: seed) }

    /// A number below `bound`, which is at least 1.
    package mutating func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }

    package mutating func noise(countMax: Int) -> Bytes {
        Bytes((0..<below(countMax + 1)).map { _ in UInt8(truncatingIfNeeded: random.next()) })
    }

    /// `bytes` with one to four faults; rarely the same again.
    package mutating func damaged(_ bytes: Bytes) -> Bytes {
        var array = bytes.array
        for _ in 0...below(4) {
            guard !array.isEmpty else { return noise(countMax: 8) }
            let at = below(array.count)
            switch below(6) {
            case 0: array[at] = UInt8(truncatingIfNeeded: random.next())
            case 1: array[at] ^= 1 << UInt8(below(8))
            case 2: array.removeSubrange(at...)
            case 3: array += noise(countMax: 8).array
            case 4: array.remove(at: at)
            default:
                // A length or a number at an end of its range.
                let end: UInt8 = below(2) == 0 ? 0xFF : 0
                for i in at..<min(at + 1 << below(4), array.count) { array[i] = end }
            }
        }
        return Bytes(array)
    }
}

/// A decoder took what it should have refused, or the other way round.
package struct FuzzFinding: Error, CustomStringConvertible {
    package let description: String
}

/// Shows a decoder that its own encoding comes back, then noise and damaged encodings: it must
/// decode or throw, without a trap and without memory that has no relation to its input. What it
/// decodes is handed to `use`, and, with `isCanonical`, is encoded as those same bytes again: no
/// two encodings mean the same, and none is larger in memory than on the wire.
package func fuzz<Value: ByteCodable>(
    _ samples: [Value], isCanonical: Bool = true, seed: UInt64 = 1,
    use: (Value) -> Void = { _ in }
) throws {
    let encodings = samples.map { $0.encoded() }
    for (sample, bytes) in zip(samples, encodings) {
        guard try Value(bytes) == sample else {
            throw FuzzFinding(description: "\(sample) does not come back")
        }
        use(sample)
    }
    func decode(_ bytes: Bytes) throws {
        guard let value = try? Value(bytes) else { return }
        use(value)
        guard !isCanonical || value.encoded() == bytes else {
            throw FuzzFinding(description: "\(Value.self) \(bytes.array) is not canonical")
        }
    }
    var damage = Damage(seed: seed)
    try turn.withLock { _ in
        try withAddressSpace(growingBy: 4 << 30) {
            for bytes in encodings {
                for count in 0..<bytes.count { try decode(bytes.prefix(count)) }
            }
            for round in 0..<fuzzIterations {
                try decode(damage.noise(countMax: 80))
                try decode(damage.damaged(encodings[round % encodings.count]))
            }
        }
    }
}

/// Held by whoever has set the process's limit.
private let turn = Mutex(())

/// Runs `body` while the process may map that many bytes more than it has: who asks for more is
/// refused, and traps.
private func withAddressSpace(growingBy bytes: Int, _ body: () throws -> Void) throws {
    var before = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &before) == 0,
        let statm = fopen("/proc/self/statm", "r")
    else { throw FuzzFinding(description: "no limits") }
    var pages = 0
    var digit = getc(statm)
    while (48...57).contains(digit) {
        pages = pages * 10 + Int(digit - 48)
        digit = getc(statm)
    }
    fclose(statm)
    var limit = before
    limit.rlim_cur = min(before.rlim_cur, rlim_t(pages * Int(getpagesize()) + bytes))
    setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
    defer { setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &before) }
    try body()
}
