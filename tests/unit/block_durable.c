/*
 * What the guest was told is durable is there after a power cut, whatever the host's disk
 * did with what had not been flushed.
 *
 * The system calls that change an image are logged (the linker's --wrap), with the times
 * at which they began and ended. Afterwards the power is cut at many times: what had
 * ended before an fdatasync began that had ended by then is there; of all else that had
 * begun, each sector is there or not. That image must be a good one to qemu-img (leaks
 * are allowed), and each sector of the disk must be what was promised, or something that
 * the guest wrote later.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/block_int.h"
#include "lib/disk.h"
#include "lib/qemuimg.h"
#include "lib/rnd.h"
#include "lib/scratch.h"
#include "lib/unit.h"

#define SECTOR 512u
#define STEPS 120u
#define CUTS 40u

static struct disk_rig rig;

/* --- the log --- */

enum kind { WRITE, ZERO, SYNC };

struct entry {
    enum kind kind;
    unsigned begin, end; /* times; END 0: not yet */
    uint64_t offset;
    size_t len;
    uint8_t *data;
    bool failed;
};

#define ENTRIES 100000u

static struct entry entries[ENTRIES];
static unsigned count;
static atomic_uint now = 1; /* the time */
static atomic_bool logging;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static struct entry *log_begin(enum kind kind, uint64_t offset, size_t len) {
    struct entry *e;

    if (!atomic_load(&logging))
        return NULL;
    pthread_mutex_lock(&log_lock);
    assert_true(count < ENTRIES);
    e = &entries[count++];
    pthread_mutex_unlock(&log_lock);
    *e = (struct entry){.kind = kind, .begin = now++, .offset = offset, .len = len};
    return e;
}

static void log_end(struct entry *e, bool failed) {
    if (!e)
        return;
    e->failed = failed;
    e->end = now++;
}

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset) {
    size_t len = iov_length(iov, (unsigned)n);
    struct entry *e = log_begin(WRITE, (uint64_t)offset, len);
    ssize_t rc;

    if (e) {
        e->data = malloc(len);
        iov_copy(iov, (unsigned)n, 0, e->data, len);
    }
    rc = __real_pwritev(fd, iov, n, offset);
    assert_true(rc == (ssize_t)len);
    log_end(e, false);
    return rc;
}

/* Both kinds make zeros. */
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len) {
    struct entry *e = log_begin(ZERO, (uint64_t)offset, (size_t)len);
    int rc = __real_fallocate(fd, mode, offset, len);

    log_end(e, rc < 0);
    return rc;
}

static atomic_uint interruptions; /* so many fdatasync(2) are interrupted */

int __wrap_fdatasync(int fd) {
    if (atomic_load(&interruptions)) {
        atomic_fetch_sub(&interruptions, 1);
        errno = EINTR;
        return -1;
    }
    log_end(log_begin(SYNC, 0, 0), false);
    return 0;
}

static void log_clear(void) {
    for (unsigned n = 0; n < count; n++)
        free(entries[n].data);
    count = 0;
    now = 1;
}

/* --- the guest --- */

enum what { GUEST_WRITE, GUEST_ZERO, GUEST_DISCARD, GUEST_FLUSH };

struct deed {
    enum what what;
    unsigned begin, end;
    uint64_t first, sectors;
    struct disk_request q;
    void (*done)(struct block_request *r, int rc);
    uint8_t *buf;
};

static struct deed deeds[STEPS];
static unsigned deed_count;

/* What deed N writes to a sector; the base has those of deed BASE. */
#define BASE 0x7fffffffu
static uint64_t word(unsigned n, uint64_t sector) {
    return (uint64_t)(n + 1) << 32 | sector;
}

static void fill(uint8_t *buf, unsigned n, uint64_t first, uint64_t sectors) {
    for (uint64_t at = 0; at < sectors * SECTOR; at += 8) {
        uint64_t w = word(n, first + at / SECTOR);

        memcpy(buf + at, &w, 8);
    }
}

static void done(struct block_request *r, int rc) {
    struct deed *d = container_of(r, struct deed, q.r);

    assert_int_equal(rc, 0);
    d->end = now++;
    d->done(r, rc);
}

/* Begins deed N, somewhere in the SECTORS from FIRST on. False: it has been done at once.
 */
