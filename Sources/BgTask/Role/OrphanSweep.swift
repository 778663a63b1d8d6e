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
/// by the store's own clock; to read it takes a PUT, so that is done only once there is something
/// that may have to go.
struct OrphanSweep {
    let pass: Pass

    /// One bucket's clock, as it stood when first asked: objects are that old at least.
    private final class Clock {
        private let pass: Pass
        let bucket: Bucket
        private var reading: UInt64?

        init(_ pass: Pass, _ bucket: Bucket) {
            self.pass = pass
            self.bucket = bucket
        }

        func now() async throws(TaskError) -> UInt64 {
            if let reading { return reading }
            let now = try await pass.clock(of: bucket)
            reading = now
            return now
        }
    }

    func run() async throws(TaskError) {
        for bucket in pass.world.buckets {
            try await pass.attempt("bucket \(bucket.name)", of: "buckets") {
                () throws(TaskError) in
                let clock = Clock(pass, bucket)
                try await pass.list(
                    LogKeys.allSegmentsPrefix, keys: pass.partition.segmentKeys, in: bucket
                ) { objects throws(TaskError) in try await sweep(objects, clock) }
                if pass.partition.number == 0 { try await sweepProbes(clock) }
            }
        }
    }

    private var wait: UInt64 { Pass.milliseconds(pass.limits.orphanNanoseconds) }

    private func mayBeOld(_ object: ObjectInfo) -> Bool {
        pass.limits.mutant == .orphanAgeIgnored || pass.mayBeOld(object, wait)
    }

    private func isOld(_ object: ObjectInfo, _ clock: Clock) async throws(TaskError) -> Bool {
        if pass.limits.mutant == .orphanAgeIgnored { return true }
        // A second more, as clocks that count in seconds differ by.
        return object.modifiedMilliseconds + wait + 1_000 <= (try await clock.now())
    }

    private func sweep(_ all: [ObjectInfo], _ clock: Clock) async throws(TaskError) {
        let (objects, bucket) = (all.filter(mayBeOld), clock.bucket)
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
                try await unlink(object, clock)
            }
        }
    }

    /// Makes an object that nothing refers to garbage, unless it must stay.
    private func unlink(_ object: ObjectInfo, _ clock: Clock) async throws(TaskError) {
        let words = LastWords(pass: pass, bucket: clock.bucket)
        do throws(TaskError) {
            if try await words.mustStay(object.key, size: object.size) { return }
        } catch {
            // Deleted since it was listed.
            guard error.isGone else { throw error }
            return
        }
        guard try await isOld(object, clock) else { return }
        if !pass.isDryRun {
            try await pass.asking { metadata throws(MetadataError) in
                try await metadata.unlinkObject(
                    StoredObject(bucket: clock.bucket.name, key: object.key))
            }
        }
        pass.tally.note(.unlinkedOrphan, object.key)
    }

    private func sweepProbes(_ clock: Clock) async throws(TaskError) {
        let bucket = clock.bucket
        try await pass.list(storeProbesPrefix, in: bucket) { objects throws(TaskError) in
            for object in objects where mayBeOld(object) {
                try await pass.attempt(object.key, of: bucket.name) { () throws(TaskError) in
                    guard try await isOld(object, clock) else { return }
                    if !pass.isDryRun { try await pass.delete(object.key, in: bucket) }
                    pass.tally.note(.deletedProbe, object.key)
                }
            }
        }
    }
}
