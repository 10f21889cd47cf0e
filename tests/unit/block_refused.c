/*
 * Images that are refused, each in a sentence, and images that are damaged: the guest
 * sees an error, and nothing gets worse.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "block/block_int.h"
#include "lib/disk.h"
#include "lib/qemuimg.h"
#include "lib/rnd.h"
#include "lib/scratch.h"
#include "lib/unit.h"

#define SIZE (4u << 20)

static struct disk_rig rig;
static char why[DISK_WHY];

static int setup(void **state) {
    disk_rig_open(&rig);
    return 0;
}

static int teardown(void **state) {
    disk_rig_close(&rig);
    return scratch_clear(state);
}

static void refused_spec(const struct block_spec *spec, const char *sentence) {
    if (disk_try(&rig, spec, why))
        fail_msg("not refused: '%s'", sentence);
    if (!strstr(why, sentence))
        fail_msg("'%s' says not '%s'", why, sentence);
}

static void refused(const char *path, const char *sentence) {
    refused_spec(&(struct block_spec){.path = path}, sentence);
}

static void poke(const char *path, off_t at, const void *bytes, size_t len) {
    int fd = open(path, O_WRONLY);

    assert_int_equal(pwrite(fd, bytes, len, at), len);
    close(fd);
}

/* A big-endian number of LEN bytes. */
static void poke_number(const char *path, off_t at, uint64_t value, unsigned len) {
    uint64_t be = __builtin_bswap64(value) >> (64 - 8 * len);

    poke(path, at, &be, len);
}

/* --- headers --- */

static void with_number(off_t at, uint64_t value, unsigned len, const char *sentence) {
    qemu_img_good("create -q -f qcow2 a.qcow2 %u", SIZE);
    poke_number("a.qcow2", at, value, len);
    refused("a.qcow2", sentence);
}

static void test_headers(void **state) {
    with_number(0, 0x51464900, 4,
                "is no qcow2 image; if it is a raw one, say format=raw");
    with_number(4, 1, 4, "is of a version of qcow that is not supported");
    with_number(4, 4, 4, "is of a version of qcow that is not supported");
    with_number(20, 8, 4, "has clusters of a size that is not allowed");
    with_number(20, 22, 4, "has clusters of a size that is not allowed");
    with_number(20, 0x80000010, 4, "has clusters of a size that is not allowed");
    with_number(24, 1ull << 61, 8, "is larger than a disk can be");
    with_number(24, 1ull << 50, 8, "has a table (L1) that is too small");
    with_number(32, 1, 4, "is encrypted");
    with_number(36, 0, 4, "has a table (L1) that is too small");
    with_number(36, 0xffffffff, 4, "has a table (L1) that is too large");
    with_number(40, 0x30200, 8, "its table (L1) lies outside of the file");
    with_number(40, 1ull << 40, 8, "its table (L1) lies outside of the file");
    with_number(40, 0xffffffffffff0000, 8, "its table (L1) lies outside of the file");
    with_number(48, 1ull << 40, 8, "its reference counts lie outside of the file");
    with_number(48, 0x10001, 8, "its reference counts lie outside of the file");
    with_number(56, 0, 4, "has a table of reference counts of a size that is not");
    with_number(56, 0x10000, 4, "has a table of reference counts of a size that is not");
    with_number(72, 4, 8, "has its data in another file");
    with_number(72, 16, 8, "has subclusters");
    with_number(72, 1ull << 40, 8, "has a feature that is not known here");
    with_number(72, 8, 8, "is compressed in a way that is not known");
    with_number(96, 7, 4, "has reference counts of a width");
    with_number(100, 96, 4, "has a header of a length");
    with_number(100, 0x20000, 4, "has a header of a length");
}

static void test_features(void **state) {
    qemu_img_good("create -q -f qcow2 -o extended_l2=on,cluster_size=128k a.qcow2 4M");
    refused("a.qcow2", "has subclusters (extended_l2=on)");
    qemu_img_good("create -q -f qcow2 -o data_file=d a.qcow2 4M");
    refused("a.qcow2", "has its data in another file");
}

