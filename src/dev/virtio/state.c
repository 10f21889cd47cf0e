/* What every virtio device has in a snapshot: the first part of its record; see virtio.h.
 */
#include "dev/virtio/virtio.h"
#include "snapshot/snapshot.h"

void virtio_device_state(struct virtio_device *d, struct snapshot *s) {
    uint32_t id = d->id, queues = d->queues;

    SNAPSHOT(s, id);
    SNAPSHOT(s, queues);
    snapshot_need(s, id == d->id && queues == d->queues);
    SNAPSHOT(s, d->features);
    SNAPSHOT_UPTO(s, d->status, 255);
    SNAPSHOT(s, d->config_generation);
    SNAPSHOT(s, d->early);
    /* Before that anything may have been written there. */
    if (snapshot_reading(s) && d->features & ~d->offered &&
        (d->early || d->status & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK)))
        snapshot_refuse(s, "its driver uses what this machine's device does not offer");
    if (snapshot_reading(s)) {
        d->resetting = 0;
        if (!snapshot_good(s))
            d->status = 0;
    }
    for (unsigned n = 0; n < d->queues; n++)
        virtio_queue_state(&d->queue[n], s);
}

void virtio_device_go_on(struct virtio_device *d) {
    for (unsigned n = 0; n < d->queues; n++)
        if (virtio_queue_live(&d->queue[n]))
            d->ops->notify(d, n);
}
