// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What an object of the cell is: what puts are counted by.
package enum ObjectClass: String, CaseIterable, Sendable {
    case chunk, seal, segment
    /// Probes of the store, and whatever else is no part of the log.
    case other

    /// By an object's key and its first bytes: a seal stands where a chunk would.
    package init(key: String, head: Bytes) {
        if key.hasPrefix(LogKeys.allSegmentsPrefix) {
            self = .segment
        } else if key.hasPrefix(LogKeys.allLogsPrefix) {
            self = ChunkHeader.kind(of: head) == .seal ? .seal : .chunk
        } else {
            self = .other
        }
    }
}
