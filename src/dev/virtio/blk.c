/*
 * A virtio disk. "Block Device" of the standard.
 *
 * A request is a header (type, sector), data, and a byte of status, however they are cut
 * into pieces. Each queue has as many requests as descriptors, all of which may be in
 * flight; further buffers wait in the ring until one is done. The pieces of a request's
 * data are what block/ reads and writes at.
 *
 * Discard and write-zeroes name several ranges, which are done one after the other: each
 * is read from the buffer when it is its turn, and then checked.
 *
 * What the host has in memory is read and written while the queue is walked, without a
 * worker; the driver is told of all that at the end of the walk. Of what workers have
 * done it is told when nothing more of the disk is to be called back in the same turn.
 *
 * With the cache in write-through mode (the driver has switched it so, or has not
 * accepted FLUSH) a write is followed by a flush before it is done.
 */
#include "dev/virtio/blk.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define QUEUE_SIZE 256u
#define PIECES QUEUE_SIZE /* of header, data and status */
#define SEG_MAX (PIECES - 2)
#define WALK_MAX 64u /* requests done at once in a walk: other CPUs can wait for them */
#define RANGES_MAX 64u
#define RANGE_SECTORS_MAX (1u << 22) /* 2 GiB */

/* "Feature bits" */
#define F_SEG_MAX (1ull << 2)
#define F_GEOMETRY (1ull << 4)
#define F_RO (1ull << 5)
#define F_BLK_SIZE (1ull << 6)
#define F_FLUSH (1ull << 9)
#define F_TOPOLOGY (1ull << 10)
#define F_CONFIG_WCE (1ull << 11)
#define F_MQ (1ull << 12)
#define F_DISCARD (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

/* "Device Operation": types, status */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK, S_IOERR, S_UNSUPP };
#define RANGE_UNMAP 1u

/* "Device configuration layout" */
struct config {
    uint64_t capacity; /* of sectors, as all that follows */
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_exp, alignment_offset;
    uint16_t min_io;
    uint32_t opt_io;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard, max_discard_ranges, discard_alignment;
    uint32_t max_zeroes, max_zeroes_ranges;
    uint8_t zeroes_may_unmap, unused1[3];
};
_Static_assert(offsetof(struct config, writeback) == 32, "layout");
_Static_assert(sizeof(struct config) == 64, "layout");
#define CONFIG_LEN 60u

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct range {
    uint64_t sector;
    uint32_t count, flags;
};

struct request {
    struct virtio_blk *blk;
    struct virtio_queue *q;
    struct request *next_free;
    bool busy;
    uint32_t life; /* of the device */
    uint16_t head;
    uint32_t type;
    uint8_t *status;
    struct virtio_span data; /* what is written or read; the ranges that are left */
    uint32_t written;        /* bytes of the buffer, when it is done */
    unsigned ranges;         /* done already */
    struct block_request block;
    struct virtio_piece piece[PIECES];
};
/* block/ goes by our pieces. */
_Static_assert(sizeof(struct virtio_piece) == sizeof(struct block_iov) &&
                   offsetof(struct virtio_piece, host) ==
                       offsetof(struct block_iov, base) &&
                   offsetof(struct virtio_piece, len) == offsetof(struct block_iov, len),
               "the same shape");
_Static_assert(PIECES <= BLOCK_IOV_MAX, "block/ takes all of a request");

struct virtio_blk {
    struct virtio_device d;
    struct virtio_queue queue[VIRTIO_BLK_QUEUES_MAX];
    struct config config;
    struct block *block;
    struct request *request; /* QUEUE_SIZE for each queue */
    struct request *free[VIRTIO_BLK_QUEUES_MAX];
    bool starved[VIRTIO_BLK_QUEUES_MAX]; /* buffers wait for a free request */
    unsigned at_once;                    /* requests that may still be in this walk */
};

static struct virtio_blk *blk_of(struct virtio_device *d) {
    return container_of(d, struct virtio_blk, d);
}

/* --- the end of a request --- */

static void release(struct request *r) {
    struct virtio_blk *b = r->blk;

    r->busy = false;
    r->next_free = b->free[r->q->index];
    b->free[r->q->index] = r;
}

