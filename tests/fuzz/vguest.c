/* A driver of a virtio device; see vguest.h. */
#include "fuzz/vguest.h"

#define AVAIL 0x4000u
#define USED 0x8000u

void vguest_new(struct vguest *g, struct rig *r, struct mem *mem,
                struct virtio_device *dev) {
    *g = (struct vguest){.r = r, .mem = mem, .dev = dev};
    g->mmio = virtio_mmio_new(r->bus, gpa(VGUEST_MMIO), rig_line(r, 5), dev);
    HOLDS(g->mmio);
}

void vguest_free(struct vguest *g) {
    virtio_mmio_reset(g->mmio);
    HOLDS(!g->dev->under_way && !virtio_status(g->dev));
    virtio_mmio_free(g->mmio);
}

void vguest_set(struct vguest *g, unsigned at, uint32_t value) {
    bus_mmio_write(g->r->bus, gpa(VGUEST_MMIO + at), 4, value);
}

void vguest_put(struct vguest *g, uint64_t at, unsigned len, uint64_t value) {
    mem_write(g->mem, gpa(at), &value, len);
}

static uint64_t rings(unsigned q) {
    return VGUEST_RINGS * (q + 1);
}

void vguest_start(struct vguest *g, uint64_t features) {
    memset(g->avail, 0, sizeof(g->avail));
    vguest_set(g, 0x70, 0);
    vguest_set(g, 0x70, 3);
    for (unsigned page = 0; page < 2; page++) {
        vguest_set(g, 0x24, page);
        vguest_set(g, 0x20,
                   virtio_offered(g->dev, page) & (uint32_t)(features >> 32 * page));
    }
    vguest_set(g, 0x70, 11);
    for (unsigned n = 0; n < g->dev->queues; n++) {
        vguest_set(g, 0x30, n);
        vguest_set(g, 0x80, (uint32_t)rings(n));
        vguest_set(g, 0x90, (uint32_t)rings(n) + AVAIL);
        vguest_set(g, 0xa0, (uint32_t)rings(n) + USED);
        vguest_set(g, 0x44, 1);
        vguest_put(g, rings(n) + AVAIL, 4, 0);
    }
    vguest_set(g, 0x70, 15);
}

unsigned vguest_queue(const struct vguest *g, struct fuzz_in *in) {
    return (unsigned)fuzz_get(in, 1) % g->dev->queues;
}

void vguest_desc(struct vguest *g, unsigned q, unsigned n, uint64_t at, uint32_t len,
                 unsigned flags, unsigned next) {
    uint64_t d = rings(q) + 16ull * n;

    vguest_put(g, d, 8, at);
    vguest_put(g, d + 8, 4, len);
    vguest_put(g, d + 12, 2, flags);
    vguest_put(g, d + 14, 2, next);
}

void vguest_offer(struct vguest *g, struct fuzz_in *in) {
    unsigned q = vguest_queue(g, in), head = (unsigned)fuzz_get(in, 1);
    uint64_t ring = rings(q) + AVAIL;

    vguest_put(g, ring + 4 + 2 * (g->avail[q] % g->dev->queue[q].size), 2, head & 0x8f);
    vguest_put(g, ring + 2, 2, ++g->avail[q]);
    vguest_set(g, 0x50, q);
}
