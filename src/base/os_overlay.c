/*
 * A private mapping of a file; see os_overlay.h.
 *
 * What was written to is in pages of this process's own, which the kernel tells by
 * /proc/PID/pagemap ("pagemap, from the userspace perspective" of the kernel's
 * documentation), those that are in swap space among them. All else is the file's, which
 * stays as it is.
 *
 * Where it is to become a shared mapping, what the file has is copied while memory is
 * used. Our own pages come last, and then the new mapping is moved to the place of the
 * old one with its page tables: nothing is faulted in again.
 */
#include "base/os_overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"

#define PAGE 4096u
#define PIECE (1u << 20)
#define LOOK 512u /* entries of the page map that are read in one go */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE (1ull << 61) /* or shared */

int os_overlay_open(struct os_overlay *o, uint64_t size) {
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    *o = (struct os_overlay){.size = size, .pagemap = fd};
    return 0;
}

void os_overlay_close(struct os_overlay *o) {
    if (!o->size)
        return;
    os_overlay_end(o);
    close(o->pagemap);
    *o = (struct os_overlay){0};
}

/* --- which pages are our own --- */

/* Of COUNT pages from MAP on, LOOK at most. 0 or -errno. */
static int look(const struct os_overlay *o, const uint8_t *map, uint64_t count,
                bool own[LOOK]) {
    uint64_t entry[LOOK], len = count * sizeof(*entry);
    ssize_t got =
        pread(o->pagemap, entry, len, (off_t)((uintptr_t)map / PAGE * sizeof(*entry)));

    if (got != (ssize_t)len)
        return got < 0 ? -errno : -EIO;
    for (uint64_t n = 0; n < count; n++)
        own[n] = (entry[n] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) &&
                 !(entry[n] & PAGEMAP_FILE);
    return 0;
}

static uint64_t pages_of(const struct os_overlay *o, uint64_t at) {
    uint64_t left = (o->size - at) / PAGE;

    return left < LOOK ? left : LOOK;
}

/* --- saving --- */

/* Where the file has its next byte; SIZE: nowhere. */
static uint64_t next_data(const struct os_overlay *o, int from, uint64_t at) {
    off_t data = lseek(from, (off_t)at, SEEK_DATA);

    if (data < 0)
        return errno == ENXIO ? o->size : at;
    return (uint64_t)data & ~(uint64_t)(PAGE - 1);
}

int os_overlay_save_part(const struct os_overlay *o, int to, const uint8_t *map, int from,
                         uint64_t *at) {
    uint64_t start = *at, count = pages_of(o, start), data = next_data(o, from, start);
    bool own[LOOK];
    int rc = look(o, map + start, count, own);

    for (uint64_t n = 0, run; n < count && !rc; n = run) {
        run = n + 1;
        if (!own[n] && start + n * PAGE < data)
            continue;
        while (run < count && (own[run] || start + run * PAGE >= data))
            run++;
        rc = os_sparse_pages(to, map, start + n * PAGE, start + run * PAGE);
    }
    *at = start + count * PAGE;
    return rc;
}

/* --- becoming a memfd's --- */

int os_overlay_begin(struct os_overlay *o, int memfd) {
    void *map =
        mmap(NULL, o->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);

    if (map == MAP_FAILED)
        return -errno;
    o->second = map;
    /* As the one that it will take the place of. */
    (void)!madvise(map, o->size, MADV_DONTDUMP);
    return 0;
}

int os_overlay_fill(struct os_overlay *o, int from, uint64_t *at) {
    off_t data = lseek(from, (off_t)*at, SEEK_DATA), hole;
    uint64_t end;
    int rc;

    if (data < 0) {
        *at = errno == ENXIO ? o->size : *at;
        return *at == o->size ? 0 : -errno;
    }
    hole = lseek(from, data, SEEK_HOLE);
    end = hole > data && (uint64_t)hole < o->size ? (uint64_t)hole : o->size;
    *at = (uint64_t)data & ~(uint64_t)(PAGE - 1);
    end = end - *at > PIECE ? *at + PIECE : end;
    rc = os_sparse_fetch(from, o->second, *at, end - *at);
    *at = end;
    return rc;
}

static int copy_own(struct os_overlay *o, const uint8_t *map) {
    bool own[LOOK];
    int rc = 0;

    for (uint64_t at = 0; at < o->size && !rc; at += LOOK * PAGE) {
        uint64_t count = pages_of(o, at);

        rc = look(o, map + at, count, own);
        for (uint64_t n = 0; n < count && !rc; n++)
            if (own[n])
                memcpy(o->second + at + n * PAGE, map + at + n * PAGE, PAGE);
    }
    return rc;
}

int os_overlay_settle(struct os_overlay *o, uint8_t *map) {
    int rc = copy_own(o, map);

    if (!rc && mremap(o->second, o->size, o->size, MREMAP_MAYMOVE | MREMAP_FIXED, map) ==
                   MAP_FAILED)
        rc = -errno;
    if (!rc)
        o->second = NULL;
    return rc;
}

void os_overlay_end(struct os_overlay *o) {
    if (o->second)
        munmap(o->second, o->size);
    o->second = NULL;
}
