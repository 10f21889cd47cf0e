/*
 * qcow2 images against a model and against qemu-img: made by it in all their variety,
 * written to by random requests, checked and compared by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block_int.h"
#include "lib/disk.h"
#include "lib/qemuimg.h"
#include "lib/rnd.h"
#include "lib/scratch.h"
#include "lib/unit.h"

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

/* --- a disk and what must be in it --- */

struct model {
    uint8_t *bytes;
    size_t size;
    struct block *disk;
    struct block_spec spec;
};

static void put_file(const char *path, const uint8_t *bytes, size_t size) {
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void model_open(struct model *m) {
    m->disk = disk_must(&rig, &m->spec);
    assert_int_equal(block_size(m->disk), m->size);
}

static void model_close(struct model *m) {
    assert_int_equal(block_close(m->disk), 0);
    m->disk = NULL;
}

/* Where a request begins and how long it is: small ones, long ones, at borders. */
static void place(const struct model *m, size_t *at, size_t *len) {
    static const size_t most[] = {1, 8, 64, 512, 4096};
    size_t sectors = m->size / 512;

    *len = 1 + rnd() % most[pick(ARRAY_SIZE(most))];
    *len = *len > sectors ? sectors : *len;
    *at = rnd() % (sectors - *len + 1);
    if (one_in(3))
        *at = *at / 128 * 128;
    if (one_in(3) && *at + *len > 8)
        *len = (*at + *len) / 8 * 8 > *at ? (*at + *len) / 8 * 8 - *at : *len;
    *at *= 512;
    *len *= 512;
}

/* Reads that took no waiting. */
static unsigned at_once;

static bool do_at_once(const struct model *m, enum block_op op, size_t at, void *buf,
                       size_t len) {
    struct block_iov one[2] = {
        {buf, len / 1024 * 512},
        {(uint8_t *)buf + len / 1024 * 512, len - len / 1024 * 512}};
    struct block_request r = {
        .op = op, .offset = at, .length = len, .iov = one, .iov_count = 2};

    return block_at_once(m->disk, &r);
}

static bool read_at_once(const struct model *m, size_t at, void *buf, size_t len) {
    return do_at_once(m, BLOCK_READ, at, buf, len);
}

static void check_read(const struct model *m, size_t at, size_t len) {
    uint8_t *buf = malloc(len);

    memset(buf, 0xdb, len);
    if (read_at_once(m, at, buf, len)) {
        at_once++;
        assert_memory_equal(buf, m->bytes + at, len);
        memset(buf, 0xdb, len);
    }
    assert_int_equal(disk_do(&rig, m->disk, BLOCK_READ, at, buf, len), 0);
    if (memcmp(buf, m->bytes + at, len)) {
        size_t n = 0;

        while (buf[n] == m->bytes[at + n])
            n++;
        fail_msg("byte %zu is 0x%x, not 0x%x (read of %zu at %zu)", at + n, buf[n],
                 m->bytes[at + n], len, at);
    }
    free(buf);
}

static void write_random(const struct model *m, size_t at, size_t len) {
    for (size_t n = 0; n < len; n += 8) {
        uint64_t v = rnd();

        memcpy(m->bytes + at + n, &v, 8);
    }
    if (!do_at_once(m, BLOCK_WRITE, at, m->bytes + at, len))
        assert_int_equal(disk_do(&rig, m->disk, BLOCK_WRITE, at, m->bytes + at, len), 0);
}

static void zero(const struct model *m, size_t at, size_t len, bool unmap) {
    struct disk_request q;

    disk_begin(&rig, m->disk, &q, BLOCK_FLUSH, 0, NULL, 0);
    disk_wait(&rig, 1);
    q.r.op = BLOCK_ZEROES;
    q.r.unmap = unmap;
    q.r.offset = at;
    q.r.length = len;
    block_submit(m->disk, &q.r);
    disk_wait(&rig, 1);
    assert_int_equal(q.rc, 0);
    memset(m->bytes + at, 0, len);
}

/* What is there afterwards is what was there, or zeros. */
static void discard(const struct model *m, size_t at, size_t len) {
    uint8_t *buf = malloc(len);

    assert_int_equal(disk_do(&rig, m->disk, BLOCK_DISCARD, at, NULL, len), 0);
    assert_int_equal(disk_do(&rig, m->disk, BLOCK_READ, at, buf, len), 0);
    for (size_t n = 0; n < len; n++)
        if (buf[n])
            assert_int_equal(buf[n], m->bytes[at + n]);
    memcpy(m->bytes + at, buf, len);
    free(buf);
}

static void random_step(const struct model *m) {
    size_t at, len;

    place(m, &at, &len);
    switch (pick(12)) {
    case 0:
        zero(m, at, len, one_in(2));
        break;
    case 1:
        discard(m, at, len);
        break;
    case 2:
        assert_int_equal(disk_do(&rig, m->disk, BLOCK_FLUSH, 0, NULL, 0), 0);
        break;
    case 3:
    case 4:
    case 5:
        check_read(m, at, len);
        break;
    default:
        write_random(m, at, len);
        break;
    }
}

/* What qemu-img says of the image, LEAKS allowed or not, and that it has what we have. */
static void judged(const struct model *m, const char *path, const char *format) {
    const char *said;
    int rc = qemu_img(&said, "check -f %s %s", format, path);

    if (rc && !(rc == 63 && !strcmp(format, "raw")))
        fail_msg("%s", said);
    put_file("model.raw", m->bytes, m->size);
    qemu_img_good("compare -f %s -F raw %s model.raw", format, path);
}

static void random_life(struct model *m, unsigned steps, uint64_t seed) {
    rnd_seed(seed);
    model_open(m);
    for (unsigned n = 0; n < steps; n++) {
        random_step(m);
        if (!one_in(60))
            continue;
        model_close(m);
        judged(m, m->spec.path, "qcow2");
        model_open(m);
    }
    check_read(m, 0, m->size);
    model_close(m);
    judged(m, m->spec.path, "qcow2");
}

/* --- images of all kinds --- */

static void made(const char *options, size_t size) {
    struct model m = {.size = size, .spec = {.path = "a.qcow2"}};

    m.bytes = calloc(1, size);
    qemu_img_good("create -q -f qcow2 -o %s a.qcow2 %zu", options, size);
    random_life(&m, 250, size ^ strlen(options));
    free(m.bytes);
    unlink("a.qcow2");
}

static void test_versions(void **state) {
    made("compat=0.10", 3 << 20);
    made("compat=1.1", 5 << 20);
}

static void test_cluster_sizes(void **state) {
    made("cluster_size=512", 1 << 20);
    made("cluster_size=1024", 2 << 20);
    made("cluster_size=4096", 8 << 20);
    made("cluster_size=2097152", 16 << 20);
    made("compat=0.10,cluster_size=512", (1 << 20) + 512);
}

static void test_refcount_widths(void **state) {
    static const unsigned bits[] = {1, 2, 4, 8, 32, 64};
    char options[64];

    for (size_t n = 0; n < ARRAY_SIZE(bits); n++) {
        snprintf(options, sizeof(options), "refcount_bits=%u,cluster_size=4096", bits[n]);
        made(options, 4 << 20);
    }
}

/* Small clusters and wide counts: the refcount table has to grow, more than once. */
static void test_refcount_table_grows(void **state) {
    made("refcount_bits=64,cluster_size=512", 12 << 20);
}

static void test_preallocated(void **state) {
    made("preallocation=metadata", 4 << 20);
    made("preallocation=falloc,lazy_refcounts=on", 4 << 20);
}

/* --- an image that was not closed --- */

/* Its data is there, it can be written to, and afterwards nothing is wrong with it. */
static void mended(const char *options) {
    struct block_spec spec = {.path = "a.qcow2"};
    struct block *b = disk_must(&rig, &spec);
    uint8_t buf[4096];

    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 1 << 20, buf, sizeof(buf)), 0);
    for (size_t n = 0; n < sizeof(buf); n++)
        assert_int_equal(buf[n], 0x5a);
    memset(buf, 0x77, sizeof(buf));
    for (uint64_t at = 8 << 20; at < 12 << 20; at += 65536)
        assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, at, buf, sizeof(buf)), 0);
    assert_int_equal(block_close(b), 0);
    if (qemu_img(NULL, "check -q -f qcow2 a.qcow2"))
        fail_msg("%s: it is not mended", options);
    qemu_img_good("convert -f qcow2 -O raw a.qcow2 a.raw");
    assert_int_equal(system("test $(head -c 4194304 a.raw | tail -c 3145728 | "
                            "tr -d '\\132' | wc -c) = 0"),
                     0);
}

