/*
 * Disks: raw files and the way of a request. Images of the test's own stand for a disk
 * that is slow or broken.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/block_int.h"
#include "lib/disk.h"
#include "lib/rnd.h"
#include "lib/unit.h"

#include "base/os.h"

#define SIZE (1u << 20)

static struct disk_rig rig;
static char dir[] = "/tmp/bivisor-block-XXXXXX";
static char path[256];
static char why[512];

static int group_setup(void **state) {
    return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state) {
    return rmdir(dir);
}

static int setup(void **state) {
    int fd;

    why[0] = 0;
    snprintf(path, sizeof(path), "%s/image", dir);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, SIZE) < 0)
        return -1;
    close(fd);
    disk_rig_open(&rig);
    return 0;
}

static int teardown(void **state) {
    disk_rig_close(&rig);
    return unlink(path);
}

static struct block *open_raw(bool readonly) {
    const struct block_spec spec = {.path = path, .readonly = readonly};

    return disk_must(&rig, &spec);
}

/* --- raw files --- */

static void test_read_write(void **state) {
    struct block *b = open_raw(false);
    uint8_t in[8192], out[8192] = {0}, file[8192];
    int fd = open(path, O_RDONLY);

    assert_int_equal(block_size(b), SIZE);
    assert_false(block_readonly(b));
    rnd_fill(in, sizeof(in), 1);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 512, in, sizeof(in)), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 512, out, sizeof(out)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(pread(fd, file, sizeof(file), 512), sizeof(file));
    assert_memory_equal(in, file, sizeof(in));
    close(fd);
    assert_int_equal(block_close(b), 0);
}

static void test_pieces(void **state) {
    struct block *b = open_raw(false);
    uint8_t in[4096], out[4096] = {0};
    struct block_iov iov[3] = {{in, 100}, {in + 100, 0}, {in + 100, 3996}};
    struct disk_request q = {.rig = &rig, .rc = 1};

    rnd_fill(in, sizeof(in), 2);
    disk_begin(&rig, b, &q, BLOCK_WRITE, 4096, in, sizeof(in));
    disk_wait(&rig, 1);
    assert_int_equal(q.rc, 0);
    memset(in, 0, sizeof(in));
    q.r.op = BLOCK_READ;
    q.r.iov = iov;
    q.r.iov_count = 3;
    block_submit(b, &q.r);
    disk_wait(&rig, 1);
    assert_int_equal(q.rc, 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 4096, out, sizeof(out)), 0);
    assert_memory_equal(in, out, sizeof(in));
    block_close(b);
}

/* A file that ends within a sector: the rest reads as zero and can be written. */
static void test_odd_size(void **state) {
    uint8_t buf[1024];
    struct block *b;
    struct stat st;

    assert_int_equal(truncate(path, SIZE - 412), 0);
    b = open_raw(false);
    assert_int_equal(block_size(b), SIZE);
    memset(buf, 0xaa, sizeof(buf));
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, SIZE - 1024, buf, 1024), 0);
    for (size_t n = 0; n < sizeof(buf); n++)
        assert_int_equal(buf[n], 0);
    memset(buf, 0x55, sizeof(buf));
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, SIZE - 1024, buf, 1024), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    block_close(b);
}

/* What the page cache has is read at once, where the file system can say what it has. */
static void test_at_once(void **state) {
    struct block *b = open_raw(false);
    struct disk_request q = {0};
    static uint8_t buf[2 * BLOCK_AT_ONCE], got[2 * BLOCK_AT_ONCE];
    struct iovec iov = {got, 512};
    int fd = open(path, O_RDWR);
    bool can = preadv2(fd, &iov, 1, 0, RWF_NOWAIT) == 512 ||
               (pread(fd, got, 512, 0) == 512 && /* now it is there */
                preadv2(fd, &iov, 1, 0, RWF_NOWAIT) == 512);
    bool written;

    rnd_fill(buf, sizeof(buf), 3);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 4096, buf, sizeof(buf)), 0);
    q.one = (struct block_iov){got, BLOCK_AT_ONCE};
    q.r = (struct block_request){.op = BLOCK_READ,
                                 .offset = 4096,
                                 .length = BLOCK_AT_ONCE,
                                 .iov = &q.one,
                                 .iov_count = 1};
    assert_int_equal(block_at_once(b, &q.r), can);
    assert_int_equal(block_in_flight(b), 0);
    if (can)
        assert_memory_equal(got, buf, BLOCK_AT_ONCE);
    /* Not beyond the end, not too much, not what can only be waited for. */
    q.r.offset = SIZE;
    assert_false(block_at_once(b, &q.r));
    q.r.offset = 4096;
    q.r.length = q.one.len = sizeof(got);
    assert_false(block_at_once(b, &q.r));
    q.r.op = BLOCK_FLUSH;
    assert_false(block_at_once(b, &q.r));
    /* A write: where it is done, all of it. */
    q.r.op = BLOCK_WRITE;
    q.r.length = q.one.len = 8192;
    rnd_fill(got, 8192, 4);
    written = block_at_once(b, &q.r);
    assert_int_equal(pread(fd, buf, 8192, 4096), 8192);
    if (written)
        assert_memory_equal(got, buf, 8192);
    close(fd);
    block_close(b);
}

