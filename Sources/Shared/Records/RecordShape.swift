// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// What the lengths in a record's fields tell: enough to meter and to check it.
///
/// The fields of an `AppendRecord` behind its timestamp, and those of a `SequencedRecord` behind
/// its timestamp, differ in their tags only: any number of headers, then a body unless it is empty.
/// One scan serves both. It takes canonical bytes only: fields in that order, shortest varints,
/// nothing empty written out, nothing unknown, nothing repeated but headers.
package struct RecordShape: Equatable {
    package private(set) var headerCount = 0
    /// Bytes of all header names, header values and the body.
    package private(set) var contentBytes = 0
    package private(set) var bodyBytes = 0
    package private(set) var emptyNameCount = 0

    /// As S2 meters a record, in bytes.
    package var meteredBytes: Int { 8 + 2 * headerCount + contentBytes }
    /// Whether it speaks to the stream itself. (A valid record has an empty name only then.)
    package var isCommand: Bool { headerCount == 1 && emptyNameCount == 1 }

    /// The tags of headers and body.
    package struct Tags {
        let header: UInt8
        let body: UInt8
        /// `AppendRecord`: fields 2 and 3.
        static let append = Tags(header: 0x12, body: 0x1A)
        /// `SequencedRecord`: fields 3 and 4.
        static let stored = Tags(header: 0x1A, body: 0x22)
    }

    /// The shape of `length` bytes at `base`, or nil where they are not canonical. Where `patch` is
    /// given, it points to a copy of them, in which the tags become those of stored records.
    @inline(__always)
    init?(
        _ base: UnsafeRawPointer, _ length: Int, _ tags: Tags,
        patch: UnsafeMutableRawPointer? = nil
    ) {
        var at = 0
        while at < length, base.byte(at) == tags.header {
            patch?.storeBytes(of: Tags.stored.header, toByteOffset: at, as: UInt8.self)
            at += 1
            let header = base.shortestLength(&at, length)
            guard header >= 0, scanHeader(base + at, header) else { return nil }
            at += header
        }
        if at < length, base.byte(at) == tags.body {
            patch?.storeBytes(of: Tags.stored.body, toByteOffset: at, as: UInt8.self)
            at += 1
            bodyBytes = base.shortestLength(&at, length)
            guard bodyBytes > 0 else { return nil }
            contentBytes += bodyBytes
            at += bodyBytes
        }
        guard at == length else { return nil }
    }

    private init() {}

    /// A stored record's fields.
    package init?(storedFields: UnsafeRawBufferPointer) {
        guard let base = storedFields.baseAddress else {
            self.init()
            return
        }
        self.init(base, storedFields.count, .stored)
    }

    /// `Header`: field 1 is the name, field 2 the value.
    @inline(__always)
    private mutating func scanHeader(_ base: UnsafeRawPointer, _ length: Int) -> Bool {
        headerCount += 1
        var at = 0
        if at < length, base.byte(at) == 0x0A {
            at += 1
            let name = base.shortestLength(&at, length)
            guard name > 0 else { return false }
            contentBytes += name
            at += name
        } else {
            emptyNameCount += 1
        }
        if at < length, base.byte(at) == 0x12 {
            at += 1
            let value = base.shortestLength(&at, length)
            guard value > 0 else { return false }
            contentBytes += value
            at += value
        }
        return at == length
    }
}

extension UnsafeRawPointer {
    @inline(__always)
    func byte(_ offset: Int) -> UInt8 { load(fromByteOffset: offset, as: UInt8.self) }

    /// The length that stands at `at` as a shortest varint, followed by that many bytes before
    /// `end`; moves `at` behind the varint. -1 where there is no such thing.
    @inline(__always)
    func shortestLength(_ at: inout Int, _ end: Int) -> Int {
        let bytes = UnsafeRawBufferPointer(start: self, count: end)
        let start = at
        guard let value = Varint.read(bytes, &at), value <= UInt64(end - at) else { return -1 }
        // A varint of several bytes is the shortest iff its last byte is not 0.
        guard at == start + 1 || byte(at - 1) != 0 else { return -1 }
        return Int(truncatingIfNeeded: value)
    }
}
