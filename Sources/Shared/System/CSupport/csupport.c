// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "csupport.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
        crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int slice = 1; slice < 8; slice++)
            crc_table[slice][i] =
                (crc_table[slice - 1][i] >> 8) ^ crc_table[0][crc_table[slice - 1][i] & 0xFF];
}

uint32_t millrace_crc32c_portable(uint32_t seed, const void *bytes, size_t length) {
    pthread_once(&crc_once, crc_init);
    const uint8_t *p = bytes;
    uint32_t crc = ~seed;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= crc;
        crc = crc_table[7][word & 0xFF] ^ crc_table[6][(word >> 8) & 0xFF] ^
              crc_table[5][(word >> 16) & 0xFF] ^ crc_table[4][(word >> 24) & 0xFF] ^
              crc_table[3][(word >> 32) & 0xFF] ^ crc_table[2][(word >> 40) & 0xFF] ^
              crc_table[1][(word >> 48) & 0xFF] ^ crc_table[0][word >> 56];
        p += 8;
        length -= 8;
    }
    while (length--) crc = (crc >> 8) ^ crc_table[0][(crc ^ *p++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_run(
    uint32_t crc, const uint8_t *p, size_t length) {
    uint64_t wide = crc;
    for (; length >= 8; p += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (length--) crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

enum { lane_bytes = 256 };
// What moves a checksum behind so many bytes: x^(8n - 33) modulo the polynomial, where n is one
// lane and two; the product of two reflected numbers and the instruction for 8 bytes do the rest.
static const long long behind_one_lane = 0xB9E02B86, behind_two_lanes = 0xDD7E3B0C;

__attribute__((target("sse4.2,pclmul"))) static uint64_t times(uint64_t crc, long long factor) {
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128(factor), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

// The instruction can begin once a cycle and takes three: three lanes side by side keep it busy.
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc_lanes(
    uint32_t crc, const uint8_t *p, size_t length) {
    for (; length >= 3 * lane_bytes; p += 3 * lane_bytes, length -= 3 * lane_bytes) {
        uint64_t first = crc, second = 0, third = 0;
        for (size_t at = 0; at < lane_bytes; at += 8) {
            uint64_t words[3];
            memcpy(&words[0], p + at, 8);
            memcpy(&words[1], p + lane_bytes + at, 8);
            memcpy(&words[2], p + 2 * lane_bytes + at, 8);
            first = _mm_crc32_u64(first, words[0]);
            second = _mm_crc32_u64(second, words[1]);
            third = _mm_crc32_u64(third, words[2]);
        }
        uint64_t moved = times(first, behind_two_lanes) ^ times(second, behind_one_lane);
        crc = (uint32_t)(_mm_crc32_u64(0, moved) ^ third);
    }
    return crc_run(crc, p, length);
}
#endif

uint32_t millrace_crc32c(uint32_t seed, const void *bytes, size_t length) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~(__builtin_cpu_supports("pclmul") ? crc_lanes : crc_run)(~seed, bytes, length);
#endif
    return millrace_crc32c_portable(seed, bytes, length);
}

int millrace_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
void millrace_eventfd_raise(int fd) { eventfd_write(fd, 1); }
void millrace_eventfd_clear(int fd) {
    eventfd_t count;
    eventfd_read(fd, &count);
}

int millrace_link_nameless(int file, int directory, const char *name) {
    char own[32];
    snprintf(own, sizeof own, "/proc/self/fd/%d", file);
    return linkat(AT_FDCWD, own, directory, name, AT_SYMLINK_FOLLOW);
}

void millrace_spread_folders(int directory) {
    int flags = 0;
    if (ioctl(directory, FS_IOC_GETFLAGS, &flags) != 0 || (flags & FS_TOPDIR_FL)) return;
    flags |= FS_TOPDIR_FL;
    ioctl(directory, FS_IOC_SETFLAGS, &flags);
}

int64_t millrace_boottime_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

uint64_t millrace_wall_milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void millrace_heap_settle(void) {
    // Left alone, glibc raises both with every large block that is freed, up to 32 and 64 MiB, and
    // every thread's arena then keeps that much.
    mallopt(M_MMAP_THRESHOLD, 2 << 20);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
    // What a store's threads read, other threads free: with an arena for each thread, as is the
    // default, each keeps holes of the size of pages.
    mallopt(M_ARENA_MAX, 2);
}

int64_t millrace_heap_bytes(void) {
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}
