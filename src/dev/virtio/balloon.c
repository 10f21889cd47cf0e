/*
 * A virtio memory balloon: pages that the guest does not need go back to the host, which
 * gives them again, zeroed, when they are touched. "Traditional Memory Balloon Device" of
 * the standard.
 *
 * Pages come in two ways: as numbers in the inflate queue, when the host has asked for
 * them; and, with page reporting, as buffers of free pages, whenever the guest likes. For
 * what comes out of the balloon nothing is to be done.
 *
 * The driver keeps one buffer of statistics with the device, which gives it back when it
 * wants newer ones.
 *
 * Queues have the numbers that Linux and other monitors use: those of features that are
 * not accepted are left out. Whoever goes by the standard's letter finds reporting at 4.
 */
#include "dev/virtio/balloon.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define QUEUE_SIZE 128u
#define PIECES QUEUE_SIZE
#define PAGE 4096ull
#define PAGE_SHIFT 12u

#define F_STATS (1ull << 1)
#define F_DEFLATE_ON_OOM (1ull << 2)
#define F_REPORTING (1ull << 5)

enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_LAST = 4, QUEUES };

/* "Device configuration layout" */
struct config {
    uint32_t num_pages, actual, free_page_hint, poison;
};
#define CONFIG_LEN 8u /* what the offered features have */

#define STAT_SIZE 10u /* tag and value */

struct virtio_balloon {
    struct virtio_device d;
    struct virtio_queue queue[QUEUES];
    struct config config;
    bool has_stats; /* the buffer of statistics */
    uint16_t stats_head;
    struct virtio_balloon_stats stats;
    struct virtio_piece piece[PIECES];
};

static struct virtio_balloon *balloon_of(struct virtio_device *d) {
    return container_of(d, struct virtio_balloon, d);
}

/* --- pages --- */

/* Numbers that follow each other, in either direction, go back in one piece: a call to
 * the host for each page would take long. */
struct run {
    uint64_t first, count;
};

static void give_back(struct virtio_balloon *b, struct run *r) {
    if (r->count)
        mem_discard(b->d.mem, gpa(r->first << PAGE_SHIFT), r->count << PAGE_SHIFT);
    r->count = 0;
}

static void add_page(struct virtio_balloon *b, struct run *r, uint64_t page) {
    if (r->count && page == r->first + r->count) {
        r->count++;
    } else if (r->count && page + 1 == r->first) {
        r->first--;
        r->count++;
    } else {
        give_back(b, r);
        *r = (struct run){page, 1};
    }
}

/* Of one buffer the driver may say as much as a whole gigabyte's pages; no more. */
#define NUMBERS_MAX (1u << 18)
/* So many take as long as a buffer; Linux sends no more in one. */
#define NUMBERS_A_TURN 256u

/* How many there were. */
static uint64_t inflate(struct virtio_balloon *b, struct virtio_span *s) {
    struct run r = {0};
    uint32_t numbers[64];
    uint64_t done = 0, n;

    while (done < NUMBERS_MAX && (n = virtio_span_read(s, numbers, sizeof(numbers)))) {
        for (uint64_t k = 0; k < n / 4; k++)
            add_page(b, &r, numbers[k]);
        done += n / 4;
    }
    give_back(b, &r);
    return done;
}

/* "Free Page Reporting": whole pages of each piece. */
static void take_reported(struct virtio_balloon *b, struct virtio_span *s) {
    for (unsigned n = 0; n < s->count; n++) {
        uint64_t at = mem_gpa(b->d.mem, s->piece[n].host).a;
        uint64_t end = (at + s->piece[n].len) & ~(PAGE - 1);

        at = (at + PAGE - 1) & ~(PAGE - 1);
        if (at < end)
            mem_discard(b->d.mem, gpa(at), end - at);
    }
}

/* --- statistics --- */

static void keep_stats(struct virtio_balloon *b, struct virtio_span *s) {
    struct virtio_balloon_stats stats = {0};
    uint8_t stat[STAT_SIZE];

    for (unsigned n = 0; n < 4 * VIRTIO_BALLOON_STATS; n++) {
        unsigned tag;

        if (virtio_span_read(s, stat, STAT_SIZE) < STAT_SIZE)
            break;
        tag = *(const unaligned_u16 *)stat;
        if (tag >= VIRTIO_BALLOON_STATS)
            continue;
        stats.given |= 1u << tag;
        stats.value[tag] = *(const unaligned_u64 *)(stat + 2);
    }
    b->stats = stats;
}

