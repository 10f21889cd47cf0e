/*
 * The virtio disk by itself, over an image in a file and workers of its own. VIRTIO 1.2,
 * "Block Device".
 */
#include "dev/virtio/blk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/os_loop.h"
#include "block/block_int.h"
#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

#define SIZE (1u << 20)
#define SECTORS (SIZE / 512)
#define HEADER VDRV_DATA
#define BUFFER (VDRV_DATA + 0x10000)
#define STATUS (VDRV_DATA + 0x8000)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK, S_IOERR, S_UNSUPP };
#define F_RO (1ull << 5)
#define F_FLUSH (1ull << 9)
#define F_CONFIG_WCE (1ull << 11)
#define F_MQ (1ull << 12)
#define F_DISCARD (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)
#define ALL (VIRTIO_F_ALWAYS | F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES)

static char path[] = "/tmp/bivisor-vblk-XXXXXX";
static int file;
static struct os_loop *loop;
static struct block_pool *pool;
static struct block *block;
static struct virtio_blk *blk;
static struct vdrv v;
static struct rig r;

static void leave(void *arg) {
    if (!block_in_flight(block))
        os_loop_stop(loop);
}

/* The image counts flushes, fails if it is to, and has nothing in memory unless it is to.
 */
static const struct image_ops *real;
static struct image_ops spoilt;
static bool failing, in_memory;
static unsigned flushes, at_once;

static int spoilt_read(struct image *i, uint64_t offset, const struct iovec *iov,
                       unsigned count) {
    return failing ? -EIO : real->read(i, offset, iov, count);
}

static int spoilt_read_now(struct image *i, uint64_t offset, const struct iovec *iov,
                           unsigned count) {
    if (!in_memory || failing)
        return -EAGAIN;
    at_once++;
    return real->read(i, offset, iov, count);
}

static int spoilt_write_now(struct image *i, uint64_t offset, const struct iovec *iov,
                            unsigned count) {
    if (!in_memory || failing)
        return -EAGAIN;
    at_once++;
    return real->write(i, offset, iov, count);
}

static int spoilt_flush(struct image *i) {
    flushes++;
    return failing ? -EIO : real->flush(i);
}

static void open_spec(const struct block_spec *spec) {
    const struct block_host host = {.loop = loop, .leave = leave};
    char why[512];

    assert_int_equal(block_pool_new(&host, &pool), 0);
    assert_int_equal(block_open(spec, &block, why, sizeof(why)), 0);
    real = block->image->ops;
    spoilt = *real;
    spoilt.read = spoilt_read;
    spoilt.read_now = spoilt_read_now;
    spoilt.write_now = spoilt_write_now;
    spoilt.flush = spoilt_flush;
    block->image->ops = &spoilt;
    failing = in_memory = false;
    flushes = at_once = 0;
    block_attach(block, pool);
    blk = virtio_blk_new(v.mem, r.clock, block, 2, NULL);
    assert_non_null(blk);
    v.d = virtio_blk_device(blk);
}

static void open_disk(bool readonly) {
    open_spec(&(struct block_spec){.path = path, .readonly = readonly});
}

static void close_disk(void) {
    block_drain(block);
    block_pool_free(pool);
    virtio_blk_free(blk);
    block_close(block);
}

static int setup(void **state) {
    strcpy(path + strlen(path) - 6, "XXXXXX");
    file = mkstemp(path);
    vdrv_new(&v);
    rig_new(&r);
    assert_int_equal(os_loop_new(&loop), 0);
    assert_int_equal(ftruncate(file, SIZE), 0);
    open_disk(false);
    return 0;
}

static int teardown(void **state) {
    close_disk();
    os_loop_free(loop);
    rig_free(&r);
    vdrv_free(&v);
    close(file);
    return unlink(path);
}

/* --- requests --- */

static void header(uint64_t at, uint32_t type, uint64_t sector) {
    vdrv_put(&v, at, 4, type);
    vdrv_put(&v, at + 4, 4, 0);
    vdrv_put(&v, at + 8, 8, sector);
}

/* A request of DATA bytes at BUFFER; nothing waits for it. */
static void send(unsigned q, uint32_t type, uint64_t sector, uint32_t data, bool in) {
    struct vdrv_piece p[3] = {
        {HEADER, 16, 0}, {BUFFER, data, in ? VDRV_WRITE : 0}, {STATUS, 1, VDRV_WRITE}};

    header(HEADER, type, sector);
    vdrv_put(&v, STATUS, 1, 0xee);
    if (!data)
        p[1] = p[2];
    vdrv_send(&v, q, p, data ? 3 : 2);
}

