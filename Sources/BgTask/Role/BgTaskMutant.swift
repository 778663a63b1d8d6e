// SPDX-License-Identifier: Apache-2.0

/// Bugs that are known to delete what is needed. The simulator switches one of them on to show that
/// it would notice; nothing else ever does.
package enum BgTaskMutant: String, Sendable, CaseIterable {
    /// A log goes up to its flushed end, inclusive: a chunk whose records are in no segment yet.
    case unflushedChunkDeleted
    /// Nothing waits for the plans of readers.
    case planWaitSkipped
    /// The chunks of a log go from the last one backwards.
    case logDeletedBackwards
    /// What nothing refers to is an orphan, however young it is.
    case orphanAgeIgnored
    /// Objects are deleted without being condemned first.
    case condemnationSkipped
    /// A compaction is published, and its output is never stored.
    case outputUnstored
    /// A seal goes as soon as its log is recovered.
    case sealDeletedEarly
}
