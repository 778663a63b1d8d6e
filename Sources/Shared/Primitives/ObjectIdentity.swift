// SPDX-License-Identifier: Apache-2.0

/// Bytes of an object that no other object shares: where its random put id stands.
package struct ObjectIdentity: Sendable {
    /// From the object's start to the end of its put id, at least: what is read back.
    package let prefixBytes: Int
    /// The put id within that prefix.
    package let putID: Range<Int>

    package init(prefixBytes: Int, putID: Range<Int>) {
        precondition(putID.upperBound <= prefixBytes, "the put id lies within the prefix")
        self.prefixBytes = prefixBytes
        self.putID = putID
    }
}
