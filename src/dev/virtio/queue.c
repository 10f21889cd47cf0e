/*
 * Split virtqueues; see virtio.h. "Split Virtqueues" of the standard.
 *
 * Three rings in guest memory: descriptors (16 bytes each: address, length, flags, next),
 * available (flags, index, heads; then used_event), used (flags, index, elements of a
 * head and a length; then avail_event). Each is in one place of RAM when the queue is
 * enabled, and stays there: host addresses are kept.
 *
 * A chain is walked once. Its steps are counted, so that loops end; its pieces are
 * checked, and have a limit. What is read from the rings is read by one access each and
 * never again.
 *
 * Order: the driver's index is read with acquire, ours written with release, after the
 * elements. Where each side writes one thing and then reads another of the other side's
 * (index, then the event that suppresses), there is a full fence between.
 */
#include "dev/virtio/virtio.h"
#include "snapshot/snapshot.h"

#define DESC_SIZE 16u
#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

#define AVAIL_NO_INTERRUPT 1u

/* Offsets in the available and used rings. */
#define RING_FLAGS 0u
#define RING_IDX 2u
#define RING_ENTRIES 4u

#define CHAIN_BYTES_MAX (1ull << 32) /* "The Virtqueue Descriptor Table" */

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
_Static_assert(sizeof(struct desc) == DESC_SIZE, "as in memory");

/* --- the rings --- */

static uint16_t load16(const uint8_t *p) {
    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store16(struct virtio_queue *q, uint8_t *p, uint16_t value) {
    mem_store(q->dev->mem, p, &value, sizeof(value));
}

static uint64_t avail_bytes(const struct virtio_queue *q) {
    return RING_ENTRIES + 2ull * q->size + 2;
}

static uint64_t used_bytes(const struct virtio_queue *q) {
    return RING_ENTRIES + 8ull * q->size + 2;
}

/* LEN bytes of RAM at AT, which has that alignment; NULL: there is none. */
static uint8_t *ring_host(const struct virtio_queue *q, uint64_t at, uint64_t len,
                          unsigned align) {
    struct mem *m = q->dev->mem;
    uint8_t *host;

    if (at % align)
        return NULL;
    host = mem_host(m, gpa(at), len);
    return host && mem_kind_of(m, host) == MEM_RAM ? host : NULL;
}

/* False: the rings are not where there is memory. */
static bool find_rings(struct virtio_queue *q) {
    q->desc_host = ring_host(q, q->desc, (uint64_t)DESC_SIZE * q->size, 16);
    q->avail_host = ring_host(q, q->avail, avail_bytes(q), 2);
    q->used_host = ring_host(q, q->used, used_bytes(q), 4);
    return q->desc_host && q->avail_host && q->used_host;
}

void virtio_queue_enable(struct virtio_queue *q) {
    if (q->ready)
        return;
    q->next_avail = q->used_idx = q->staged = q->avail_event = 0;
    if (!find_rings(q)) {
        virtio_broken(q->dev, "a ring that is not in memory");
        return;
    }
    q->ready = true;
    q->stopped = false;
}

void virtio_queue_disable(struct virtio_queue *q) {
    q->stopped |= q->ready;
    q->ready = false;
}

bool virtio_queue_busy(const struct virtio_queue *q) {
    return q->ready || (q->stopped && q->under_way);
}

void virtio_queue_set_size(struct virtio_queue *q, uint32_t size) {
    if (!q->ready && size && size <= q->size_max && !(size & (size - 1)))
        q->size = (uint16_t)size;
}

void virtio_queue_set_legacy(struct virtio_queue *q, uint64_t pfn, uint32_t align) {
    virtio_queue_disable(q);
    if (!pfn)
        return;
    q->desc = pfn * align;
    q->avail = q->desc + (uint64_t)DESC_SIZE * q->size;
    q->used = (q->avail + avail_bytes(q) + align - 1) & ~((uint64_t)align - 1);
    virtio_queue_enable(q);
}

/* --- walking a chain --- */

/* Where descriptors are read from: the queue's table, or an indirect one. */
struct table {
    uint64_t at;         /* of an indirect one */
    const uint8_t *host; /* the queue's; else NULL */
    unsigned count;
    unsigned steps; /* that may still be made in it */
};

static bool read_desc(const struct virtio_queue *q, const struct table *t, unsigned n,
                      struct desc *d) {
    if (t->host) {
        mem_copy(d, t->host + (uint64_t)n * DESC_SIZE, DESC_SIZE);
        return true;
    }
    return mem_read(q->dev->mem, gpa(t->at + (uint64_t)n * DESC_SIZE), d, DESC_SIZE);
}

/* One more piece at the end of the chain, or NULL: there is no room. */
static const char *add_piece(struct virtio_chain *c, uint8_t *host, uint64_t len,
                             bool write) {
    struct virtio_span *s = write ? &c->in : &c->out;
    unsigned n = c->out.count + c->in.count;

    if (n == c->rooms)
        return "a buffer in too many pieces";
    c->room[n] = (struct virtio_piece){host, len};
    if (!s->count++)
        s->piece = &c->room[n];
    s->len += len;
    return NULL;
}

/* The buffer of one descriptor. What is wrong with it, or NULL. */
static const char *add_buffer(const struct virtio_queue *q, struct virtio_chain *c,
                              const struct desc *d) {
    bool write = d->flags & DESC_WRITE;
    uint64_t at = d->addr, left = d->len, n;
    const char *why = NULL;

    if (!write && c->in.count)
        return "a buffer to be read behind one to be written";
    if (c->out.len + c->in.len + left > CHAIN_BYTES_MAX)
        return "a buffer of more than 4 GiB";
    for (; left && !why; at += n, left -= n) {
        uint8_t *host = mem_run(q->dev->mem, gpa(at), left, write, &n);

        if (!host)
            return "a buffer that is not in memory";
        why = add_piece(c, host, n, write);
    }
    return why;
}

/* The table that an indirect descriptor names. */
static const char *enter_indirect(const struct virtio_queue *q, struct table *t,
                                  const struct desc *d) {
    if (!t->host)
        return "an indirect descriptor in an indirect table";
    if (!virtio_has(q->dev, VIRTIO_F_INDIRECT_DESC))
        return "an indirect descriptor that was not negotiated";
    if (d->flags & DESC_NEXT)
        return "an indirect descriptor with a successor";
    if (!d->len || d->len % DESC_SIZE || d->len / DESC_SIZE > VIRTIO_INDIRECT_MAX)
        return "an indirect table of an impossible size";
    if (d->addr > UINT64_MAX - d->len)
        return "an indirect table that is not in memory";
    *t = (struct table){
        .at = d->addr, .count = d->len / DESC_SIZE, .steps = d->len / DESC_SIZE};
    return NULL;
}

static const char *walk(const struct virtio_queue *q, struct virtio_chain *c) {
    struct table t = {.host = q->desc_host, .count = q->size, .steps = q->size};
    unsigned n = c->head;
    const char *why = NULL;
    struct desc d;

    for (;;) {
        if (n >= t.count)
            return "a descriptor beyond the table";
        if (!t.steps--)
            return "descriptors in a loop";
        if (!read_desc(q, &t, n, &d))
            return "an indirect table that is not in memory";
        if (d.flags & DESC_INDIRECT) {
            why = enter_indirect(q, &t, &d);
            n = 0;
        } else {
            why = add_buffer(q, c, &d);
            n = d.next;
            if (!(d.flags & DESC_NEXT))
                return why;
        }
        if (why)
            return why;
    }
}

/* --- taking and giving --- */

/* Between what we have stored and what we look at next: the driver does the same the
 * other way round, and one of us sees the other. False: not quite, the driver may see
 * ours a moment later than we look. */
static bool fence(const struct virtio_queue *q) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return !q->dev->fence || q->dev->fence(q->dev->fence_arg);
}

