/*
 * virtio over MMIO; see transport.h. "Virtio Over MMIO" of the standard, version 2 of the
 * register layout: no legacy interface.
 *
 * Registers are doublewords, and their accesses too; the configuration space, from 0x100
 * on, is read and written in its own widths.
 */
#include <stdlib.h>

#include "dev/virtio/transport.h"
#include "snapshot/snapshot.h"

#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2u
#define VENDOR 0x1af4u

/* "MMIO Device Register Layout" */
enum {
    R_MAGIC = 0x00,
    R_VERSION = 0x04,
    R_DEVICE = 0x08,
    R_VENDOR = 0x0c,
    R_OFFERED = 0x10,
    R_OFFERED_PAGE = 0x14,
    R_ACCEPTED = 0x20,
    R_ACCEPTED_PAGE = 0x24,
    R_QUEUE = 0x30,
    R_QUEUE_MAX = 0x34,
    R_QUEUE_SIZE = 0x38,
    R_QUEUE_READY = 0x44,
    R_NOTIFY = 0x50,
    R_INTERRUPT = 0x60,
    R_INTERRUPT_ACK = 0x64,
    R_STATUS = 0x70,
    R_DESC = 0x80, /* each of these in two halves */
    R_AVAIL = 0x90,
    R_USED = 0xa0,
    R_GENERATION = 0xfc,
    R_CONFIG = 0x100,
};

#define INTERRUPT_USED 1u
#define INTERRUPT_CONFIG 2u

struct virtio_mmio {
    struct virtio_device *d;
    struct bus_range *range;
    struct irq_line irq;
    uint32_t offered_page, accepted_page, queue;
    uint32_t interrupt;
};

static void set_interrupt(struct virtio_mmio *m, uint32_t bits) {
    m->interrupt = bits;
    irq_set(&m->irq, bits != 0);
}

/* A rise for each: with an edge-triggered line the driver must see the second one too. */
static void on_interrupt(void *transport, struct virtio_queue *q) {
    struct virtio_mmio *m = transport;

    irq_set(&m->irq, false);
    set_interrupt(m, m->interrupt | (q ? INTERRUPT_USED : INTERRUPT_CONFIG));
}

/* --- reading --- */

static uint32_t read_register(struct virtio_mmio *m, uint64_t at) {
    const struct virtio_queue *q = virtio_queue_of(m->d, m->queue);

    switch (at) {
    case R_MAGIC:
        return MAGIC;
    case R_VERSION:
        return VERSION;
    case R_DEVICE:
        return m->d->id;
    case R_VENDOR:
        return VENDOR;
    case R_OFFERED:
        return virtio_offered(m->d, m->offered_page);
    case R_QUEUE_MAX:
        return q ? q->size_max : 0;
    case R_QUEUE_READY:
        return q && virtio_queue_busy(q); /* a driver that ends it waits for 0 */
    case R_INTERRUPT:
        return m->interrupt;
    case R_STATUS:
        return virtio_status(m->d);
    case R_GENERATION:
        return m->d->config_generation;
    default: /* not to be read; and what later versions have: shared memory (there is
                none: all ones), a queue's reset */
        return at >= 0xb0 && at < 0xc0 ? UINT32_MAX : 0;
    }
}

static uint64_t mmio_read(void *dev, uint64_t addr, unsigned size) {
    struct virtio_mmio *m = dev;

    if (addr >= R_CONFIG)
        return virtio_config_read(m->d, addr - R_CONFIG, size);
    return size == 4 && addr % 4 == 0 ? read_register(m, addr) : 0;
}

/* --- writing --- */

static void write_address(struct virtio_queue *q, uint64_t at, uint32_t value) {
    uint64_t *addr = at < R_AVAIL ? &q->desc : at < R_USED ? &q->avail : &q->used;
    unsigned shift = at & 4 ? 32 : 0;

    if (!q->ready && (at & 15) < 8)
        *addr = (*addr & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void write_queue(struct virtio_mmio *m, uint64_t at, uint32_t value) {
    struct virtio_queue *q = virtio_queue_of(m->d, m->queue);

    if (!q)
        return;
    if (at == R_QUEUE_SIZE)
        virtio_queue_set_size(q, value);
    else if (at == R_QUEUE_READY && value & 1)
        virtio_queue_enable(q);
    else if (at == R_QUEUE_READY)
        virtio_queue_disable(q);
    else if (at >= R_DESC && at < R_USED + 8)
        write_address(q, at, value);
}

static void forget_driver(struct virtio_mmio *m) {
    m->offered_page = m->accepted_page = m->queue = 0;
    set_interrupt(m, 0);
}

static void write_register(struct virtio_mmio *m, uint64_t at, uint32_t value) {
    switch (at) {
    case R_OFFERED_PAGE:
        m->offered_page = value;
        break;
    case R_ACCEPTED:
        virtio_accept(m->d, m->accepted_page, value);
        break;
    case R_ACCEPTED_PAGE:
        m->accepted_page = value;
        break;
    case R_QUEUE:
        m->queue = value;
        break;
    case R_NOTIFY:
        virtio_notify(m->d, value);
        break;
    case R_INTERRUPT_ACK:
        set_interrupt(m, m->interrupt & ~value);
        break;
    case R_STATUS:
        if (!(value & 0xff))
            forget_driver(m);
        virtio_set_status(m->d, (uint8_t)value, false);
        break;
    default:
        write_queue(m, at, value);
    }
}

static void mmio_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct virtio_mmio *m = dev;

    if (addr >= R_CONFIG)
        virtio_config_write(m->d, addr - R_CONFIG, size, value);
    else if (size == 4 && addr % 4 == 0)
        write_register(m, addr, (uint32_t)value);
}

static const struct bus_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

/* --- snapshots --- */

void virtio_mmio_state(struct virtio_mmio *m, struct snapshot *s) {
    SNAPSHOT(s, m->offered_page);
    SNAPSHOT(s, m->accepted_page);
    SNAPSHOT(s, m->queue);
    SNAPSHOT(s, m->interrupt);
}

/* --- life --- */

struct virtio_mmio *virtio_mmio_new(struct bus *bus, struct gpa at, struct irq_line irq,
                                    struct virtio_device *d) {
    struct virtio_mmio *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->d = d;
    m->irq = irq;
    m->range = bus_attach_mmio(bus, at, VIRTIO_MMIO_SIZE, &mmio_ops, m, d->name);
    if (!m->range) {
        free(m);
        return NULL;
    }
    d->interrupt = on_interrupt;
    d->transport = m;
    virtio_mmio_reset(m);
    return m;
}

void virtio_mmio_free(struct virtio_mmio *m) {
    if (!m)
        return;
    bus_range_detach(m->range);
    free(m);
}

void virtio_mmio_reset(struct virtio_mmio *m) {
    forget_driver(m);
    virtio_device_reset(m->d);
}