/* The buffer stays here; one that was here before goes back. */
static void take_stats(struct virtio_balloon *b, struct virtio_chain *c) {
    if (b->has_stats)
        virtio_queue_push(&b->queue[Q_STATS], b->stats_head, 0);
    keep_stats(b, &c->out);
    b->has_stats = true;
    b->stats_head = c->head;
}

/* --- the device --- */

static void serve(struct virtio_device *d, unsigned n) {
    struct virtio_balloon *b = balloon_of(d);
    struct virtio_chain c = {.room = b->piece, .rooms = PIECES};
    unsigned turn = VIRTIO_TURN;

    while (turn && virtio_queue_pop(&b->queue[n], &c)) {
        uint64_t took = 1;

        if (n == Q_STATS && virtio_has(d, F_STATS)) {
            take_stats(b, &c);
        } else {
            if (n == Q_INFLATE)
                took += inflate(b, &c.out) / NUMBERS_A_TURN;
            else if (n >= Q_STATS && virtio_has(d, F_REPORTING))
                take_reported(b, &c.in);
            virtio_queue_push(&b->queue[n], c.head, 0);
        }
        turn -= took < turn ? (unsigned)took : turn;
        if (!turn)
            virtio_queue_later(&b->queue[n]);
    }
    virtio_queue_publish(&b->queue[n]);
}

static void reset(struct virtio_device *d) {
    struct virtio_balloon *b = balloon_of(d);

    b->config.actual = 0;
    b->has_stats = false;
    b->stats.given = 0;
}

static void configure(struct virtio_device *d, unsigned at, unsigned len,
                      uint64_t value) {
    if (at == offsetof(struct config, actual) && len == 4)
        balloon_of(d)->config.actual = (uint32_t)value;
}

static const struct virtio_ops ops = {
    .notify = serve, .reset = reset, .configure = configure};

void virtio_balloon_state(struct virtio_balloon *b, struct snapshot *s) {
    virtio_device_state(&b->d, s);
    SNAPSHOT(s, b->config.num_pages);
    SNAPSHOT(s, b->config.actual);
    SNAPSHOT(s, b->has_stats);
    SNAPSHOT(s, b->stats_head);
    SNAPSHOT(s, b->stats.given);
    for (unsigned n = 0; n < VIRTIO_BALLOON_STATS; n++)
        SNAPSHOT(s, b->stats.value[n]);
    snapshot_need(s, !(b->stats.given >> VIRTIO_BALLOON_STATS));
}

struct virtio_balloon *virtio_balloon_new(struct mem *mem, struct vclock *clock,
                                          bool strict, struct counters *cnt) {
    struct virtio_balloon *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    for (unsigned n = 0; n < QUEUES; n++)
        b->queue[n].size_max = QUEUE_SIZE;
    b->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-balloon",
                                  .id = VIRTIO_ID_BALLOON,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .offered = VIRTIO_F_ALWAYS | VIRTIO_F_ANY_LAYOUT |
                                             F_STATS | F_REPORTING |
                                             (strict ? 0 : F_DEFLATE_ON_OOM),
                                  .config = &b->config,
                                  .config_len = CONFIG_LEN,
                                  .queue = b->queue,
                                  .queues = QUEUES};
    virtio_device_init(&b->d);
    return b;
}

void virtio_balloon_free(struct virtio_balloon *b) {
    if (b)
        virtio_device_end(&b->d);
    free(b);
}

struct virtio_device *virtio_balloon_device(struct virtio_balloon *b) {
    return &b->d;
}

void virtio_balloon_set(struct virtio_balloon *b, uint32_t pages) {
    if (b->config.num_pages == pages)
        return;
    b->config.num_pages = pages;
    virtio_config_changed(&b->d);
}

uint32_t virtio_balloon_target(const struct virtio_balloon *b) {
    return b->config.num_pages;
}

uint32_t virtio_balloon_pages(const struct virtio_balloon *b) {
    return b->config.actual;
}

void virtio_balloon_poll(struct virtio_balloon *b) {
    if (!b->has_stats)
        return;
    b->has_stats = false;
    virtio_queue_give(&b->queue[Q_STATS], b->stats_head, 0);
}

struct virtio_balloon_stats virtio_balloon_stats(const struct virtio_balloon *b) {
    return b->stats;
}
