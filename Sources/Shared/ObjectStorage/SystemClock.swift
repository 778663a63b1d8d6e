// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import Primitives

/// The clocks that drivers read; roles ask their loop.
package enum SystemClock {
    /// Counts the time a machine was suspended, too.
    package static var monotonicNanoseconds: Nanoseconds {
        let time = read(CLOCK_BOOTTIME)
        return Nanoseconds(time.tv_sec) * 1_000_000_000 + Nanoseconds(time.tv_nsec)
    }

    /// Since the Unix epoch.
    package static var wallMilliseconds: UInt64 {
        let time = read(CLOCK_REALTIME)
        return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
    }

    private static func read(_ clock: clockid_t) -> timespec {
        var time = timespec()
        clock_gettime(clock, &time)
        return time
    }
}
