// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What happened in a simulation, in order. Its hash tells two runs apart; its lines, kept on
/// demand, tell a person why.
package final class Trace {
    /// FNV-1a, 64 bit.
    package private(set) var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    package private(set) var lines: [String] = []
    private let keepsLines: Bool

    package init(keepsLines: Bool = false) { self.keepsLines = keepsLines }

    func step(_ step: Int, at now: Nanoseconds, _ process: String) {
        mix(UInt64(step))
        mix(UInt64(bitPattern: now))
        for byte in process.utf8 { mix(UInt64(byte)) }
    }

    package func note(_ line: @autoclosure () -> String, at now: Nanoseconds) {
        let text = "\(now / 1_000)us \(line())"
        for byte in text.utf8 { mix(UInt64(byte)) }
        if keepsLines { lines.append(text) }
    }

    private func mix(_ word: UInt64) {
        var word = word
        for _ in 0..<8 {
            hash = (hash ^ (word & 0xFF)) &* 0x100_0000_01B3
            word >>= 8
        }
    }
}
