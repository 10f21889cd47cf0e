/*
 * A code buffer that is never writable and executable at one address: shared memory
 * mapped twice. A host that forbids executable shared mappings says so with -EACCES or
 * -EPERM.
 *
 * Where the host can, the memory has no file: perf takes names for what it sees there
 * from /tmp/perf-PID.map, which it does not do for a memfd.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"

/* F, or if that is -1 anonymous memory, at a boundary of large pages. */
static void *map_at_large(size_t size, int prot, int f) {
    void *room = os_reserve(size, 0), *map;

    if (!room)
        return MAP_FAILED;
    map =
        mmap(room, size, prot,
             MAP_SHARED | MAP_NORESERVE | MAP_FIXED | (f < 0 ? MAP_ANONYMOUS : 0), f, 0);
    if (map == MAP_FAILED)
        munmap(room, size);
    return map;
}

/* mremap(2): with an old size of 0 it makes a second mapping of shared pages. */
static bool map_anonymous(size_t size, struct os_code *out) {
    void *rw = map_at_large(size, PROT_READ | PROT_WRITE, -1);
    void *rx, *room;

    if (rw == MAP_FAILED)
        return false;
    room = os_reserve(size, 0);
    rx = room ? mremap(rw, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, room) : MAP_FAILED;
    if (rx == MAP_FAILED || mprotect(rx, size, PROT_READ | PROT_EXEC) < 0) {
        if (room)
            munmap(room, size);
        munmap(rw, size);
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
    rw = map_at_large(size, PROT_READ | PROT_WRITE, fd);
    if (rw == MAP_FAILED) {
        rc = -errno;
        goto fail_fd;
    }
    rx = map_at_large(size, PROT_READ | PROT_EXEC, fd);
    if (rx == MAP_FAILED) {
        rc = -errno;
        goto fail_rw;
    }
    *out = (struct os_code){.rw = rw, .rx = rx, .size = size, .fd = fd};
    return 0;
fail_rw:
    munmap(rw, size);
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
    munmap(c->rx, c->size);
    munmap(c->rw, c->size);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct os_code){.fd = -1};
}