/* The driver is told later: publish(). */
static void finish(struct request *r, uint8_t status) {
    struct virtio_blk *b = r->blk;

    mem_store(b->d.mem, r->status, &status, 1);
    virtio_queue_push(r->q, r->head, r->written);
    release(r);
}

static void publish(struct virtio_blk *b) {
    for (unsigned n = 0; n < b->d.queues; n++)
        virtio_queue_publish(&b->queue[n]);
}

/* --- what block/ does --- */

static void go_on(struct request *r, int rc);

static bool at_once(struct request *r) {
    struct virtio_blk *b = r->blk;

    if (!b->at_once || !block_at_once(b->block, &r->block))
        return false;
    b->at_once--;
    if (r->block.op == BLOCK_READ)
        virtio_span_written(&b->d, &r->data);
    return true;
}

static void submit(struct request *r, enum block_op op, uint64_t offset,
                   uint64_t length) {
    bool data = op == BLOCK_READ || op == BLOCK_WRITE;

    r->block.op = op;
    r->block.offset = offset;
    r->block.length = length;
    r->block.iov = data ? (const struct block_iov *)(const void *)r->data.piece : NULL;
    r->block.iov_count = data ? r->data.count : 0;
    if (data && at_once(r)) {
        go_on(r, 0);
        return;
    }
    virtio_began(r->q);
    block_submit(r->blk->block, &r->block);
}

/* Who knows no flush has no other way to make anything durable, whatever it writes to
 * the configuration. */
static bool write_through(const struct virtio_blk *b) {
    return !virtio_has(&b->d, F_FLUSH) ||
           (virtio_has(&b->d, F_CONFIG_WCE) && !b->config.writeback);
}

/* COUNT sectors of 512 bytes from SECTOR on are the disk's, and whole ones of its own. */
static bool inside(const struct virtio_blk *b, uint64_t sector, uint64_t count) {
    return sector <= b->config.capacity && count <= b->config.capacity - sector &&
           (sector | count) % (b->config.blk_size / BLOCK_SECTOR) == 0;
}

/* "The driver MUST set..., the device MUST": what may be in a range. */
static int check_range(const struct request *r, const struct range *range) {
    bool zeroes = r->type == T_ZEROES;

    if (range->flags & ~(zeroes ? RANGE_UNMAP : 0u))
        return S_UNSUPP;
    if (range->count > RANGE_SECTORS_MAX ||
        !inside(r->blk, range->sector, range->count) || block_readonly(r->blk->block))
        return S_IOERR;
    return S_OK;
}

/* The next range that is not empty, or the end. */
static void next_range(struct request *r) {
    struct range range = {0};

    while (r->data.len && !range.count) {
        int status;

        if (r->data.len < sizeof(range) || r->ranges++ == RANGES_MAX) {
            finish(r, S_IOERR);
            return;
        }
        virtio_span_read(&r->data, &range, sizeof(range));
        status = check_range(r, &range);
        if (status != S_OK) {
            finish(r, (uint8_t)status);
            return;
        }
    }
    if (!range.count) {
        finish(r, S_OK);
        return;
    }
    r->block.unmap = range.flags & RANGE_UNMAP;
    submit(r, r->type == T_ZEROES ? BLOCK_ZEROES : BLOCK_DISCARD,
           range.sector * BLOCK_SECTOR, (uint64_t)range.count * BLOCK_SECTOR);
}

static void walk(struct virtio_blk *b, unsigned n);

/* block/'s answer: all of the request, or a step of it. */
static void go_on(struct request *r, int rc) {
    if (rc)
        finish(r, S_IOERR);
    else if (r->type == T_DISCARD || r->type == T_ZEROES)
        next_range(r);
    else if (r->type == T_OUT && r->block.op == BLOCK_WRITE && write_through(r->blk))
        submit(r, BLOCK_FLUSH, 0, 0);
    else
        finish(r, S_OK);
}

static void done(struct block_request *block, int rc) {
    struct request *r = container_of(block, struct request, block);
    struct virtio_blk *b = r->blk;
    unsigned n = r->q->index;

    /* Also for a driver that is gone: its memory has changed. */
    if (block->op == BLOCK_READ)
        virtio_span_written(&b->d, &r->data);
    virtio_ended(r->q);
    if (r->life == b->d.lives)
        go_on(r, rc);
    else
        release(r);
    if (b->starved[n] && b->free[n] && virtio_queue_live(&b->queue[n]))
        walk(b, n);
    if (!block_more(b->block))
        publish(b);
}

