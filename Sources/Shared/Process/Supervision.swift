// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The thread of life between a supervisor and its child: a pipe at the child's standard input.
///
/// The supervisor never writes to it. However the supervisor ends, the kernel closes its end, and
/// the child reads the end of the file.
enum Supervision {
    /// Calls `ended` once, on a thread of its own, when standard input ends.
    static func watch(_ ended: @escaping @Sendable () -> Void) {
        runOnThread {
            var byte: UInt8 = 0
            while true {
                let count = read(STDIN_FILENO, &byte, 1)
                if count == 0 || (count < 0 && errno != EINTR) { return ended() }
            }
        }
    }
}