/* Bits that say that something is wrong: to read it is good enough. What is not mended:
 * an image with snapshots, one whose tables share a cluster. */
static void test_dirty(void **state) {
    struct block_spec spec = {.path = "a.qcow2", .readonly = true};
    static const char *const sentence =
        "was not closed, and its reference counts may be "
        "wrong; `qemu-img check -r all 'a.qcow2'` mends it";
    struct block *b;

    qemu_img_good("create -q -f qcow2 a.qcow2 %u", SIZE);
    qemu_img_good("snapshot -c one a.qcow2");
    poke_number("a.qcow2", 72, 1, 8);
    refused("a.qcow2", sentence);
    b = disk_must(&rig, &spec);
    block_close(b);
    qemu_img(NULL, "check -r all a.qcow2");
    spec.readonly = false;
    b = disk_must(&rig, &spec);
    block_close(b);
    poke_number("a.qcow2", 72, 2, 8);
    refused("a.qcow2", "is marked as damaged");
    qemu_img_good("create -q -f qcow2 -o preallocation=metadata a.qcow2 %u", SIZE);
    poke_number("a.qcow2", 72, 1, 8);
    poke_number("a.qcow2", 0x40008, 1ull << 63 | 0x50000, 8); /* as the entry before */
    refused("a.qcow2", sentence);
}

/* --- backing files --- */

static void test_backing(void **state) {
    struct block_spec spec = {.path = "sub/a.qcow2"};
    struct block *b;

    assert_int_equal(system("mkdir sub; truncate -s 1M base sub/base"), 0);
    qemu_img_good("create -q -f qcow2 -u -b base a.qcow2 1M -F raw");
    poke("a.qcow2", 0x70, "\0\0\0\0", 4); /* the extension that names the format */
    poke("a.qcow2", 0x68, "\0\0\0\0", 4);
    refused("a.qcow2", "does not say of what format its backing file 'base' is");
    qemu_img_good("create -q -f qcow2 -u -b base -F vmdk a.qcow2 1M");
    refused("a.qcow2", "is of the format 'vmdk', which is not supported");
    qemu_img_good("create -q -f qcow2 -u -b nbd://localhost -F raw a.qcow2 1M");
    refused("a.qcow2", "stands on 'nbd://localhost', which is no file");
    qemu_img_good("create -q -f qcow2 -u -b nowhere -F raw a.qcow2 1M");
    refused("a.qcow2",
            "cannot open the backing file 'nowhere' of 'a.qcow2': No such file");
    qemu_img_good("create -q -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M");
    assert_int_equal(rename("b.qcow2", "a.qcow2"), 0);
    refused("a.qcow2", "stands on itself");
    qemu_img_good("create -q -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M");
    qemu_img_good("create -q -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M");
    refused("a.qcow2", "stands on itself");
    qemu_img_good("create -q -f qcow2 -u -b ../base -F raw sub/a.qcow2 1M");
    refused("sub/a.qcow2", "/base', which does not lie beside it; ',backing=allow'");
    assert_int_equal(symlink("../base", "sub/link"), 0);
    qemu_img_good("create -q -f qcow2 -u -b link -F raw sub/a.qcow2 1M");
    refused("sub/a.qcow2", "which does not lie beside it");
    spec.backing_allowed = true;
    b = disk_must(&rig, &spec);
    block_close(b);
    qemu_img_good("create -q -f qcow2 -u -b base -F raw sub/a.qcow2 1M");
    spec.backing_allowed = false;
    b = disk_must(&rig, &spec);
    block_close(b);
}

static void test_deep(void **state) {
    qemu_img_good("create -q -f qcow2 0.qcow2 64k");
    for (unsigned n = 1; n < 40; n++)
        qemu_img_good("create -q -f qcow2 -u -b %u.qcow2 -F qcow2 %u.qcow2 64k", n - 1,
                      n);
    refused("39.qcow2", "is one of more than 32 images on each other");
}

/* --- sectors --- */