/* --- the beginning --- */

static void transfer(struct request *r, uint64_t sector, bool write) {
    uint64_t len = r->data.len;

    if (len % BLOCK_SECTOR || !inside(r->blk, sector, len / BLOCK_SECTOR) ||
        (write && block_readonly(r->blk->block)))
        finish(r, S_IOERR);
    else if (!len)
        finish(r, S_OK);
    else
        submit(r, write ? BLOCK_WRITE : BLOCK_READ, sector * BLOCK_SECTOR, len);
}

static void give_id(struct request *r) {
    char id[BLOCK_ID_MAX] = {0};
    const char *from = block_id(r->blk->block);

    for (unsigned n = 0; n < BLOCK_ID_MAX && from[n]; n++)
        id[n] = from[n];
    r->written = 1 + (uint32_t)virtio_span_write(&r->blk->d, &r->data, id, BLOCK_ID_MAX);
    finish(r, S_OK);
}

static void start(struct request *r, const struct header *h) {
    r->type = h->type;
    switch (h->type) {
    case T_IN:
        transfer(r, h->sector, false);
        break;
    case T_OUT:
        transfer(r, h->sector, true);
        break;
    case T_FLUSH:
        submit(r, BLOCK_FLUSH, 0, 0);
        break;
    case T_GET_ID:
        give_id(r);
        break;
    case T_DISCARD:
    case T_ZEROES:
        if (virtio_has(&r->blk->d, h->type == T_ZEROES ? F_WRITE_ZEROES : F_DISCARD)) {
            next_range(r);
            break;
        }
        /* fall through */
    default:
        finish(r, S_UNSUPP);
    }
}

/* Takes the buffer apart. False: it is no request, and the device is broken. */
static bool begin(struct request *r, struct virtio_chain *c) {
    struct header h;

    r->busy = true;
    r->life = r->blk->d.lives;
    r->head = c->head;
    r->status = virtio_span_take_last(&c->in);
    if (!r->status || virtio_span_read(&c->out, &h, sizeof(h)) < sizeof(h)) {
        release(r);
        virtio_broken(&r->blk->d, "a request without header or status");
        return false;
    }
    /* Of the other direction there should be nothing, and nobody looks. */
    r->data = h.type == T_IN || h.type == T_GET_ID ? c->in : c->out;
    r->written = 1 + (h.type == T_IN ? (uint32_t)c->in.len : 0);
    r->ranges = 0;
    start(r, &h);
    return true;
}

static void walk(struct virtio_blk *b, unsigned n) {
    unsigned turn = VIRTIO_TURN;
    struct request *r;

    b->at_once = WALK_MAX;
    b->starved[n] = false;
    for (; (r = b->free[n]) && turn; turn--) {
        struct virtio_chain c = {.room = r->piece, .rooms = PIECES};

        if (!virtio_queue_pop(&b->queue[n], &c))
            return;
        if (b->d.cnt)
            b->d.cnt->blk_requests++;
        b->free[n] = r->next_free;
        if (!begin(r, &c))
            return;
    }
    if (r)
        virtio_queue_later(&b->queue[n]);
    else
        b->starved[n] = true;
}

/* --- the device --- */

static void notify(struct virtio_device *d, unsigned n) {
    struct virtio_blk *b = blk_of(d);

    walk(b, n);
    publish(b);
}

static void reset(struct virtio_device *d) {
    struct virtio_blk *b = blk_of(d);

    b->config.writeback = 1;
    if (d->under_way)
        block_cancel(b->block);
}

/* "Device Requirements: Device Initialization" */
static bool accept(struct virtio_device *d) {
    if (virtio_has(d, F_CONFIG_WCE) && !virtio_has(d, F_FLUSH))
        blk_of(d)->config.writeback = 0;
    return true;
}

static void configure(struct virtio_device *d, unsigned at, unsigned len,
                      uint64_t value) {
    struct virtio_blk *b = blk_of(d);

    if (at == offsetof(struct config, writeback) && len == 1 &&
        virtio_has(d, F_CONFIG_WCE))
        b->config.writeback = value & 1;
}