static void wait_done(void) {
    if (block_in_flight(block))
        os_loop_run(loop);
}

/* Sends and waits: its status. */
static unsigned ask(uint32_t type, uint64_t sector, uint32_t data, bool in,
                    uint32_t *len) {
    send(0, type, sector, data, in);
    wait_done();
    assert_int_not_equal(vdrv_take(&v, 0, len), -1);
    return (unsigned)vdrv_get(&v, STATUS, 1);
}

static void fill(uint64_t at, uint32_t len, unsigned seed) {
    for (uint32_t n = 0; n < len; n += 4)
        vdrv_put(&v, at + n, 4, (n + seed) * 2654435761u);
}

static bool filled(uint64_t at, uint32_t len, unsigned seed) {
    for (uint32_t n = 0; n < len; n += 4)
        if (vdrv_get(&v, at + n, 4) != (uint32_t)((n + seed) * 2654435761u))
            return false;
    return true;
}

static bool zero(uint64_t at, uint32_t len) {
    for (uint32_t n = 0; n < len; n += 4)
        if (vdrv_get(&v, at + n, 4))
            return false;
    return true;
}

static void test_write_read(void **state) {
    uint32_t len;

    vdrv_start(&v, ALL);
    fill(BUFFER, 8192, 1);
    assert_int_equal(ask(T_OUT, 7, 8192, false, &len), S_OK);
    assert_int_equal(len, 1);
    fill(BUFFER, 8192, 2);
    assert_int_equal(ask(T_IN, 7, 8192, true, &len), S_OK);
    assert_int_equal(len, 8193);
    assert_true(filled(BUFFER, 8192, 1));
    assert_int_equal(ask(T_FLUSH, 0, 0, false, &len), S_OK);
    assert_int_equal(ask(T_IN, SECTORS - 1, 512, true, &len), S_OK);
    assert_true(zero(BUFFER, 512));
    assert_int_equal(v.interrupts, 1); /* used_event stands at 0 */
}

/* Header, data and status cut into pieces anyhow, as VERSION_1 allows. */
static void test_framing(void **state) {
    struct vdrv_piece p[] = {{HEADER, 3, 0},
                             {HEADER + 3, 13, 0},
                             {BUFFER, 100, VDRV_WRITE},
                             {BUFFER + 0x1000, 413, VDRV_WRITE}};

    vdrv_start(&v, ALL);
    fill(BUFFER, 512, 1);
    assert_int_equal(ask(T_OUT, 3, 512, false, NULL), S_OK);
    header(HEADER, T_IN, 3);
    vdrv_put(&v, BUFFER + 0x1000 + 412, 1, 0xee);
    vdrv_send(&v, 0, p, 4);
    wait_done();
    assert_int_not_equal(vdrv_take(&v, 0, NULL), -1);
    assert_int_equal(vdrv_get(&v, BUFFER + 0x1000 + 412, 1), S_OK);
    assert_int_equal(vdrv_get(&v, BUFFER + 0x1000, 4), (100 + 1) * 2654435761u);
}

/* Hundreds in flight on two queues, each answered once. */
static void test_many(void **state) {
    enum { EACH = 80 };

    vdrv_start(&v, ALL | F_MQ);
    for (unsigned n = 0; n < 2 * EACH; n++) {
        uint64_t at = VDRV_DATA + 0x1000ull * n;
        struct vdrv_piece p[] = {{at, 16, 0},
                                 {at + 512, 512, n % 4 < 2 ? 0 : VDRV_WRITE},
                                 {at + 16, 1, VDRV_WRITE}};

        header(at, n % 4 < 2 ? T_OUT : T_IN, n);
        vdrv_put(&v, at + 16, 1, 0xee);
        vdrv_send(&v, n % 2, p, 3);
    }
    wait_done();
    for (unsigned n = 0; n < 2 * EACH; n++) {
        assert_int_not_equal(vdrv_take(&v, n % 2, NULL), -1);
        assert_int_equal(vdrv_get(&v, VDRV_DATA + 0x1000ull * n + 16, 1), S_OK);
    }
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    assert_int_equal(vdrv_take(&v, 1, NULL), -1);
}