/* Who wrote to it was killed, before the counts were written. */
static void test_not_closed(void **state) {
    static const char *const options[] = {
        "lazy_refcounts=on", "lazy_refcounts=on,cluster_size=512",
        "lazy_refcounts=on,refcount_bits=1", "lazy_refcounts=on,refcount_bits=64"};

    for (size_t n = 0; n < ARRAY_SIZE(options); n++) {
        qemu_img_good("create -q -f qcow2 -o %s a.qcow2 16M", options[n]);
        system("qemu-io -f qcow2 -c 'write -P 0x5a 1M 3M' -c 'sigraise 9' a.qcow2 "
               ">killed 2>&1");
        assert_int_not_equal(qemu_img(NULL, "check -q -f qcow2 a.qcow2"), 0);
        mended(options[n]);
    }
}

/* None of its counts is there, not even the blocks. */
static void test_no_counts(void **state) {
    static const char *const options[] = {"-o cluster_size=4096", "-c"};

    assert_int_equal(system("head -c 16M /dev/zero >b.raw; head -c 3M /dev/zero | "
                            "tr '\\0' '\\132' | dd of=b.raw bs=1M seek=1 conv=notrunc "
                            "status=none"),
                     0);
    for (size_t n = 0; n < ARRAY_SIZE(options); n++) {
        qemu_img_good("convert -O qcow2 %s b.raw a.qcow2", options[n]);
        assert_int_equal(
            system("at=$(od -An -v -j48 -N8 -tu8 --endian=big a.qcow2); "
                   "head -c 8 /dev/zero | dd of=a.qcow2 bs=1 seek=$(($at)) "
                   "conv=notrunc status=none; "
                   "printf '\\1' | dd of=a.qcow2 bs=1 seek=79 conv=notrunc status=none"),
            0);
        mended(options[n]);
    }
}

