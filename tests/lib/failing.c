#include "lib/failing.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

unsigned fail_at;
bool deny_code;
bool failed;
long blocks;
static unsigned calls;

static bool fails(void) {
    if (!fail_at || ++calls != fail_at)
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

static bool denied(int prot) {
    if (!deny_code || !(prot & PROT_EXEC))
        return false;
    errno = EACCES;
    return true;
}

void failing_arm(unsigned n) {
    fail_at = n;
    calls = 0;
    failed = false;
}

#define REAL(type, name, args)                                                           \
    type __real_##name args;                                                             \
    type __wrap_##name args;                                                             \
    type __wrap_##name args

static void *counted(void *p) {
    blocks += p != NULL;
    return p;
}

REAL(void *, malloc, (size_t size)) {
    return fails() ? NULL : counted(__real_malloc(size));
}

REAL(void *, calloc, (size_t n, size_t size)) {
    return fails() ? NULL : counted(__real_calloc(n, size));
}

REAL(void *, aligned_alloc, (size_t align, size_t size)) {
    return fails() ? NULL : counted(__real_aligned_alloc(align, size));
}

REAL(void *, realloc, (void *p, size_t size)) {
    bool grown = p;

    if (fails())
        return NULL;
    p = __real_realloc(p, size);
    return grown ? p : counted(p);
}

REAL(void, free, (void *p)) {
    blocks -= p != NULL;
    __real_free(p);
}

REAL(FILE *, fopen, (const char *path, const char *mode)) {
    return fails() ? NULL : __real_fopen(path, mode);
}

/* Mappings by their beginnings. */
static struct {
    void *at;
    size_t len;
} maps[128];

static void *mapped(void *p, size_t len) {
    unsigned n = 0;

    while (p != MAP_FAILED && maps[n].at)
        if (++n == sizeof(maps) / sizeof(*maps))
            abort();
    if (p != MAP_FAILED) {
        maps[n].at = p;
        maps[n].len = len;
    }
    return p;
}

unsigned mappings(void) {
    unsigned count = 0;

    for (unsigned n = 0; n < sizeof(maps) / sizeof(*maps); n++)
        count += maps[n].at != NULL;
    return count;
}

REAL(void *, mmap, (void *at, size_t len, int prot, int flags, int fd, off_t off)) {
    void *p =
        fails() || denied(prot) ? MAP_FAILED : __real_mmap(at, len, prot, flags, fd, off);

    return flags & MAP_FIXED ? p : mapped(p, len); /* within another */
}

REAL(int, munmap, (void *at, size_t len)) {
    uintptr_t from = (uintptr_t)at, to = from + len;

    for (unsigned n = 0; n < sizeof(maps) / sizeof(*maps); n++) {
        uintptr_t start = (uintptr_t)maps[n].at, end = start + maps[n].len;

        if (!start || to <= start || end <= from)
            continue;
        if (from <= start) /* from its beginning */
            start = to < end ? to : 0;
        else
            end = from;
        maps[n].at = (void *)start;
        maps[n].len = end - start;
    }
    return __real_munmap(at, len);
}

REAL(void *, mremap, (void *at, size_t old, size_t len, int flags, ...)) {
    return fails() ? MAP_FAILED : mapped(__real_mremap(at, old, len, flags), len);
}

/* Not those of the page by which translated code is stopped, which are no allocations. */
REAL(int, mprotect, (void *at, size_t len, int prot)) {
    return (len > 4096 && fails()) || denied(prot) ? -1 : __real_mprotect(at, len, prot);
}

REAL(int, memfd_create, (const char *name, unsigned flags)) {
    return fails() ? -1 : __real_memfd_create(name, flags);
}

REAL(int, ftruncate, (int fd, off_t len)) {
    return fails() ? -1 : __real_ftruncate(fd, len);
}

REAL(int, eventfd, (unsigned initial, int flags)) {
    return fails() ? -1 : __real_eventfd(initial, flags);
}

REAL(int, timerfd_create, (int clock, int flags)) {
    return fails() ? -1 : __real_timerfd_create(clock, flags);
}

REAL(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)) {
    return fails() ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

REAL(int, sigaltstack, (const void *ss, void *old)) {
    return fails() ? -1 : __real_sigaltstack(ss, old);
}