static bool begin(struct block *b, unsigned n, uint64_t first, uint64_t sectors) {
    static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_ZEROES, BLOCK_DISCARD,
                                        BLOCK_FLUSH};
    struct deed *d = &deeds[n];

    d->what = one_in(6)    ? GUEST_FLUSH
              : one_in(10) ? GUEST_ZERO
              : one_in(10) ? GUEST_DISCARD
                           : GUEST_WRITE;
    d->sectors = 1 + rnd() % (one_in(4) ? 400 : 24);
    d->first = first + rnd() % (sectors - d->sectors);
    if (one_in(2) && d->first / 8 * 8 >= first && d->sectors >= 8) {
        d->first = d->first / 8 * 8; /* whole pages */
        d->sectors = d->sectors / 8 * 8;
    }
    if (d->what == GUEST_FLUSH)
        d->first = d->sectors = 0;
    d->buf = malloc(d->sectors * SECTOR + 1);
    fill(d->buf, n, d->first, d->sectors);
    d->begin = now++;
    d->q.rig = &rig;
    d->q.one = (struct block_iov){d->buf, d->sectors * SECTOR};
    d->q.r = (struct block_request){.op = ops[d->what],
                                    .offset = d->first * SECTOR,
                                    .length = d->sectors * SECTOR,
                                    .iov = &d->q.one,
                                    .iov_count = 1,
                                    .done = done};
    d->done = disk_done;
    if (block_at_once(b, &d->q.r)) {
        d->end = now++;
        return false;
    }
    block_submit(b, &d->q.r);
    return true;
}

/* Up to AT_ONCE deeds from N on, at parts of the disk that do not overlap, but share
 * clusters and tables; they run in any order. */
static unsigned perform(struct block *b, unsigned n, uint64_t disk_sectors,
                        unsigned at_once) {
    unsigned count_now = 1 + pick(at_once);
    uint64_t part = disk_sectors / count_now;
    unsigned under_way = 0;

    count_now = count_now < STEPS - n ? count_now : STEPS - n;
    for (unsigned k = 0; k < count_now; k++)
        under_way += begin(b, n + k, k * part, part);
    disk_wait(&rig, under_way);
    for (unsigned k = 0; k < count_now; k++)
        free(deeds[n + k].buf);
    return count_now;
}

/* --- a cut --- */

static uint8_t *before; /* the image when the log begins */
static uint64_t before_size, room;

/* When the last flush that had ended by CUT began; of the log or of the guest. */
static unsigned synced_by(unsigned cut) {
    unsigned best = 0;

    for (unsigned n = 0; n < count; n++)
        if (entries[n].kind == SYNC && entries[n].end && entries[n].end <= cut &&
            entries[n].begin > best)
            best = entries[n].begin;
    return best;
}

static unsigned promised_by(unsigned cut) {
    unsigned best = 0;

    for (unsigned n = 0; n < deed_count; n++)
        if (deeds[n].what == GUEST_FLUSH && deeds[n].end <= cut && deeds[n].begin > best)
            best = deeds[n].begin;
    return best;
}

static void apply(uint8_t *image, uint64_t *size, const struct entry *e, bool all,
                  unsigned keep) {
    uint64_t end = e->offset + e->len;

    assert_true(end <= room);
    for (uint64_t at = e->offset; at < end;) {
        uint64_t to = (at / SECTOR + 1) * SECTOR;

        to = to < end ? to : end;
        if (all || pick(100) < keep) {
            if (e->kind == ZERO)
                memset(image + at, 0, to - at);
            else
                memcpy(image + at, e->data + (at - e->offset), to - at);
            if (e->kind == WRITE && to > *size)
                *size = to;
        }
        at = to;
    }
}

