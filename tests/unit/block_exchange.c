/* A disk that gets another file while requests are in flight. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block_int.h"
#include "lib/disk.h"
#include "lib/rnd.h"
#include "lib/unit.h"

#include "base/os.h"

#define SIZE (1u << 20)
#define MANY 64u
#define PIECE 4096u

static struct disk_rig rig;
static char dir[] = "/tmp/bivisor-exchange-XXXXXX";
static char one[256], two[256];
static char why[512];

static void make(const char *path, off_t size) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0 && !ftruncate(fd, size));
    close(fd);
}

static int setup(void **state) {
    assert_non_null(mkdtemp(dir));
    snprintf(one, sizeof(one), "%s/one", dir);
    snprintf(two, sizeof(two), "%s/two", dir);
    make(one, SIZE);
    make(two, 2 * SIZE);
    disk_rig_open(&rig);
    return 0;
}

static int teardown(void **state) {
    disk_rig_close(&rig);
    unlink(one);
    unlink(two);
    rmdir(dir);
    memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    return 0;
}

/* 0 or -errno. */
static int exchange(struct block *b, const char *path) {
    struct block_facts facts;
    struct image *old = NULL;
    int fd = block_hand_over(path, block_readonly(b), &facts, why, sizeof(why)), rc;

    rc = fd < 0 ? fd : block_exchange(b, fd, &facts, path, &old, why, sizeof(why));
    block_put_away(old);
    return rc;
}

static struct block *open_one(bool readonly) {
    const struct block_spec spec = {.path = one, .readonly = readonly};

    return disk_must(&rig, &spec);
}

static bool can_open(const char *path, bool readonly) {
    const struct block_spec spec = {.path = path, .readonly = readonly};
    struct block *b = NULL;

    if (block_open(&spec, &b, why, sizeof(why)))
        return false;
    block_close(b);
    return true;
}

static void begin_many(struct block *b, struct disk_request *q, uint8_t *bytes) {
    for (unsigned n = 0; n < MANY; n++)
        disk_begin(&rig, b, &q[n], BLOCK_WRITE, n * PIECE, bytes + n * PIECE, PIECE);
}

static void assert_file(const char *path, const uint8_t *bytes) {
    static uint8_t got[MANY * PIECE];
    int fd = open(path, O_RDONLY);

    assert_int_equal(pread(fd, got, sizeof(got), 0), sizeof(got));
    assert_memory_equal(got, bytes, sizeof(got));
    close(fd);
}

/* What was submitted before is in the old file, all else in the new one. */
static void test_in_flight(void **state) {
    static uint8_t first[MANY * PIECE], second[MANY * PIECE];
    static struct disk_request q[2 * MANY];
    struct block *b = open_one(false);
    char id[BLOCK_ID_MAX + 1];

    rnd_fill(first, sizeof(first), 1);
    rnd_fill(second, sizeof(second), 2);
    snprintf(id, sizeof(id), "%s", block_id(b));
    begin_many(b, q, first);
    assert_int_equal(exchange(b, two), 0);
    assert_int_equal(block_size(b), 2 * SIZE);
    assert_string_equal(block_path(b), two);
    assert_string_not_equal(block_id(b), id);
    begin_many(b, q + MANY, second);
    disk_wait(&rig, 2 * MANY);
    for (unsigned n = 0; n < 2 * MANY; n++)
        assert_true(q[n].rc == 0 && q[n].calls == 1);
    assert_file(one, first);
    assert_file(two, second);
    assert_true(can_open(one, false));
    assert_false(can_open(two, false));
    assert_int_equal(block_close(b), 0);
    assert_true(can_open(two, false));
}

/* Those that wait for a rate go to the old file, too; the rate stands. */
static void test_limited(void **state) {
    static const struct rate_limit one_an_hour = {1, 3600ull * 1000000000, 1, 0};
    static uint8_t bytes[MANY * PIECE];
    static struct disk_request q[MANY];
    struct block *b = open_one(false);

    rnd_fill(bytes, sizeof(bytes), 3);
    block_limit(b, BLOCK_OPERATIONS, &one_an_hour);
    begin_many(b, q, bytes);
    assert_int_equal(exchange(b, two), 0);
    disk_wait(&rig, MANY);
    assert_file(one, bytes);
    begin_many(b, q, bytes);
    assert_int_equal(block_in_flight(b), MANY);
    block_drain(b);
    block_close(b);
}

/* Somebody's file stays theirs, and the disk what it was. */
static void test_in_use(void **state) {
    const struct block_spec spec = {.path = two};
    struct block *b = open_one(false), *other = disk_must(&rig, &spec);
    uint8_t bytes[512] = {1};

    assert_int_equal(exchange(b, two), -EBUSY);
    assert_non_null(strstr(why, "in use"));
    assert_string_equal(block_path(b), one);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, bytes, 512), 0);
    block_close(other);
    assert_int_equal(exchange(b, two), 0);
    block_close(b);
}

/* The same file has another size: that is seen, and the lock stays. */
static void test_same(void **state) {
    struct block *b = open_one(false);
    uint8_t in[512], out[512] = {0};

    rnd_fill(in, sizeof(in), 4);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 512, in, 512), 0);
    assert_int_equal(truncate(one, 3 * SIZE), 0);
    assert_int_equal(exchange(b, one), 0);
    assert_int_equal(block_size(b), 3 * SIZE);
    assert_false(can_open(one, false));
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 3 * SIZE - 512, in, 512), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 512, out, 512), 0);
    assert_memory_equal(in, out, 512);
    block_close(b);
}

/* What is only read is opened so. */
static void test_readonly(void **state) {
    struct block *b = open_one(true);
    struct block_facts facts;
    int fd = block_hand_over(two, true, &facts, why, sizeof(why));

    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    close(fd);
    assert_int_equal(exchange(b, two), 0);
    assert_true(block_readonly(b));
    assert_true(can_open(two, true));
    assert_false(can_open(two, false));
    block_close(b);
}

static void test_refused(void **state) {
    static const struct {
        const char *path, *sentence;
    } bad[] = {{"/nonexistent", "No such file"},
               {"/tmp", "cannot open the image '/tmp': Is a directory"},
               {"/dev/null", "neither a file nor a block device"},
               {"/tmp/a.qcow2", "called a qcow2 image"},
               {"nbd://127.0.0.1", "a server's"}};
    struct block *b = open_one(false);

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        assert_true(exchange(b, bad[n].path) < 0);
        assert_non_null(strstr(why, bad[n].sentence));
    }
    assert_string_equal(block_path(b), one);
    block_close(b);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_in_flight), TEST(test_limited),  TEST(test_in_use),
        TEST(test_same),      TEST(test_readonly), TEST(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
