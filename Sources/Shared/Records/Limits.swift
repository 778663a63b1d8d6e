// SPDX-License-Identifier: Apache-2.0

/// The limits that the S2 API documents. Sizes in bytes.
package enum Limits {
    package static let batchRecordsMax = 1_000
    /// Metered bytes of one batch, and of one record.
    package static let batchMeteredBytesMax = 1_048_576
    package static let recordMeteredBytesMax = 1_048_576
    package static let recordHeadersMax = 0xFF_FFFF
    package static let fencingTokenBytesMax = 36
    package static let basinNameBytes = 8...48
    package static let streamNameBytesMax = 512
    package static let accessTokenIDBytesMax = 96
    package static let locationBytesMax = 64
    package static let requestTokenBytesMax = 36
    package static let encryptionKeyBytesMax = 44
    package static let listPageMax = 1_000
    /// The length field of a session frame: the flag byte and the payload.
    package static let frameBytesMax = 2_097_152
    /// The most that a `ReadBatch.tail` field takes: tag, length, two tags, two varints.
    package static let tailFieldBytesMax = 2 + 2 * 11
    /// A stored record must fit one frame together with a tail, or nobody could read it.
    package static let storedRecordBytesMax = frameBytesMax - 1 - tailFieldBytesMax
}