static void cut_at(unsigned cut, const char *path) {
    static const unsigned keeps[] = {0, 10, 50, 90, 100};
    unsigned synced = synced_by(cut), keep = keeps[pick(5)];
    uint8_t *image = calloc(1, room);
    uint64_t size = before_size;
    FILE *f;

    memcpy(image, before, before_size);
    for (unsigned n = 0; n < count; n++) {
        const struct entry *e = &entries[n];
        bool whole_or_not = one_in(2); /* as calls or as sectors */

        if (e->kind == SYNC || e->failed || e->begin >= cut)
            continue;
        if (e->end && e->end <= synced)
            apply(image, &size, e, true, 100);
        else if (!whole_or_not)
            apply(image, &size, e, false, keep);
        else if (pick(100) < keep)
            apply(image, &size, e, true, 100);
    }
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(image, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    free(image);
}

/* Is W what deed N leaves in SECTOR? */
static bool left_by(unsigned n, uint64_t sector, uint64_t w) {
    return w == (deeds[n].what == GUEST_WRITE ? word(n, sector) : 0);
}

static bool touches(const struct deed *d, uint64_t sector) {
    return sector >= d->first && sector - d->first < d->sectors;
}

/* May SECTOR be W after CUT? What was promised last, or what came later; a discard leaves
 * anything that was there. */
static bool allowed(uint64_t sector, uint64_t w, unsigned cut, bool backed) {
    unsigned promised = promised_by(cut);

    for (unsigned n = deed_count; n--;) {
        const struct deed *d = &deeds[n];

        if (!touches(d, sector) || d->begin >= cut)
            continue;
        if (left_by(n, sector, w))
            return true;
        if (d->end <= promised && d->what != GUEST_DISCARD)
            return false;
    }
    return w == (backed ? word(BASE, sector) : 0);
}

static void check_content(const char *path, enum block_format format, unsigned cut,
                          uint64_t sectors, bool backed) {
    const struct block_spec spec = {.path = path, .format = format, .readonly = true};
    uint8_t *bytes = malloc(sectors * SECTOR);
    struct block *b = disk_must(&rig, &spec);

    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, bytes, sectors * SECTOR), 0);
    for (uint64_t s = 0; s < sectors; s++) {
        uint64_t w;

        memcpy(&w, bytes + s * SECTOR, 8);
        for (unsigned at = 8; at < SECTOR; at += 8)
            if (memcmp(&w, bytes + s * SECTOR + at, 8))
                fail_msg("sector %llu is torn", (unsigned long long)s);
        if (!allowed(s, w, cut, backed))
            fail_msg("sector %llu: 0x%llx was not promised, nor written later (cut %u)",
                     (unsigned long long)s, (unsigned long long)w, cut);
    }
    block_close(b);
    free(bytes);
}

static void check_cut(const char *path, enum block_format format, unsigned cut,
                      uint64_t sectors, bool backed) {
    const char *said;
    int rc;

    cut_at(cut, path);
    if (format == BLOCK_QCOW2) {
        rc = qemu_img(&said, "check -f qcow2 %s", path);
        if (rc && rc != 3) /* 3: leaks */
            fail_msg("cut %u: %s", cut, said);
    }
    check_content(path, format, cut, sectors, backed);
}

/* --- lives --- */

static void remember_image(const char *path) {
    struct stat st;
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    before_size = (uint64_t)st.st_size;
    room = before_size + (64u << 20);
    before = malloc(before_size);
    assert_int_equal(fread(before, 1, before_size, f), before_size);
    fclose(f);
}

/* At any time, or when a flush is about to end: most is undecided then. */
static unsigned when(void) {
    const struct entry *e = &entries[pick(count)];

    return e->kind == SYNC ? e->end - 1 : 1 + (unsigned)(rnd() % now);
}

static void life_of(const char *path, enum block_format format, uint64_t size,
                    bool backed, uint64_t seed, unsigned at_once) {
    const struct block_spec spec = {.path = path, .format = format};
    uint64_t sectors = size / SECTOR;
    struct block *b;

    rnd_seed(seed);
    log_clear();
    remember_image(path);
    b = disk_must(&rig, &spec);
    logging = true;
    for (deed_count = 0; deed_count < STEPS;)
        deed_count += perform(b, deed_count, sectors, at_once);
    assert_int_equal(block_close(b), 0);
    logging = false;
    for (unsigned n = 0; n < CUTS; n++)
        check_cut("cut", format, when(), sectors, backed);
    /* What is smaller than a sector switches something. */
    for (unsigned n = 0; n < count; n++)
        for (unsigned k = 0; entries[n].len < SECTOR && entries[n].len && k < 8; k++)
            check_cut("cut", format, entries[n].end, sectors, backed);
    /* Closing is a promise too. */
    check_cut("cut", format, now, sectors, backed);
    free(before);
}

