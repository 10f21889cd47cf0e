/*
 * Random things done to a file, and what must be in it kept in memory: `random FILE SEED
 * COUNT`. Writes and reads by all ways (descriptors, shared mappings, past the cache),
 * lengths, holes, other names, and files opened anew. What it leaves is a matter of SEED
 * and COUNT alone: another run of it elsewhere leaves the same file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (1u << 20)
#define PIECE 70000u
#define PAGE 4096u

static uint8_t mirror[SIZE], piece[SIZE];
static size_t length; /* of the file, as it must be */
static uint64_t state;
static char path[4096], other[4096];
static int fd;
static unsigned step;

static void must(int good, const char *what) {
    if (good)
        return;
    fprintf(stderr, "random: step %u: %s: %s\n", step, what, strerror(errno));
    exit(1);
}

/* xorshift64* */
static uint32_t below(uint32_t end) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 33) % end;
}

static void open_again(void) {
    fd = open(path, O_RDWR | O_CLOEXEC);
    must(fd >= 0, "open");
}

/* What a range must be, its part past the end too, which is zeros. */
static void same(const uint8_t *seen, size_t at, size_t len, const char *what) {
    errno = 0;
    for (size_t n = 0; n < len; n++)
        if (seen[n] != mirror[at + n]) {
            fprintf(stderr, "random: step %u: %s: %02x at %zu, not %02x\n", step, what,
                    seen[n], at + n, mirror[at + n]);
            exit(1);
        }
}

static void fill(size_t at, size_t len) {
    for (size_t n = 0; n < len; n++)
        mirror[at + n] = (uint8_t)(state >> n % 8 * 8) ^ (uint8_t)n;
    if (length < at + len)
        length = at + len;
}

static void do_write(size_t at, size_t len) {
    fill(at, len);
    must(pwrite(fd, mirror + at, len, (off_t)at) == (ssize_t)len, "pwrite");
}

static void do_read(size_t at, size_t len) {
    size_t want = at >= length ? 0 : length - at < len ? length - at : len;

    must(pread(fd, piece, len, (off_t)at) == (ssize_t)want, "pread");
    same(piece, at, want, "pread");
}

/* Where the file system has no such reads: nothing. */
static void do_direct(size_t at, size_t len) {
    static uint8_t page[PIECE + 2 * PAGE] __attribute__((aligned(PAGE)));
    int direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    ssize_t n;

    at -= at % PAGE;
    len = (len + PAGE - 1) / PAGE * PAGE;
    if (direct < 0)
        return;
    n = pread(direct, page, len, (off_t)at);
    must(n == (ssize_t)(at >= length        ? 0
                        : length - at < len ? length - at
                                            : len) ||
             (n < 0 && errno == EINVAL),
         "direct read");
    if (n > 0)
        same(page, at, (size_t)n, "direct read");
    close(direct);
}

static void do_truncate(size_t to) {
    if (to < length)
        memset(mirror + to, 0, length - to);
    length = to;
    must(!ftruncate(fd, (off_t)to), "ftruncate");
}

static void do_hole(size_t at, size_t len) {
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
                  (off_t)len)) {
        must(errno == EOPNOTSUPP, "fallocate");
        must(pwrite(fd, memset(piece, 0, len),
                    at >= length        ? 0
                    : length - at < len ? length - at
                                        : len,
                    (off_t)at) >= 0,
             "zeros");
    }
    if (at < length)
        memset(mirror + at, 0, length - at < len ? length - at : len);
}

/* Through a mapping; what is in the last page past the end stays zero. */
static void do_map(size_t at, size_t len, int writes) {
    uint8_t *map;

    if (at >= length)
        return;
    len = length - at < len ? length - at : len;
    map = mmap(NULL, length, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    must(map != MAP_FAILED, "mmap");
    same(map + at, at, len, "mapping");
    if (writes) {
        fill(at, len);
        memcpy(map + at, mirror + at, len);
        must(below(2) || !msync(map, length, MS_SYNC), "msync");
    }
    must(!munmap(map, length), "munmap");
}

static void do_names(void) {
    struct stat st;

    must(!rename(path, other) && !link(other, path) && !stat(path, &st), "rename, link");
    must(st.st_nlink == 2 && (size_t)st.st_size == length, "its links and length");
    must(!unlink(other), "unlink");
}

static void do_something(void) {
    size_t at = below(SIZE - PIECE), len = 1 + below(PIECE);

    switch (below(12)) {
    case 0:
    case 1:
    case 2:
        do_write(at, len);
        break;
    case 3:
    case 4:
        do_read(at, len);
        break;
    case 5:
        do_direct(at, len);
        break;
    case 6:
        do_truncate(at);
        break;
    case 7:
        do_hole(at, len);
        break;
    case 8:
        do_map(at, len, 0);
        break;
    case 9:
        do_map(at, len, 1);
        break;
    case 10:
        do_names();
        break;
    default:
        must(!fsync(fd) && !close(fd), "fsync, close");
        open_again();
    }
}

int main(int argc, char **argv) {
    unsigned count;

    if (argc != 4)
        return 2;
    snprintf(path, sizeof(path), "%s", argv[1]);
    snprintf(other, sizeof(other), "%s.other", argv[1]);
    state = strtoull(argv[2], NULL, 0) * 2 + 1;
    count = (unsigned)strtoul(argv[3], NULL, 0);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd >= 0, "open");
    for (step = 0; step < count; step++)
        do_something();
    must(!close(fd), "close");
    open_again();
    do_read(0, SIZE);
    printf("random: %u steps, %zu bytes\n", count, length);
    return 0;
}