static void test_at_once_readonly(void **state) {
    struct block *b = open_raw(true);
    uint8_t buf[512] = {0};
    struct block_iov one = {buf, sizeof(buf)};
    struct block_request r = {
        .op = BLOCK_WRITE, .length = 512, .iov = &one, .iov_count = 1};

    assert_false(block_at_once(b, &r));
    block_close(b);
}

/* One that was cut while we use it: an error where it is no more, until it is written. */
static void test_truncated_meanwhile(void **state) {
    struct block *b = open_raw(false);
    uint8_t buf[4096];

    memset(buf, 0xaa, sizeof(buf));
    assert_int_equal(truncate(path, 4096 + 100), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf)), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 4096, buf, sizeof(buf)), -EIO);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 65536, buf, sizeof(buf)), -EIO);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 65536, buf, sizeof(buf)), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 65536, buf, sizeof(buf)), 0);
    block_close(b);
}

static void test_zeroes_and_discard(void **state) {
    struct block *b = open_raw(false);
    uint8_t *in = malloc(SIZE), *out = malloc(SIZE);
    struct disk_request q;

    rnd_fill(in, SIZE, 3);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, in, SIZE), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_ZEROES, 512, NULL, 66048), 0);
    memset(in + 512, 0, 66048);
    disk_begin(&rig, b, &q, BLOCK_FLUSH, 0, NULL, 0);
    disk_wait(&rig, 1);
    q.r = (struct block_request){.op = BLOCK_ZEROES,
                                 .unmap = true,
                                 .offset = 131072,
                                 .length = 131072,
                                 .done = q.r.done};
    block_submit(b, &q.r);
    disk_wait(&rig, 1);
    assert_int_equal(q.rc, 0);
    memset(in + 131072, 0, 131072);
    assert_int_equal(disk_do(&rig, b, BLOCK_DISCARD, 524288, NULL, 65536), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, out, SIZE), 0);
    assert_memory_equal(in, out, 524288);
    assert_memory_equal(in + 589824, out + 589824, SIZE - 589824);
    assert_int_equal(block_size(b), SIZE);
    free(in);
    free(out);
    block_close(b);
}

static void test_bad_requests(void **state) {
    struct block *b = open_raw(false);
    uint8_t buf[1024] = {0};
    struct disk_request q;

    assert_int_equal(disk_do(&rig, b, BLOCK_READ, SIZE, buf, 512), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, SIZE - 512, buf, 1024), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, UINT64_MAX - 511, buf, 512), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 100, buf, 512), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, 100), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_DISCARD, SIZE - 512, NULL, 1024), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_ZEROES, 512, NULL, ~(size_t)511), -EINVAL);
    assert_int_equal(disk_do(&rig, b, (enum block_op)77, 0, buf, 512), -EINVAL);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, SIZE, buf, 0), 0);
    disk_begin(&rig, b, &q, BLOCK_READ, 0, buf, 512);
    disk_wait(&rig, 1);
    q.r.length = 1024; /* not what the pieces are */
    block_submit(b, &q.r);
    disk_wait(&rig, 1);
    assert_int_equal(q.rc, -EINVAL);
    block_close(b);
}

