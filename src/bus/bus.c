/*
 * Port and MMIO bus.
 *
 * Each of the two spaces has its ranges in an array (so that a handle stays where it is)
 * and a list of them in the order in which they were attached: the earlier hides the
 * later. From that, each change derives what an access looks at:
 *
 *   ports   `slot_of` has a byte for each of the 65,536: the index of the range that
 *           answers, 0 for none. A port access costs one byte load whatever is attached.
 *   MMIO    `seg`: the visible pieces of the ranges, ascending, apart from each other;
 *           the one that was hit last is tried first, then they are searched by halves.
 *
 * Invariants: index 0 of a space is never attached, and its size is 0; what `slot_of` and
 * `seg` name is attached and on. A range is `whole` when nothing hides any of it.
 *
 * Locking: none; the vCPU's thread. A device may change any range from inside an access:
 * nothing of a range is used after a device was called.
 */
#include "bus/bus.h"

#include <stdlib.h>

#define MAX_RANGES 255u /* of a space, and index 0 */
/* N intervals, one hiding the other, show at most 2 N - 1 pieces. */
#define MAX_SEGS (2 * MAX_RANGES)
#define PORTS 65536u

struct bus_range {
    uint64_t first;
    uint64_t size; /* 0: not attached */
    const struct bus_ops *ops;
    void *dev;
    bool whole;
    bool on;
    bool mmio;
    const char *name;
    struct bus *bus;
};

struct space {
    struct bus_range range[MAX_RANGES + 1];
    uint8_t order[MAX_RANGES]; /* indices, the earliest attached first */
    unsigned count;
};

struct seg {
    uint64_t first, last;
    struct bus_range *range;
};

struct bus {
    uint8_t slot_of[PORTS];
    struct space pio, mmio;
    struct seg seg[MAX_SEGS], spare[MAX_SEGS];
    unsigned segs;
    unsigned last; /* the piece hit last */
    void (*leave)(void *arg);
    void *leave_arg;
};

struct bus *bus_new(void) {
    return calloc(1, sizeof(struct bus));
}

void bus_free(struct bus *b) {
    free(b);
}

void bus_on_leave(struct bus *b, void (*leave)(void *arg), void *arg) {
    b->leave = leave;
    b->leave_arg = arg;
}

/* --- what is derived from the ranges --- */

/* The last address of R, which begins at FIRST: the end of the space at most. */
static uint64_t last_of(const struct bus_range *r, uint64_t first) {
    uint64_t end = r->mmio ? UINT64_MAX : PORTS - 1;

    return first > end || end - first < r->size ? end : first + (r->size - 1);
}

/* Ports LO..HI: who answers each, and who is hidden there. */
static void lay_ports(struct bus *b, uint64_t lo, uint64_t hi) {
    struct space *s = &b->pio;

    for (uint64_t p = lo; p <= hi; p++)
        b->slot_of[p] = 0;
    for (unsigned n = s->count; n--;) { /* the earlier over the later */
        struct bus_range *r = &s->range[s->order[n]];
        uint64_t first = r->first, last = last_of(r, r->first);

        if (!r->on || first > hi || last < lo)
            continue;
        first = first > lo ? first : lo;
        last = last < hi ? last : hi;
        for (uint64_t p = first; p <= last; p++)
            b->slot_of[p] = s->order[n];
    }
    for (unsigned n = 0; n < s->count; n++) {
        struct bus_range *r = &s->range[s->order[n]];

        r->whole = r->on && r->size <= PORTS && r->first <= PORTS - r->size;
        for (uint64_t k = 0; r->whole && k < r->size; k++)
            r->whole = b->slot_of[r->first + k] == s->order[n];
    }
}

/* Adds what the pieces so far leave of R. */
static void add_segs(struct bus *b, struct bus_range *r) {
    uint64_t at = r->first, last = last_of(r, r->first);
    bool left = true;
    unsigned n = 0;

    for (unsigned k = 0; k < b->segs; k++) {
        const struct seg *s = &b->seg[k];

        if (left && s->first > at) {
            uint64_t end = s->first - 1 < last ? s->first - 1 : last;

            b->spare[n++] = (struct seg){at, end, r};
            left = end < last;
        }
        b->spare[n++] = *s;
        if (s->last >= at) {
            left &= s->last < last;
            at = s->last + 1;
        }
    }
    if (left)
        b->spare[n++] = (struct seg){at, last, r};
    for (unsigned k = 0; k < n; k++)
        b->seg[k] = b->spare[k];
    b->segs = n;
}