/* One head again and again, more often than there are requests: they wait their turn. */
static void test_starved(void **state) {
    unsigned taken = 0;

    vdrv_start(&v, ALL);
    send(0, T_IN, 0, 512, true);
    for (unsigned n = 0; n < 455; n++)
        vdrv_offer(&v, 0, 0);
    assert_false(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
    wait_done();
    while (vdrv_take(&v, 0, NULL) == 0)
        taken++;
    assert_int_equal(taken, 456);
}

/* Another CPU that has the next request ready before the last one is done: the device
 * leaves off, and goes on later. */
static void test_turns(void **state) {
    vdrv_start(&v, ALL);
    assert_int_equal(ask(T_GET_ID, 0, 0, true, NULL), S_OK);
    vdrv_echo(&v, 0, 0, STATUS, 3 * VIRTIO_TURN);
    vdrv_offer(&v, 0, 0);
    assert_int_equal(v.echo.done, VIRTIO_TURN);
    rig_pass(&r, 10);
    assert_int_equal(v.echo.done, 3 * VIRTIO_TURN);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
}

static void test_bad_requests(void **state) {
    vdrv_start(&v, ALL);
    assert_int_equal(ask(T_IN, SECTORS, 512, true, NULL), S_IOERR);
    assert_int_equal(ask(T_IN, SECTORS - 1, 1024, true, NULL), S_IOERR);
    assert_int_equal(ask(T_IN, UINT64_MAX, 512, true, NULL), S_IOERR);
    assert_int_equal(ask(T_OUT, 1ull << 55, 512, false, NULL), S_IOERR);
    assert_int_equal(ask(T_IN, 0, 511, true, NULL), S_IOERR);
    assert_int_equal(ask(T_OUT, 0, 513, false, NULL), S_IOERR);
    assert_int_equal(ask(T_IN, 0, 0, true, NULL), S_OK);
    assert_int_equal(ask(2, 0, 512, true, NULL), S_UNSUPP);
    assert_int_equal(ask(0xffffffff, 0, 512, false, NULL), S_UNSUPP);
    assert_false(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
}

static void test_no_request(void **state) {
    struct vdrv_piece header_only = {HEADER, 16, 0};
    struct vdrv_piece status_only = {STATUS, 1, VDRV_WRITE};
    struct vdrv_piece short_header[] = {{HEADER, 15, 0}, {STATUS, 1, VDRV_WRITE}};

    header(HEADER, T_IN, 0);
    vdrv_start(&v, ALL);
    vdrv_send(&v, 0, &header_only, 1);
    assert_true(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
    vdrv_start(&v, ALL);
    vdrv_send(&v, 0, &status_only, 1);
    assert_true(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
    vdrv_start(&v, ALL);
    vdrv_send(&v, 0, short_header, 2);
    assert_true(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
    vdrv_start(&v, ALL);
    assert_int_equal(ask(T_IN, 0, 512, true, NULL), S_OK);
}

static void test_readonly(void **state) {
    close_disk();
    open_disk(true);
    assert_true(v.d->offered & F_RO);
    assert_false(v.d->offered & (F_DISCARD | F_WRITE_ZEROES));
    vdrv_start(&v, VIRTIO_F_ALWAYS | F_RO | F_FLUSH);
    assert_int_equal(ask(T_IN, 0, 512, true, NULL), S_OK);
    assert_int_equal(ask(T_OUT, 0, 512, false, NULL), S_IOERR);
    assert_int_equal(ask(T_FLUSH, 0, 0, false, NULL), S_OK);
    assert_int_equal(ask(T_DISCARD, 0, 16, false, NULL), S_UNSUPP);
}

/* Sectors of 4096 bytes, counted in pieces of 512 all the same. */
static void test_large_sectors(void **state) {
    close_disk();
    open_spec(&(struct block_spec){.path = path, .sector = 4096});
    assert_int_equal(virtio_config_read(v.d, 0, 8), SECTORS);
    assert_int_equal(virtio_config_read(v.d, 20, 4), 4096); /* blk_size */
    assert_int_equal(virtio_config_read(v.d, 24, 1), 0);    /* physical_block_exp */
    vdrv_start(&v, ALL);
    fill(BUFFER, 4096, 1);
    assert_int_equal(ask(T_OUT, 8, 4096, false, NULL), S_OK);
    fill(BUFFER, 4096, 2);
    assert_int_equal(ask(T_IN, 8, 4096, true, NULL), S_OK);
    assert_true(filled(BUFFER, 4096, 1));
    assert_int_equal(ask(T_IN, SECTORS - 8, 4096, true, NULL), S_OK);
    assert_int_equal(ask(T_IN, 1, 4096, true, NULL), S_IOERR);
    assert_int_equal(ask(T_IN, 8, 512, true, NULL), S_IOERR);
    assert_int_equal(ask(T_OUT, 8, 4096 + 512, false, NULL), S_IOERR);
    vdrv_put(&v, BUFFER, 8, 8);
    vdrv_put(&v, BUFFER + 8, 8, 4); /* half a sector */
    assert_int_equal(ask(T_ZEROES, 0, 16, false, NULL), S_IOERR);
    vdrv_put(&v, BUFFER + 8, 8, 8);
    assert_int_equal(ask(T_ZEROES, 0, 16, false, NULL), S_OK);
    assert_int_equal(ask(T_IN, 8, 4096, true, NULL), S_OK);
    assert_true(zero(BUFFER, 4096));
}

/* The host's errors are the guest's. */
static void test_errors(void **state) {
    vdrv_start(&v, ALL);
    failing = true;
    assert_int_equal(ask(T_IN, 0, 512, true, NULL), S_IOERR);
    assert_int_equal(ask(T_FLUSH, 0, 0, false, NULL), S_IOERR);
    assert_int_equal(ask(T_OUT, 0, 512, false, NULL), S_OK);
    virtio_config_write(v.d, 32, 1, 0);
    assert_int_equal(ask(T_OUT, 0, 512, false, NULL), S_IOERR);
    failing = false;
    assert_int_equal(ask(T_IN, 0, 512, true, NULL), S_OK);
}

/* What is in memory is done when the driver's notification returns; a flush and what is
 * too long for that is not. */
static void test_at_once(void **state) {
    uint32_t len;

    vdrv_start(&v, ALL);
    in_memory = true;
    fill(BUFFER, 4096, 7);
    send(0, T_OUT, 8, 4096, false);
    assert_int_not_equal(vdrv_take(&v, 0, NULL), -1);
    assert_int_equal(vdrv_get(&v, STATUS, 1), S_OK);
    fill(BUFFER, 4096, 8);
    send(0, T_IN, 8, 4096, true);
    assert_int_equal(block_in_flight(block), 0);
    assert_int_not_equal(vdrv_take(&v, 0, &len), -1);
    assert_int_equal(len, 4097);
    assert_true(filled(BUFFER, 4096, 7));
    assert_int_equal(at_once, 2);
    assert_int_equal(v.d->under_way, 0);
    assert_int_equal(ask(T_IN, 0, BLOCK_AT_ONCE + 512, true, NULL), S_OK);
    assert_int_equal(ask(T_FLUSH, 0, 0, false, NULL), S_OK);
    assert_int_equal(at_once, 2);
    assert_int_equal(flushes, 1);
    failing = true;
    assert_int_equal(ask(T_IN, 8, 4096, true, NULL), S_IOERR);
    assert_int_equal(ask(T_IN, SECTORS, 512, true, NULL), S_IOERR);
}

/* In write-through mode what was written at once is made durable before it is done. */
static void test_at_once_through(void **state) {
    vdrv_start(&v, ALL);
    in_memory = true;
    virtio_config_write(v.d, 32, 1, 0);
    assert_int_equal(ask(T_OUT, 0, 512, false, NULL), S_OK);
    assert_int_equal(at_once, 1);
    assert_int_equal(flushes, 1);
}

/* One walk of the queue is not endless: the rest goes to the workers; and the driver is
 * interrupted once for all that was done in it. */
static void test_at_once_many(void **state) {
    enum { COUNT = 80 };
    unsigned interrupts, taken = 0;

    vdrv_start(&v, ALL & ~VIRTIO_F_EVENT_IDX);
    in_memory = true;
    send(0, T_IN, 0, 512, true);
    assert_int_equal(vdrv_take(&v, 0, NULL), 0);
    at_once = 0;
    interrupts = v.interrupts;
    for (unsigned n = 0; n < COUNT; n++)
        vdrv_offer_quietly(&v, 0, 0);
    virtio_notify(v.d, 0);
    assert_int_equal(at_once, 64);
    assert_int_equal(v.interrupts, interrupts + 1);
    assert_int_equal(block_in_flight(block), COUNT - 64);
    wait_done();
    while (vdrv_take(&v, 0, NULL) == 0)
        taken++;
    assert_int_equal(taken, COUNT);
}

static void test_id(void **state) {
    char id[21] = {0}, guest[21] = {0};
    uint32_t len;

    vdrv_start(&v, ALL);
    assert_int_equal(ask(T_GET_ID, 0, 20, true, &len), S_OK);
    assert_int_equal(len, 21);
    strncpy(id, block_id(block), 20);
    assert_true(mem_read(v.mem, gpa(BUFFER), guest, 20));
    assert_string_equal(guest, id);
    vdrv_put(&v, BUFFER + 5, 1, 0x77);
    assert_int_equal(ask(T_GET_ID, 0, 5, true, &len), S_OK);
    assert_int_equal(len, 6);
    assert_int_equal(vdrv_get(&v, BUFFER + 5, 1), 0x77);
}

/* --- ranges --- */

static void range(unsigned n, uint64_t sector, uint32_t count, uint32_t flags) {
    vdrv_put(&v, BUFFER + 16 * n, 8, sector);
    vdrv_put(&v, BUFFER + 16 * n + 8, 4, count);
    vdrv_put(&v, BUFFER + 16 * n + 12, 4, flags);
}

static void test_zeroes(void **state) {
    vdrv_start(&v, ALL);
    fill(BUFFER, 16384, 1);
    assert_int_equal(ask(T_OUT, 0, 16384, false, NULL), S_OK);
    range(0, 2, 3, 0);
    range(1, 0, 0, 0);
    range(2, 16, 8, 1);
    assert_int_equal(ask(T_ZEROES, 0, 48, false, NULL), S_OK);
    assert_int_equal(ask(T_IN, 0, 16384, true, NULL), S_OK);
    assert_true(filled(BUFFER, 1024, 1));
    assert_true(zero(BUFFER + 1024, 3 * 512));
    assert_true(filled(BUFFER + 5 * 512, 11 * 512, 1 + 5 * 512));
    assert_true(zero(BUFFER + 16 * 512, 8 * 512));
    assert_true(filled(BUFFER + 24 * 512, 8 * 512, 1 + 24 * 512));
}

static void test_discard(void **state) {
    vdrv_start(&v, ALL);
    fill(BUFFER, 8192, 1);
    assert_int_equal(ask(T_OUT, 0, 8192, false, NULL), S_OK);
    range(0, 8, 8, 0);
    assert_int_equal(ask(T_DISCARD, 0, 16, false, NULL), S_OK);
    assert_int_equal(ask(T_IN, 0, 8192, true, NULL), S_OK);
    assert_true(filled(BUFFER, 4096, 1));
    assert_true(zero(BUFFER + 4096, 4096) || filled(BUFFER + 4096, 4096, 4097));
}

static void test_bad_ranges(void **state) {
    vdrv_start(&v, ALL);
    range(0, 0, 8, 1);
    assert_int_equal(ask(T_DISCARD, 0, 16, false, NULL), S_UNSUPP);
    range(0, 0, 8, 2);
    assert_int_equal(ask(T_ZEROES, 0, 16, false, NULL), S_UNSUPP);
    range(0, SECTORS - 1, 2, 0);
    assert_int_equal(ask(T_ZEROES, 0, 16, false, NULL), S_IOERR);
    range(0, UINT64_MAX, 1, 0);
    assert_int_equal(ask(T_DISCARD, 0, 16, false, NULL), S_IOERR);
    range(0, 0, UINT32_MAX, 0);
    assert_int_equal(ask(T_DISCARD, 0, 16, false, NULL), S_IOERR);
    range(0, 0, 1, 0);
    assert_int_equal(ask(T_DISCARD, 0, 15, false, NULL), S_IOERR);
    assert_int_equal(ask(T_DISCARD, 0, 17, false, NULL), S_IOERR);
    for (unsigned n = 0; n < 65; n++)
        range(n, n, 1, 0);
    assert_int_equal(ask(T_ZEROES, 0, 64 * 16, false, NULL), S_OK);
    for (unsigned n = 0; n < 65; n++)
        range(n, n, 1, 0);
    assert_int_equal(ask(T_ZEROES, 0, 65 * 16, false, NULL), S_IOERR);
    assert_int_equal(ask(T_ZEROES, 0, 0, false, NULL), S_OK);
    vdrv_start(&v, VIRTIO_F_ALWAYS);
    assert_int_equal(ask(T_ZEROES, 0, 16, false, NULL), S_UNSUPP);
}

/* --- cache mode and configuration --- */

static void test_config(void **state) {
    vdrv_start(&v, ALL);
    assert_int_equal(virtio_config_read(v.d, 0, 8), SECTORS);
    assert_int_equal(virtio_config_read(v.d, 12, 4), 254);
    assert_int_equal(virtio_config_read(v.d, 20, 4), 512);
    assert_int_equal(virtio_config_read(v.d, 34, 2), 2);
    assert_int_equal(virtio_config_read(v.d, 32, 1), 1);
    virtio_config_write(v.d, 32, 1, 0);
    assert_int_equal(virtio_config_read(v.d, 32, 1), 0);
    virtio_config_write(v.d, 32, 4, 1);
    virtio_config_write(v.d, 0, 8, 0);
    assert_int_equal(virtio_config_read(v.d, 32, 1), 0);
    assert_int_equal(virtio_config_read(v.d, 0, 8), SECTORS);
    fill(BUFFER, 512, 3);
    flushes = 0;
    assert_int_equal(ask(T_OUT, 9, 512, false, NULL), S_OK);
    assert_int_equal(flushes, 1);
    virtio_config_write(v.d, 32, 1, 1);
    assert_int_equal(ask(T_OUT, 9, 512, false, NULL), S_OK);
    assert_int_equal(flushes, 1);
    virtio_set_status(v.d, 0, false);
    assert_int_equal(virtio_config_read(v.d, 32, 1), 1);
    vdrv_start(&v, VIRTIO_F_ALWAYS);
    virtio_config_write(v.d, 32, 1, 0);
    assert_int_equal(virtio_config_read(v.d, 32, 1), 1);
    assert_int_equal(ask(T_OUT, 9, 512, false, NULL), S_OK);
    assert_int_equal(flushes, 2);
}

/* "If VIRTIO_BLK_F_CONFIG_WCE is negotiated but VIRTIO_BLK_F_FLUSH is not": the mode is
 * write-through, and stays so. */
static void test_no_flush(void **state) {
    vdrv_start(&v, VIRTIO_F_ALWAYS | F_CONFIG_WCE);
    assert_int_equal(virtio_config_read(v.d, 32, 1), 0);
    assert_int_equal(ask(T_OUT, 9, 512, false, NULL), S_OK);
    assert_int_equal(flushes, 1);
    virtio_config_write(v.d, 32, 1, 1);
    assert_int_equal(ask(T_OUT, 9, 512, false, NULL), S_OK);
    assert_int_equal(flushes, 2);
}

/* --- resets --- */

/* Requests of a driver that is gone are answered to nobody. */
static void test_reset(void **state) {
    vdrv_start(&v, ALL);
    for (unsigned n = 0; n < 20; n++)
        send(0, T_IN, n, 512, true);
    virtio_set_status(v.d, 0, false);
    vdrv_start(&v, ALL);
    send(0, T_IN, 0, 512, true);
    wait_done();
    assert_int_not_equal(vdrv_take(&v, 0, NULL), -1);
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    assert_int_equal(v.d->under_way, 0);
}

static void test_reset_waits(void **state) {
    vdrv_start(&v, ALL);
    send(0, T_IN, 0, 512, true);
    virtio_set_status(v.d, 0, false);
    assert_int_equal(virtio_status(v.d), 15);
    wait_done();
    assert_int_equal(virtio_status(v.d), 0);
}

static void test_quiet(void **state) {
    vdrv_start(&v, ALL);
    for (unsigned n = 0; n < 20; n++)
        send(0, T_IN, n, 512, true);
    virtio_blk_quiet(blk);
    assert_int_equal(block_in_flight(block), 0);
    virtio_device_reset(v.d);
    assert_int_equal(virtio_status(v.d), 0);
    vdrv_start(&v, ALL);
    for (unsigned n = 0; n < 85; n++)
        send(0, T_IN, n, 512, true);
    wait_done();
    for (unsigned n = 0; n < 85; n++)
        assert_int_not_equal(vdrv_take(&v, 0, NULL), -1);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_write_read),    T(test_framing),         T(test_many),
        T(test_starved),       T(test_bad_requests),    T(test_no_request),
        T(test_readonly),      T(test_errors),          T(test_id),
        T(test_zeroes),        T(test_discard),         T(test_bad_ranges),
        T(test_large_sectors), T(test_config),          T(test_no_flush),
        T(test_reset),         T(test_reset_waits),     T(test_quiet),
        T(test_at_once),       T(test_at_once_through), T(test_at_once_many),
        T(test_turns),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
