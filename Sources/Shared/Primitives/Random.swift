// SPDX-License-Identifier: Apache-2.0

/// Where randomness comes from: the system's in production, a seed in the simulator.
///
/// A class, so that every part of a process draws from one sequence. Confined to its loop.
package final class RandomSource {
    private var next64: () -> UInt64

    /// The operating system's randomness.
    package static func system() -> RandomSource {
        var generator = SystemRandomNumberGenerator()
        return RandomSource { generator.next() }
    }

    /// The same sequence for the same seed.
    package static func seeded(_ seed: UInt64) -> RandomSource {
        var generator = SplitMix64(seed: seed)
        return RandomSource { generator.next() }
    }

    package init(_ next64: @escaping () -> UInt64) { self.next64 = next64 }

    package func next() -> UInt64 { next64() }

    /// A value in `0 ..< bound`; `bound` is at least 1.
    package func below(_ bound: UInt64) -> UInt64 {
        precondition(bound > 0, "nothing lies below zero")
        // The bias of the multiplication is below 2^-32 for every bound used here.
        return next().multipliedFullWidth(by: bound).high
    }

    /// True once in `n` on average.
    package func oneIn(_ n: UInt64) -> Bool { below(n) == 0 }

    /// A value in `range`.
    package func within(_ range: ClosedRange<Int64>) -> Int64 {
        range.lowerBound + Int64(below(UInt64(range.upperBound - range.lowerBound) + 1))
    }
}

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
/// (OOPSLA 2014).
package struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
