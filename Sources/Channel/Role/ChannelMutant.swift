// SPDX-License-Identifier: Apache-2.0

/// Bugs that are known to lose, fork or expose data, for the simulator.
package enum ChannelMutant: String, Sendable, CaseIterable {
    /// Acks and rejections leave before their chunk is stable.
    case ackBeforeStable
    /// A chunk counts as stable once it is durable, whatever is missing below it.
    case outOfOrderAck
    /// Replies that show state need no lease.
    case zombieTail
    /// A rejection waits for nothing.
    case rejectionUngated
    /// A flush counts the chunks in flight as flushed.
    case unflushedChunkFlushed
    /// A plan takes what is flushed for trimmed.
    case gapReadAsTrimmed
    /// A streamlet whose close has an unknown outcome goes on.
    case resumeAfterUnknownClose
    /// The slot probe begins at the next index that is not assigned yet.
    case probeAtNextUnassigned
    /// A chunk that is durable, but not stable, proves a reply.
    case tailAfterUnstablePut
    /// The state of a streamlet is shown while its close is under way.
    case tailWhileClosing
    /// A refresh does not wait for a claim under way.
    case refreshIgnoresClaim
}
