// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Which page of which object: its bytes never change.
///
/// The object is named within a set of buckets that hold the same objects; whichever of them
/// serves, the bytes are the same.
package struct PageKey: Hashable, Sendable {
    /// The buckets' names, sorted and joined by commas.
    package let bucketSet: String
    package let object: String
    /// Counted from 0.
    package let number: Int

    package init(bucketSet: String, object: String, number: Int) {
        precondition(number >= 0, "pages are counted from 0")
        self.bucketSet = bucketSet
        self.object = object
        self.number = number
    }

    /// Bytes of memory that a key takes, roughly.
    var weight: Int { 128 + bucketSet.utf8.count + object.utf8.count }
}

/// The content of a page, and what came with it. Not empty.
package struct CachedPage: Sendable, Equatable {
    package let bytes: Bytes
    /// Of the whole object.
    package let objectSize: Int
    /// The bucket that served it.
    package let bucket: String
    /// When it was fetched, in seconds since the Unix epoch.
    package let fetchedSeconds: UInt64

    package init(bytes: Bytes, objectSize: Int, bucket: String, fetchedSeconds: UInt64) {
        precondition(!bytes.isEmpty && bytes.count <= objectSize, "a page is a part of its object")
        self.bytes = bytes
        self.objectSize = objectSize
        self.bucket = bucket
        self.fetchedSeconds = fetchedSeconds
    }
}

/// Where a page that is being served came from.
enum PageSource: Int, CaseIterable {
    case memory, disk
    /// Fetched for this request.
    case bucket
    /// Fetched for a request that came before and was not over.
    case coalesced

    /// Whether it had been fetched before anybody of now asked.
    var isHit: Bool { self == .memory || self == .disk }
}

/// Why a range cannot be served.
enum FetchFailure: Error, Equatable, CustomStringConvertible {
    /// None of the buckets has the object.
    case notFound
    case rangeNotSatisfiable
    /// Pages of one object disagree about its size.
    case sizesDiffer
    /// None of the buckets that were named is known here.
    case unknownBucket
    /// A bound was reached; nothing was done.
    case overloaded
    case timedOut
    case storeFailed(String)

    var description: String {
        switch self {
        case .notFound: "no such object"
        case .rangeNotSatisfiable: "the range begins beyond the object's end"
        case .sizesDiffer: "the object's pages disagree about its size"
        case .unknownBucket: "none of the buckets is known here"
        case .overloaded: "too much is under way"
        case .timedOut: "it took too long"
        case .storeFailed(let message): message
        }
    }
}
