// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Numbered blocks of bytes on a local disk: all that a cachey asks of it.
///
/// Nothing of it is trusted: a block may have lost its end, or hold anything. A block is written by
/// one writer, from its start on. Every call ends.
package protocol PageDisk: Sendable {
    /// What is there, in any order.
    func blocks() async throws(DiskError) -> [DiskBlock]
    /// Writes the parts back to back at `offset`, and makes the block where there is none.
    func write(_ parts: [Bytes], block: UInt64, offset: Int) async throws(DiskError)
    /// The bytes in `range`; fewer where the block ends before.
    func read(block: UInt64, _ range: Range<Int>) async throws(DiskError) -> Bytes
    /// Removes a block; one that is not there is no error.
    func remove(block: UInt64) async throws(DiskError)
}

package struct DiskBlock: Sendable, Equatable {
    package let number: UInt64
    package let bytes: Int

    package init(number: UInt64, bytes: Int) {
        self.number = number
        self.bytes = bytes
    }
}

package struct DiskError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
