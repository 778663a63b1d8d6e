// SPDX-License-Identifier: Apache-2.0

internal import CSupport

/// CRC-32C (Castagnoli polynomial; RFC 3720, appendix B.4).
package enum CRC32C {
    /// The checksum of `bytes` behind data whose checksum is `seed` (0 to start).
    package static func of(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        guard let base = bytes.baseAddress else { return seed }
        return millrace_crc32c(seed, base, bytes.count)
    }

    package static func of(_ bytes: Bytes, seed: UInt32 = 0) -> UInt32 {
        bytes.withUnsafeBytes { of($0, seed: seed) }
    }
}