static void life(const char *path, enum block_format format, uint64_t size, bool backed,
                 uint64_t seed) {
    life_of(path, format, size, backed, seed, 1);
}

static void test_raw(void **state) {
    assert_int_equal(system("truncate -s 1M a"), 0);
    life("a", BLOCK_RAW, 1 << 20, false, 1);
}

static void plain(const char *options, uint64_t size, uint64_t seed) {
    qemu_img_good("create -q -f qcow2 -o %s a %llu", options, (unsigned long long)size);
    life("a", BLOCK_QCOW2, size, false, seed);
}

static void test_qcow2(void **state) {
    plain("cluster_size=65536", 2 << 20, 1);
    plain("cluster_size=4096", 2 << 20, 2);
    plain("cluster_size=4096,preallocation=metadata", 2 << 20, 3);
    plain("compat=0.10,cluster_size=4096", 2 << 20, 4);
}

/* A flush that a signal interrupts has made nothing durable yet. */
static void test_interrupted(void **state) {
    const struct block_spec spec = {.path = "a"};
    struct block *b;

    assert_int_equal(system("truncate -s 1M a"), 0);
    b = disk_must(&rig, &spec);
    log_clear();
    logging = true;
    interruptions = 2;
    assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(interruptions, 0);
    assert_int_equal(count, 1);
    assert_int_equal(entries[0].kind, SYNC);
    logging = false;
    block_close(b);
}

/* The refcount table moves. */
static void test_growing(void **state) {
    for (uint64_t seed = 1; seed < 4; seed++)
        plain("cluster_size=512,refcount_bits=64", 6 << 20, seed);
}

static void make_base(const char *path) {
    uint8_t *bytes = malloc(2 << 20);
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fill(bytes, BASE, 0, (2 << 20) / SECTOR);
    assert_int_equal(fwrite(bytes, 1, 2 << 20, f), 2 << 20);
    fclose(f);
    free(bytes);
}

static void test_backed(void **state) {
    make_base("base");
    qemu_img_good("create -q -f qcow2 -b base -F raw -o cluster_size=4096 a 2M");
    life("a", BLOCK_QCOW2, 2 << 20, true, 5);
    qemu_img_good("create -q -f qcow2 -b base -F raw a 2M");
    life("a", BLOCK_QCOW2, 2 << 20, true, 6);
}

static void test_compressed(void **state) {
    make_base("base");
    qemu_img_good("convert -c -f raw -O qcow2 -o cluster_size=4096 base a");
    life("a", BLOCK_QCOW2, 2 << 20, true, 7);
}

/* Shared clusters and tables are copied, and lose a reference. */
static void test_snapshot(void **state) {
    make_base("base");
    qemu_img_good("convert -f raw -O qcow2 -o cluster_size=4096 base a");
    qemu_img_good("snapshot -c one a");
    life("a", BLOCK_QCOW2, 2 << 20, true, 8);
    qemu_img_good("snapshot -c two a");
}

/* Flushes beside writes that allocate. */
static void test_parallel(void **state) {
    static const char *const options[] = {
        "cluster_size=4096", "cluster_size=512,refcount_bits=64", "cluster_size=65536"};

    for (size_t n = 0; n < ARRAY_SIZE(options); n++) {
        qemu_img_good("create -q -f qcow2 -o %s a 4M", options[n]);
        life_of("a", BLOCK_QCOW2, 4 << 20, false, n, 4);
    }
    assert_int_equal(system("rm a; truncate -s 2M a"), 0);
    life_of("a", BLOCK_RAW, 2 << 20, false, 9, 4);
}

/* --- */

static int setup(void **state) {
    disk_rig_open(&rig);
    return 0;
}

static int teardown(void **state) {
    logging = false;
    disk_rig_close(&rig);
    return scratch_clear(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_raw),      TEST(test_qcow2),       TEST(test_growing),
        TEST(test_backed),   TEST(test_compressed),  TEST(test_snapshot),
        TEST(test_parallel), TEST(test_interrupted),
    };

    return cmocka_run_group_tests(tests, qemu_img_enter, scratch_leave);
}
