// SPDX-License-Identifier: Apache-2.0

/// Which pages hold a range, and which part of each.
///
/// The object's size is not known at first: pages behind its end are planned, and turn out to be
/// nothing.
struct RangePlan: Equatable {
    /// In bytes; not empty.
    let range: Range<Int>
    let pageBytes: Int

    init(_ range: Range<Int>, pageBytes: Int) {
        precondition(range.lowerBound >= 0 && !range.isEmpty && pageBytes > 0)
        self.range = range
        self.pageBytes = pageBytes
    }

    /// The pages that the range touches.
    var pages: ClosedRange<Int> {
        range.lowerBound / pageBytes...(range.upperBound - 1) / pageBytes
    }

    /// Those of the pages that an object of `objectSize` has; nil if the range begins behind it.
    func pages(objectSize: Int) -> ClosedRange<Int>? {
        guard let wanted = wanted(objectSize: objectSize) else { return nil }
        return wanted.lowerBound / pageBytes...(wanted.upperBound - 1) / pageBytes
    }

    /// The range, clamped at the object's end; nil if it begins at or behind it.
    func wanted(objectSize: Int) -> Range<Int>? {
        guard range.lowerBound < objectSize else { return nil }
        return range.lowerBound..<min(range.upperBound, objectSize)
    }

    /// The bytes that are wanted of a page, counted within the object; nil if there are none.
    func wanted(ofPage page: Int, objectSize: Int) -> Range<Int>? {
        let start = max(range.lowerBound, page * pageBytes)
        let end = min(range.upperBound, (page + 1) * pageBytes, objectSize)
        return start < end ? start..<end : nil
    }

    /// The bytes of a whole page, counted within the object, as they are asked of a bucket.
    static func bytes(ofPage page: Int, pageBytes: Int) -> Range<Int> {
        page * pageBytes..<(page + 1) * pageBytes
    }

    /// Whether `count` bytes are all that page `page` of an object of `objectSize` can hold.
    static func isWhole(_ count: Int, page: Int, pageBytes: Int, objectSize: Int) -> Bool {
        let start = page * pageBytes
        return start < objectSize && count == min(pageBytes, objectSize - start)
    }
}
