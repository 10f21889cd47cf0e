/*
 * A code buffer that is never writable and executable at one address: shared memory
 * mapped twice, at random addresses, each between guards. A host that forbids executable
 * shared mappings says so with -EACCES or -EPERM.
 *
 * Where the host can, the memory has no file: perf takes names for what it sees there
 * from /tmp/perf-PID.map, which it does not do for a memfd.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/os.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000 /* Linux 4.17; before, the address is a wish */
#endif

/* Of the process's 2^47 bytes of addresses, those that the kernel gives to nobody who
 * does not ask for them: below its own mappings, above programs that are not PIE. */
#define FIRST (1ull << 40)
#define LAST (5ull << 44)
#ifdef __SANITIZE_THREAD__
#define TRIES 0 /* ThreadSanitizer has its own memory there */
#else
#define TRIES 16
#endif

/* For SIZE bytes between guards. */
static uint8_t *reserve_at(uint64_t at, size_t size) {
    uint8_t *want = (uint8_t *)(uintptr_t)(at - OS_GUARD);
    void *p =
        mmap(want, size + 2 * OS_GUARD, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (p == want)
        return want + OS_GUARD;
    if (p != MAP_FAILED)
        munmap(p, size + 2 * OS_GUARD);
    return NULL;
}

/* Room at a boundary of large pages, between guards. Where it is tells nothing of where
 * other memory of ours is, nor the other way round: the kernel's own choice lies at a
 * known distance from what was mapped before. NULL: there is none. */
static uint8_t *reserve_anywhere(size_t size) {
    uint8_t *p;

    for (int n = 0; n < TRIES; n++) {
        uint64_t at;

        if (getrandom(&at, sizeof(at), GRND_NONBLOCK) != sizeof(at))
            break;
        at = FIRST + at % (LAST - FIRST - size);
        p = reserve_at(at & ~(OS_LARGE_PAGE - 1ull), size);
        if (p)
            return p;
    }
    p = os_reserve(size + 2 * OS_GUARD, OS_GUARD);
    return p ? p + OS_GUARD : NULL;
}

/* What reserve_anywhere() gave, whatever is mapped there now. */
static void release(uint8_t *p, size_t size) {
    munmap(p - OS_GUARD, size + 2 * OS_GUARD);
}

/* F, or if that is -1 anonymous memory. */
static void *map_anywhere(size_t size, int prot, int f) {
    uint8_t *room = reserve_anywhere(size);
    void *map;

    if (!room)
        return MAP_FAILED;
    map =
        mmap(room, size, prot,
             MAP_SHARED | MAP_NORESERVE | MAP_FIXED | (f < 0 ? MAP_ANONYMOUS : 0), f, 0);
    if (map == MAP_FAILED)
        release(room, size);
    return map;
}

/* mremap(2): with an old size of 0 it makes a second mapping of shared pages. */
static bool map_anonymous(size_t size, struct os_code *out) {
    void *rw = map_anywhere(size, PROT_READ | PROT_WRITE, -1);
    uint8_t *room;
    void *rx;

    if (rw == MAP_FAILED)
        return false;
    room = reserve_anywhere(size);
    rx = room ? mremap(rw, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, room) : MAP_FAILED;
    if (rx == MAP_FAILED || mprotect(rx, size, PROT_READ | PROT_EXEC) < 0) {
        if (room)
            release(room, size);
        release(rw, size);
        return false;
    }
    *out = (struct os_code){.rw = rw, .rx = rx, .size = size, .fd = -1};
    return true;
}

static int map_memfd(size_t size, struct os_code *out) {
    void *rw, *rx;
    int rc;
    int fd = memfd_create("bivisor-code", MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0) {
        rc = -errno;
        goto fail_fd;
    }
    rw = map_anywhere(size, PROT_READ | PROT_WRITE, fd);
    if (rw == MAP_FAILED) {
        rc = -errno;
        goto fail_fd;
    }
    rx = map_anywhere(size, PROT_READ | PROT_EXEC, fd);
    if (rx == MAP_FAILED) {
        rc = -errno;
        goto fail_rw;
    }
    *out = (struct os_code){.rw = rw, .rx = rx, .size = size, .fd = fd};
    return 0;
fail_rw:
    release(rw, size);
fail_fd:
    close(fd);
    return rc;
}

int os_code_map(size_t size, struct os_code *out) {
    return map_anonymous(size, out) ? 0 : map_memfd(size, out);
}

int os_code_large_page(const struct os_code *c, size_t at) {
    int rc = os_large_page(c->rw + at);

    return rc ? rc : os_large_page(c->rx + at);
}

void os_code_unmap(struct os_code *c) {
    if (!c->size)
        return;
    release(c->rx, c->size);
    release(c->rw, c->size);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct os_code){.fd = -1};
}