static void lay_mmio(struct bus *b) {
    b->segs = b->last = 0;
    for (unsigned n = 0; n < b->mmio.count; n++) {
        struct bus_range *r = &b->mmio.range[b->mmio.order[n]];

        if (r->on)
            add_segs(b, r);
    }
}

/* R has become, or ceased to be, visible at FIRST. */
static void lay(struct bus_range *r, uint64_t first) {
    if (r->mmio)
        lay_mmio(r->bus);
    else if (first < PORTS)
        lay_ports(r->bus, first, last_of(r, first));
}

/* --- ranges --- */

static struct bus_range *attach(struct bus *b, bool mmio, uint64_t first, uint64_t size,
                                const struct bus_ops *ops, void *dev, const char *name) {
    struct space *s = mmio ? &b->mmio : &b->pio;
    struct bus_range *r = NULL;

    for (unsigned n = 1; n <= MAX_RANGES && !r; n++)
        if (!s->range[n].size)
            r = &s->range[n];
    if (!r)
        return NULL;
    *r = (struct bus_range){.first = first,
                            .size = size,
                            .ops = ops,
                            .dev = dev,
                            .on = true,
                            .mmio = mmio,
                            .name = name,
                            .bus = b};
    s->order[s->count++] = (uint8_t)(r - s->range);
    lay(r, first);
    return r;
}

struct bus_range *bus_attach_pio(struct bus *b, uint16_t first, unsigned count,
                                 const struct bus_ops *ops, void *dev, const char *name) {
    if (!count || count > PORTS - first)
        return NULL;
    return attach(b, false, first, count, ops, dev, name);
}

struct bus_range *bus_attach_mmio(struct bus *b, struct gpa first, uint64_t size,
                                  const struct bus_ops *ops, void *dev,
                                  const char *name) {
    if (!size || first.a + (size - 1) < first.a)
        return NULL;
    return attach(b, true, first.a, size, ops, dev, name);
}

void bus_range_move(struct bus_range *r, uint64_t first) {
    uint64_t before = r->first;

    if (first == before)
        return;
    r->first = first;
    if (!r->on)
        return;
    if (!r->mmio)
        lay(r, before);
    lay(r, first);
}

void bus_range_enable(struct bus_range *r, bool on) {
    if (r->on == on)
        return;
    r->on = on;
    lay(r, r->first);
}

void bus_range_detach(struct bus_range *r) {
    struct space *s;
    unsigned n = 0;

    if (!r)
        return;
    bus_range_enable(r, false);
    s = r->mmio ? &r->bus->mmio : &r->bus->pio;
    while (s->order[n] != r - s->range)
        n++;
    for (s->count--; n < s->count; n++)
        s->order[n] = s->order[n + 1];
    *r = (struct bus_range){.size = 0};
}

/* --- accesses --- */

static inline uint64_t ones(unsigned size) {
    return size >= 8 ? ~0ull : (1ull << (size * 8)) - 1;
}

/* The range that has all of the access, or NULL. */
static inline struct bus_range *find_pio(struct bus *b, uint64_t port, unsigned size) {
    struct bus_range *r;
    unsigned slot;

    if (unlikely(port >= PORTS))
        return NULL;
    slot = b->slot_of[port];
    r = &b->pio.range[slot];
    if (unlikely(port - r->first + size > r->size)) /* nobody's, too */
        return NULL;
    for (unsigned n = 1; unlikely(!r->whole) && n < size; n++)
        if (port + n >= PORTS || b->slot_of[port + n] != slot)
            return NULL;
    return r;
}

static inline bool covers(const struct seg *s, uint64_t addr, unsigned size) {
    return addr >= s->first && addr <= s->last && s->last - addr >= size - 1;
}