/* The last sector is not cut short: of what it then held, nothing would be kept. */
static void test_sectors(void **state) {
    struct block_spec spec = {.path = "raw", .sector = 4096};
    struct block *b;
    int fd = open("raw", O_CREAT | O_RDWR, 0600);

    assert_int_equal(ftruncate(fd, 65536 + 512), 0);
    refused_spec(&spec, "'raw' has 66048 bytes, which are no whole number of sectors of "
                        "4096; truncate or qemu-img resize make it larger");
    assert_int_equal(ftruncate(fd, 65536 + 3584 + 1), 0);
    close(fd);
    b = disk_try(&rig, &spec, why);
    assert_int_equal(block_size(b), 65536 + 4096);
    assert_int_equal(block_sector(b), 4096);
    block_close(b);
    spec.sector = 0;
    b = disk_try(&rig, &spec, why);
    assert_int_equal(block_sector(b), 512);
    block_close(b);
}

/* --- what a guest wrote is not looked at --- */

static void test_not_probed(void **state) {
    struct block_spec spec = {.path = "a.img"};
    uint8_t buf[512];
    struct block *b;

    qemu_img_good("create -q -f qcow2 a.img 1G");
    b = disk_must(&rig, &spec);
    assert_true(block_size(b) < 1 << 20);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, 512), 0);
    assert_memory_equal(buf, "QFI\xfb", 4);
    block_close(b);
    spec.format = BLOCK_QCOW2;
    b = disk_must(&rig, &spec);
    assert_int_equal(block_size(b), 1u << 30);
    block_close(b);
    assert_int_equal(rename("a.img", "a.qcow2"), 0);
    spec = (struct block_spec){.path = "a.qcow2", .format = BLOCK_RAW};
    b = disk_must(&rig, &spec);
    assert_true(block_size(b) < 1 << 20);
    block_close(b);
}

/* --- damage --- */

/* A full image, cut at any length: no byte of it changes meaning. What is read is what
 * was written, or an error; what is written afterwards may fail, and spoils nothing. */
static void test_truncated(void **state) {
    uint8_t *bytes = malloc(SIZE), buf[4096];
    struct stat st;

    for (size_t n = 0; n < SIZE; n++)
        bytes[n] = (uint8_t)(n / 512 + n / 65536 + 1);
    FILE *f = fopen("raw", "w");
    assert_int_equal(fwrite(bytes, 1, SIZE, f), SIZE);
    fclose(f);
    rnd_seed(3);
    for (unsigned round = 0; round < 30; round++) {
        const struct block_spec spec = {.path = "a.qcow2"};
        struct block *b;
        unsigned errors = 0;

        qemu_img_good("convert -f raw -O qcow2 -o cluster_size=%u raw a.qcow2",
                      round % 2 ? 4096 : 65536);
        assert_int_equal(stat("a.qcow2", &st), 0);
        assert_int_equal(truncate("a.qcow2", (off_t)(rnd() % (uint64_t)st.st_size)), 0);
        b = disk_try(&rig, &spec, why);
        if (!b)
            continue;
        for (size_t at = 0; at < SIZE; at += sizeof(buf)) {
            int rc = disk_do(&rig, b, BLOCK_READ, at, buf, sizeof(buf));

            assert_true(rc == 0 || rc == -EIO);
            errors += rc != 0;
            /* The cluster in which it ends may be there in part. */
            for (size_t n = 0; !rc && n < sizeof(buf); n++)
                assert_true(buf[n] == bytes[at + n] || !buf[n]);
        }
        assert_true(errors);
        for (unsigned n = 0; n < 20; n++) {
            size_t at = rnd() % (SIZE / 4096) * 4096;
            int rc = disk_do(&rig, b, BLOCK_WRITE, at, bytes + at, 4096);

            assert_true(rc == 0 || rc == -EIO);
        }
        block_close(b);
    }
    free(bytes);
}

