/*
 * Reads and writes at once where the kernel cannot say whether they take waiting. The
 * clock, the kind of file system, and how long a call takes are the test's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/os.h"
#include "lib/disk.h"
#include "lib/scratch.h"
#include "lib/unit.h"

#define MS 1000000u

static struct disk_rig rig;
static struct block *disk;
static uint8_t buf[BLOCK_AT_ONCE];
static uint64_t now_ns, takes_ns; /* each call takes so long */
static long kind;
static int fails;
static unsigned asked; /* calls with RWF_NOWAIT */

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags);
ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags);
int __wrap_fstatfs(int fd, struct statfs *fs);
uint64_t __wrap_os_monotonic_ns(void);

uint64_t __wrap_os_monotonic_ns(void) {
    return now_ns;
}

int __wrap_fstatfs(int fd, struct statfs *fs) {
    *fs = (struct statfs){.f_type = kind};
    return 0;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset) {
    now_ns += takes_ns;
    errno = fails;
    return fails ? -1 : __real_pwritev(fd, iov, n, offset);
}

ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags) {
    asked++;
    errno = EOPNOTSUPP;
    return -1;
}

ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags) {
    asked++;
    errno = EOPNOTSUPP;
    return -1;
}

/* On a file system of that kind, which has been asked once and has said that it cannot.
 */
static void open_on(long magic) {
    const struct block_spec spec = {.path = "image"};
    struct block_iov one = {buf, 4096};
    struct block_request r = {.length = 4096, .iov = &one, .iov_count = 1};
    int fd = open("image", O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    kind = magic;
    takes_ns = 3000;
    fails = 0;
    asked = 0;
    disk_rig_open(&rig);
    disk = disk_must(&rig, &spec);
    r.op = BLOCK_WRITE;
    assert_false(block_at_once(disk, &r));
    r.op = BLOCK_READ;
    assert_false(block_at_once(disk, &r));
    assert_int_equal(asked, 2);
}

static void close_it(void) {
    assert_int_equal(asked, 2);
    assert_int_equal(block_close(disk), 0);
    disk_rig_close(&rig);
}

static bool at_once(enum block_op op, uint64_t offset, size_t len) {
    struct block_iov one = {buf, len};
    struct block_request r = {
        .op = op, .offset = offset, .length = len, .iov = &one, .iov_count = 1};

    return block_at_once(disk, &r);
}

static bool written(void) {
    return at_once(BLOCK_WRITE, 8192, 4096);
}

static void test_write(void **state) {
    uint8_t got[8192];
    int fd;

    open_on(EXT4_SUPER_MAGIC);
    memset(buf, 0x5a, sizeof(buf));
    assert_true(at_once(BLOCK_WRITE, 4096, sizeof(got)));
    fd = open("image", O_RDONLY);
    assert_int_equal(pread(fd, got, sizeof(got), 4096), sizeof(got));
    assert_memory_equal(got, buf, sizeof(got));
    close(fd);
    /* Whole pages only. */
    assert_false(at_once(BLOCK_WRITE, 512, 4096));
    assert_false(at_once(BLOCK_WRITE, 4096, 4608));
    /* It may have to come from the disk. */
    assert_false(at_once(BLOCK_READ, 4096, 4096));
    fails = ENOSPC;
    assert_false(written());
    fails = 0;
    assert_true(written());
    close_it();
}

static void test_elsewhere(void **state) {
    open_on(NFS_SUPER_MAGIC);
    assert_false(written());
    assert_false(at_once(BLOCK_READ, 4096, 4096));
    close_it();
    open_on(TMPFS_MAGIC);
    memset(buf, 1, sizeof(buf));
    assert_true(written());
    memset(buf, 0, sizeof(buf));
    assert_true(at_once(BLOCK_READ, 8192 + 512, 512));
    assert_int_equal(buf[511], 1);
    close_it();
}

/* One write takes NS; then none is made for DOUBT_MS. */
static void slow(uint64_t ns, uint64_t doubt_ms) {
    takes_ns = ns;
    assert_true(written());
    takes_ns = 3000;
    now_ns += doubt_ms * MS - 1;
    assert_false(written());
    now_ns++;
    assert_true(written());
}

static void test_slow(void **state) {
    open_on(EXT4_SUPER_MAGIC);
    takes_ns = 3 * MS;
    assert_true(written());
    assert_true(written()); /* that was not too long */
    slow(3 * MS + 1, 50);
    slow(200 * MS, 100);
    slow(10 * MS, 200);
    now_ns += 200u * MS;
    assert_true(written()); /* as long as it was left alone: forgotten */
    slow(10 * MS, 50);
    for (uint64_t ms = 100; ms < 5000; ms *= 2)
        slow(10 * MS, ms);
    slow(10 * MS, 5000);
    slow(10 * MS, 5000);
    close_it();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_write, scratch_clear),
        cmocka_unit_test_teardown(test_elsewhere, scratch_clear),
        cmocka_unit_test_teardown(test_slow, scratch_clear),
    };

    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