static void test_readonly(void **state) {
    uint8_t buf[512] = {0};
    struct block *b = open_raw(true);

    assert_true(block_readonly(b));
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, buf, 512), -EROFS);
    assert_int_equal(disk_do(&rig, b, BLOCK_ZEROES, 0, NULL, 512), -EROFS);
    assert_int_equal(disk_do(&rig, b, BLOCK_DISCARD, 0, NULL, 512), -EROFS);
    assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, 512), 0);
    block_close(b);
}

/* The host's limit stands for a full disk. */
static void test_no_room(void **state) {
    uint8_t buf[4096] = {0};
    struct rlimit old, low;
    struct block *b;

    os_ignore_file_limit();
    b = open_raw(false);
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){8192, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 4096, buf, 4096), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 8192, buf, 4096), -EFBIG);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 4096, buf, 4096), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    block_close(b);
}

/* --- opening --- */

static void refused(const struct block_spec *spec, int rc, const char *sentence) {
    struct block *b = NULL;

    assert_int_equal(block_open(spec, &b, why, sizeof(why)), rc);
    assert_null(b);
    if (!strstr(why, sentence))
        fail_msg("'%s' says not '%s'", why, sentence);
}

static void test_cannot_open(void **state) {
    struct block_spec spec = {.path = "/nonexistent/image"};
    char fifo[300];

    refused(&spec, -ENOENT, "cannot open the image '/nonexistent/image': No such file");
    spec.path = dir;
    spec.readonly = true;
    refused(&spec, -ENOTBLK, "is neither a file nor a block device");
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    spec.path = fifo;
    refused(&spec, -ENOTBLK, "is neither a file nor a block device");
    unlink(fifo);
}

static void test_in_use(void **state) {
    struct block_spec spec = {.path = path};
    struct block *a = open_raw(false), *b;

    refused(&spec, -EBUSY, "is in use by another program");
    spec.readonly = true;
    refused(&spec, -EBUSY, "is in use by another program");
    block_close(a);
    a = open_raw(true);
    b = open_raw(true); /* readers do not mind each other */
    spec.readonly = false;
    refused(&spec, -EBUSY, "is in use by another program");
    block_close(a);
    block_close(b);
    a = open_raw(false);
    block_close(a);
}

/* --- the way of a request: a disk that waits for a gate --- */

struct slow {
    struct image image;
    sem_t gate, begun;
    int rc;
};

static int slow_read(struct image *i, uint64_t offset, const struct iovec *iov,
                     unsigned count) {
    struct slow *s = container_of(i, struct slow, image);

    sem_wait(&s->gate);
    return s->rc;
}

static int slow_write(struct image *i, uint64_t offset, const struct iovec *iov,
                      unsigned count) {
    struct slow *s = container_of(i, struct slow, image);

    sem_post(&s->begun);
    sem_wait(&s->gate);
    return s->rc;
}

static const struct image_ops slow_ops = {.read = slow_read, .write = slow_write};

struct slow_disk {
    struct slow slow;
    struct block block;
};

static void slow_open(struct slow_disk *d) {
    memset(d, 0, sizeof(*d));
    sem_init(&d->slow.gate, 0, 0);
    sem_init(&d->slow.begun, 0, 0);
    image_init(&d->slow.image, &slow_ops, "slow");
    d->slow.image.size = SIZE;
    d->block.image = &d->slow.image;
    block_attach(&d->block, rig.pool);
}

static void slow_close(struct slow_disk *d) {
    block_attach(&d->block, NULL);
    image_done(&d->slow.image);
    sem_destroy(&d->slow.gate);
    sem_destroy(&d->slow.begun);
}

#define MANY 64

/* A slow disk's requests hold up all workers but one; the other disk goes on. */
static void test_parallel(void **state) {
    struct block *b = open_raw(false);
    struct slow_disk d;
    struct disk_request q[BLOCK_WORKERS - 1];
    static struct disk_request many[MANY];
    uint8_t buf[512];

    slow_open(&d);
    for (unsigned n = 0; n < BLOCK_WORKERS - 1; n++)
        disk_begin(&rig, &d.block, &q[n], BLOCK_READ, 0, buf, 512);
    for (unsigned n = 0; n < MANY; n++)
        disk_begin(&rig, b, &many[n], BLOCK_READ, n * 512, buf, 512);
    disk_wait(&rig, MANY);
    for (unsigned n = 0; n < MANY; n++)
        assert_int_equal(many[n].rc, 0);
    assert_int_equal(block_in_flight(&d.block), BLOCK_WORKERS - 1);
    assert_int_equal(block_in_flight(b), 0);
    for (unsigned n = 0; n < BLOCK_WORKERS - 1; n++)
        sem_post(&d.slow.gate);
    disk_wait(&rig, BLOCK_WORKERS - 1);
    slow_close(&d);
    block_close(b);
}