/* --- what it stands on --- */

static void fill_random(uint8_t *bytes, size_t size, uint64_t seed) {
    rnd_seed(seed);
    memset(bytes, 0, size);
    for (size_t at = 0; at < size; at += 4096) {
        size_t len = 4096 * (1 + rnd() % 40);

        len = len < size - at ? len : size - at;
        if (one_in(2))
            for (size_t n = 0; n < len; n++)
                bytes[at + n] = one_in(3) ? (uint8_t)rnd() : (uint8_t)(at >> 12);
        at += len;
    }
}

static void over(const char *options, const char *base, size_t base_size, size_t size) {
    struct model m = {.size = size, .spec = {.path = "a.qcow2"}};

    m.bytes = calloc(1, size > base_size ? size : base_size);
    fill_random(m.bytes, base_size, base_size + size);
    put_file("raw", m.bytes, base_size);
    if (strcmp(base, "raw")) {
        qemu_img_good("convert -f raw -O qcow2 raw base");
    } else {
        rename("raw", "base");
    }
    qemu_img_good("create -q -f qcow2 -b base -F %s -o %s a.qcow2 %zu", base, options,
                  size);
    random_life(&m, 250, size);
    free(m.bytes);
    unlink("a.qcow2");
}

static void test_backing(void **state) {
    over("compat=1.1", "raw", 3 << 20, 3 << 20);
    over("compat=0.10", "raw", 3 << 20, 3 << 20);
    over("compat=1.1", "qcow2", (2 << 20) - 4096 - 512, 4 << 20);
    over("cluster_size=4096", "qcow2", 4 << 20, 2 << 20);
    over("compat=0.10,cluster_size=1024", "qcow2", 1 << 20, (2 << 20) + 1024);
}

/* What has been unpacked for its first sector is there for the others. */
static void piece_by_piece(struct model *m) {
    model_open(m);
    check_read(m, 0, 512);
    for (size_t at = 0; at < 4096; at += 512) {
        unsigned before = at_once;

        check_read(m, at, 512);
        check_read(m, at, 512);
        assert_true(at_once > before);
    }
    model_close(m);
}