static const struct virtio_ops ops = {
    .notify = notify, .reset = reset, .accept = accept, .configure = configure};

static void describe_size(struct virtio_blk *b) {
    struct config *c = &b->config;
    uint64_t cylinders;

    c->capacity = block_size(b->block) / BLOCK_SECTOR;
    c->heads = 16;
    c->sectors = 63;
    cylinders = c->capacity / (16 * 63);
    c->cylinders = (uint16_t)(cylinders < 0xffff ? cylinders : 0xffff);
}

static void describe(struct virtio_blk *b, unsigned queues) {
    struct config *c = &b->config;

    describe_size(b);
    c->seg_max = SEG_MAX;
    c->blk_size = block_sector(b->block);
    while (c->blk_size << c->physical_exp < block_physical(b->block))
        c->physical_exp++;
    c->min_io = (uint16_t)(1u << c->physical_exp);
    c->writeback = 1;
    c->num_queues = (uint16_t)queues;
    c->max_discard = c->max_zeroes = RANGE_SECTORS_MAX;
    c->max_discard_ranges = c->max_zeroes_ranges = RANGES_MAX;
    c->discard_alignment = block_granule(b->block) / BLOCK_SECTOR; /* of 512 always */
    c->zeroes_may_unmap = 1;
}

static uint64_t features(const struct virtio_blk *b) {
    uint64_t f = VIRTIO_F_ALWAYS | VIRTIO_F_ANY_LAYOUT | F_SEG_MAX | F_GEOMETRY |
                 F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE;

    f |= block_readonly(b->block) ? F_RO : F_DISCARD | F_WRITE_ZEROES;
    if (b->d.queues > 1)
        f |= F_MQ;
    return f;
}

static void init_requests(struct virtio_blk *b) {
    for (unsigned n = 0; n < b->d.queues * QUEUE_SIZE; n++) {
        struct request *r = &b->request[n];

        r->blk = b;
        r->q = &b->queue[n / QUEUE_SIZE];
        r->block.done = done;
        release(r);
    }
}

/* Nothing is under way: who writes it has waited for that. */
void virtio_blk_state(struct virtio_blk *b, struct snapshot *s) {
    uint64_t capacity = b->config.capacity;

    virtio_device_state(&b->d, s);
    SNAPSHOT(s, capacity);
    SNAPSHOT_UPTO(s, b->config.writeback, 1);
    if (snapshot_reading(s) && capacity != b->config.capacity)
        snapshot_refuse(s, "a disk has another size than it had");
}

struct virtio_blk *virtio_blk_new(struct mem *mem, struct vclock *clock,
                                  struct block *block, unsigned queues,
                                  struct counters *cnt) {
    struct virtio_blk *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->request = calloc((size_t)queues * QUEUE_SIZE, sizeof(*b->request));
    if (!b->request) {
        free(b);
        return NULL;
    }
    b->block = block;
    b->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-blk",
                                  .id = VIRTIO_ID_BLK,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .config = &b->config,
                                  .config_len = CONFIG_LEN,
                                  .queue = b->queue,
                                  .queues = queues};
    for (unsigned n = 0; n < queues; n++)
        b->queue[n].size_max = QUEUE_SIZE;
    describe(b, queues);
    b->d.offered = features(b);
    virtio_device_init(&b->d);
    init_requests(b);
    return b;
}

/* A driver looks at the capacity when its interrupt comes, and reads again what it knew
 * of a disk of another size. */
void virtio_blk_exchanged(struct virtio_blk *b) {
    describe_size(b);
    virtio_config_changed(&b->d);
}

void virtio_blk_free(struct virtio_blk *b) {
    if (!b)
        return;
    virtio_device_end(&b->d);
    free(b->request);
    free(b);
}

struct virtio_device *virtio_blk_device(struct virtio_blk *b) {
    return &b->d;
}

void virtio_blk_quiet(struct virtio_blk *b) {
    block_drain(b->block);
    for (unsigned n = 0; n < b->d.queues * QUEUE_SIZE; n++)
        if (b->request[n].busy) {
            virtio_ended(b->request[n].q);
            release(&b->request[n]);
        }
}
