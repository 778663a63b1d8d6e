// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// A bucket of immutable objects: all that the cell asks of S3.
///
/// Keys are 1 to 1,024 bytes of UTF-8 without control characters, and have no empty, `.` or `..`
/// segment between slashes. An object appears whole or not at all. Read after write holds, for
/// `get`, `head` and `list`. Implementations bound their own waiting: every call ends.
package protocol ObjectStore: Sendable {
    /// Stores `body`, the parts back to back, under `key`.
    ///
    /// With `ifAbsent`, exactly one of several concurrent creators gets `.created`. An error whose
    /// `outcome` is unknown may still have stored the object, now or later: resolve it with
    /// `putOnce`.
    func put(_ key: String, _ body: [Bytes], ifAbsent: Bool) async throws(StoreError) -> PutResult

    /// The object's bytes in `range` (nil for all), clamped at its end. A range that begins at or
    /// beyond the end is `.rangeNotSatisfiable`.
    func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice

    /// The object's size, or nil where there is none.
    func head(_ key: String) async throws(StoreError) -> ObjectInfo?

    /// Up to `limit` objects (1 to 1,000) whose key begins with `prefix` and is greater than
    /// `after`, in the order of the keys' bytes.
    func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing

    /// Removes the object; one that is not there is no error.
    func delete(_ key: String) async throws(StoreError)
}

package enum PutResult: Sendable, Equatable {
    case created
    /// There is an object under this key already; nothing was stored. (Only with `ifAbsent`.)
    case exists
}

package struct ObjectInfo: Sendable, Equatable {
    package let key: String
    package let size: Int
    /// When it was stored, by the store's clock.
    package let modifiedMilliseconds: UInt64

    package init(key: String, size: Int, modifiedMilliseconds: UInt64) {
        self.key = key
        self.size = size
        self.modifiedMilliseconds = modifiedMilliseconds
    }
}

package struct ObjectSlice: Sendable, Equatable {
    package let bytes: Bytes
    /// The whole object's size.
    package let objectSize: Int

    package init(bytes: Bytes, objectSize: Int) {
        self.bytes = bytes
        self.objectSize = objectSize
    }
}

package struct ObjectListing: Sendable, Equatable {
    package let objects: [ObjectInfo]
    package let hasMore: Bool

    package init(objects: [ObjectInfo], hasMore: Bool) {
        self.objects = objects
        self.hasMore = hasMore
    }
}

/// Why a store did not do what it was asked.
package struct StoreError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// No such object.
        case notFound
        /// The range begins at or beyond the object's end.
        case rangeNotSatisfiable
        /// The request can never work: a bad key, or a size beyond the store's limit.
        case invalidRequest
        /// The credentials do not allow it, or there is no such bucket.
        case denied
        /// Overloaded, unreachable, in conflict or too slow; another try may work.
        case unavailable
        /// The disk is full or broken, or the store refuses for good.
        case failed
    }
    package let kind: Kind
    /// Whether the request may have taken effect all the same, now or later.
    package let outcomeUnknown: Bool
    package let message: String

    package init(_ kind: Kind, outcomeUnknown: Bool = false, _ message: String) {
        self.kind = kind
        self.outcomeUnknown = outcomeUnknown
        self.message = message
    }

    package var isRetryable: Bool { kind == .unavailable }

    package var description: String {
        "\(kind): \(message)\(outcomeUnknown ? " (outcome unknown)" : "")"
    }
}

/// One bucket of a storage class: a store, and the name that configuration gives it.
package struct Bucket: Sendable {
    package let name: String
    package let store: any ObjectStore

    package init(name: String, store: any ObjectStore) {
        self.name = name
        self.store = store
    }
}
