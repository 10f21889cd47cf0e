/*
 * What every virtio device does alike: status, features, configuration space; see
 * virtio.h. "Basic Facilities of a Virtio Device" and "Device Initialization" of the
 * standard.
 */
#include "base/log.h"
#include "dev/virtio/virtio.h"

/* What virtio_queue_later() has promised. */
static void later(void *arg) {
    struct virtio_queue *q = arg;

    if (virtio_queue_live(q))
        q->dev->ops->notify(q->dev, q->index);
}

void virtio_device_init(struct virtio_device *d) {
    for (unsigned n = 0; n < d->queues; n++) {
        d->queue[n].later = (struct vtimer){.fire = later, .arg = &d->queue[n]};
        d->queue[n].dev = d;
        d->queue[n].index = (uint16_t)n;
        d->queue[n].size = d->queue[n].size_max;
        d->queue[n].vector = VIRTIO_NO_VECTOR;
    }
}

/* --- reset --- */

void virtio_device_end(struct virtio_device *d) {
    for (unsigned n = 0; n < d->queues && d->clock; n++)
        vtimer_cancel(d->clock, &d->queue[n].later);
}

/* The driver is forgotten. */
static void forget_driver(struct virtio_device *d) {
    d->features = 0;
    d->status = 0;
    d->early = false;
    d->lives++;
    virtio_device_end(d);
    for (unsigned n = 0; n < d->queues; n++) {
        struct virtio_queue *q = &d->queue[n];

        q->ready = q->stopped = false;
        q->size = q->size_max;
        q->vector = VIRTIO_NO_VECTOR;
        q->desc = q->avail = q->used = 0;
    }
}

void virtio_device_reset(struct virtio_device *d) {
    d->resetting = 0;
    forget_driver(d);
    d->ops->reset(d);
}

/* "Device Reset": the driver may wait until the status is 0. It is not, while a back end
 * may still write to buffers. */
static void driver_reset(struct virtio_device *d) {
    uint8_t shown = virtio_status(d);

    virtio_device_reset(d);
    if (d->under_way)
        d->resetting = shown;
}

void virtio_began(struct virtio_queue *q) {
    q->under_way++;
    q->dev->under_way++;
}

void virtio_ended(struct virtio_queue *q) {
    q->under_way--;
    if (!--q->dev->under_way)
        q->dev->resetting = 0;
}

/* --- status --- */

uint8_t virtio_status(const struct virtio_device *d) {
    return (uint8_t)(d->status ? d->status : d->resetting);
}

/* "Driver Requirements: Feature Bits" has been kept to. */
static bool features_good(const struct virtio_device *d, bool legacy) {
    if (d->features & ~d->offered)
        return false;
    if (!legacy && !virtio_has(d, VIRTIO_F_VERSION_1))
        return false;
    return !d->ops->accept || d->ops->accept((struct virtio_device *)d);
}

static void go_live(struct virtio_device *d) {
    if (d->ops->start)
        d->ops->start(d);
    /* Buffers may have been made available before. */
    for (unsigned n = 0; n < d->queues; n++)
        if (virtio_queue_live(&d->queue[n]))
            d->ops->notify(d, n);
}

/* A driver clears no bit but by a reset. */
void virtio_set_status(struct virtio_device *d, uint8_t value, bool legacy) {
    uint32_t added = value & ~d->status & ~VIRTIO_NEEDS_RESET;

    if (!value) {
        driver_reset(d);
        return;
    }
    if (added & VIRTIO_FEATURES_OK && !features_good(d, legacy))
        added &= ~(VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
    if (!legacy && !((d->status | added) & VIRTIO_FEATURES_OK))
        added &= ~VIRTIO_DRIVER_OK;
    if (legacy && added & VIRTIO_DRIVER_OK && !(d->status & VIRTIO_FEATURES_OK) &&
        !features_good(d, true))
        added = (added & ~VIRTIO_DRIVER_OK) | VIRTIO_FAILED;
    d->status |= added;
    if (added & VIRTIO_DRIVER_OK && virtio_live(d))
        go_live(d);
}

void virtio_broken(struct virtio_device *d, const char *why) {
    if (d->status & VIRTIO_NEEDS_RESET)
        return;
    log_info("%s: the guest's driver gave it %s: it needs a reset", d->name, why);
    d->status |= VIRTIO_NEEDS_RESET;
    if (d->status & VIRTIO_DRIVER_OK)
        d->interrupt(d->transport, NULL);
}

/* --- features --- */

uint32_t virtio_offered(const struct virtio_device *d, uint32_t page) {
    return page < 2 ? (uint32_t)(d->offered >> 32 * page) : 0;
}

uint32_t virtio_accepted(const struct virtio_device *d, uint32_t page) {
    return page < 2 ? (uint32_t)(d->features >> 32 * page) : 0;
}

void virtio_accept(struct virtio_device *d, uint32_t page, uint32_t features) {
    if (page > 1 || d->early || d->status & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK))
        return;
    d->features = (d->features & ~(0xffffffffull << 32 * page)) | (uint64_t)features
                                                                      << 32 * page;
}

/* --- configuration space --- */

uint64_t virtio_config_read(const struct virtio_device *d, uint64_t at, unsigned size) {
    uint64_t value = 0;

    if (at < d->config_len)
        mem_copy(&value, (const uint8_t *)d->config + at,
                 size < d->config_len - at ? size : d->config_len - at);
    return value;
}

void virtio_config_write(struct virtio_device *d, uint64_t at, unsigned size,
                         uint64_t value) {
    if (d->ops->configure && at < d->config_len && size <= d->config_len - at)
        d->ops->configure(d, (unsigned)at, size, value);
}

void virtio_config_changed(struct virtio_device *d) {
    d->config_generation++;
    if (virtio_live(d))
        d->interrupt(d->transport, NULL);
}

/* --- queues --- */

struct virtio_queue *virtio_queue_of(struct virtio_device *d, uint32_t index) {
    return index < d->queues && d->queue[index].size_max ? &d->queue[index] : NULL;
}

/* "Legacy Interface: Device Initialization": some drivers use the device before they set
 * DRIVER_OK. */
void virtio_notify(struct virtio_device *d, uint32_t index) {
    struct virtio_queue *q = virtio_queue_of(d, index);

    if (!q)
        return;
    if (d->cnt)
        d->cnt->virtio_notifications++;
    if (!(d->status & (VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK)) &&
        d->status & VIRTIO_DRIVER && !virtio_has(d, VIRTIO_F_VERSION_1) && q->ready)
        d->early = features_good(d, true);
    if (virtio_queue_live(q))
        d->ops->notify(d, index);
}