/* Bytes of the tables are anything: errors, never more. */
static void test_spoiled(void **state) {
    uint8_t *buf = malloc(65536);

    rnd_seed(4);
    for (unsigned round = 0; round < 60; round++) {
        const struct block_spec spec = {.path = "a.qcow2"};
        struct block *b;

        qemu_img_good("create -q -f qcow2 -o cluster_size=512,preallocation=metadata "
                      "a.qcow2 256k");
        for (unsigned n = 0; n < 30; n++) {
            uint64_t v = rnd() >> pick(64);

            poke("a.qcow2", 512 + (off_t)(rnd() % 16384), &v, 8);
        }
        b = disk_try(&rig, &spec, why);
        if (!b)
            continue;
        for (unsigned n = 0; n < 60; n++) {
            static const enum block_op ops[] = {BLOCK_READ,   BLOCK_WRITE,   BLOCK_WRITE,
                                                BLOCK_ZEROES, BLOCK_DISCARD, BLOCK_FLUSH};
            size_t len = 512 * (1 + rnd() % 128);

            disk_do(&rig, b, ops[pick(ARRAY_SIZE(ops))],
                    rnd() % ((262144 - len) / 512 + 1) * 512, buf, len);
        }
        block_close(b);
    }
    free(buf);
}

/* What a guest writes never lands in the header or in the tables that the header names,
 * whatever an entry says. */
static void test_header_safe(void **state) {
    const struct block_spec spec = {.path = "a.qcow2"};
    uint8_t before[4 * 65536], after[4 * 65536], buf[512];
    struct block *b;
    uint64_t l2;
    int fd;

    memset(buf, 0x5a, sizeof(buf));
    for (unsigned cluster = 0; cluster < 4; cluster++) {
        qemu_img_good("create -q -f qcow2 -o preallocation=metadata a.qcow2 1M");
        fd = open("a.qcow2", O_RDWR);
        assert_int_equal(pread(fd, &l2, 8, 3 * 65536), 8);
        l2 = __builtin_bswap64(l2) & 0x00fffffffffffe00;
        poke_number("a.qcow2", (off_t)l2, 1ull << 63 | (uint64_t)cluster << 16, 8);
        assert_int_equal(pread(fd, before, sizeof(before), 0), sizeof(before));
        b = disk_must(&rig, &spec);
        if (cluster != 2) /* a refcount block is known by its table only */
            disk_do(&rig, b, BLOCK_WRITE, 0, buf, 512);
        assert_int_equal(pread(fd, after, sizeof(after), 0), sizeof(after));
        assert_memory_equal(before, after, 2 * 65536);
        assert_memory_equal(before + 3 * 65536, after + 3 * 65536, 65536);
        block_close(b);
        close(fd);
    }
}

/* Nor is the header's place given back to the host, though an entry says that a guest's
 * data, compressed, lies there. */
static void test_header_kept(void **state) {
    const struct block_spec spec = {.path = "a.qcow2"};
    uint8_t before[65536], after[65536], buf[65536] = {1};
    struct block *b;
    uint64_t l2;
    int fd;

    qemu_img_good("create -q -f qcow2 -o preallocation=metadata a.qcow2 1M");
    fd = open("a.qcow2", O_RDONLY);
    assert_int_equal(pread(fd, &l2, 8, 3 * 65536), 8);
    l2 = __builtin_bswap64(l2) & 0x00fffffffffffe00;
    poke_number("a.qcow2", (off_t)l2, 1ull << 62, 8);
    assert_int_equal(pread(fd, before, sizeof(before), 0), sizeof(before));
    b = disk_must(&rig, &spec);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, buf, sizeof(buf)), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(pread(fd, after, sizeof(after), 0), sizeof(after));
    assert_memory_equal(before, after, sizeof(before));
    block_close(b);
    close(fd);
}

/* A table (L1) of the largest size that claims each cluster there is, and all of these
 * are counted as free: the search for one ends. */
