// SPDX-License-Identifier: Apache-2.0
//
// Counts the heap allocations of each process that it is loaded into before all other libraries:
//
//   cc -O2 -shared -fPIC -o mallocs.so mallocs.c
//   MALLOCS_PREFIX=/tmp/mallocs LD_PRELOAD=./mallocs.so program
//
// The counts are in the file PREFIX.PID, which whoever measures may read at any time: allocations,
// frees, bytes asked for, and how many call stacks were sampled since that number was last set to
// 0. With MALLOCS_SAMPLE=N, one allocation of N leaves the addresses of its callers behind them
// (mallocs.py names them).

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

enum { stacks_max = 65536, frames_max = 32 };

struct counts {
    _Atomic uint64_t allocations, frees, bytes, samples;
    uint64_t stacks[stacks_max][frames_max];
};

static struct counts *counts;
static uint64_t sample_every;
static _Thread_local int is_sampling;

static void sample(uint64_t number) {
    if (sample_every == 0 || is_sampling) return;
    // Scattered: allocations come in patterns, which equal distances might fall into step with.
    if ((number * 0x9E3779B97F4A7C15u >> 33) % sample_every != 0) return;
    is_sampling = 1;
    uint64_t i = atomic_fetch_add_explicit(&counts->samples, 1, memory_order_relaxed);
    void *frames[frames_max] = {0};
    backtrace(frames, frames_max);
    for (int j = 0; j < frames_max; j++)
        counts->stacks[i % stacks_max][j] = (uint64_t)frames[j];
    is_sampling = 0;
}

static void count(size_t bytes) {
    if (counts == NULL) return;
    uint64_t n = atomic_fetch_add_explicit(&counts->allocations, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counts->bytes, bytes, memory_order_relaxed);
    sample(n);
}

__attribute__((constructor)) static void begin(void) {
    const char *prefix = getenv("MALLOCS_PREFIX");
    if (prefix == NULL) return;
    char path[4096];
    snprintf(path, sizeof path, "%s.%d", prefix, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return;
    if (ftruncate(file, sizeof(struct counts)) == 0) {
        // The first backtrace loads a library, which allocates.
        void *frames[2];
        backtrace(frames, 2);
        const char *every = getenv("MALLOCS_SAMPLE");
        sample_every = every == NULL ? 0 : strtoull(every, NULL, 10);
        void *memory = mmap(
            NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED) counts = memory;
    }
    close(file);
}

void *malloc(size_t bytes) {
    count(bytes);
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes) {
    count(n * bytes);
    return __libc_calloc(n, bytes);
}

void *realloc(void *old, size_t bytes) {
    count(bytes);
    return __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t bytes) {
    count(bytes);
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **result, size_t alignment, size_t bytes) {
    void *memory = memalign(alignment, bytes);
    if (memory == NULL) return ENOMEM;
    *result = memory;
    return 0;
}

void free(void *memory) {
    if (memory != NULL && counts != NULL)
        atomic_fetch_add_explicit(&counts->frees, 1, memory_order_relaxed);
    __libc_free(memory);
}
