/* Files of memory that are packed (ctl/pack.h): there and back, and what is no such file.
 */
#include "lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/pack.h"
#include "lib/rnd.h"

#define SIZE (5u << 20)

static uint8_t bytes[SIZE];

static int new_file(void) {
    int fd = memfd_create("pack", MFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static int file_of(const void *from, size_t len) {
    int fd = new_file();

    assert_int_equal(pwrite(fd, from, len, 0), len);
    return fd;
}

/* Some pages of numbers, and zeros between them; LEN bytes of that, packed. */
static int packed_file(size_t len) {
    int raw, fd = new_file();

    memset(bytes, 0, sizeof(bytes));
    rnd_seed(7);
    for (unsigned n = 0; n < 40; n++)
        rnd_fill(bytes + rnd() % (SIZE / 4096) * 4096, 4096, n);
    raw = file_of(bytes, len);
    assert_int_equal(pack_file(raw, fd), 0);
    close(raw);
    return fd;
}

/* What is not refused is right. */
static int unpack(int from, uint64_t most) {
    static uint8_t got[SIZE];
    int fd = new_file(), rc = unpack_file(from, fd, most, NULL);

    if (!rc) {
        assert_int_equal(pread(fd, got, sizeof(got), 0), lseek(fd, 0, SEEK_END));
        assert_memory_equal(got, bytes, (size_t)lseek(fd, 0, SEEK_END));
    }
    close(fd);
    return rc;
}

static uint64_t read_last, read_all;

static void tell(uint64_t done, uint64_t total) {
    assert_in_range(done, read_last, total);
    read_last = done;
    read_all = total;
}

static void test_there_and_back(void **state) {
    static const size_t lens[] = {0, 1, 4096, 4097, 1 << 20, (1 << 20) + 1, SIZE};
    static uint8_t got[SIZE];

    for (unsigned n = 0; n < ARRAY_SIZE(lens); n++) {
        int from = packed_file(lens[n]), to = new_file();
        struct stat st;

        read_last = 0;
        assert_int_equal(unpack_file(from, to, lens[n], tell), 0);
        assert_int_equal(read_last, read_all);
        assert_int_equal(fstat(to, &st), 0);
        assert_int_equal(st.st_size, lens[n]);
        assert_true((uint64_t)st.st_blocks * 512 <= 41 * 4096);
        assert_int_equal(pread(to, got, sizeof(got), 0), lens[n]);
        assert_memory_equal(got, bytes, lens[n]);
        close(from);
        close(to);
    }
}

static void test_more_than_wanted(void **state) {
    int from = packed_file(SIZE);

    assert_int_equal(unpack(from, SIZE), 0);
    assert_int_equal(unpack(from, SIZE - 1), -EINVAL);
    assert_int_equal(unpack(from, 0), -EINVAL);
    close(from);
}

/* A bit that is another is found by the checksum, if by nothing before; some mean
 * nothing. */
static void test_damaged(void **state) {
    int from = packed_file(SIZE);
    off_t len = lseek(from, 0, SEEK_END);
    unsigned missed = 0;

    rnd_seed(3);
    for (unsigned n = 0; n < 60; n++) {
        off_t at = n < 20 ? (off_t)n : (off_t)(rnd() % (uint64_t)len);
        uint8_t b, other;

        assert_int_equal(pread(from, &b, 1, at), 1);
        other = b ^ (uint8_t)(1u << rnd() % 8);
        assert_int_equal(pwrite(from, &other, 1, at), 1);
        missed += !unpack(from, SIZE);
        assert_int_equal(pwrite(from, &b, 1, at), 1);
    }
    assert_in_range(missed, 0, 15);
    assert_int_equal(unpack(from, SIZE), 0);
    close(from);
}

static void test_cut_or_longer(void **state) {
    int from = packed_file(SIZE);
    off_t len = lseek(from, 0, SEEK_END);

    assert_int_equal(pwrite(from, "x", 1, len), 1);
    assert_int_equal(unpack(from, SIZE), -EINVAL);
    for (off_t at = len - 1; at > 0; at = at > 40000 ? at - 40000 : at - 1) {
        assert_int_equal(ftruncate(from, at), 0);
        assert_int_equal(unpack(from, SIZE), -EINVAL);
        if (at < len / 2 && at > 20)
            at = 20;
    }
    assert_int_equal(ftruncate(from, 0), 0);
    assert_int_equal(unpack(from, SIZE), -EINVAL);
    close(from);
}

/* No room where it is written to, and nothing to read from. */
static void test_failures(void **state) {
    int from = packed_file(SIZE), full = open("/dev/full", O_RDWR), pipe_[2];

    assert_int_equal(pipe(pipe_), 0);
    assert_int_equal(unpack(pipe_[0], SIZE), -ESPIPE);
    assert_int_equal(pack_file(pipe_[0], full), -ESPIPE);
    assert_int_equal(unpack_file(from, full, SIZE, NULL), -ENOSPC);
    assert_int_equal(pack_file(from, full), -ENOSPC);
    close(from);
    close(full);
    close(pipe_[0]);
    close(pipe_[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_more_than_wanted),
        cmocka_unit_test(test_damaged),        cmocka_unit_test(test_cut_or_longer),
        cmocka_unit_test(test_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
