/*
 * Host memory behind guest RAM: a memfd, mapped once, allocated by the host on touch.
 * Where the host limits the size of files ("setrlimit(2)", RLIMIT_FSIZE), which a memfd
 * is one of, it has no name and no descriptor (-1).
 *
 * It lies between two areas that cannot be accessed. Whoever computes a host address from
 * a good one and a bad offset hits them and not what the host keeps there.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"

void *os_reserve(uint64_t size, uint64_t before) {
    uint64_t room = size + OS_LARGE_PAGE;
    uint8_t *p =
        mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *start;

    if (p == MAP_FAILED)
        return NULL;
    start = (uint8_t *)(((uintptr_t)p + before + OS_LARGE_PAGE - 1) &
                        ~(uintptr_t)(OS_LARGE_PAGE - 1)) -
            before;
    if (start > p)
        munmap(p, (size_t)(start - p));
    if (start < p + OS_LARGE_PAGE)
        munmap(start + size, (size_t)(p + OS_LARGE_PAGE - start));
    return start;
}

int os_sparse_alloc(uint64_t size, void **out) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    /* Else a host may give a large page for each byte. It may know none. */
    (void)!madvise(p, size, MADV_NOHUGEPAGE);
    *out = p;
    return 0;
}

void os_sparse_free(void *p, uint64_t size) {
    if (p)
        munmap(p, size);
}

void os_sparse_zero(void *p, uint64_t size) {
    if (madvise(p, size, MADV_DONTNEED) < 0)
        memset(p, 0, size);
}

static void fill(uint64_t *p, size_t size, uint64_t word) {
    for (size_t n = 0; n < size / sizeof(word); n++)
        p[n] = word;
}

/* A file of SIZE bytes, all WORD; -1: the host has no room for it, or a limit. */
static int filled_file(uint64_t word, size_t size) {
    int fd = memfd_create("filled", MFD_CLOEXEC);
    uint64_t *p = MAP_FAILED;

    if (fd >= 0 && !ftruncate(fd, (off_t)size))
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) {
        fill(p, size, word);
        munmap(p, size);
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

int os_filled_alloc(uint64_t word, size_t size, unsigned n, void **out) {
    int fd = filled_file(word, size), rc = 0;

    for (unsigned k = 0; k < n; k++) {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

        if (p == MAP_FAILED)
            rc = -errno;
        else if (fd < 0)
            fill(p, size, word);
        out[k] = p == MAP_FAILED ? NULL : p;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

void os_filled_free(void *p, size_t size) {
    if (p)
        munmap(p, size);
}

/* SIZE bytes of F between guards, or MAP_FAILED. */
static void *map_guarded(int f, uint64_t size) {
    uint8_t *p;
    void *map;

    if (size > UINT64_MAX / 2) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    p = os_reserve(size + 2 * OS_GUARD, OS_GUARD);
    if (!p)
        return MAP_FAILED;
    map =
        mmap(p + OS_GUARD, size, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_NORESERVE | MAP_FIXED | (f < 0 ? MAP_ANONYMOUS : 0), f, 0);
    if (map == MAP_FAILED) {
        int saved = errno;

        munmap(p, size + 2 * OS_GUARD);
        errno = saved;
        return map;
    }
    /* What the guest keeps there is not for whoever gets to see a dump of ours. */
    (void)!madvise(map, size, MADV_DONTDUMP);
    return map;
}

/* madvise(2), MADV_COLLAPSE: for shared memory, too, and whatever is set for
 * transparent huge pages, unless that is "deny". What is all hole it refuses. */
int os_large_page(void *p) {
    (void)*(volatile uint8_t *)p;
    return madvise(p, OS_LARGE_PAGE, OS_MADV_COLLAPSE) < 0 ? -errno : 0;
}

int os_memfd_map(const char *name, uint64_t size, int *fd, void **map) {
    int f = memfd_create(name, MFD_CLOEXEC);
    void *p;
    int rc;

    if (f < 0)
        return -errno;
    if (ftruncate(f, (off_t)size) < 0) {
        rc = -errno;
        close(f);
        if (rc != -EFBIG)
            return rc;
        f = -1;
    }
    p = map_guarded(f, size);
    if (p == MAP_FAILED) {
        rc = -errno;
        goto fail;
    }
    *fd = f;
    *map = p;
    return 0;
fail:
    if (f >= 0)
        close(f);
    return rc;
}

void os_memfd_unmap(int fd, void *map, uint64_t size) {
    munmap((uint8_t *)map - OS_GUARD, size + 2 * OS_GUARD);
    if (fd >= 0)
        close(fd);
}

int os_memfd_zero_part(int fd, void *map, uint64_t off, uint64_t size) {
    const int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    if (fd < 0)
        return madvise((char *)map + off, size, MADV_REMOVE) < 0 ? -errno : 0;
    return fallocate(fd, how, (off_t)off, (off_t)size) < 0 ? -errno : 0;
}

int os_memfd_zero(int fd, void *map, uint64_t size) {
    return os_memfd_zero_part(fd, map, 0, size);
}

int os_guarded_page(uint8_t **page) {
    uint8_t *p = mmap(NULL, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    if (mprotect(p + 4096, 4096, PROT_READ | PROT_WRITE) < 0) {
        int rc = -errno;

        munmap(p, 4 * 4096);
        return rc;
    }
    *page = p + 4096;
    return 0;
}

int os_memory_resident(const void *base, uint64_t size, uint8_t *there) {
    return mincore((void *)(uintptr_t)base, size, there) < 0 ? -errno : 0;
}
