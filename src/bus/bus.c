/*
 * Port and MMIO bus.
 *
 * Ports: `slot_of` maps each of the 65,536 ports to a slot number, 0 for none; so a port
 * access costs one byte load whatever is attached. MMIO: a short array of ranges in
 * ascending order, searched from the range that was hit last.
 *
 * Invariants: slots 1..npio and ranges 0..nmmio-1 are in use; ranges do not overlap.
 *
 * Locking: none; the vCPU's thread. A device may attach or detach MMIO from inside its
 * own write handler (a local APIC that moves): nothing of the range is used after the
 * call.
 */
#include "bus/bus.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_PIO 255u
#define MAX_MMIO 64u

struct range {
    uint64_t first;
    uint64_t size;
    const struct bus_ops *ops;
    void *dev;
    const char *name;
};

struct bus {
    uint8_t slot_of[65536];
    struct range pio[MAX_PIO + 1]; /* [0] unused */
    unsigned npio;
    struct range mmio[MAX_MMIO];
    unsigned nmmio;
    unsigned last; /* the MMIO range hit last */
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

int bus_attach_pio(struct bus *b, uint16_t first, unsigned count,
                   const struct bus_ops *ops, void *dev, const char *name) {
    unsigned i;

    if (!count || first + count > 65536)
        return -EINVAL;
    for (i = first; i < first + count; i++)
        if (b->slot_of[i])
            return -EEXIST;
    if (b->npio == MAX_PIO)
        return -ENOMEM;
    b->npio++;
    b->pio[b->npio] = (struct range){first, count, ops, dev, name};
    for (i = first; i < first + count; i++)
        b->slot_of[i] = (uint8_t)b->npio;
    return 0;
}

int bus_attach_mmio(struct bus *b, struct gpa first, uint64_t size,
                    const struct bus_ops *ops, void *dev, const char *name) {
    unsigned at = 0, i;

    if (!size || first.a + (size - 1) < first.a)
        return -EINVAL;
    for (i = 0; i < b->nmmio; i++) {
        const struct range *r = &b->mmio[i];

        if (first.a <= r->first + (r->size - 1) && r->first <= first.a + (size - 1))
            return -EEXIST;
        if (r->first < first.a)
            at = i + 1;
    }
    if (b->nmmio == MAX_MMIO)
        return -ENOMEM;
    for (i = b->nmmio; i > at; i--)
        b->mmio[i] = b->mmio[i - 1];
    b->mmio[at] = (struct range){first.a, size, ops, dev, name};
    b->nmmio++;
    return 0;
}

void bus_detach_mmio(struct bus *b, void *dev) {
    unsigned i, kept = 0;

    for (i = 0; i < b->nmmio; i++)
        if (b->mmio[i].dev != dev)
            b->mmio[kept++] = b->mmio[i];
    b->nmmio = kept;
    b->last = 0;
}

static uint64_t ones(unsigned size) {
    return size >= 8 ? ~0ull : (1ull << (size * 8)) - 1;
}

static void prepare(const struct bus *b, const struct range *r) {
    if (!r->ops->general && b->leave)
        b->leave(b->leave_arg);
}

/* [ADDR, ADDR+SIZE) lies in R; wider than the device: in pieces. */
static uint64_t range_read(const struct bus *b, const struct range *r, uint64_t addr,
                           unsigned size) {
    const struct range copy = *r; /* the handler may change the table */
    unsigned width = copy.ops->width;
    uint64_t value = 0;
    unsigned i;

    prepare(b, r);
    if (!width || size <= width)
        return copy.ops->read(copy.dev, addr - copy.first, size) & ones(size);
    for (i = 0; i < size; i += width)
        value |= (copy.ops->read(copy.dev, addr - copy.first + i, width) & ones(width))
                 << (i * 8);
    return value;
}

static void range_write(const struct bus *b, const struct range *r, uint64_t addr,
                        unsigned size, uint64_t value) {
    const struct range copy = *r;
    unsigned width = copy.ops->width;
    unsigned i;

    prepare(b, r);
    if (!width || size <= width) {
        copy.ops->write(copy.dev, addr - copy.first, size, value & ones(size));
        return;
    }
    for (i = 0; i < size; i += width)
        copy.ops->write(copy.dev, addr - copy.first + i, width,
                        (value >> (i * 8)) & ones(width));
}

static bool covers(const struct range *r, uint64_t addr, unsigned size) {
    return addr >= r->first && addr - r->first < r->size &&
           r->size - (addr - r->first) >= size;
}

/* The range that holds all of the access, or NULL. */
static const struct range *find_pio(const struct bus *b, uint32_t port, unsigned size) {
    const struct range *r;

    if (port > 0xffff || !b->slot_of[port])
        return NULL;
    r = &b->pio[b->slot_of[port]];
    return covers(r, port, size) ? r : NULL;
}

uint32_t bus_pio_read(struct bus *b, uint16_t port, unsigned size) {
    const struct range *r = find_pio(b, port, size);
    uint32_t value = 0;
    unsigned i;

    if (likely(r))
        return (uint32_t)range_read(b, r, port, size);
    for (i = 0; i < size; i++) {
        r = find_pio(b, (uint32_t)port + i, 1);
        value |= (r ? (uint32_t)range_read(b, r, port + i, 1) : 0xffu) << (i * 8);
    }
    return value;
}

void bus_pio_write(struct bus *b, uint16_t port, unsigned size, uint32_t value) {
    const struct range *r = find_pio(b, port, size);
    unsigned i;

    if (likely(r)) {
        range_write(b, r, port, size, value);
        return;
    }
    for (i = 0; i < size; i++) {
        r = find_pio(b, (uint32_t)port + i, 1);
        if (r)
            range_write(b, r, port + i, 1, (value >> (i * 8)) & 0xff);
    }
}

static const struct range *find_mmio(struct bus *b, uint64_t addr, unsigned size) {
    unsigned i;

    if (b->last < b->nmmio && covers(&b->mmio[b->last], addr, size))
        return &b->mmio[b->last];
    for (i = 0; i < b->nmmio; i++)
        if (covers(&b->mmio[i], addr, size)) {
            b->last = i;
            return &b->mmio[i];
        }
    return NULL;
}

uint64_t bus_mmio_read(struct bus *b, struct gpa at, unsigned size) {
    const struct range *r = find_mmio(b, at.a, size);
    uint64_t value = 0;
    unsigned i;

    if (likely(r))
        return range_read(b, r, at.a, size);
    for (i = 0; i < size; i++) {
        r = find_mmio(b, at.a + i, 1);
        value |= (r ? range_read(b, r, at.a + i, 1) : 0xffull) << (i * 8);
    }
    return value;
}

void bus_mmio_write(struct bus *b, struct gpa at, unsigned size, uint64_t value) {
    const struct range *r = find_mmio(b, at.a, size);
    unsigned i;

    if (likely(r)) {
        range_write(b, r, at.a, size, value);
        return;
    }
    for (i = 0; i < size; i++) {
        r = find_mmio(b, at.a + i, 1);
        if (r)
            range_write(b, r, at.a + i, 1, (value >> (i * 8)) & 0xff);
    }
}
