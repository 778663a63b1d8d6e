// SPDX-License-Identifier: Apache-2.0

package import Primitives
private import Synchronization

/// A store in memory, for tests: it forgets with its process.
package final class MemoryStore: MeasuredStore {
    private struct Object {
        let key: [UInt8]
        let body: Bytes
        let modifiedMilliseconds: UInt64
    }
    // Sorted by key.
    private let objects = Mutex<[Object]>([])
    private let meter = StoreMeter()
    private let wallMilliseconds: @Sendable () -> UInt64

    package init(
        wallMilliseconds: @escaping @Sendable () -> UInt64 = { SystemClock.wallMilliseconds }
    ) {
        self.wallMilliseconds = wallMilliseconds
    }

    package var statistics: StoreStatistics { meter.snapshot }

    package func put(
        _ key: String, _ body: [Bytes], ifAbsent: Bool
    ) async throws(StoreError) -> PutResult {
        try ObjectKey.validate(key)
        let start = meter.begin()
        let object = Object(
            key: Array(key.utf8), body: body.joined().detached(),
            modifiedMilliseconds: wallMilliseconds())
        let result = objects.withLock { objects -> PutResult in
            let (index, isThere) = Self.find(object.key, in: objects)
            if !isThere {
                objects.insert(object, at: index)
            } else if ifAbsent {
                return .exists
            } else {
                objects[index] = object
            }
            return .created
        }
        meter.end(put: key, body, since: start, .success(result))
        return result
    }

    package func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try ObjectKey.validate(key)
        try ObjectKey.validateRange(range)
        let start = meter.begin()
        do throws(StoreError) {
            guard let body = object(key)?.body else {
                throw StoreError(.notFound, "no object \(key)")
            }
            let wanted = range ?? 0..<body.count
            guard range == nil || wanted.lowerBound < body.count else {
                throw StoreError(.rangeNotSatisfiable, "\(key) has \(body.count) bytes")
            }
            let slice = body[wanted.lowerBound..<min(wanted.upperBound, body.count)]
            meter.end(.get, since: start, .done, bytes: slice.count)
            return ObjectSlice(bytes: slice, objectSize: body.count)
        } catch {
            meter.end(.get, since: start, error)
            throw error
        }
    }

    package func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        try ObjectKey.validate(key)
        let start = meter.begin()
        let info = object(key).map(Self.info)
        meter.end(.head, since: start, info == nil ? .notFound : .done)
        return info
    }

    package func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        try ObjectKey.validateListing(prefix: prefix, after: after, limit: limit)
        let start = meter.begin()
        let prefix = Array(prefix.utf8)
        let after = Array(after.utf8)
        let found = objects.withLock { objects -> [ObjectInfo] in
            let from = after.lexicographicallyPrecedes(prefix) ? prefix : after
            var found: [ObjectInfo] = []
            for object in objects[Self.find(from, in: objects).index...] where object.key != after {
                guard object.key.starts(with: prefix), found.count <= limit else { break }
                found.append(Self.info(object))
            }
            return found
        }
        meter.end(.list, since: start, .done)
        return ObjectListing(objects: Array(found.prefix(limit)), hasMore: found.count > limit)
    }

    package func delete(_ key: String) async throws(StoreError) {
        try ObjectKey.validate(key)
        let start = meter.begin()
        objects.withLock { objects in
            let (index, isThere) = Self.find(Array(key.utf8), in: objects)
            if isThere { objects.remove(at: index) }
        }
        meter.end(.delete, since: start, .done)
    }

    private func object(_ key: String) -> Object? {
        objects.withLock { objects in
            let (index, isThere) = Self.find(Array(key.utf8), in: objects)
            return isThere ? objects[index] : nil
        }
    }

    /// Where `key` stands, or would stand.
    private static func find(
        _ key: [UInt8], in objects: [Object]
    ) -> (index: Int, isThere: Bool) {
        var low = 0
        var high = objects.count
        while low < high {
            let middle = (low + high) / 2
            if objects[middle].key.lexicographicallyPrecedes(key) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return (low, low < objects.count && objects[low].key == key)
    }

    private static func info(_ object: Object) -> ObjectInfo {
        ObjectInfo(
            key: String(decoding: object.key, as: UTF8.self), size: object.body.count,
            modifiedMilliseconds: object.modifiedMilliseconds)
    }
}
