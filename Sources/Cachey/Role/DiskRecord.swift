// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// One page as it stands on disk. It describes itself; there is no index besides.
///
/// ```
/// u32 magic  u16 version  u16 bucket set length  u16 object length  u16 bucket length
/// u32 page number  u32 page bytes  u32 content length  u32 content CRC32C
/// u64 object size  u64 fetched at (s)  u128 cell  texts  u32 CRC32C of all before  content
/// ```
/// The page size and the cell stand in each record because pages of another size, or of another
/// cell with objects of the same names, must never be taken for those of today.
struct DiskRecord: Equatable {
    let key: PageKey
    let bucket: String
    let objectSize: Int
    let fetchedSeconds: UInt64
    let contentLength: Int
    let contentChecksum: UInt32
    /// Where the content begins, from the record's start.
    let headBytes: Int

    /// What every record of one cachey has in common.
    struct Context: Equatable {
        let cell: ID128
        let pageBytes: Int
    }

    /// Bytes in which every head fits.
    static let headBytesMax = fixedBytes + 4 + 3 * 1_024
    private static let fixedBytes = 60
    private static let magic: UInt32 = 0x4750_524D
    private static let version: UInt16 = 1
    private static let textBytesMax = 1_024

    var recordBytes: Int { headBytes + contentLength }

    /// A record's parts: the head, and the content untouched. Nil if its names are too long.
    static func encode(_ key: PageKey, _ page: CachedPage, _ context: Context) -> [Bytes]? {
        let texts = [key.bucketSet, key.object, page.bucket]
        guard texts.allSatisfy({ $0.utf8.count <= textBytesMax }),
            let number = UInt32(exactly: key.number)
        else { return nil }
        var writer = ByteWriter(capacity: fixedBytes + 256)
        writer.write(magic)
        writer.write(version)
        for text in texts { writer.write(UInt16(text.utf8.count)) }
        writer.write(number)
        writer.write(UInt32(context.pageBytes))
        writer.write(UInt32(page.bytes.count))
        writer.write(CRC32C.of(page.bytes))
        writer.write(UInt64(page.objectSize))
        writer.write(page.fetchedSeconds)
        writer.write(context.cell)
        for text in texts { writer.write(utf8: text) }
        let head = writer.finish()
        var checksum = ByteWriter(capacity: 4)
        checksum.write(CRC32C.of(head))
        return [head, checksum.finish(), page.bytes]
    }

    /// The record that begins with `bytes`, which hold at least its head, and whether it belongs to
    /// `context`. Nil for what is no record.
    static func decode(
        _ bytes: Bytes, _ context: Context
    ) -> (record: DiskRecord, isOurs: Bool)? {
        do throws(DecodeError) {
            var reader = ByteReader(bytes)
            guard try reader.read(UInt32.self) == magic, try reader.read(UInt16.self) == version
            else { return nil }
            var lengths: [Int] = []
            for _ in 0..<3 { lengths.append(Int(try reader.read(UInt16.self))) }
            let number = Int(try reader.read(UInt32.self))
            let pageBytes = Int(try reader.read(UInt32.self))
            let contentLength = Int(try reader.read(UInt32.self))
            let contentChecksum = try reader.read(UInt32.self)
            let objectSize = try reader.read(UInt64.self)
            let fetchedSeconds = try reader.read(UInt64.self)
            let cell = try reader.readID()
            var texts: [String] = []
            for length in lengths {
                guard let text = try reader.read(length).validText else { return nil }
                texts.append(text)
            }
            let headEnd = reader.offset
            guard try reader.read(UInt32.self) == CRC32C.of(bytes.prefix(headEnd)),
                let size = Int(exactly: objectSize),
                RangePlan.isWhole(
                    contentLength, page: number, pageBytes: pageBytes, objectSize: size)
            else { return nil }
            let record = DiskRecord(
                key: PageKey(bucketSet: texts[0], object: texts[1], number: number),
                bucket: texts[2], objectSize: size, fetchedSeconds: fetchedSeconds,
                contentLength: contentLength, contentChecksum: contentChecksum,
                headBytes: reader.offset)
            return (record, context == Context(cell: cell, pageBytes: pageBytes))
        } catch {
            return nil
        }
    }

    /// The page in `bytes`, a whole record, if it is `key`'s and undamaged. (`isChecked` is false
    /// for a mutant only.)
    static func page(
        in bytes: Bytes, of key: PageKey, _ context: Context, isChecked: Bool = true
    ) -> CachedPage? {
        guard let (record, isOurs) = decode(bytes, context), isOurs, record.key == key,
            record.recordBytes == bytes.count
        else { return nil }
        let content = bytes.dropFirst(record.headBytes)
        guard CRC32C.of(content) == record.contentChecksum || !isChecked else { return nil }
        return CachedPage(
            bytes: content, objectSize: record.objectSize, bucket: record.bucket,
            fetchedSeconds: record.fetchedSeconds)
    }
}
