/* A virtio driver for tests; see vdrv.h. */
#include "lib/vdrv.h"

#include <string.h>

#include "lib/need.h"

void vdrv_new(struct vdrv *v) {
    memset(v, 0, sizeof(*v));
    need(!mem_create(VDRV_RAM, &v->mem), "guest memory");
}

void vdrv_free(struct vdrv *v) {
    mem_destroy(v->mem);
}

uint64_t vdrv_get(struct vdrv *v, uint64_t at, unsigned size) {
    uint64_t value = 0;

    HOLDS(mem_read(v->mem, gpa(at), &value, size));
    return value;
}

void vdrv_put(struct vdrv *v, uint64_t at, unsigned size, uint64_t value) {
    HOLDS(mem_write(v->mem, gpa(at), &value, size));
}

static void on_interrupt(void *transport, struct virtio_queue *q) {
    struct vdrv *v = transport;

    if (q)
        v->interrupts++;
    else
        v->changes++;
}

static uint64_t rings(unsigned q) {
    return VDRV_RINGS + q * VDRV_RINGS_SIZE;
}

void vdrv_features(struct vdrv *v, uint64_t features) {
    struct virtio_device *d = v->d;

    d->interrupt = on_interrupt;
    d->transport = v;
    memset(v->q, 0, sizeof(v->q));
    v->interrupts = v->changes = 0;
    virtio_set_status(d, 0, false);
    virtio_set_status(d, VIRTIO_ACKNOWLEDGE, false);
    virtio_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, false);
    virtio_accept(d, 0, (uint32_t)features);
    virtio_accept(d, 1, (uint32_t)(features >> 32));
    virtio_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, false);
}

void vdrv_start(struct vdrv *v, uint64_t features) {
    vdrv_features(v, features);
    for (unsigned n = 0; n < v->d->queues && n < 8; n++) {
        struct virtio_queue *q = virtio_queue_of(v->d, n);

        if (!q)
            continue;
        mem_fill(mem_host(v->mem, gpa(rings(n)), VDRV_RINGS_SIZE), 0, VDRV_RINGS_SIZE);
        q->desc = rings(n);
        q->avail = rings(n) + VDRV_AVAIL;
        q->used = rings(n) + VDRV_USED;
        virtio_queue_enable(q);
    }
    virtio_set_status(v->d, (uint8_t)(virtio_status(v->d) | VIRTIO_DRIVER_OK), false);
}

void vdrv_desc(struct vdrv *v, unsigned q, unsigned n, uint64_t at, uint32_t len,
               unsigned flags, unsigned next) {
    uint64_t d = rings(q) + 16ull * n;

    vdrv_put(v, d, 8, at);
    vdrv_put(v, d + 8, 4, len);
    vdrv_put(v, d + 12, 2, flags);
    vdrv_put(v, d + 14, 2, next);
}

void vdrv_offer_quietly(struct vdrv *v, unsigned q, unsigned head) {
    uint64_t avail = rings(q) + VDRV_AVAIL;
    unsigned size = v->d->queue[q].size;

    vdrv_put(v, avail + 4 + 2ull * (v->q[q].avail % size), 2, head);
    v->q[q].avail++;
    vdrv_put(v, avail + 2, 2, v->q[q].avail);
}

void vdrv_offer(struct vdrv *v, unsigned q, unsigned head) {
    vdrv_offer_quietly(v, q, head);
    virtio_notify(v->d, q);
}

static void on_echo(void *arg, struct gpa at, unsigned len) {
    struct vdrv *v = arg;

    if (!v->echo.left)
        return;
    v->echo.left--;
    v->echo.done++;
    vdrv_offer_quietly(v, v->echo.q, v->echo.head);
}

void vdrv_echo(struct vdrv *v, unsigned q, unsigned head, uint64_t at, unsigned times) {
    v->echo = (struct vdrv_echo){.q = q, .head = head, .left = times};
    mem_own_trace(v->mem, MEM_TRACE_CODE, on_echo, v);
    mem_trace_add(v->mem, mem_host(v->mem, gpa(at), 1), MEM_TRACE_CODE);
}

unsigned vdrv_send(struct vdrv *v, unsigned q, const struct vdrv_piece *p,
                   unsigned count) {
    unsigned size = v->d->queue[q].size, head = v->q[q].free;

    for (unsigned n = 0; n < count; n++) {
        unsigned at = (head + n) % size;

        vdrv_desc(v, q, at, p[n].at, p[n].len,
                  p[n].flags | (n + 1 < count ? VDRV_NEXT : 0), (at + 1) % size);
    }
    v->q[q].free = (uint16_t)((head + count) % size);
    vdrv_offer(v, q, head);
    return head;
}

int vdrv_take(struct vdrv *v, unsigned q, uint32_t *len) {
    uint64_t used = rings(q) + VDRV_USED;
    unsigned size = v->d->queue[q].size;
    uint64_t elem = used + 4 + 8ull * (v->q[q].used % size);

    if (v->q[q].used == vdrv_get(v, used + 2, 2))
        return -1;
    v->q[q].used++;
    if (len)
        *len = (uint32_t)vdrv_get(v, elem + 4, 4);
    return (int)vdrv_get(v, elem, 4);
}
