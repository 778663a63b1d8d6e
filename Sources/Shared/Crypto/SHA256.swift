// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
package import Primitives

/// SHA-256 (FIPS 180-4): a digest of 32 bytes.
package enum SHA256 {
    package static let digestBytes = 32

    package static func digest(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: digestBytes) { digest, count in
            _ = COpenSSL.SHA256(bytes.baseAddress ?? Self.nothing, bytes.count, digest.baseAddress)
            count = digestBytes
        }
    }

    package static func digest(_ bytes: [UInt8]) -> [UInt8] { bytes.withUnsafeBytes { digest($0) } }

    package static func digest(_ text: String) -> [UInt8] { digest(Array(text.utf8)) }

    package static func digest(_ bytes: Bytes) -> [UInt8] { bytes.withUnsafeBytes { digest($0) } }

    /// Of all the parts back to back.
    package static func digest(_ parts: [Bytes]) -> [UInt8] {
        if parts.count == 1 { return digest(parts[0]) }
        guard let context = EVP_MD_CTX_new() else { preconditionFailure("no memory for a digest") }
        defer { EVP_MD_CTX_free(context) }
        var isDone = EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1
        for part in parts {
            part.withUnsafeBytes { bytes in
                isDone = EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1 && isDone
            }
        }
        return [UInt8](unsafeUninitializedCapacity: digestBytes) { digest, count in
            isDone = EVP_DigestFinal_ex(context, digest.baseAddress, nil) == 1 && isDone
            precondition(isDone, "OpenSSL computes SHA-256")
            count = digestBytes
        }
    }

    // Safety: one byte that nobody writes.
    nonisolated(unsafe) private static let nothing = UnsafeRawPointer(
        UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))
}

/// HMAC with SHA-256 (RFC 2104): a code of 32 bytes.
package enum HMACSHA256 {
    package static func code(key: [UInt8], _ message: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: SHA256.digestBytes) { code, count in
            let made = HMAC(
                EVP_sha256(), key, Int32(key.count), message, message.count, code.baseAddress, nil)
            precondition(made != nil, "OpenSSL computes HMAC")
            count = SHA256.digestBytes
        }
    }

    package static func code(key: [UInt8], _ message: String) -> [UInt8] {
        code(key: key, Array(message.utf8))
    }
}
