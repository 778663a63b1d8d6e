// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Asks a cachey for a range of an immutable object that any of some buckets holds.
package struct FetchRequest: ByteCodable {
    /// Names of buckets, the preferred one first: 1 to `bucketsMax`.
    package var buckets: [String]
    package var object: String
    /// In bytes; not empty. It is clamped at the object's end.
    package var range: Range<Int>

    package static let bucketsMax = 8
    package static let bucketNameBytesMax = 64
    package static let objectNameBytesMax = 1_024
    /// Beyond the largest object of any store.
    package static let offsetMax = 1 << 40
    /// The grain in which cacheys keep objects, and readers pick cacheys, unless told otherwise.
    package static let pageBytesDefault = 1 << 20

    package init(buckets: [String], object: String, range: Range<Int>) {
        self.buckets = buckets
        self.object = object
        self.range = range
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(UInt8(buckets.count))
        for bucket in buckets { writer.writeText(bucket) }
        writer.writeText(object)
        writer.write(UInt64(range.lowerBound))
        writer.write(UInt64(range.upperBound))
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        let count = Int(try reader.read(UInt8.self))
        guard (1...Self.bucketsMax).contains(count) else {
            throw reader.malformed("a list of \(count) buckets")
        }
        buckets = []
        for _ in 0..<count {
            buckets.append(try reader.readText(lengthMax: Self.bucketNameBytesMax))
        }
        object = try reader.readText(lengthMax: Self.objectNameBytesMax)
        let start = try reader.read(UInt64.self)
        let end = try reader.read(UInt64.self)
        guard start < end, end <= UInt64(Self.offsetMax) else {
            throw reader.malformed("the range \(start)..<\(end)")
        }
        range = Int(start)..<Int(end)
    }
}

/// Ends a fetch whose bytes were all sent.
package struct FetchReply: ByteCodable {
    /// The whole object's size, in bytes.
    package var objectSize: UInt64

    package init(objectSize: UInt64) { self.objectSize = objectSize }

    package func encode(into writer: inout ByteWriter) { writer.write(objectSize) }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        objectSize = try reader.read()
    }
}