static inline struct bus_range *find_mmio(struct bus *b, uint64_t addr, unsigned size) {
    unsigned lo = 0, hi = b->segs;

    if (b->last < b->segs && covers(&b->seg[b->last], addr, size))
        return b->seg[b->last].range;
    while (lo < hi) { /* the first piece that does not end before ADDR */
        unsigned mid = (lo + hi) / 2;

        if (b->seg[mid].last < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == b->segs || !covers(&b->seg[lo], addr, size))
        return NULL;
    b->last = lo;
    return b->seg[lo].range;
}

static inline struct bus_range *find(struct bus *b, bool mmio, uint64_t addr,
                                     unsigned size) {
    return mmio ? find_mmio(b, addr, size) : find_pio(b, addr, size);
}

static inline void prepare(const struct bus *b, const struct bus_range *r) {
    if (!r->ops->general && b->leave)
        b->leave(b->leave_arg);
}

static inline bool takes(const struct bus_range *r, unsigned size) {
    return !r->ops->width || size <= r->ops->width;
}

static inline uint64_t range_read(const struct bus *b, const struct bus_range *r,
                                  uint64_t addr, unsigned size) {
    prepare(b, r);
    return r->ops->read(r->dev, addr - r->first, size) & ones(size);
}

static inline void range_write(const struct bus *b, const struct bus_range *r,
                               uint64_t addr, unsigned size, uint64_t value) {
    prepare(b, r);
    r->ops->write(r->dev, addr - r->first, size, value & ones(size));
}

/*
 * The next piece of an access that is not one: *SIZE bytes at ADDR, of which LEFT are
 * left. NARROW is the piece's size where one device has all of it, in pieces; else bytes.
 * Looked up anew for each: the piece before may have changed the bus.
 */
static struct bus_range *next_piece(struct bus *b, bool mmio, uint64_t addr,
                                    unsigned left, unsigned narrow, unsigned *size) {
    struct bus_range *r = narrow <= left ? find(b, mmio, addr, narrow) : NULL;

    if (r && takes(r, narrow)) {
        *size = narrow;
        return r;
    }
    *size = 1;
    return find(b, mmio, addr, 1);
}

static uint64_t read_pieces(struct bus *b, bool mmio, uint64_t addr, unsigned size,
                            unsigned narrow) {
    uint64_t value = 0;

    for (unsigned i = 0, n; i < size; i += n) {
        struct bus_range *r = next_piece(b, mmio, addr + i, size - i, narrow, &n);

        value |= (r ? range_read(b, r, addr + i, n) : ones(n)) << (i * 8);
    }
    return value;
}

static void write_pieces(struct bus *b, bool mmio, uint64_t addr, unsigned size,
                         uint64_t value, unsigned narrow) {
    for (unsigned i = 0, n; i < size; i += n) {
        struct bus_range *r = next_piece(b, mmio, addr + i, size - i, narrow, &n);

        if (r)
            range_write(b, r, addr + i, n, value >> (i * 8));
    }
}

static inline uint64_t bus_read(struct bus *b, bool mmio, uint64_t addr, unsigned size) {
    struct bus_range *r = find(b, mmio, addr, size);

    if (likely(r && takes(r, size)))
        return range_read(b, r, addr, size);
    return read_pieces(b, mmio, addr, size, r ? r->ops->width : 1);
}

static inline void bus_write(struct bus *b, bool mmio, uint64_t addr, unsigned size,
                             uint64_t value) {
    struct bus_range *r = find(b, mmio, addr, size);

    if (likely(r && takes(r, size)))
        range_write(b, r, addr, size, value);
    else
        write_pieces(b, mmio, addr, size, value, r ? r->ops->width : 1);
}

uint32_t bus_pio_read(struct bus *b, uint16_t port, unsigned size) {
    return (uint32_t)bus_read(b, false, port, size);
}

void bus_pio_write(struct bus *b, uint16_t port, unsigned size, uint32_t value) {
    bus_write(b, false, port, size, value);
}

uint64_t bus_mmio_read(struct bus *b, struct gpa at, unsigned size) {
    return bus_read(b, true, at.a, size);
}

void bus_mmio_write(struct bus *b, struct gpa at, unsigned size, uint64_t value) {
    bus_write(b, true, at.a, size, value);
}