/* The driver is to notify when its index has gone past IDX. */
static void ask_at(struct virtio_queue *q, uint16_t idx) {
    q->avail_event = idx;
    store16(q, q->used_host + RING_ENTRIES + 8ull * q->size, idx);
    if (!fence(q))
        virtio_queue_later(q);
}

/* How many buffers wait. The driver is to tell of the next one, when there is none. */
static uint16_t waiting(struct virtio_queue *q) {
    uint16_t idx = load16(q->avail_host + RING_IDX);

    if (idx != q->next_avail || !virtio_has(q->dev, VIRTIO_F_EVENT_IDX) ||
        q->avail_event == idx)
        return (uint16_t)(idx - q->next_avail);
    ask_at(q, idx);
    return (uint16_t)(load16(q->avail_host + RING_IDX) - q->next_avail);
}

void virtio_queue_ask(struct virtio_queue *q) {
    if (virtio_queue_live(q) && virtio_has(q->dev, VIRTIO_F_EVENT_IDX))
        ask_at(q, load16(q->avail_host + RING_IDX));
}

bool virtio_queue_pop(struct virtio_queue *q, struct virtio_chain *c) {
    const char *why = NULL;
    uint16_t count;

    if (!virtio_queue_live(q) || !(count = waiting(q)))
        return false;
    c->out = c->in = (struct virtio_span){.piece = c->room};
    if (count > q->size) {
        why = "an available index that jumps";
    } else {
        c->head =
            load16(q->avail_host + RING_ENTRIES + 2ull * (q->next_avail & (q->size - 1)));
        why = walk(q, c);
    }
    if (why) {
        virtio_broken(q->dev, why);
        return false;
    }
    q->next_avail++;
    return true;
}

void virtio_queue_unpop(struct virtio_queue *q, unsigned n) {
    q->next_avail = (uint16_t)(q->next_avail - n);
}

