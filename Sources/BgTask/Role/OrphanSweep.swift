// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Metadata
internal import ObjectStorage
internal import Primitives

/// Finds what a crash left behind: segment objects that no flush ever made known, and the probes of
/// a doctor that died. Logs are none of its business.
///
/// An orphan becomes garbage like any other, and is condemned before it is deleted. Should its
/// flush still come, however late, it is refused, and done again with another object. Ages are told
/// by the store's own clock.
struct OrphanSweep {
    let pass: Pass

    func run() async throws(TaskError) {
        for bucket in pass.world.buckets {
            try await pass.attempt("bucket \(bucket.name)", of: "buckets") {
                () throws(TaskError) in
                let now = try await pass.clock(of: bucket)
                try await pass.list(
                    LogKeys.allSegmentsPrefix, keys: pass.partition.segmentKeys, in: bucket
                ) { objects throws(TaskError) in
                    try await sweep(objects.filter { isOld($0, now) }, in: bucket)
                }
                if pass.partition.number == 0 { try await sweepProbes(in: bucket, now) }
            }
        }
    }

    private func isOld(_ object: ObjectInfo, _ now: UInt64) -> Bool {
        let age = Pass.milliseconds(pass.limits.orphanNanoseconds)
        if pass.limits.mutant == .orphanAgeIgnored { return true }
        // A second more, as clocks that count in seconds differ by.
        return object.modifiedMilliseconds + age + 1_000 <= now
    }

    private func sweep(_ objects: [ObjectInfo], in bucket: Bucket) async throws(TaskError) {
        guard !objects.isEmpty else { return }
        let known = try await pass.asking { metadata throws(MetadataError) in
            try await metadata.knownObjects(objects.map(\.key), bucket: bucket.name)
        }
        for object in objects where !known.contains(object.key) {
            guard pass.goesOn else { return }
            guard LogKeys.parseSegment(object.key) != nil else {
                pass.skipped("\(object.key) is not ours")
                continue
            }
            try await pass.attempt(object.key, of: bucket.name) { () throws(TaskError) in
                try await unlink(object, in: bucket)
            }
        }
    }

    /// Makes an object that nothing refers to garbage, unless it must stay.
    private func unlink(_ object: ObjectInfo, in bucket: Bucket) async throws(TaskError) {
        let words = LastWords(pass: pass, bucket: bucket)
        do throws(TaskError) {
            if try await words.mustStay(object.key, size: object.size) { return }
        } catch {
            // Deleted since it was listed.
            guard error.isGone else { throw error }
            return
        }
        if !pass.isDryRun {
            try await pass.asking { metadata throws(MetadataError) in
                try await metadata.unlinkObject(
                    StoredObject(bucket: bucket.name, key: object.key))
            }
        }
        pass.tally.note(.unlinkedOrphan, object.key)
    }

    private func sweepProbes(in bucket: Bucket, _ now: UInt64) async throws(TaskError) {
        try await pass.list(storeProbesPrefix, in: bucket) { objects throws(TaskError) in
            for object in objects where isOld(object, now) {
                try await pass.attempt(object.key, of: bucket.name) { () throws(TaskError) in
                    if !pass.isDryRun { try await pass.delete(object.key, in: bucket) }
                    pass.tally.note(.deletedProbe, object.key)
                }
            }
        }
    }
}
