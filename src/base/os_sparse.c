/*
 * Memory as files: what a machine's memory holds goes to a file with holes and comes back
 * from there, copied, or shown by a private mapping.
 *
 * A page that nobody has touched has no memory of the host's, and reading it would give
 * it some: such pages are not looked at. The mapping shows a file (a memfd, or that of an
 * overlay): where this has a hole, and the host has no page in memory, there are zeros.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/os.h"

#define PAGE 4096u
#define PIECE (1u << 20) /* that is looked at in one go */

static bool is_zero(const uint8_t *page) {
    const uint64_t *w = (const uint64_t *)(const void *)page;

    for (unsigned n = 0; n < PAGE / 8; n += 8)
        if (w[n] | w[n + 1] | w[n + 2] | w[n + 3] | w[n + 4] | w[n + 5] | w[n + 6] |
            w[n + 7])
            return false;
    return true;
}

int os_write_at(int fd, const void *from, size_t len, uint64_t at) {
    const uint8_t *bytes = from;

    while (len) {
        struct iovec v = {(void *)(uintptr_t)bytes, len};
        ssize_t n = pwritev(fd, &v, 1, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* Pages FROM..TO-1 of the mapping: those that are not zero. */
static int save_pages(int to, const uint8_t *map, uint64_t from, uint64_t end) {
    while (from < end) {
        uint64_t len = 0;
        int rc;

        while (from < end && is_zero(map + from))
            from += PAGE;
        while (from + len < end && !is_zero(map + from + len))
            len += PAGE;
        rc = len ? os_write_at(to, map + from, len, from) : 0;
        if (rc)
            return rc;
        from += len;
    }
    return 0;
}

/* Where the next byte of FD at or after AT is that is in no hole; LEN: none before. */
static uint64_t next_data(int fd, uint64_t at, uint64_t len) {
    off_t n = fd < 0 ? (off_t)at : lseek(fd, (off_t)at, SEEK_DATA);

    if (n < 0)
        return errno == ENXIO ? len : at;
    return (uint64_t)n < len ? (uint64_t)n & ~(uint64_t)(PAGE - 1) : len;
}

/* Pages FROM..END-1, at most PIECE bytes, of which the first in the file is at DATA. */
static int save_piece(int to, const uint8_t *map, uint64_t from, uint64_t end,
                      uint64_t data, unsigned char *in) {
    int rc = 0;

    if (mincore((void *)(uintptr_t)(map + from), end - from, in) < 0)
        memset(in, 1, (end - from) / PAGE);
    for (uint64_t at = from, run; at < end && !rc; at = run) {
        run = at + PAGE;
        if (!(in[(at - from) / PAGE] & 1) && at < data)
            continue;
        while (run < end && ((in[(run - from) / PAGE] & 1) || run >= data))
            run += PAGE;
        rc = save_pages(to, map, at, run);
    }
    return rc;
}

/* Or a page more, which says whose it is. Copies look at it in the jail, which has
 * fstat(2) but not what glibc makes of fstat(3). */
static bool has_size(int fd, uint64_t size) {
    struct stat st;

    return !syscall(SYS_fstat, fd, &st) && S_ISREG(st.st_mode) &&
           ((uint64_t)st.st_size == size || (uint64_t)st.st_size == size + PAGE);
}

int os_sparse_begin(int to, uint64_t size) {
    return ftruncate(to, 0) < 0 || ftruncate(to, (off_t)size) < 0 ? -errno : 0;
}

int os_sparse_part(int to, const uint8_t *map, uint64_t size, int from, uint64_t *at) {
    unsigned char in[PIECE / PAGE];
    uint64_t data = next_data(from, *at, size), end = size - *at;
    int rc;

    end = *at + (end < PIECE ? end : PIECE);
    rc = save_piece(to, map, *at, end, data, in);
    *at = end;
    return rc;
}

int os_sparse_save(int to, const uint8_t *map, uint64_t size, int from) {
    int rc = os_sparse_begin(to, size);

    for (uint64_t at = 0; at < size && !rc;)
        rc = os_sparse_part(to, map, size, from, &at);
    return rc;
}

/* What the file has of pages FROM..END-1 goes. */
static int punch(int to, uint64_t from, uint64_t end) {
    return fallocate(to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                     (off_t)(end - from)) < 0
               ? -errno
               : 0;
}

int os_sparse_pages(int to, const uint8_t *map, uint64_t from, uint64_t end) {
    while (from < end) {
        uint64_t len = 0;
        int rc;

        while (from + len < end && is_zero(map + from + len))
            len += PAGE;
        /* A file system without holes keeps zeros. */
        rc = len ? punch(to, from, from + len) : 0;
        if (rc == -EOPNOTSUPP)
            rc = os_write_at(to, map + from, len, from);
        if (rc)
            return rc;
        from += len;
        for (len = 0; from + len < end && !is_zero(map + from + len);)
            len += PAGE;
        rc = len ? os_write_at(to, map + from, len, from) : 0;
        if (rc)
            return rc;
        from += len;
    }
    return 0;
}

int os_sparse_fetch(int from, uint8_t *map, uint64_t at, uint64_t len) {
    while (len) {
        struct iovec v = {map + at, len};
        ssize_t n = preadv(from, &v, 1, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

int os_sparse_check(int fd, uint64_t size) {
    return has_size(fd, size) ? 0 : -EINVAL;
}

int os_sparse_load(int from, uint8_t *map, uint64_t size) {
    uint64_t at = 0;

    if (!has_size(from, size))
        return -EINVAL;
    while ((at = next_data(from, at, size)) < size) {
        off_t hole = lseek(from, (off_t)at, SEEK_HOLE);
        uint64_t end = hole > 0 && (uint64_t)hole < size ? (uint64_t)hole : size;
        struct iovec v = {map + at, end - at};
        ssize_t n = preadv(from, &v, 1, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += (uint64_t)n;
    }
    return 0;
}

int os_memory_overlay(uint8_t *map, uint64_t size, int fd) {
    if (!has_size(fd, size))
        return -EINVAL;
    if (mmap(map, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
             fd, 0) == MAP_FAILED)
        return -errno;
    return 0;
}

int os_memory_blank(uint8_t *map, uint64_t size) {
    if (mmap(map, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
             0) == MAP_FAILED)
        return -errno;
    return 0;
}