void virtio_queue_push(struct virtio_queue *q, uint16_t head, uint32_t written) {
    uint16_t at = (uint16_t)((q->used_idx + q->staged) & (q->size - 1));
    uint32_t elem[2] = {head, written};

    if (!virtio_queue_live(q))
        return;
    mem_store(q->dev->mem, q->used_host + RING_ENTRIES + 8ull * at, elem, sizeof(elem));
    q->staged++;
}

/* "Used Buffer Notification Suppression": does the driver want to hear that the index has
 * gone from OLD to NEW? */
static bool wants_interrupt(const struct virtio_queue *q, uint16_t old, uint16_t new) {
    uint16_t event;

    if (!virtio_has(q->dev, VIRTIO_F_EVENT_IDX))
        return !(load16(q->avail_host + RING_FLAGS) & AVAIL_NO_INTERRUPT);
    event = load16(q->avail_host + RING_ENTRIES + 2ull * q->size);
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

void virtio_queue_publish(struct virtio_queue *q) {
    uint16_t old = q->used_idx;

    if (!q->staged || !virtio_queue_live(q))
        return;
    q->used_idx = (uint16_t)(old + q->staged);
    q->staged = 0;
    store16(q, q->used_host + RING_IDX, q->used_idx);
    /* Without a fence a driver that wants it is told; one that does not may want it
     * since.
     */
    if (!wants_interrupt(q, old, q->used_idx) && fence(q) &&
        !wants_interrupt(q, old, q->used_idx))
        return;
    if (q->dev->cnt)
        q->dev->cnt->irq_virtio++;
    q->dev->interrupt(q->dev->transport, q);
}

void virtio_queue_later(struct virtio_queue *q) {
    vtimer_arm(q->dev->clock, &q->later, vclock_now(q->dev->clock));
}

void virtio_queue_give(struct virtio_queue *q, uint16_t head, uint32_t written) {
    virtio_queue_push(q, head, written);
    virtio_queue_publish(q);
}

/* --- spans --- */

/* The first N bytes of the span's first piece go. */
static void drop_front(struct virtio_span *s, uint64_t n) {
    s->piece->host += n;
    s->piece->len -= n;
    s->len -= n;
    if (!s->piece->len) {
        s->piece++;
        s->count--;
    }
}

uint64_t virtio_span_read(struct virtio_span *s, void *buf, uint64_t len) {
    uint64_t done = 0;

    while (done < len && s->count) {
        uint64_t n = s->piece->len < len - done ? s->piece->len : len - done;

        if (buf)
            mem_copy((uint8_t *)buf + done, s->piece->host, n);
        drop_front(s, n);
        done += n;
    }
    return done;
}

uint64_t virtio_span_write(struct virtio_device *d, struct virtio_span *s,
                           const void *buf, uint64_t len) {
    uint64_t done = 0;

    while (done < len && s->count) {
        uint64_t n = s->piece->len < len - done ? s->piece->len : len - done;

        mem_store(d->mem, s->piece->host, (const uint8_t *)buf + done, n);
        drop_front(s, n);
        done += n;
    }
    return done;
}

uint8_t *virtio_span_take_last(struct virtio_span *s) {
    struct virtio_piece *last;
    uint8_t *host;

    if (!s->count)
        return NULL;
    last = &s->piece[s->count - 1];
    host = last->host + --last->len;
    s->len--;
    if (!last->len)
        s->count--;
    return host;
}

void virtio_span_cut(struct virtio_span *s, uint64_t len) {
    while (s->len > len) {
        struct virtio_piece *last = &s->piece[s->count - 1];
        uint64_t n = last->len < s->len - len ? last->len : s->len - len;

        last->len -= n;
        s->len -= n;
        if (!last->len)
            s->count--;
    }
}

void virtio_span_written(struct virtio_device *d, const struct virtio_span *s) {
    for (unsigned n = 0; n < s->count; n++)
        mem_about_to_write(d->mem, s->piece[n].host, s->piece[n].len);
}

/* --- snapshots --- */

void virtio_queue_state(struct virtio_queue *q, struct snapshot *s) {
    bool ready = q->ready;

    SNAPSHOT(s, q->size);
    SNAPSHOT(s, q->vector);
    SNAPSHOT(s, ready);
    SNAPSHOT(s, q->desc);
    SNAPSHOT(s, q->avail);
    SNAPSHOT(s, q->used);
    SNAPSHOT(s, q->next_avail);
    SNAPSHOT(s, q->used_idx);
    SNAPSHOT(s, q->staged);
    SNAPSHOT(s, q->avail_event);
    if (q->dev->clock)
        vtimer_state(q->dev->clock, &q->later, s);
    if (!snapshot_reading(s))
        return;
    q->ready = false;
    snapshot_need(s, q->size_max
                         ? q->size && q->size <= q->size_max && !(q->size & (q->size - 1))
                         : !q->size && !ready);
    if (ready && snapshot_good(s)) {
        q->ready = find_rings(q);
        snapshot_need(s, q->ready);
    }
}
