// SPDX-License-Identifier: Apache-2.0
// The few things that Swift's Glibc overlay does not offer, and CRC32C.
#ifndef MILLRACE_CSUPPORT_H
#define MILLRACE_CSUPPORT_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `length` bytes, continuing from `seed` (0 to start).
/// Uses the instructions of SSE4.2 and PCLMUL where the CPU has them.
uint32_t millrace_crc32c(uint32_t seed, const void *bytes, size_t length);

/// The table-driven CRC-32C, for tests that compare the two.
uint32_t millrace_crc32c_portable(uint32_t seed, const void *bytes, size_t length);

/// An eventfd that is non-blocking and closed on exec; -1 on failure.
int millrace_eventfd(void);
void millrace_eventfd_raise(int fd);
void millrace_eventfd_clear(int fd);

/// Gives an open file that has no name one in an open directory, in the way that needs no privilege;
/// see open(2). -1 on failure, as errno says; without /proc it is ENOENT.
int millrace_link_nameless(int file, int directory, const char *name);

/// Asks a file system that places a file near its folder, as ext4 does, to place the folders that
/// are made in this one from now on far apart. Where it cannot or may not be asked, nothing is done.
void millrace_spread_folders(int directory);

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and it counts the time a machine was suspended.
int64_t millrace_boottime_nanoseconds(void);
/// Milliseconds of CLOCK_REALTIME since the Unix epoch.
uint64_t millrace_wall_milliseconds(void);

/// Gives large pieces of memory back to the system once they are free, whichever thread freed them.
/// Call before there are other threads.
void millrace_heap_settle(void);

/// Bytes of the heap that are in use, by the allocator's own count.
int64_t millrace_heap_bytes(void);

#endif