static void begun(struct slow_disk *d, unsigned count) {
    while (count--)
        sem_wait(&d->slow.begun);
}

static void open_gate(struct slow_disk *d, unsigned count) {
    while (count--)
        sem_post(&d->slow.gate);
}

/* Writes that are thought to be quick wait for the worker that is at one, if it takes
 * long after all: not others, and not many of them. */
static void test_quick(void **state) {
    struct block *b = open_raw(false);
    struct slow_disk d;
    static struct disk_request q[MANY];
    uint8_t buf[512] = {0};
    unsigned n = 0;

    slow_open(&d);
    d.slow.image.quick = true;
    disk_begin(&rig, &d.block, &q[n++], BLOCK_WRITE, 0, buf, 512);
    begun(&d, 1);
    disk_begin(&rig, &d.block, &q[n++], BLOCK_WRITE, 0, buf, 512);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, 512), 0);
    while (n < 20)
        disk_begin(&rig, &d.block, &q[n++], BLOCK_WRITE, 0, buf, 512);
    begun(&d, 1);
    open_gate(&d, 20);
    disk_wait(&rig, 20);
    for (unsigned k = 0; k < 20; k++)
        assert_int_equal(q[k].calls, 1);
    slow_close(&d);
    block_close(b);
}

/* After one that took long they are not thought to be: each has a worker. */
static void test_not_quick(void **state) {
    const struct timespec long_time = {.tv_nsec = 2000000};
    struct slow_disk d;
    struct disk_request q[BLOCK_WORKERS];
    uint8_t buf[512] = {0};

    slow_open(&d);
    d.slow.image.quick = true;
    disk_begin(&rig, &d.block, &q[0], BLOCK_WRITE, 0, buf, 512);
    begun(&d, 1);
    nanosleep(&long_time, NULL);
    open_gate(&d, 1);
    disk_wait(&rig, 1);
    for (unsigned n = 0; n < BLOCK_WORKERS; n++)
        disk_begin(&rig, &d.block, &q[n], BLOCK_WRITE, 0, buf, 512);
    begun(&d, BLOCK_WORKERS);
    open_gate(&d, BLOCK_WORKERS);
    disk_wait(&rig, BLOCK_WORKERS);
    slow_close(&d);
}

static void test_cancel(void **state) {
    struct slow_disk d;
    static struct disk_request q[MANY];
    unsigned cancelled = 0, good = 0;
    uint8_t buf[512];

    slow_open(&d);
    for (unsigned n = 0; n < MANY; n++)
        disk_begin(&rig, &d.block, &q[n], BLOCK_READ, 0, buf, 512);
    block_cancel(&d.block);
    for (unsigned n = 0; n < BLOCK_WORKERS; n++)
        sem_post(&d.slow.gate);
    disk_wait(&rig, MANY);
    for (unsigned n = 0; n < MANY; n++) {
        assert_int_equal(q[n].calls, 1);
        cancelled += q[n].rc == -ECANCELED;
        good += q[n].rc == 0;
    }
    assert_int_equal(cancelled + good, MANY);
    assert_true(cancelled >= MANY - BLOCK_WORKERS);
    assert_int_equal(block_in_flight(&d.block), 0);
    slow_close(&d);
}

static void open_gates(void *arg) {
    struct slow_disk *d = arg;

    for (unsigned n = 0; n < MANY; n++)
        sem_post(&d->slow.gate);
}

/* Waits for what has begun, drops the rest, and nobody is called. */
static void test_drain(void **state) {
    struct block *b = open_raw(false);
    struct slow_disk d;
    static struct disk_request q[MANY];
    struct os_thread *t;
    uint8_t buf[512];

    slow_open(&d);
    for (unsigned n = 0; n < MANY; n++)
        disk_begin(&rig, &d.block, &q[n], BLOCK_READ, 0, buf, 512);
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, open_gates, &d, &t), 0);
    block_drain(&d.block);
    os_thread_join(t);
    assert_int_equal(block_in_flight(&d.block), 0);
    /* Another's requests are behind; what was drained would come first. */
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, 512), 0);
    for (unsigned n = 0; n < MANY; n++)
        assert_int_equal(q[n].calls, 0);
    slow_close(&d);
    block_close(b);
}

