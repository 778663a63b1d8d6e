// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL

/// What handling a secret takes.
package enum Secrets {
    /// `count` bytes that nobody can guess.
    package static func randomBytes(_ count: Int) -> [UInt8] {
        precondition(count >= 0 && count <= Int(Int32.max), "a sensible number of bytes")
        return [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
            precondition(
                count == 0 || RAND_bytes(bytes.baseAddress, Int32(count)) == 1,
                "the system has randomness")
            initialized = count
        }
    }

    /// Whether the two are equal, in a time that depends on their lengths only.
    package static func areEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool {
        a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
    }
}