static void compressed(const char *options, size_t size) {
    struct model m = {.size = size, .spec = {.path = "a.qcow2"}};

    m.bytes = calloc(1, size);
    fill_random(m.bytes, size, size);
    put_file("raw", m.bytes, size);
    qemu_img_good("convert -c -f raw -O qcow2 -o %s raw a.qcow2", options);
    piece_by_piece(&m);
    random_life(&m, 250, size + 1);
    free(m.bytes);
    unlink("a.qcow2");
}

static void test_compressed(void **state) {
    compressed("compat=0.10", 4 << 20);
    compressed("compression_type=zlib,cluster_size=4096", 4 << 20);
    compressed("compression_type=zstd", 4 << 20);
    compressed("compression_type=zstd,cluster_size=512", 1 << 20);
    compressed("compression_type=zlib,cluster_size=2097152", 8 << 20);
}

/* Snapshots stay what they were. */
static void test_snapshots(void **state) {
    struct model m = {.size = 4 << 20, .spec = {.path = "a.qcow2"}};
    uint8_t *one = malloc(m.size), *two = malloc(m.size);

    m.bytes = calloc(1, m.size);
    qemu_img_good("create -q -f qcow2 -o cluster_size=4096 a.qcow2 %zu", m.size);
    random_life(&m, 100, 1);
    memcpy(one, m.bytes, m.size);
    qemu_img_good("snapshot -c one a.qcow2");
    random_life(&m, 100, 2);
    memcpy(two, m.bytes, m.size);
    qemu_img_good("snapshot -c two a.qcow2");
    random_life(&m, 100, 3);
    qemu_img_good("snapshot -a one a.qcow2");
    memcpy(m.bytes, one, m.size);
    judged(&m, "a.qcow2", "qcow2");
    random_life(&m, 100, 4);
    qemu_img_good("snapshot -d one a.qcow2");
    qemu_img_good("snapshot -a two a.qcow2");
    memcpy(m.bytes, two, m.size);
    judged(&m, "a.qcow2", "qcow2");
    qemu_img_good("snapshot -d two a.qcow2");
    random_life(&m, 50, 5);
    free(one);
    free(two);
    free(m.bytes);
}

/* --- many at once --- */

#define BATCH 24

/* Requests that do not overlap, but share clusters. */
static void batch(struct model *m) {
    struct disk_request q[BATCH];
    size_t part = m->size / BATCH / 512 * 512;
    for (unsigned n = 0; n < BATCH; n++) {
        size_t at = n * part + rnd() % 16 * 512;
        size_t len = 512 * (1 + rnd() % ((part - 16 * 512) / 512));
        enum block_op op = one_in(6)   ? BLOCK_ZEROES
                           : one_in(8) ? BLOCK_FLUSH
                                       : BLOCK_WRITE;

        if (op == BLOCK_ZEROES)
            memset(m->bytes + at, 0, len);
        else if (op == BLOCK_WRITE)
            for (size_t k = 0; k < len; k += 8)
                *(uint64_t *)(void *)(m->bytes + at + k) = rnd();
        disk_begin(&rig, m->disk, &q[n], op, at, m->bytes + at, len);
    }
    /* Nobody writes to the last sector of a part. */
    for (unsigned n = 0; n < BATCH; n++) {
        size_t last = (n + 1) * part - 512;
        uint8_t buf[512];

        if (read_at_once(m, last, buf, 512))
            assert_memory_equal(buf, m->bytes + last, 512);
    }
    disk_wait(&rig, BATCH);
    for (unsigned n = 0; n < BATCH; n++)
        assert_int_equal(q[n].rc, 0);
}

static void parallel(const char *options, size_t size) {
    struct model m = {.size = size, .spec = {.path = "a.qcow2"}};

    m.bytes = calloc(1, size);
    qemu_img_good("create -q -f qcow2 -o %s a.qcow2 %zu", options, size);
    rnd_seed(size);
    model_open(&m);
    for (unsigned n = 0; n < 40; n++) {
        batch(&m);
        if (one_in(4))
            discard(&m, rnd() % 64 * 65536 % m.size, 65536);
    }
    check_read(&m, 0, m.size);
    model_close(&m);
    judged(&m, "a.qcow2", "qcow2");
    free(m.bytes);
    unlink("a.qcow2");
}

static void test_parallel(void **state) {
    parallel("cluster_size=65536", 4 << 20);
    parallel("cluster_size=4096", 4 << 20);
    parallel("cluster_size=512,refcount_bits=64", 4 << 20);
}