/* A callback may submit, for ever: the loop goes on to others. */
static struct block *endless_disk;
static unsigned rounds;

static void again(struct block_request *r, int rc) {
    if (++rounds < 5000)
        block_submit(endless_disk, r);
    else
        os_loop_stop(rig.loop);
}

static void test_submit_when_done(void **state) {
    struct block_request r = {.op = BLOCK_FLUSH, .done = again};

    endless_disk = open_raw(true);
    rounds = 0;
    block_submit(endless_disk, &r);
    os_loop_run(rig.loop);
    assert_int_equal(rounds, 5000);
    block_close(endless_disk);
}

static unsigned entered, left;

static void count_enter(void *arg) {
    entered++;
}

static void count_leave(void *arg) {
    left++;
    os_loop_stop(arg);
}

static void inside(struct block_request *r, int rc) {
    assert_int_equal(entered, left + 1);
    r->rc = 99;
}

static void test_enter_leave(void **state) {
    struct os_loop *loop;
    struct block_pool *pool;
    struct block *b = open_raw(true);
    struct block_request r = {.op = BLOCK_FLUSH, .done = inside};

    assert_int_equal(os_loop_new(&loop), 0);
    const struct block_host host = {
        .loop = loop, .enter = count_enter, .leave = count_leave, .arg = loop};

    entered = left = 0;
    assert_int_equal(block_pool_new(&host, &pool), 0);
    block_attach(b, pool);
    block_submit(b, &r);
    os_loop_run(loop);
    assert_int_equal(r.rc, 99);
    assert_int_equal(entered, left);
    block_pool_free(pool);
    os_loop_free(loop);
    block_close(b);
}

/* --- limits --- */

#define HOUR 3600000000000u

/* One goes now, and the next in an hour. */
static const struct rate_limit one_an_hour = {1, HOUR, 1, 0}, unlimited;

/* What waits keeps no other disk waiting, and goes when the limit goes. */
static void test_limit(void **state) {
    struct block *b = open_raw(true), *other = open_raw(true);
    struct disk_request q[4];
    uint8_t buf[512] = {0};

    block_limit(b, BLOCK_OPERATIONS, &one_an_hour);
    for (unsigned n = 0; n < 4; n++)
        disk_begin(&rig, b, &q[n], BLOCK_READ, n * 512, buf, 512);
    disk_wait(&rig, 1);
    assert_int_equal(q[0].rc, 0);
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(disk_do(&rig, other, BLOCK_READ, 0, buf, 512), 0);
    assert_int_equal(block_in_flight(b), 3);
    assert_false(block_at_once(b, &q[1].r));
    block_limit(b, BLOCK_OPERATIONS, &unlimited);
    disk_wait(&rig, 3);
    for (unsigned n = 0; n < 4; n++)
        assert_true(q[n].rc == 0 && q[n].calls == 1);
    block_close(other);
    block_close(b);
}

/* Bytes are a reader's and a writer's; those who hurry go, and pay. */
static void test_limit_bytes(void **state) {
    static const struct rate_limit bytes = {512, HOUR, 1, 1024};
    struct block *b = open_raw(false);
    struct disk_request q[5];
    uint8_t buf[512] = {0};

    block_limit(b, BLOCK_BYTES, &bytes);
    for (unsigned n = 0; n < 3; n++) /* two once, and the bucket is empty */
        assert_int_equal(disk_do(&rig, b, n ? BLOCK_READ : BLOCK_WRITE, 0, buf, 512), 0);
    disk_begin(&rig, b, &q[0], BLOCK_FLUSH, 0, NULL, 0);
    disk_begin(&rig, b, &q[1], BLOCK_READ, 0, buf, 512);
    assert_int_equal(block_in_flight(b), 2);
    block_hurry(b);
    disk_wait(&rig, 2);
    assert_true(q[0].rc == 0 && q[1].rc == 0);
    disk_begin(&rig, b, &q[2], BLOCK_FLUSH, 0, NULL, 0);
    assert_int_equal(block_in_flight(b), 1);
    block_limit(b, BLOCK_BYTES, &unlimited);
    disk_wait(&rig, 1);
    assert_int_equal(q[2].rc, 0);
    block_close(b);
}

