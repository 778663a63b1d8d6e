// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import ObjectStorage
internal import Primitives

/// Deletes segment objects that lost their last row: waits, condemns, waits for the transactions
/// under way to end, deletes, forgets.
struct ObjectCollection {
    let pass: Pass

    func run() async throws(TaskError) {
        let (keys, limit) = (pass.partition.segmentKeys, pass.limits.scanRows)
        let wait = try await pass.planMilliseconds()
        var after: StoredObject?
        repeat {
            let from = after
            let scan = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.scanGarbage(keys, after: from, limit: limit)
            }
            try await pass.each(scan.items, atOnce: pass.limits.objectsAtOnce) {
                garbage throws(TaskError) in
                let object = garbage.object
                try await pass.attempt(object.key, of: object.bucket) { () throws(TaskError) in
                    try await collect(garbage, wait)
                }
            }
            after = scan.next
        } while after != nil && pass.goesOn
    }

    private func collect(_ garbage: Garbage, _ wait: UInt64) async throws(TaskError) {
        switch garbage.phase {
        case .unlinked:
            guard !garbage.isReferenced, garbage.age >= wait else { return }
            if pass.limits.mutant == .condemnationSkipped {
                return try await delete(garbage.object)
            }
            try await condemn(garbage.object, wait)
        case .condemned: break
        case .settled:
            guard garbage.age >= Pass.milliseconds(pass.limits.condemnedNanoseconds) else { return }
            if garbage.isReferenced {
                // It keeps its object.
                pass.violation("a segment refers to condemned \(garbage.object.key)")
                return try await forget(garbage.object)
            }
            try await delete(garbage.object)
        }
    }

    private func condemn(_ object: StoredObject, _ wait: UInt64) async throws(TaskError) {
        guard let bucket = pass.world.bucket(object.bucket) else {
            return pass.skipped("\(object.key): this worker knows no bucket \(object.bucket)")
        }
        try await LastWords(pass: pass, bucket: bucket).keep(of: object.key)
        if !pass.isDryRun {
            _ = try await pass.asking { metadata throws(MetadataError) in
                try await metadata.condemn(object, age: wait)
            }
        }
        pass.tally.note(.condemnedObject, object.key)
    }

    private func delete(_ object: StoredObject) async throws(TaskError) {
        guard let bucket = pass.world.bucket(object.bucket) else {
            return pass.skipped("\(object.key): this worker knows no bucket \(object.bucket)")
        }
        if pass.isDryRun { return pass.tally.note(.deletedObject, object.key) }
        try await pass.delete(object.key, in: bucket)
        pass.tally.note(.deletedObject, object.key)
        try await forget(object)
    }

    private func forget(_ object: StoredObject) async throws(TaskError) {
        if pass.isDryRun { return }
        try await pass.asking { metadata throws(MetadataError) in
            try await metadata.forgetObject(object)
        }
    }
}

extension BgTaskWorld {
    func bucket(_ name: String) -> Bucket? { buckets.first { $0.name == name } }
}