/* What was written is in the page cache, and the tables are in memory: it is read at
 * once, where the file system can do that. */
static void test_at_once(void **state) {
    struct model m = {.size = 1 << 20, .spec = {.path = "a.qcow2", .overlay = "temp"}};
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    int fd;

    m.bytes = calloc(1, m.size);
    fill_random(m.bytes, m.size / 2, 9);
    put_file("raw", m.bytes, m.size);
    qemu_img_good("convert -f raw -O qcow2 raw a.qcow2");
    fd = open("raw", O_RDONLY);
    assert_int_equal(pread(fd, buf, sizeof(buf), 0), sizeof(buf));
    model_open(&m);
    write_random(&m, 4096, 69632);
    check_read(&m, 0, m.size); /* the tables are read */
    at_once = 0;
    for (size_t at = 0; at < m.size; at += 16384)
        check_read(&m, at, 16384);
    if (preadv2(fd, &iov, 1, 0, RWF_NOWAIT) == (ssize_t)sizeof(buf))
        assert_int_equal(at_once, m.size / 16384);
    model_close(&m);
    close(fd);
    free(m.bytes);
    unlink("a.qcow2");
    unlink("raw");
}

/* --- overlays --- */

static void test_overlay_file(void **state) {
    struct model m = {.size = 2 << 20, .spec = {.path = "base.img", .overlay = "o"}};
    uint8_t *base = malloc(m.size);
    struct stat st;

    m.bytes = malloc(m.size);
    fill_random(base, m.size, 7);
    memcpy(m.bytes, base, m.size);
    put_file("base.img", base, m.size);
    rnd_seed(1);
    for (unsigned round = 0; round < 3; round++) {
        model_open(&m);
        assert_false(block_readonly(m.disk));
        for (unsigned n = 0; n < 60; n++)
            random_step(&m);
        model_close(&m);
        judged(&m, "o", "qcow2");
    }
    /* It can be named alone, too, and what it is over has stayed as it was. */
    m.spec = (struct block_spec){.path = "o", .format = BLOCK_QCOW2};
    model_open(&m);
    check_read(&m, 0, m.size);
    model_close(&m);
    memcpy(m.bytes, base, m.size);
    judged(&m, "base.img", "raw");
    /* Over another it is refused. */
    put_file("other.img", base, m.size);
    m.spec = (struct block_spec){.path = "other.img", .overlay = "o"};
    assert_null(disk_try(&rig, &m.spec, why));
    assert_non_null(strstr(why, "the overlay 'o' stands on 'base.img', not on"));
    /* What is no overlay is not taken for one. */
    m.spec.overlay = "base.img";
    assert_null(disk_try(&rig, &m.spec, why));
    assert_non_null(strstr(why, "'base.img' is no qcow2 image"));
    m.spec.overlay = "nowhere/o";
    assert_null(disk_try(&rig, &m.spec, why));
    assert_true(stat("nowhere/o", &st) < 0);
    free(base);
    free(m.bytes);
}

static void test_overlay_temporary(void **state) {
    struct model m = {.size = 2 << 20, .spec = {.path = "base.img", .overlay = "temp"}};
    uint8_t *base = malloc(m.size);

    m.bytes = malloc(m.size);
    fill_random(base, m.size, 8);
    memcpy(m.bytes, base, m.size);
    put_file("base.img", base, m.size);
    for (unsigned round = 0; round < 2; round++) {
        rnd_seed(round + 5);
        model_open(&m);
        for (unsigned n = 0; n < 80; n++)
            random_step(&m);
        check_read(&m, 0, m.size);
        model_close(&m);
        memcpy(m.bytes, base, m.size);
        judged(&m, "base.img", "raw");
    }
    free(base);
    free(m.bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_versions),          TEST(test_cluster_sizes),
        TEST(test_refcount_widths),   TEST(test_refcount_table_grows),
        TEST(test_preallocated),      TEST(test_not_closed),
        TEST(test_no_counts),         TEST(test_backing),
        TEST(test_compressed),        TEST(test_snapshots),
        TEST(test_parallel),          TEST(test_overlay_file),
        TEST(test_overlay_temporary), TEST(test_at_once),
    };

    return cmocka_run_group_tests(tests, qemu_img_enter, scratch_leave);
}