/* Resets, and the end. */
static void test_limit_dropped(void **state) {
    struct block *b = open_raw(true);
    struct disk_request q[4];
    uint8_t buf[512];

    block_limit(b, BLOCK_OPERATIONS, &one_an_hour);
    for (unsigned n = 0; n < 2; n++)
        disk_begin(&rig, b, &q[n], BLOCK_READ, 0, buf, 512);
    disk_wait(&rig, 1);
    block_cancel(b);
    disk_wait(&rig, 1);
    assert_int_equal(q[1].rc, -ECANCELED);
    disk_begin(&rig, b, &q[2], BLOCK_READ, 0, buf, 512);
    block_drain(b);
    assert_int_equal(block_in_flight(b), 0);
    disk_begin(&rig, b, &q[3], BLOCK_READ, 0, buf, 512);
    block_pool_free(rig.pool);
    rig.pool = NULL;
    assert_true(q[2].calls == 0 && q[3].calls == 0);
    block_close(b);
}

/* What waits goes by itself. */
static void test_limit_passes(void **state) {
    static const struct rate_limit often = {1, 1000000, 1, 0};
    struct block *b = open_raw(true);
    struct disk_request q[20];
    uint64_t start = os_monotonic_ns();
    uint8_t buf[512];

    block_limit(b, BLOCK_OPERATIONS, &often);
    for (unsigned n = 0; n < 20; n++)
        disk_begin(&rig, b, &q[n], BLOCK_READ, 0, buf, 512);
    disk_wait(&rig, 20);
    assert_true(os_monotonic_ns() - start >= 19000000);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(q[n].rc, 0);
    block_close(b);
}

/* --- counted runs --- */

static uint64_t virtual_now;

static uint64_t due(void *arg) {
    return virtual_now + 1000;
}

static unsigned counted_calls;

static void counted_done(struct block_request *r, int rc) {
    assert_int_equal(rc, 0);
    counted_calls++;
}

static void test_counted(void **state) {
    const struct block_host host = {.due = due};
    struct block_pool *pool;
    struct block *b = open_raw(false);
    uint8_t buf[512];
    struct block_iov iov = {buf, sizeof(buf)};
    struct block_request r[3];

    assert_int_equal(block_pool_new(&host, &pool), 0);
    block_attach(b, pool);
    assert_true(block_pool_next(pool) == UINT64_MAX);
    counted_calls = 0;
    for (unsigned n = 0; n < 3; n++) {
        r[n] = (struct block_request){.op = BLOCK_READ,
                                      .length = 512,
                                      .iov = &iov,
                                      .iov_count = 1,
                                      .done = counted_done};
        virtual_now = n * 100;
        buf[0] = 0xee;
        block_submit(b, &r[n]);
        assert_int_equal(buf[0], 0); /* there and then */
    }
    assert_int_equal(counted_calls, 0);
    assert_int_equal(block_pool_next(pool), 1000);
    block_pool_deliver(pool, 999);
    assert_int_equal(counted_calls, 0);
    block_pool_deliver(pool, 1100);
    assert_int_equal(counted_calls, 2);
    assert_int_equal(block_pool_next(pool), 1200);
    block_drain(b);
    assert_true(block_pool_next(pool) == UINT64_MAX);
    block_pool_deliver(pool, 5000);
    assert_int_equal(counted_calls, 2);
    block_pool_free(pool);
    block_close(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_read_write),
        TEST(test_pieces),
        TEST(test_odd_size),
        TEST(test_at_once),
        TEST(test_at_once_readonly),
        TEST(test_truncated_meanwhile),
        TEST(test_zeroes_and_discard),
        TEST(test_bad_requests),
        TEST(test_readonly),
        TEST(test_no_room),
        TEST(test_cannot_open),
        TEST(test_in_use),
        TEST(test_limit),
        TEST(test_limit_bytes),
        TEST(test_limit_dropped),
        TEST(test_limit_passes),
        TEST(test_parallel),
        TEST(test_quick),
        TEST(test_not_quick),
        TEST(test_cancel),
        TEST(test_drain),
        TEST(test_submit_when_done),
        TEST(test_enter_leave),
        TEST(test_counted),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