static void test_claimed(void **state) {
    const struct block_spec spec = {.path = "a.qcow2"};
    uint32_t entries = 4u << 20;
    uint64_t *l1 = calloc(entries, 8);
    uint8_t buf[512] = {1};
    struct block *b;
    int fd;

    qemu_img_good("create -q -f qcow2 -o refcount_bits=1 a.qcow2 64k");
    fd = open("a.qcow2", O_RDWR);
    for (uint32_t n = 1; n < entries; n++) /* the first is needed */
        l1[n] = __builtin_bswap64((uint64_t)n << 16);
    assert_int_equal(pwrite(fd, l1, entries * 8ull, 1 << 20), entries * 8ull);
    poke_number("a.qcow2", 36, entries, 4);
    poke_number("a.qcow2", 40, 1 << 20, 8);
    b = disk_must(&rig, &spec);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, buf, sizeof(buf)), -ENOSPC);
    block_close(b);
    close(fd);
    free(l1);
}

/* A disk that is full (the host's limit stands for it): errors, and when there is room
 * again all is as it was written, of an image without a fault. */
static void test_full(void **state) {
    static const char *const options[] = {"cluster_size=4096", "cluster_size=65536",
                                          "cluster_size=512,refcount_bits=64"};
    const struct block_spec spec = {.path = "a.qcow2"};
    uint8_t *model = malloc(SIZE), *buf = malloc(SIZE);

    os_ignore_file_limit();
    rnd_seed(9);
    for (unsigned round = 0; round < 12; round++) {
        struct rlimit old, low;
        unsigned failed = 0;
        struct block *b;

        memset(model, 0, SIZE);
        qemu_img_good("create -q -f qcow2 -o %s a.qcow2 %u", options[round % 3], SIZE);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        low = (struct rlimit){(1 << 20) + pick(1 << 20), old.rlim_max};
        b = disk_must(&rig, &spec);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        for (unsigned n = 0; n < 300 && failed < 20; n++) {
            size_t len = 512 * (1 + pick(64)), at = rnd() % ((SIZE - len) / 512) * 512;

            memset(buf, (int)n + 1, len);
            if (disk_do(&rig, b, BLOCK_WRITE, at, buf, len)) {
                failed++; /* some of it may have been written */
                assert_int_equal(disk_do(&rig, b, BLOCK_READ, at, model + at, len), 0);
            } else {
                memcpy(model + at, buf, len);
            }
            if (one_in(20))
                disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0);
        }
        assert_true(failed);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        for (unsigned n = 0; n < 20; n++) {
            size_t at = rnd() % (SIZE / 4096) * 4096;

            memset(model + at, (int)n, 4096);
            assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, at, model + at, 4096), 0);
        }
        assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, SIZE), 0);
        assert_memory_equal(buf, model, SIZE);
        assert_int_equal(block_close(b), 0);
        qemu_img_good("check -q a.qcow2");
        b = disk_must(&rig, &spec);
        assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, SIZE), 0);
        assert_memory_equal(buf, model, SIZE);
        block_close(b);
    }
    free(model);
    free(buf);
}

/* QEMU's lock and ours are the same. */
static void test_locks(void **state) {
    const struct block_spec spec = {.path = "a.qcow2"},
                            reading = {.path = "a.qcow2", .readonly = true};
    const char *said;
    struct block *b;

    qemu_img_good("create -q -f qcow2 a.qcow2 1M");
    b = disk_must(&rig, &spec);
    assert_int_not_equal(qemu_img(&said, "resize a.qcow2 2M"), 0);
    assert_non_null(strstr(said, "lock"));
    assert_int_not_equal(qemu_img(&said, "info a.qcow2"), 0);
    block_close(b);
    b = disk_must(&rig, &reading);
    assert_int_not_equal(qemu_img(&said, "resize a.qcow2 2M"), 0);
    qemu_img_good("info a.qcow2");
    block_close(b);
    qemu_img_good("resize a.qcow2 2M");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_headers),     TEST(test_features), TEST(test_dirty),
        TEST(test_backing),     TEST(test_deep),     TEST(test_not_probed),
        TEST(test_truncated),   TEST(test_spoiled),  TEST(test_header_safe),
        TEST(test_header_kept), TEST(test_claimed),  TEST(test_locks),
        TEST(test_full),        TEST(test_sectors),
    };

    return cmocka_run_group_tests(tests, qemu_img_enter, scratch_leave);
}
